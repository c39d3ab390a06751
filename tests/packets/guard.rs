//! What a pod may not say.

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, CLIENT, GATEWAY, WEB};
use netplug_tests::packet::{
    Layer, arp_reply, arp_request, assert_same, eth, ip, ipv4, ipv6, neighbour_advertisement,
    payload, router_message, tcp, udp,
};
use rstest::rstest;

use crate::datapath::{Datapath, HERE, NEXT, SHOT};

#[rstest]
fn another_pods_address_is_no_source(#[values(V4, V6)] family: Family) {
    let packet = eth(CLIENT, GATEWAY) / ip(family, WEB, GATEWAY) / tcp(40000, 80).ack();
    Datapath::new().drops(&packet, Counter::SourceAddress);
}

#[rstest]
fn another_pods_mac_is_no_source(#[values(V4, V6)] family: Family) {
    let packet = eth(WEB, GATEWAY) / ip(family, CLIENT, GATEWAY) / tcp(40000, 80).ack();
    Datapath::new().drops(&packet, Counter::SourceMac);
}

#[test]
fn another_pods_address_is_not_claimed_by_arp() {
    let mut datapath = Datapath::new();
    let honest = arp_request(CLIENT, WEB.v4);
    datapath.enters(&honest, NEXT, &honest);
    // The MACs are its own, the address is another's.
    let thief = Actor { mac: CLIENT.mac, ..WEB };
    datapath.drops(&arp_reply(thief, GATEWAY), Counter::ArpClaim);
    datapath.drops(&arp_reply(WEB, GATEWAY), Counter::SourceMac);
    // Hosts heed hardware type 6 (IEEE 802) as well as 1, and nobody checked what it says.
    let mut other_kind = arp_reply(thief, GATEWAY).bytes();
    other_kind[15] = 6;
    let (verdict, _) = datapath.run_bytes("from_pod", HERE, &other_kind);
    assert_eq!(verdict, SHOT);
    assert_eq!(datapath.counted(Counter::ArpClaim), 2);
}

/// The kernel takes the outer tag off before the programs run, hosts the inner one after.
#[rstest]
fn what_is_behind_two_tags_does_not_pass(#[values([0x81, 0], [0x88, 0xa8])] inner: [u8; 2]) {
    let mut bytes =
        (eth(WEB, GATEWAY) / ip(V4, WEB, GATEWAY) / udp(40000, 80) / payload(b"hidden")).bytes();
    bytes.splice(12..12, [inner[0], inner[1], 0, 0]);
    let mut datapath = Datapath::new();
    assert_eq!(datapath.run_bytes("from_pod", HERE, &bytes).0, SHOT);
    assert_eq!(datapath.counted(Counter::PriorityTag), 1);
}

/// 169.254.20.10 is a node's DNS cache, 169.254.169.254 a cloud's metadata: no pod is either.
#[rstest]
fn a_link_local_source_reaches_nobody_beyond_the_link(#[values(V4, V6)] family: Family) {
    let local = Actor {
        v4: std::net::Ipv4Addr::new(169, 254, 20, 10),
        v6: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9),
        ..CLIENT
    };
    let mut datapath = Datapath::new();
    datapath.drops(
        &(eth(CLIENT, GATEWAY) / ip(family, local, WEB) / udp(53, 40000) / payload(b"answer")),
        Counter::SourceAddress,
    );
    let other = Actor {
        v4: std::net::Ipv4Addr::new(169, 254, 1, 1),
        v6: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        ..WEB
    };
    let on_link = eth(CLIENT, WEB) / ip(family, local, other) / udp(53, 40000) / payload(b"hello");
    datapath.enters(&on_link, NEXT, &on_link);
}

#[test]
fn another_pods_address_is_not_advertised() {
    let mut datapath = Datapath::new();
    let honest = neighbour_advertisement(CLIENT, GATEWAY);
    datapath.enters(&honest, NEXT, &honest);
    // Source address and MAC are its own, the target is another's.
    let mut lie = neighbour_advertisement(CLIENT, GATEWAY);
    for layer in &mut lie.layers {
        if let Layer::Neighbour(neighbour) = layer {
            neighbour.target = WEB.v6;
        }
    }
    datapath.drops(&lie, Counter::NeighbourClaim);
}

#[test]
fn a_pod_is_no_router() {
    let mut datapath = Datapath::new();
    for kind in [134, 137] {
        let packet = eth(CLIENT, WEB) / ipv6(CLIENT, WEB).ttl(255) / router_message(kind);
        datapath.drops(&packet, Counter::RouterAdvertisement);
    }
    let asks = eth(CLIENT, WEB) / ipv6(CLIENT, WEB).ttl(255) / router_message(133);
    datapath.enters(&asks, NEXT, &asks);
}

/// Hosts look for discovery behind extension headers too (RFC 7113 §2); nothing else there has 255 hops.
#[test]
fn discovery_is_not_hidden_behind_extension_headers() {
    let mut datapath = Datapath::new();
    let behind = |count, kind| {
        eth(CLIENT, WEB) / ipv6(CLIENT, WEB).ttl(255).options(count) / router_message(kind)
    };
    for (kind, reason) in [
        (134, Counter::RouterAdvertisement),
        (136, Counter::NeighbourClaim),
        (137, Counter::RouterAdvertisement),
    ] {
        datapath.drops(&behind(1, kind), reason);
        // Behind more than are passed over it could be anything.
        datapath.drops(&behind(7, kind), Counter::HiddenDiscovery);
    }
    let routed = eth(CLIENT, GATEWAY) / ipv6(CLIENT, WEB).options(1) / udp(40000, 80);
    datapath.enters(&routed, NEXT, &routed);
}

#[test]
fn the_host_does_not_send_a_pod_past_itself() {
    let mut datapath = Datapath::new();
    let host = |kind| eth(GATEWAY, CLIENT) / ipv6(GATEWAY, CLIENT).ttl(255) / router_message(kind);
    let (verdict, _) = datapath.run("to_pod", 0, &host(137));
    assert_eq!(verdict, SHOT);
    assert_eq!(datapath.counted(Counter::NeighbourRedirect), 1);
    let (verdict, out) = datapath.run("to_pod", 0, &host(134));
    assert_eq!(verdict, NEXT);
    assert_same(&host(134).bytes(), &out);
}

#[test]
fn a_pod_is_no_dhcp_server() {
    let mut datapath = Datapath::new();
    let v4 = eth(CLIENT, WEB) / ipv4(CLIENT, WEB) / udp(67, 68) / payload(b"offer");
    datapath.drops(&v4, Counter::DhcpServer);
    let v6 = eth(CLIENT, WEB) / ipv6(CLIENT, WEB) / udp(547, 546) / payload(b"reply");
    datapath.drops(&v6, Counter::DhcpServer);
    let first =
        eth(CLIENT, WEB) / ipv4(CLIENT, WEB).fragment(0, true) / udp(67, 68) / payload(b"offer");
    datapath.drops(&first, Counter::DhcpServer);
    let client = Actor { v6: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), ..WEB };
    let hidden =
        eth(CLIENT, WEB) / ipv6(CLIENT, client).options(1) / udp(547, 546) / payload(b"reply");
    datapath.drops(&hidden, Counter::DhcpServer);
    let hidden =
        eth(CLIENT, WEB) / ipv6(CLIENT, client).options(7) / udp(547, 546) / payload(b"reply");
    datapath.drops(&hidden, Counter::HiddenDiscovery);
    let fragmented = |port| {
        eth(CLIENT, WEB)
            / ipv6(CLIENT, client).fragment(0, true)
            / udp(port, 546)
            / payload(b"first")
    };
    datapath.drops(&fragmented(547), Counter::DhcpServer);
    datapath.enters(&fragmented(5353), NEXT, &fragmented(5353));
    // The fragment header's first octet says what is behind it: here more headers.
    let mut hidden = fragmented(547).bytes();
    hidden[54] = 60;
    assert_eq!(datapath.run_bytes("from_pod", HERE, &hidden).0, SHOT);
}
