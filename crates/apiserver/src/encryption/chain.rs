//! The providers of a resource in their order: the first one writes, and whichever knows a stored
//! value's prefix reads it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use store::{Opened, Unreadable};
use tokio::sync::watch;

use super::cipher::{Cbc, Gcm, Secretbox};
use super::configuration::{Configuration, Key, KmsConfiguration, Provider};
use super::envelope::{DataKeyId, Envelope};
use super::kms::Kms;
use super::metrics::EncryptionMetrics;
use super::selection::{Resource, Selection};
use super::{ENCRYPTED, PREFIX};
use crate::configuration::Unusable;

const NO_PREFIX: &str = "no matching prefix found";
const NO_AES_KEY: &str = "no matching key was found for the provided AES transformer";
const NO_BOX_KEY: &str = "no matching key was found for the provided Secretbox transformer";
/// Upstream's words for the version of the API of plugins that is off by default.
const NO_V1: &str = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  \
     Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.";

/// One key of a provider.
#[derive(Clone)]
enum Cipher {
    Gcm(Arc<Gcm>),
    Cbc(Arc<Cbc>),
    Secretbox(Arc<Secretbox>),
}

impl Cipher {
    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Gcm(cipher) => cipher.seal(key, value),
            Self::Cbc(cipher) => Ok(cipher.seal(value)),
            Self::Secretbox(cipher) => cipher.seal(value),
        }
    }

    fn open(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Gcm(cipher) => cipher.open(key, stored),
            Self::Cbc(cipher) => cipher.open(stored),
            Self::Secretbox(cipher) => cipher.open(stored),
        }
    }
}

#[derive(Clone)]
enum Form {
    Identity,
    /// Keys by the prefix that their values have after the provider's, and what is said when none fits.
    Keys(Vec<(String, Cipher)>, &'static str),
    Plugin(Arc<Kms>),
}

/// One provider.
#[derive(Clone)]
struct Link {
    prefix: String,
    form: Form,
}

/// The providers of a resource.
#[derive(Clone, Default)]
pub struct Chain {
    links: Vec<Link>,
    metrics: EncryptionMetrics,
}

/// Why a stored value cannot be read.
pub enum Closed {
    For(Unreadable),
    /// Its key is with a plugin.
    Until(Arc<Kms>, DataKeyId),
}

impl From<&str> for Closed {
    fn from(reason: &str) -> Self {
        Self::For(reason.into())
    }
}

impl Chain {
    /// What is stored for a value.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Bytes, Unreadable> {
        let Some(link) = self.links.first() else { return Err(NO_PREFIX.into()) };
        let begun = clock::monotonic();
        let sealed = match &link.form {
            Form::Identity => Ok(value.to_vec()),
            Form::Keys(keys, missing) => match keys.first() {
                Some((name, cipher)) => cipher
                    .seal(key, value)
                    .map(|sealed| [link.prefix.as_bytes(), name.as_bytes(), &sealed].concat())
                    .map_err(Unreadable::from),
                None => Err((*missing).into()),
            },
            Form::Plugin(plugin) => plugin
                .seal(key, value)
                .map(|envelope| [link.prefix.as_bytes(), &envelope.encode()].concat()),
        };
        self.metrics.transformed("to_storage", &link.prefix, sealed.is_ok(), begun.elapsed());
        sealed.map(Bytes::from)
    }

    /// The value that was stored under a key.
    pub fn open(&self, key: &[u8], stored: &Bytes) -> Result<Opened, Closed> {
        let mut reasons: Vec<Unreadable> = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            let Some(rest) = stored.strip_prefix(link.prefix.as_bytes()) else { continue };
            let begun = clock::monotonic();
            let opened = link.open(key, rest, stored);
            // A value that is encrypted is left to the providers that follow.
            if matches!(link.form, Form::Identity) && opened.is_err() {
                continue;
            }
            let known = !matches!(opened, Err(Closed::Until(..)));
            if known {
                let (prefix, good) = (&link.prefix, opened.is_ok());
                self.metrics.transformed("from_storage", prefix, good, begun.elapsed());
            }
            match opened {
                Ok(Opened { value, stale }) => {
                    return Ok(Opened { value, stale: stale || index > 0 });
                }
                Err(Closed::For(reason)) => reasons.push(reason),
                Err(asks) => return Err(asks),
            }
        }
        match &reasons[..] {
            [] => {
                self.metrics.unknown();
                Err(NO_PREFIX.into())
            }
            [one] => Err(Closed::For(one.clone())),
            many => {
                let texts: Vec<String> = many.iter().map(Unreadable::to_string).collect();
                Err(Closed::For(format!("[{}]", texts.join(", ")).into()))
            }
        }
    }
}

impl Link {
    fn open(&self, key: &[u8], rest: &[u8], stored: &Bytes) -> Result<Opened, Closed> {
        match &self.form {
            Form::Identity if stored.starts_with(PREFIX) => Err(ENCRYPTED.into()),
            Form::Identity => Ok(Opened { value: stored.clone(), stale: false }),
            Form::Keys(keys, missing) => {
                let mut reason = None;
                for (index, (name, cipher)) in keys.iter().enumerate() {
                    let Some(sealed) = rest.strip_prefix(name.as_bytes()) else { continue };
                    match cipher.open(key, sealed) {
                        Ok(value) => {
                            return Ok(Opened { value: value.into(), stale: index > 0 });
                        }
                        Err(why) => reason = reason.or(Some(why)),
                    }
                }
                Err(reason.unwrap_or(missing).into())
            }
            Form::Plugin(plugin) => {
                let envelope = Envelope::decode(rest).map_err(Closed::For)?;
                plugin.open(key, envelope)
            }
        }
    }
}

/// The chains of a configuration, and its plugins, which have been asked for a key once.
///
/// # Errors
/// In upstream's words.
pub async fn build(
    configuration: &Configuration,
    changes: &watch::Sender<u64>,
    metrics: &EncryptionMetrics,
) -> Result<(Selection, Vec<Arc<Kms>>), Unusable> {
    let mut chains: Vec<(Resource, Chain)> = Vec::new();
    let mut plugins = Vec::new();
    for row in &configuration.resources {
        let mut links = Vec::new();
        for provider in &row.providers {
            let link = build_link(provider, changes, metrics)?;
            if let Form::Plugin(plugin) = &link.form {
                plugins.push(plugin.clone());
            }
            links.push(link);
        }
        for name in &row.resources {
            let resource = Resource::parse(name);
            unmasked(&resource, &chains)?;
            match chains.iter_mut().find(|(known, _)| *known == resource) {
                Some((_, chain)) => chain.links.extend(links.iter().cloned()),
                None => {
                    let chain = Chain { links: links.clone(), metrics: metrics.clone() };
                    chains.push((resource, chain));
                }
            }
        }
    }
    for plugin in &plugins {
        plugin.prime().await;
    }
    Ok((Selection::new(chains), plugins))
}

/// Refuses a row that an earlier one has left without effect.
fn unmasked(resource: &Resource, chains: &[(Resource, Chain)]) -> Result<(), Unusable> {
    let covers = |known: &Resource| {
        known.is_everything() || (known.plural == "*" && known.group == resource.group)
    };
    match chains.iter().map(|(known, _)| known).find(|known| covers(known)) {
        Some(earlier) => Err(Unusable(format!(
            "resource {:?} is masked by earlier rule {:?}",
            resource.text(),
            earlier.text()
        ))),
        None => Ok(()),
    }
}

fn build_link(
    provider: &Provider,
    changes: &watch::Sender<u64>,
    metrics: &EncryptionMetrics,
) -> Result<Link, Unusable> {
    let keys = |keys: &[Key], new: fn(&[u8]) -> Result<Cipher, &'static str>| {
        keys.iter()
            .map(|key| {
                let problem = |why: &dyn std::fmt::Display| {
                    Unusable(format!(
                        "error while creating cipher for named key {}: {why}",
                        key.name
                    ))
                };
                let secret = BASE64.decode(&key.secret).map_err(|error| problem(&error))?;
                let cipher = new(&secret).map_err(|error| problem(&error))?;
                Ok((format!("{}:", key.name), cipher))
            })
            .collect::<Result<Vec<_>, Unusable>>()
    };
    let (prefix, form) = match provider {
        Provider { aesgcm: Some(own), .. } => {
            let new = |key: &[u8]| Gcm::new(key).map(Arc::new).map(Cipher::Gcm);
            ("k8s:enc:aesgcm:v1:".to_owned(), Form::Keys(keys(&own.keys, new)?, NO_AES_KEY))
        }
        Provider { aescbc: Some(own), .. } => {
            let new = |key: &[u8]| Cbc::new(key).map(Arc::new).map(Cipher::Cbc);
            ("k8s:enc:aescbc:v1:".to_owned(), Form::Keys(keys(&own.keys, new)?, NO_AES_KEY))
        }
        Provider { secretbox: Some(own), .. } => {
            let new = |key: &[u8]| Secretbox::new(key).map(Arc::new).map(Cipher::Secretbox);
            ("k8s:enc:secretbox:v1:".to_owned(), Form::Keys(keys(&own.keys, new)?, NO_BOX_KEY))
        }
        Provider { kms: Some(KmsConfiguration { api_version, .. }), .. } if api_version == "v1" => {
            return Err(Unusable(NO_V1.to_owned()));
        }
        Provider { kms: Some(own), .. } => {
            let plugin = Kms::new(own, changes.clone(), metrics.clone())?;
            (format!("k8s:enc:kms:v2:{}:", own.name), Form::Plugin(plugin))
        }
        Provider { .. } => (String::new(), Form::Identity),
    };
    Ok(Link { prefix, form })
}
