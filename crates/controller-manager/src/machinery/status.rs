//! Writing an object's status.

use api::Kind;
use client::{Api, Client};

use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::During;

/// Writes the status of `changed`, a copy of `object` that differs in its status only, if it does.
/// The copy's revision is the precondition.
///
/// # Errors
/// When the server refuses.
pub async fn write<K: Kind>(client: &Client, object: &K, changed: &K) -> Result<(), Error> {
    if changed == object {
        return Ok(());
    }
    let key = Key::of(object);
    Api::<K>::namespaced(client, &key.namespace)
        .replace_status(changed)
        .await
        .during(|| format!("write the status of {} {key}", K::ROW.singular))?;
    Ok(())
}

/// Kubernetes leaves status counts of zero out.
pub fn omit_zeros<const N: usize>(counts: [&mut Option<i32>; N]) {
    for count in counts {
        count.take_if(|count| *count == 0);
    }
}
