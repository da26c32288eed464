//! Deletes everything that a selector matches.

use std::sync::Arc;

use api::{ApiError, Kind};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;

use super::delete::{self, Deletion};
use super::read;
use crate::cache::Version;
use crate::core::Call;
use crate::request::{Request, Target};
use crate::response::Response;

/// Deletions in progress at once.
const CONCURRENCY: usize = 16;

/// Deletes what the request selects; answers with the list of it.
///
/// # Errors
/// 405 for namespaces, which are only deleted one by one; the first error of a deletion other than
/// 404.
pub async fn delete_collection(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    if call.row() == Namespace::ROW {
        return Err(ApiError::unknown_method());
    }
    let options = delete::options(call.verb, request)?;
    let mut call_options = call.options.clone();
    call_options.dry_run |= delete::is_dry_run(&options);
    let call = Call { options: &call_options, ..call };
    let mut list = read::list(call).await?;
    let mut deletions: Vec<BoxFuture<'_, Result<Option<Arc<Version>>, ApiError>>> = Vec::new();
    for item in &list.items {
        deletions.push(Box::pin(delete_one(call, &options, item.clone())));
    }
    let items: Vec<Option<Arc<Version>>> =
        futures::stream::iter(deletions).buffered(CONCURRENCY).try_collect().await?;
    list.items = items.into_iter().flatten().collect();
    Ok(Response::List(list))
}

async fn delete_one(
    call: Call<'_>,
    options: &k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
    item: Arc<Version>,
) -> Result<Option<Arc<Version>>, ApiError> {
    let target = Target {
        namespace: item.namespace.to_string(),
        name: item.name.to_string(),
        ..call.target.clone()
    };
    let one = Call { target: &target, ..call };
    // What is created under the same name in the meantime was not selected.
    let mut options = options.clone();
    let selected = item.uid.to_string();
    options.preconditions.get_or_insert_default().uid.get_or_insert(selected);
    match delete::delete_object(one, &options).await {
        Ok(Deletion::Now(version) | Deletion::Later(version)) => Ok(Some(version)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_conflict() => match one.stored().await {
            Ok(there) if there.uid == item.uid => Err(error),
            Ok(_) => Ok(None),
            Err(gone) if gone.is_not_found() => Ok(None),
            Err(failed) => Err(failed),
        },
        Err(error) => Err(error),
    }
}
