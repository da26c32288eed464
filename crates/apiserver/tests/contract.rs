//! The apiserver as clients see it: a whole server in this process, on the embedded store and a
//! port of its own, called through both front ends.

#![allow(clippy::unwrap_used)]

#[path = "contract/access.rs"]
mod access;
#[path = "contract/admission.rs"]
mod admission;
#[path = "contract/admission_plugins.rs"]
mod admission_plugins;
#[path = "contract/admission_webhooks.rs"]
mod admission_webhooks;
#[path = "contract/aggregation.rs"]
mod aggregation;
#[path = "contract/audit.rs"]
mod audit;
#[path = "contract/authorization.rs"]
mod authorization;
#[path = "contract/autoscalers.rs"]
mod autoscalers;
#[path = "contract/bad_input.rs"]
mod bad_input;
#[path = "contract/bootstrap_tokens.rs"]
mod bootstrap_tokens;
#[path = "contract/certificate_rotation.rs"]
mod certificate_rotation;
#[path = "contract/certificates.rs"]
mod certificates;
#[path = "contract/conversion.rs"]
mod conversion;
#[path = "contract/creation.rs"]
mod creation;
#[path = "contract/custom.rs"]
mod custom;
#[path = "contract/custom_lifecycle.rs"]
mod custom_lifecycle;
#[path = "contract/definitions.rs"]
mod definitions;
#[path = "contract/deletion.rs"]
mod deletion;
#[path = "contract/encryption.rs"]
mod encryption;
#[path = "contract/escalation.rs"]
mod escalation;
#[path = "contract/events.rs"]
mod events;
#[path = "contract/every_form.rs"]
mod every_form;
#[path = "contract/flow_control.rs"]
mod flow_control;
#[path = "contract/forms.rs"]
mod forms;
#[path = "contract/front_ends.rs"]
mod front_ends;
#[path = "contract/fuzz.rs"]
mod fuzz;
#[path = "contract/hostile.rs"]
mod hostile;
#[path = "contract/impersonation.rs"]
mod impersonation;
#[path = "contract/kinds.rs"]
mod kinds;
#[path = "contract/kubectl.rs"]
mod kubectl;
#[path = "contract/lists.rs"]
mod lists;
#[path = "contract/load.rs"]
mod load;
#[path = "contract/managed_fields.rs"]
mod managed_fields;
#[path = "contract/methods.rs"]
mod methods;
#[path = "contract/oidc.rs"]
mod oidc;
#[path = "contract/pod_certificates.rs"]
mod pod_certificates;
#[path = "contract/pod_security.rs"]
mod pod_security;
#[path = "contract/policies.rs"]
mod policies;
#[path = "contract/profiling.rs"]
mod profiling;
#[path = "contract/published.rs"]
mod published;
#[path = "contract/quota.rs"]
mod quota;
#[path = "contract/resource_metrics.rs"]
mod resource_metrics;
#[path = "contract/roles.rs"]
mod roles;
#[path = "contract/selectable_fields.rs"]
mod selectable_fields;
#[path = "contract/selectors.rs"]
mod selectors;
#[path = "contract/server.rs"]
mod server;
#[path = "contract/services.rs"]
mod services;
#[path = "contract/shared.rs"]
mod shared;
#[path = "contract/signing_requests.rs"]
mod signing_requests;
#[path = "contract/streams.rs"]
mod streams;
#[path = "contract/token_webhook.rs"]
mod token_webhook;
#[path = "contract/unserved.rs"]
mod unserved;
#[path = "contract/warnings.rs"]
mod warnings;
#[path = "contract/watches.rs"]
mod watches;
