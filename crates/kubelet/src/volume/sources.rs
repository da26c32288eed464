//! Fetches the sources of configMap, secret, downwardAPI and projected volumes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Pod, PodCertificateProjection, ProjectedVolumeSource,
    SecretVolumeSource, Volume, VolumeProjection,
};

use super::atomic::Payload;
use super::content::{self, DEFAULT_MODE, Selection};
use super::pod_certificate::Key;
use super::{VolumeError, VolumeManager, trust_bundle};
use crate::pod::downward_api::RuntimeFields;
use crate::pod::pod_ext::PodExt;
use crate::pod::worker::handle::WorkerHandle;

/// The files of a volume made from objects.
#[derive(Debug, Default)]
pub struct Contents {
    pub payload: Payload,
    /// When a token or a certificate in it must be renewed.
    pub renew_at: Option<Timestamp>,
}

impl Contents {
    fn renew_by(&mut self, at: Option<Timestamp>) {
        self.renew_at = self.renew_at.into_iter().chain(at).min();
    }
}

/// The pod that the contents are for.
pub struct Subject<'a> {
    pub pod: &'a Pod,
    pub runtime_fields: &'a RuntimeFields,
    /// Notified when a source changes.
    pub worker: &'a Arc<WorkerHandle>,
}

impl VolumeManager {
    /// `None`: it is another kind of volume.
    pub(super) async fn contents(
        &self,
        subject: &Subject<'_>,
        volume: &Volume,
    ) -> Result<Option<Contents>, VolumeError> {
        let payload = if let Some(source) = &volume.config_map {
            self.config_map_volume(subject, source).await?
        } else if let Some(source) = &volume.secret {
            self.secret_volume(subject, source).await?
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let items = source.items.clone().unwrap_or_default();
            content::downward(subject.pod, &items, mode, subject.runtime_fields)?
        } else if let Some(source) = &volume.projected {
            return self.projected(subject, &volume.name, source).await.map(Some);
        } else {
            return Ok(None);
        };
        Ok(Some(Contents { payload, renew_at: None }))
    }

    async fn config_map_volume(
        &self,
        subject: &Subject<'_>,
        source: &ConfigMapVolumeSource,
    ) -> Result<Payload, VolumeError> {
        let selection = Selection {
            items: source.items.as_ref(),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional.unwrap_or(false),
        };
        self.config_map(subject, &source.name, selection).await
    }

    async fn secret_volume(
        &self,
        subject: &Subject<'_>,
        source: &SecretVolumeSource,
    ) -> Result<Payload, VolumeError> {
        let selection = Selection {
            items: source.items.as_ref(),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional.unwrap_or(false),
        };
        let name = source.secret_name.as_deref().unwrap_or_default();
        self.secret(subject, name, selection).await
    }

    async fn config_map(
        &self,
        subject: &Subject<'_>,
        name: &str,
        selection: Selection<'_>,
    ) -> Result<Payload, VolumeError> {
        let namespace = subject.pod.pod_namespace();
        match self.objects.config_map(namespace, name, subject.worker).await? {
            Some(map) => content::config_map(&map, selection),
            None if selection.optional => Ok(Payload::default()),
            None => Err(VolumeError::NoConfigMap(name.to_owned())),
        }
    }

    async fn secret(
        &self,
        subject: &Subject<'_>,
        name: &str,
        selection: Selection<'_>,
    ) -> Result<Payload, VolumeError> {
        let namespace = subject.pod.pod_namespace();
        match self.objects.secret(namespace, name, subject.worker).await? {
            Some(secret) => content::secret(&secret, selection),
            None if selection.optional => Ok(Payload::default()),
            None => Err(VolumeError::NoSecret(name.to_owned())),
        }
    }

    async fn projected(
        &self,
        subject: &Subject<'_>,
        volume: &str,
        source: &ProjectedVolumeSource,
    ) -> Result<Contents, VolumeError> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut contents = Contents::default();
        for (index, part) in source.sources.iter().flatten().enumerate() {
            let payload = if let Some(source) = &part.pod_certificate {
                let key = (subject.pod.uid().to_owned(), volume.to_owned(), index);
                self.pod_certificate(subject, key, source, mode, &mut contents).await?
            } else {
                self.projection(subject, part, mode, &mut contents).await?
            };
            contents.payload.extend(payload)?;
        }
        Ok(contents)
    }

    async fn pod_certificate(
        &self,
        subject: &Subject<'_>,
        key: Key,
        source: &PodCertificateProjection,
        mode: i32,
        contents: &mut Contents,
    ) -> Result<Payload, VolumeError> {
        let requests = self.objects.certificate_requests(subject.worker).await?;
        let bundle = self.certificates.get(subject.pod, key, source, &requests).await?;
        contents.renew_by(bundle.look_at);
        let (mode, owner) = token_access(subject.pod, mode);
        let whole = format!("{}{}", bundle.key_pem, bundle.chain_pem);
        let mut payload = Payload::default();
        for (path, text) in [
            (&source.credential_bundle_path, &whole),
            (&source.key_path, &bundle.key_pem),
            (&source.certificate_chain_path, &bundle.chain_pem),
        ] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_empty()) {
                let file = content::file(text.as_bytes(), mode, owner.or(source.user));
                payload.insert(path.clone(), file)?;
            }
        }
        Ok(payload)
    }

    async fn projection(
        &self,
        subject: &Subject<'_>,
        part: &VolumeProjection,
        mode: i32,
        contents: &mut Contents,
    ) -> Result<Payload, VolumeError> {
        if let Some(source) = &part.config_map {
            let selection = Selection {
                items: source.items.as_ref(),
                mode,
                optional: source.optional.unwrap_or(false),
            };
            return self.config_map(subject, &source.name, selection).await;
        }
        if let Some(source) = &part.secret {
            let selection = Selection {
                items: source.items.as_ref(),
                mode,
                optional: source.optional.unwrap_or(false),
            };
            return self.secret(subject, &source.name, selection).await;
        }
        if let Some(source) = &part.downward_api {
            let items = source.items.clone().unwrap_or_default();
            return content::downward(subject.pod, &items, mode, subject.runtime_fields);
        }
        if let Some(source) = &part.service_account_token {
            let token = self.tokens.get(subject.pod, source).await?;
            contents.renew_by(Some(token.renew_at));
            let (mode, owner) = token_access(subject.pod, mode);
            let file = content::file(token.text.as_bytes(), mode, owner.or(source.user));
            let mut payload = Payload::default();
            payload.insert(source.path.clone(), file)?;
            return Ok(payload);
        }
        if let Some(source) = &part.cluster_trust_bundle {
            let all = self.objects.trust_bundles(subject.worker).await?;
            let anchors = trust_bundle::anchors(source, &all)?;
            let file = content::file(anchors.as_bytes(), mode, source.user);
            let mut payload = Payload::default();
            payload.insert(source.path.clone(), file)?;
            return Ok(payload);
        }
        Err(VolumeError::NoSource)
    }
}

/// Mode and owner of a token or a private key: only those may read it that have to. That is the user whom all
/// containers run as, if there is one, and the pod's group, if it has one (the writer adds the
/// group and its right to read).
fn token_access(pod: &Pod, mode: i32) -> (i32, Option<i64>) {
    let spec = pod.spec_ref();
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let mut users =
        spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| {
            let own = container.security_context.as_ref();
            own.and_then(|own| own.run_as_user).or(of_pod.run_as_user)
        });
    let first = users.next().flatten();
    let owner = first.filter(|first| users.all(|other| other == Some(*first)));
    let mode = if owner.is_some() || of_pod.fs_group.is_some() { 0o600 } else { mode };
    (mode, owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SecurityContext};

    fn pod(
        user: Option<i64>,
        group: Option<i64>,
        init: &[Option<i64>],
        main: &[Option<i64>],
    ) -> Pod {
        let containers = |users: &[Option<i64>]| -> Vec<Container> {
            let container = |user: &Option<i64>| Container {
                security_context: user
                    .map(|user| SecurityContext { run_as_user: Some(user), ..Default::default() }),
                ..Default::default()
            };
            users.iter().map(container).collect()
        };
        Pod {
            spec: Some(PodSpec {
                security_context: Some(PodSecurityContext {
                    run_as_user: user,
                    fs_group: group,
                    ..Default::default()
                }),
                init_containers: Some(containers(init)),
                containers: containers(main),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn who_may_read_a_token() {
        for (user, group, init, main, expected) in [
            (None, None, &[][..], &[None][..], (0o644, None)),
            (Some(7), None, &[], &[None], (0o600, Some(7))),
            (Some(7), None, &[], &[None, Some(7)], (0o600, Some(7))),
            (Some(7), None, &[], &[None, Some(8)], (0o644, None)),
            (Some(7), None, &[Some(8)], &[None], (0o644, None)),
            (None, None, &[Some(7)], &[Some(7)], (0o600, Some(7))),
            (None, None, &[Some(7)], &[Some(7), None], (0o644, None)),
            (None, None, &[None], &[Some(7)], (0o644, None)),
            (Some(0), None, &[], &[None], (0o600, Some(0))),
            (None, Some(9), &[], &[None], (0o600, None)),
            (None, Some(9), &[], &[Some(7), Some(8)], (0o600, None)),
            (Some(7), Some(9), &[], &[None], (0o600, Some(7))),
        ] {
            let pod = pod(user, group, init, main);
            let found = token_access(&pod, 0o644);
            assert_eq!(found, expected, "{user:?} {group:?} {init:?} {main:?}");
        }
    }
}
