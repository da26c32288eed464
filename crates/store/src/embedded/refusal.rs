//! The errors of the service, with etcd's codes and messages.
//!
//! Source: <https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go>.

use tonic::Status;

pub(super) fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub(super) fn key_not_found() -> Status {
    Status::invalid_argument("etcdserver: key not found")
}

pub(super) fn value_provided() -> Status {
    Status::invalid_argument("etcdserver: value is provided")
}

pub(super) fn lease_provided() -> Status {
    Status::invalid_argument("etcdserver: lease is provided")
}

pub(super) fn too_many_operations() -> Status {
    Status::invalid_argument("etcdserver: too many operations in txn request")
}

pub(super) fn duplicate_key() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

pub(super) fn invalid_sort_option() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

pub(super) fn request_too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

pub(super) fn compacted() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
}

pub(super) fn future_revision() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
}

pub(super) fn no_space() -> Status {
    Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
}

pub(super) fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

pub(super) fn lease_exists() -> Status {
    Status::failed_precondition("etcdserver: lease already exists")
}

pub(super) fn lease_ttl_too_large() -> Status {
    Status::out_of_range("etcdserver: too large lease TTL")
}

pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub(super) fn bad_leader_transferee() -> Status {
    Status::failed_precondition("etcdserver: bad leader transferee")
}

/// There is exactly one member; membership cannot change.
pub(super) fn single_member() -> Status {
    Status::unimplemented("etcdserver: the embedded store has exactly one member")
}

pub(super) fn storage(error: &redb::Error) -> Status {
    match error {
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => no_space(),
        error => Status::unavailable(format!("etcdserver: storage failed: {error}")),
    }
}
