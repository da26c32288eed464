//! Which requests other servers answer, and what they are about in RBAC's terms.

use std::sync::Arc;

use api::ApiError;
use http::{HeaderMap, Method};

use super::snapshot::Registered;
use crate::connect::wants_upgrade;
use crate::request_info::RequestInfo;
use crate::rest::percent_encode;

/// What is not encoded in a path, besides what is never reserved (Go's `EscapedPath`).
const PLAIN: &[u8] = b"$&+,/:;=@";

/// A request to a group version that another server answers.
#[derive(Clone, Debug)]
pub struct Delegated {
    pub service: Arc<Registered>,
    /// What is authorized, and what the other server is asked for.
    pub info: RequestInfo,
    pub upgrades: bool,
}

impl Delegated {
    pub fn new(
        service: Arc<Registered>,
        method: &Method,
        (path, parameters): (&str, &[(String, String)]),
        headers: &HeaderMap,
    ) -> Self {
        let info = RequestInfo::new(method, path, parameters);
        Self { service, info, upgrades: wants_upgrade(headers) }
    }

    /// The path in a URL. It means what has been authorized to every server, whatever the client's
    /// encoding of it might have meant.
    ///
    /// # Errors
    /// 400 when it has segments that servers may read as steps to another path.
    pub fn encoded_path(&self) -> Result<String, ApiError> {
        if self.info.path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(ApiError::bad_request("the path must not have dot segments"));
        }
        Ok(percent_encode(&self.info.path, PLAIN))
    }
}
