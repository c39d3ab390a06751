//! What an adopted bridge goes on to switch by itself.

use netplug_tests::cast::Actor;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::namespace::Namespace;
use netplug_tests::node::Node;
use netplug_tests::packet::{
    Eth, Neighbour, Packet, arp_request, eth, ip, ipv4, ipv6, neighbour_solicitation, payload, udp,
};
use netplug_tests::traffic::{Capture, Protocol, send_frame};
use rstest::rstest;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::containers::{Container, add_bridge, add_bridge_without_address};
use crate::scene::PORT;

const ALL: [u8; 6] = [0xff; 6];

/// Sends frames, and waits for each at another container, in their order. What is not steered comes first: it takes the shorter
/// way, and all that others send is passed over.
#[track_caller]
fn arrive_as_they_are(from: &Namespace, to: &Namespace, frames: &[(&str, Packet)]) {
    for (what, frame) in frames {
        let capture = Capture::on(to, "eth0").expect("it has an eth0");
        send_frame(from, "eth0", &frame.bytes()).expect("it is up");
        loop {
            let seen = capture.next().unwrap_or_else(|error| panic!("{what}: {error}"));
            if seen.frame == frame.bytes() {
                break;
            }
        }
    }
}

/// An actor of the same place with other addresses.
fn at(actor: Actor, v4: Ipv4Addr, v6: Ipv6Addr) -> Actor {
    Actor { v4, v6, ..actor }
}

fn link_local(actor: Actor) -> Actor {
    at(
        actor,
        Ipv4Addr::new(169, 254, 1, actor.mac[5]),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, actor.mac[5].into()),
    )
}

/// None of them would come out of the host again as it went in: the TTL would be less, and the sender the bridge.
#[test]
fn what_the_host_does_not_route_back_is_switched() {
    let node = Node::new();
    add_bridge(&node);
    let [web, client] = [2, 3].map(|number| Container::add(&node, number));
    node.netplug("adopt docker0");
    let (here, there) = (client.actor(), web.actor());
    let elsewhere =
        at(there, Ipv4Addr::new(198, 51, 100, 7), Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7));
    let nobody = at(there, Ipv4Addr::new(10, 244, 77, 200), there.v6);
    let unspecified = at(here, Ipv4Addr::UNSPECIFIED, here.v6);
    let everybody = Actor { mac: ALL, ..at(there, Ipv4Addr::BROADCAST, Ipv6Addr::LOCALHOST) };
    let subnet =
        Actor { mac: ALL, ..at(there, Ipv4Addr::new(10, 244, 77, 255), Ipv6Addr::LOCALHOST) };
    let group = Actor {
        mac: [0x01, 0, 0x5e, 0, 0, 0xfb],
        ..at(there, Ipv4Addr::new(224, 0, 0, 251), Ipv6Addr::LOCALHOST)
    };
    let probe = Neighbour { advertises: false, target: there.v6, mac: here.mac };
    let data = || udp(4000, 5000);
    arrive_as_they_are(
        client.namespace(),
        web.namespace(),
        &[
            ("for another network", eth(here, there) / ipv4(here, elsewhere) / data()),
            ("for another network", eth(here, there) / ipv6(here, elsewhere) / data()),
            (
                "for a link-local address",
                eth(here, there) / ipv4(link_local(here), link_local(there)) / data(),
            ),
            (
                "for a link-local address",
                eth(here, there) / ipv6(link_local(here), link_local(there)) / data(),
            ),
            ("a DHCP client", eth(here, everybody) / ipv4(unspecified, everybody) / udp(68, 67)),
            ("a DHCP server", eth(here, there) / ipv4(here, nobody) / udp(67, 68)),
            ("a broadcast", eth(here, subnet) / ipv4(here, subnet) / data()),
            ("a multicast", eth(here, group) / ipv4(here, group) / data()),
            ("ARP", arp_request(here, there.v4)),
            ("a question for a neighbour", neighbour_solicitation(here, there.v6)),
            ("a probe of a neighbour", eth(here, there) / ipv6(here, there).ttl(255) / probe),
            (
                "no IP",
                Eth { source: here.mac, destination: there.mac } / payload(&[0x88, 0xb5, 1, 2, 3]),
            ),
        ],
    );
}

/// The opposite, by which the test above is one: also in a frame for all.
#[rstest]
fn what_the_host_routes_back_comes_by_it(
    #[values(V4, V6)] family: Family,
    #[values(false, true)] in_frame_for_all: bool,
) {
    let node = Node::new();
    add_bridge(&node);
    let [web, client] = [2, 3].map(|number| Container::add(&node, number));
    node.netplug("adopt docker0");
    let (here, there) = (client.actor(), web.actor());
    let to = if in_frame_for_all { Actor { mac: ALL, ..there } } else { there };
    let sent = eth(here, to) / ip(family, here, there) / udp(4000, 5000) / payload(b"hello");
    let capture = Capture::on(web.namespace(), "eth0").unwrap();
    send_frame(client.namespace(), "eth0", &sent.bytes()).unwrap();
    let seen = loop {
        let seen = capture.next().unwrap().frame;
        if seen.ends_with(b"hello") {
            break seen;
        }
    };
    assert_eq!((&seen[..6], seen[6..12] == here.mac), (&there.mac[..], false));
}

#[rstest]
fn a_bridge_without_an_address_is_as_before(#[values(V4, V6)] family: Family) {
    let node = Node::new();
    add_bridge_without_address(&node);
    node.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let [web, client] = [2, 3].map(|number| Container::add(&node, number));
    node.netplug("adopt docker0");
    let to: IpAddr = web.ip(family);
    for protocol in Protocol::BOTH {
        let mut talk = client.dial((to, PORT).into()).open(protocol).unwrap();
        assert_eq!(talk.ask_times(30).unwrap().client_ip(), client.ip(family));
    }
}
