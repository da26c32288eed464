use super::*;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMapEnvSource, ConfigMapKeySelector, EnvFromSource, EnvVar, ObjectFieldSelector,
    SecretEnvSource, SecretKeySelector,
};

fn sources() -> Sources {
    let map = ConfigMap {
        data: Some([("COLOR".into(), "blue".into()), ("SIZE".into(), "9".into())].into()),
        ..Default::default()
    };
    let secret = Secret {
        data: Some([("PASSWORD".into(), ByteString(b"pw".to_vec()))].into()),
        ..Default::default()
    };
    Sources {
        config_maps: [("settings".to_owned(), Arc::new(map))].into(),
        secrets: [("keys".to_owned(), Arc::new(secret))].into(),
        services: [("WEB_SERVICE_HOST".to_owned(), "10.0.0.9".to_owned())].into(),
        runtime_fields: RuntimeFields::default(),
    }
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

fn from(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar { name: name.into(), value: None, value_from: Some(source) }
}

fn map_key(name: &str, key: &str, optional: bool) -> EnvVarSource {
    EnvVarSource {
        config_map_key_ref: Some(ConfigMapKeySelector {
            name: name.into(),
            key: key.into(),
            optional: Some(optional),
        }),
        ..Default::default()
    }
}

fn pod() -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some("web".into());
    pod.metadata.namespace = Some("shop".into());
    pod
}

#[test]
fn order_prefix_replacement_and_references() {
    let container = Container {
        env_from: Some(vec![
            EnvFromSource {
                prefix: Some("CFG_".into()),
                config_map_ref: Some(ConfigMapEnvSource {
                    name: "settings".into(),
                    optional: None,
                }),
                secret_ref: None,
            },
            EnvFromSource {
                secret_ref: Some(SecretEnvSource { name: "keys".into(), optional: None }),
                ..Default::default()
            },
            EnvFromSource {
                config_map_ref: Some(ConfigMapEnvSource {
                    name: "missing".into(),
                    optional: Some(true),
                }),
                ..Default::default()
            },
        ]),
        env: Some(vec![
            plain("CFG_SIZE", "10"),
            plain("SUM", "$(CFG_COLOR)-$(CFG_SIZE)-$(LATER)-$(WEB_SERVICE_HOST)"),
            plain("LATER", "x"),
            from(
                "NAME",
                EnvVarSource {
                    field_ref: Some(ObjectFieldSelector {
                        field_path: "metadata.name".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            ),
            from(
                "PW",
                EnvVarSource {
                    secret_key_ref: Some(SecretKeySelector {
                        name: "keys".into(),
                        key: "PASSWORD".into(),
                        optional: None,
                    }),
                    ..Default::default()
                },
            ),
            from("GONE", map_key("settings", "nope", true)),
        ]),
        ..Default::default()
    };
    let references = references(&container);
    assert_eq!(references.config_maps, ["missing".to_owned(), "settings".to_owned()].into());
    let found = environment(&pod(), &container, &sources()).unwrap();
    let expected = [
        ("WEB_SERVICE_HOST", "10.0.0.9"),
        ("CFG_COLOR", "blue"),
        ("CFG_SIZE", "10"),
        ("PASSWORD", "pw"),
        ("SUM", "blue-10-$(LATER)-10.0.0.9"),
        ("LATER", "x"),
        ("NAME", "web"),
        ("PW", "pw"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn what_is_missing_is_named_as_kubernetes_names_it() {
    let cases = [
        (map_key("settings", "nope", false), "couldn't find key nope in ConfigMap shop/settings"),
        (map_key("other", "nope", false), "configmap \"other\" not found"),
    ];
    for (source, expected) in cases {
        let container = Container { env: Some(vec![from("X", source)]), ..Default::default() };
        let error = environment(&pod(), &container, &sources()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
