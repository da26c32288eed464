use super::*;

use client::mirror;

fn port(name: &str, protocol: &str, port: u16) -> Port {
    Port { name: name.into(), protocol: protocol.into(), port }
}

fn backend(label: &str, ip: &str) -> Backend {
    Backend { label: label.into(), ip: ip.parse().unwrap(), ports: vec![port("http", "tcp", 8080)] }
}

fn records() -> Records {
    let mut records = Records::starting_at(1);
    let mut set = |name: &str, entry| records.set(&mirror::Name::from(name), Some(entry));
    set(
        "default/web",
        Entry::ClusterIp {
            ips: vec!["10.96.0.20".parse().unwrap(), "fd00::20".parse().unwrap()],
            ports: vec![port("http", "tcp", 80), port("dns", "udp", 53)],
        },
    );
    let backends = vec![backend("web-0", "10.244.0.1"), backend("10-244-1-1", "10.244.1.1")];
    set("default/db", Entry::Headless(backends));
    set("default/empty", Entry::Headless(Vec::new()));
    set("default/out", Entry::ExternalName("example.org".into()));
    set("default/alias", Entry::ExternalName("web.default.svc.cluster.local".into()));
    set("default/loop", Entry::ExternalName("loop.default.svc.cluster.local".into()));
    records
}

fn zone() -> Zone {
    Zone::new("cluster.local", vec!["10.96.0.10".parse().unwrap()]).unwrap()
}

fn ask(name: &str, kind: RecordType) -> Answer {
    zone().answer(&records(), &Name::from_ascii(name).unwrap(), kind)
}

/// The answer section as `code: data, data`.
fn shown(answer: &Answer) -> String {
    let data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    format!("{:?}: {}", answer.code, data.join(", "))
}

#[test]
fn answers() {
    use RecordType::{A, AAAA, CNAME, NS, SOA, SRV, TXT};
    let cases: &[(&str, RecordType, &str)] = &[
        ("web.default.svc.cluster.local.", A, "NoError: 10.96.0.20"),
        ("web.default.svc.cluster.local.", AAAA, "NoError: fd00::20"),
        ("WEB.Default.svc.CLUSTER.local.", A, "NoError: 10.96.0.20"),
        ("web.default.svc.cluster.local.", TXT, "NoError: "),
        ("web.other.svc.cluster.local.", A, "NXDomain: "),
        ("default.svc.cluster.local.", A, "NoError: "),
        ("other.svc.cluster.local.", A, "NXDomain: "),
        ("svc.cluster.local.", A, "NoError: "),
        ("web.cluster.local.", A, "NXDomain: "),
        ("example.org.default.svc.cluster.local.", A, "NXDomain: "),
        ("cluster.local.", A, "NoError: "),
        ("cluster.local.", NS, "NoError: ns.dns.cluster.local."),
        ("ns.dns.cluster.local.", A, "NoError: 10.96.0.10"),
        ("dns-version.cluster.local.", TXT, "NoError: 1.1.0"),
        ("db.default.svc.cluster.local.", A, "NoError: 10.244.0.1, 10.244.1.1"),
        ("db.default.svc.cluster.local.", AAAA, "NoError: "),
        ("empty.default.svc.cluster.local.", A, "NXDomain: "),
        ("web-0.db.default.svc.cluster.local.", A, "NoError: 10.244.0.1"),
        ("10-244-1-1.db.default.svc.cluster.local.", A, "NoError: 10.244.1.1"),
        ("web-9.db.default.svc.cluster.local.", A, "NXDomain: "),
        ("web-0.web.default.svc.cluster.local.", A, "NXDomain: "),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "NoError: 0 100 80 web.default.svc.cluster.local.",
        ),
        ("_http._udp.web.default.svc.cluster.local.", SRV, "NXDomain: "),
        ("_tcp.web.default.svc.cluster.local.", SRV, "NoError: "),
        ("_sctp.web.default.svc.cluster.local.", SRV, "NXDomain: "),
        (
            "_http._tcp.db.default.svc.cluster.local.",
            SRV,
            "NoError: 0 50 8080 web-0.db.default.svc.cluster.local., 0 50 8080 10-244-1-1.db.default.svc.cluster.local.",
        ),
        (
            "web.default.svc.cluster.local.",
            SRV,
            "NoError: 0 50 80 web.default.svc.cluster.local., 0 50 53 web.default.svc.cluster.local.",
        ),
        ("10-244-0-1.default.pod.cluster.local.", A, "NoError: 10.244.0.1"),
        ("fd00--1.default.pod.cluster.local.", AAAA, "NoError: fd00::1"),
        ("nothing.default.pod.cluster.local.", A, "NXDomain: "),
        ("out.default.svc.cluster.local.", CNAME, "NoError: example.org."),
        (
            "alias.default.svc.cluster.local.",
            A,
            "NoError: web.default.svc.cluster.local., 10.96.0.20",
        ),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(shown(&ask(name, *kind)), *expected, "{name} {kind}");
    }
    assert_eq!(ask("cluster.local.", SOA).answers.len(), 1);
}

#[test]
fn aliases_lead_out_of_the_zone_and_loops_end() {
    let out = ask("out.default.svc.cluster.local.", RecordType::A);
    assert_eq!(out.external_alias, Some(Name::from_ascii("example.org.").unwrap()));
    assert_eq!(shown(&out), "NoError: example.org.");
    let endless = ask("loop.default.svc.cluster.local.", RecordType::A);
    assert_eq!(endless.code, ResponseCode::ServFail);
}

#[test]
fn srv_targets_come_with_their_addresses() {
    let answer = ask("_http._tcp.db.default.svc.cluster.local.", RecordType::SRV);
    let data: Vec<String> =
        answer.additionals.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(data, ["10.244.0.1", "10.244.1.1"]);
}

#[test]
fn addresses_lead_back_to_names() {
    let reverse = |name: &str| {
        let name = Name::from_ascii(name).unwrap();
        let answer = zone().reverse(&records(), &name, RecordType::PTR);
        answer.map(|answer| shown(&answer))
    };
    let web = "NoError: web.default.svc.cluster.local.";
    assert_eq!(reverse("20.0.96.10.in-addr.arpa.").as_deref(), Some(web));
    assert_eq!(
        reverse("1.0.244.10.in-addr.arpa.").as_deref(),
        Some("NoError: web-0.db.default.svc.cluster.local.")
    );
    assert_eq!(reverse("9.9.9.9.in-addr.arpa."), None);
    assert_eq!(reverse("96.10.in-addr.arpa."), None);
    assert_eq!(reverse("example.org."), None);
    let v6 = "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(reverse(v6).as_deref(), Some(web));
}
