//! Packets with sources that their senders do not have.

use std::net::{Ipv4Addr, UdpSocket};

use crate::cluster::{Cluster, Proxy};
use crate::netns::Netns;
use crate::tunnel::{NODES, node, objects, sync};

const PORT: u16 = 7000;

/// Whether a datagram sent to the socket's address arrives.
fn arrives(from: &UdpSocket, to: &str, at: &UdpSocket) -> bool {
    from.send_to(b"?", to).ok();
    at.recv(&mut [0; 64]).is_ok()
}

#[test]
fn a_pod_sends_from_its_own_address_only() {
    let cluster = Cluster::new(&[("a", 0), ("b", 0)]);
    let (a, b) = (cluster.pod("a"), cluster.pod("b"));
    let families = [
        ("10.244.0.1", "10.244.0.2", "10.244.9.9"),
        ("fd00:244::0:1", "fd00:244::0:2", "fd00:244::9:9"),
    ];
    for (own, other, foreign) in families {
        let at = |ip: &str| match ip.contains(':') {
            true => format!("[{ip}]:{PORT}"),
            false => format!("{ip}:{PORT}"),
        };
        let options = if own.contains(':') { "/128 dev eth0 nodad" } else { "/32 dev eth0" };
        a.ip(&format!("address add {foreign}{options}"));
        let receiver = b.udp_at(&at(other));
        assert!(arrives(&a.udp_at(&at(own)), &at(other), &receiver), "{own}");
        assert!(!arrives(&a.udp_at(&at(foreign)), &at(other), &receiver), "{foreign}");
    }
}

/// A VXLAN packet with a datagram to [`PORT`] inside, as a node with these addresses expects it.
fn encapsulated(vni: u8, node_ip: &str, source: &str, destination: &str) -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let mut packet = vec![8, 0, 0, 0, 0, 0, vni, 0];
    packet.extend([0x0e, 0x58]);
    packet.extend(ip(node_ip));
    packet.extend([0x0e, 0x58, 1, 1, 1, 1, 8, 0]);
    let mut header = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(ip(source));
    header.extend(ip(destination));
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(header);
    for word in [PORT, PORT, 9, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.push(b'?');
    packet
}

#[test]
fn only_nodes_send_into_the_tunnel() {
    let router = Netns::new();
    router.sysctl("ipv4/ip_forward", "1");
    let (a, pod_a) = node(0, &router);
    let (b, pod_b) = node(1, &router);
    // The packets of pods leave with the address of their node.
    a.nft("add table ip leaving");
    a.nft("add chain ip leaving out { type nat hook postrouting priority 0 ; }");
    a.nft("add rule ip leaving out oifname up0 ip saddr 10.244.0.0/16 masquerade");
    let receiver = pod_b.udp_at(&format!("0.0.0.0:{PORT}"));
    let tunnel = format!("{}:4789", NODES[1]);
    let send = |from: &Netns, source: &str| {
        let packet = encapsulated(1, NODES[1], source, "10.244.1.1");
        from.udp_at("0.0.0.0:0").send_to(&packet, &tunnel).ok();
        receiver.recv(&mut [0; 64]).is_ok()
    };
    // The first packets may be lost while neighbours are being looked up.
    let arrives = |from: &Netns| {
        let arrived = (0..20).any(|_| send(from, "10.244.0.7"));
        while receiver.recv(&mut [0; 64]).is_ok() {}
        arrived
    };
    for (netns, name) in [(&a, "a"), (&b, "b")] {
        sync(netns, name, objects());
    }
    for from in [&a, &pod_a, &router] {
        assert!(arrives(from), "without rules anyone does");
    }
    let mut proxy = b.run(|| Proxy::start(1));
    objects().iter().for_each(|(name, node)| proxy.apply_node(name, node));
    let mut proxy = a.run(|| Proxy::start(0));
    objects().iter().for_each(|(name, node)| proxy.apply_node(name, node));
    assert!(arrives(&a), "a node");
    assert!(!send(&a, "10.244.1.7"), "a node, for a pod of the other");
    assert!(!send(&pod_a, "10.244.0.7"), "a pod");
    assert!(!send(&router, "10.244.0.7"), "another machine");
    // Other programs may have tunnels of their own.
    let others = b.udp_at("0.0.0.0:4788");
    b.nft("add table ip others");
    b.nft("add chain ip others in { type nat hook prerouting priority 0 ; }");
    b.nft("add rule ip others in udp dport 4789 redirect to :4788");
    let packet = encapsulated(2, NODES[1], "10.244.0.7", "10.244.1.1");
    router.udp_at("0.0.0.0:0").send_to(&packet, &tunnel).unwrap();
    assert!(others.recv(&mut [0; 64]).is_ok(), "another VNI");
}
