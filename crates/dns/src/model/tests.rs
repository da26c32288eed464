use api::Kind;

use super::*;

fn service(spec: &str) -> Option<Service> {
    let json = format!(r#"{{"metadata":{{"namespace":"ns","name":"web"}},"spec":{spec}}}"#);
    Service::from_object(&core::Service::decode(json.as_bytes()).unwrap())
}

#[test]
fn services() {
    let ports = r#""ports":[{"name":"HTTP","port":80},{"name":"dns","port":53,"protocol":"UDP"}]"#;
    let cluster_ip = service(&format!(r#"{{"clusterIP":"10.96.0.1",{ports}}}"#));
    let port = |name: &str, protocol: &str, port| Port {
        name: name.into(),
        protocol: protocol.into(),
        port,
    };
    assert_eq!(
        cluster_ip,
        Some(Service::ClusterIp {
            ips: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![port("http", "tcp", 80), port("dns", "udp", 53)],
        })
    );
    assert_eq!(service(r#"{"clusterIP":"None"}"#), Some(Service::Headless));
    let external = service(r#"{"type":"ExternalName","externalName":"example.org."}"#);
    assert_eq!(external, Some(Service::ExternalName("example.org".into())));
    assert_eq!(service(r#"{"ports":[{"port":80}]}"#), None, "it has no address yet");
}

#[test]
fn slices_contain_ready_endpoints() {
    let json = br#"{
        "metadata":{"namespace":"ns","name":"db-1","labels":{"kubernetes.io/service-name":"db"}},
        "addressType":"IPv4",
        "ports":[{"name":"http","port":80}],
        "endpoints":[
            {"addresses":["10.0.0.1"],"hostname":"DB-0"},
            {"addresses":["10.0.0.2"],"conditions":{"ready":false}},
            {"addresses":["10.0.0.3"],"conditions":{"ready":true}}
        ]}"#;
    let slice = Slice::from_object(&discovery::EndpointSlice::decode(json).unwrap()).unwrap();
    assert_eq!(&*slice.service, "ns/db");
    let endpoint = |ip: &str, hostname: Option<&str>| Endpoint {
        ip: ip.parse().unwrap(),
        hostname: hostname.map(Into::into),
    };
    assert_eq!(slice.endpoints, [endpoint("10.0.0.1", Some("db-0")), endpoint("10.0.0.3", None)]);
    let alone = br#"{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[]}"#;
    assert!(Slice::from_object(&discovery::EndpointSlice::decode(alone).unwrap()).is_none());
}
