//! The mapping between Kubernetes' `Status` and gRPC's, both ways.

use api::ApiError;
use api::status::decode_status;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Trailer that carries Kubernetes' `Status` as JSON.
pub const STATUS_TRAILER: &str = "skiff-status-bin";

/// gRPC's code for an HTTP code and Kubernetes reason.
pub fn code(error: &ApiError) -> Code {
    match (error.code(), error.reason()) {
        (_, "AlreadyExists") => Code::AlreadyExists,
        (400 | 406 | 413 | 415 | 422, _) => Code::InvalidArgument,
        (401, _) => Code::Unauthenticated,
        (403, _) => Code::PermissionDenied,
        (404, _) => Code::NotFound,
        (405 | 501, _) => Code::Unimplemented,
        (409, _) => Code::Aborted,
        (410, _) => Code::OutOfRange,
        (429, _) => Code::ResourceExhausted,
        (503, _) => Code::Unavailable,
        (504, _) => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

/// What a server sends for `error`.
pub fn to_grpc(error: &ApiError) -> Status {
    let mut status = Status::new(code(error), error.message());
    status
        .metadata_mut()
        .insert_bin(STATUS_TRAILER, MetadataValue::from_bytes(&error.encode()));
    status
}

/// What a client makes of a failed call: the server's own `Status`, or `None` when the failure
/// is the transport's (no answer, broken connection).
pub fn from_grpc(status: &Status) -> Option<ApiError> {
    let bytes = status.metadata().get_bin(STATUS_TRAILER)?.to_bytes().ok()?;
    decode_status(&bytes).ok().map(ApiError::from_status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_crosses_the_wire_whole() {
        let error = ApiError::expired("too old resource version: 1 (9)");
        let status = to_grpc(&error);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(from_grpc(&status), Some(error));
        assert_eq!(from_grpc(&Status::unavailable("no route")), None);
    }
}
