//! The mapping between Kubernetes' `Status` and gRPC's, in both directions.

use api::ApiError;
use api::status::decode_status;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The trailer that carries Kubernetes' `Status` as JSON.
pub const STATUS_TRAILER: &str = "skiff-status-bin";

/// The maximum length of the gRPC message, in bytes.
const MESSAGE_BYTES: usize = 2 << 10;
/// The maximum length of the encoded `Status`, in bytes.
const STATUS_BYTES: usize = 128 << 10;

/// The gRPC code for an HTTP code and a Kubernetes reason.
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

/// The gRPC status for `error`. Trailers are headers, whose size clients limit, so a long gRPC
/// message is truncated, and so is the `Status` if it exceeds its own limit.
pub fn to_grpc(error: &ApiError) -> Status {
    let message = error.message();
    let mut status = Status::new(code(error), cut(message, MESSAGE_BYTES));
    let mut encoded = error.encode();
    if encoded.len() > STATUS_BYTES {
        let mut shorter = error.clone();
        let status = shorter.status_mut();
        status.message = Some(cut(message, STATUS_BYTES / 2));
        if let Some(details) = &mut status.details {
            details.causes = None;
        }
        encoded = shorter.encode();
    }
    status.metadata_mut().insert_bin(STATUS_TRAILER, MetadataValue::from_bytes(&encoded));
    status
}

/// Truncates a text.
fn cut(text: &str, most_bytes: usize) -> String {
    if text.len() <= most_bytes {
        return text.to_owned();
    }
    let mut end = most_bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// The server's `Status` of a failed call, or `None` if the transport failed (no response, broken
/// connection).
pub fn from_grpc(status: &Status) -> Option<ApiError> {
    let bytes = status.metadata().get_bin(STATUS_TRAILER)?.to_bytes().ok()?;
    decode_status(&bytes).ok().map(ApiError::from_status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_round_trip() {
        let error = ApiError::expired("too old resource version: 1 (9)");
        let status = to_grpc(&error);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(from_grpc(&status), Some(error));
        assert_eq!(from_grpc(&Status::unavailable("no route")), None);
    }
}
