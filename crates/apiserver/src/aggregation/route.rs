//! A request that another server answers.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::snapshot::Registered;
use crate::connect::wants_upgrade;
use crate::request_info::RequestInfo;

/// A request to a group version that another server answers.
#[derive(Clone, Debug)]
pub struct Delegated {
    pub service: Arc<Registered>,
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
}
