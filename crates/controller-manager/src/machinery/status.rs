//! Writing an object's status.

use api::Kind;
use client::{Api, Client};

use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::During;

/// Writes the status that `change` makes of the object's, if it differs; the object's revision is
/// the precondition. Returns the object as it is then.
///
/// # Errors
/// When the server refuses. After a conflict, the key is reconciled again.
pub async fn update<K: Kind>(
    client: &Client,
    object: &K,
    change: impl FnOnce(&mut K),
) -> Result<K, Error> {
    let mut changed = object.clone();
    change(&mut changed);
    if changed == *object {
        return Ok(changed);
    }
    let key = Key::of(object);
    let objects = Api::<K>::namespaced(client, &key.namespace);
    let written = objects.replace_status(&changed).await;
    written.during(|| format!("write the status of {} {key}", K::ROW.singular))
}

/// Writes the status of `changed`, a copy of `object` that differs in its status only, if it does.
/// The copy's revision is the precondition.
///
/// # Errors
/// When the server refuses.
pub async fn write<K: Kind>(client: &Client, object: &K, changed: &K) -> Result<(), Error> {
    update(client, object, |object| object.clone_from(changed)).await.map(drop)
}

/// Kubernetes leaves status counts of zero out.
pub fn omit_zeros<const N: usize>(counts: [&mut Option<i32>; N]) {
    for count in counts {
        count.take_if(|count| *count == 0);
    }
}
