//! Defaults of unset fields. Go's zero values count as unset where Kubernetes' own types cannot
//! distinguish them: an empty string, a zero that is not a pointer.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// Sets a text that is missing or empty.
pub fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Sets a field that is missing.
pub fn missing<T>(field: &mut Option<T>, default: impl Into<T>) {
    if field.is_none() {
        *field = Some(default.into());
    }
}

/// Sets a number that is missing or zero.
pub fn nonzero(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(default);
    }
}

/// Canonicalizes quantities, rounded up to thousandths as Kubernetes rounds resource lists. Invalid
/// ones are left for validation to find.
pub fn amounts(list: &mut Option<BTreeMap<String, Text>>) {
    for text in list.iter_mut().flat_map(BTreeMap::values_mut) {
        if let Ok(amount) = text.0.parse::<Quantity>() {
            *text = amount.rounded_to_millis().to_text();
        }
    }
}

/// Canonicalizes one quantity.
pub fn amount(text: &mut Option<Text>) {
    if let Some(text) = text
        && let Ok(amount) = text.0.parse::<Quantity>()
    {
        *text = amount.to_text();
    }
}
