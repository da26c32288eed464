use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use crate::status::FieldError;
pub fn default(_: &mut CustomResourceDefinition) {}
pub fn validate(_: &CustomResourceDefinition, _: Option<&CustomResourceDefinition>) -> Vec<FieldError> { Vec::new() }
