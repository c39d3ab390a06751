//! Every way in and out, on every kind of node, by every shape of service proxy: right at both ends, and learned both ways.

mod place;

use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{BALANCER, EXTERNAL, INTRANET, OUTSIDE, SERVICE};
use netplug_tests::counters::Counters;
use netplug_tests::node::Node;
use netplug_tests::rules::Service;
use netplug_tests::traffic::Dial;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::scene::{NODE_PORT, PORT, Proxy};
use place::{Kind, Place};

/// Questions of a flow, and as many answers.
const REQUESTS: usize = 40;
/// A flow that is learned in one direction only has fewer hits.
const HITS: u64 = REQUESTS as u64 * 3 / 2;

/// The ports of a service that callers from outside are masqueraded to, and of one that they are not.
const CLUSTER: (u16, u16) = (80, NODE_PORT);
const LOCAL: (u16, u16) = (81, NODE_PORT + 1);

/// Whom a server sees.
#[derive(Clone, Copy)]
enum Seen {
    As(IpAddr),
    /// The proxy masquerades it, by whatever address of the node's.
    Not(IpAddr),
}

/// A row of the table.
struct Way<'p> {
    name: &'static str,
    dial: Dial<'p>,
    server: &'static str,
    seen: Seen,
}

fn services(place: &Place, ip: Family) -> Vec<Service> {
    let backend = SocketAddr::new(place.web_ip(ip), PORT);
    let mut services = Vec::new();
    for protocol in Protocol::BOTH {
        let of = |(port, node_port)| {
            Service::new(protocol, port, &[backend])
                .node_port(node_port)
                .led_here(EXTERNAL.ip(ip), BALANCER.ip(ip))
        };
        services.extend([of(CLUSTER), of(LOCAL).local()]);
    }
    services
}

fn ways(place: &Place, ip: Family) -> Vec<Way<'_>> {
    let Place { node, web, client, .. } = place;
    let (node_ip, outside_ip) = (place.node_ip(ip), place.outside_ip(ip));
    let from_client = |name, to: IpAddr, port, server, seen| {
        let dial = client.dial(SocketAddr::new(to, port));
        Way { name, dial, server, seen }
    };
    let from_outside = |name, to: IpAddr, port, seen| {
        let dial = node.outside().dial(SocketAddr::new(to, port)).from_ip(outside_ip);
        Way { name, dial, server: "web", seen }
    };
    let (stays, goes) = (Seen::As(client.ip(ip)), Seen::Not(client.ip(ip)));
    let (remains, hides) = (Seen::As(outside_ip), Seen::Not(outside_ip));
    let near = Seen::As(place.client_towards_web(ip));
    let mut ways = vec![
        from_client("pod → pod", place.web_ip(ip), PORT, "web", near),
        from_client("pod → service", SERVICE.ip(ip), CLUSTER.0, "web", stays),
        from_client("pod → NodePort", node_ip, CLUSTER.1, "web", goes),
        from_client("pod → local NodePort", node_ip, LOCAL.1, "web", stays),
        from_client("pod → external address", EXTERNAL.ip(ip), CLUSTER.0, "web", goes),
        from_client("pod → local external address", EXTERNAL.ip(ip), LOCAL.0, "web", stays),
        from_client("pod → balancer", BALANCER.ip(ip), CLUSTER.0, "web", goes),
        from_client("pod → local balancer", BALANCER.ip(ip), LOCAL.0, "web", stays),
        from_client("pod → outside", outside_ip, PORT, OUTSIDE.name, Seen::As(node_ip)),
        from_client("pod → intranet", INTRANET.ip(ip), PORT, INTRANET.name, stays),
        from_outside("outside → pod", place.web_ip(ip), PORT, remains),
        from_outside("outside → NodePort", node_ip, CLUSTER.1, hides),
        from_outside("outside → local NodePort", node_ip, LOCAL.1, remains),
        from_outside("outside → external address", EXTERNAL.ip(ip), CLUSTER.0, hides),
        from_outside("outside → local external address", EXTERNAL.ip(ip), LOCAL.0, remains),
        from_outside("outside → balancer", BALANCER.ip(ip), CLUSTER.0, hides),
        from_outside("outside → local balancer", BALANCER.ip(ip), LOCAL.0, remains),
    ];
    if place.has_hairpins() {
        let dial = web.dial(SocketAddr::new(SERVICE.ip(ip), CLUSTER.0));
        let seen = Seen::Not(web.ip(ip));
        ways.push(Way { name: "pod → service → itself", dial, server: "web", seen });
    }
    ways
}

#[rstest]
fn every_way_is_right_and_learned(
    #[values(
        Kind::Alone,
        Kind::BehindBridge,
        Kind::BehindPtp,
        Kind::SecondBridge,
        Kind::SecondUplink,
        Kind::OneUplinkInAndOneOut,
        Kind::VlanUplink,
        Kind::SecondInterface
    )]
    kind: Kind,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let Some(place) = Place::of(kind) else {
        eprintln!("skipped: this kernel has no VLANs");
        return;
    };
    let services: Vec<_> = Family::BOTH.iter().flat_map(|ip| services(&place, *ip)).collect();
    proxy.serve(place.node.namespace(), &services);
    for ip in Family::BOTH {
        for way in ways(&place, ip) {
            // A connection first, which asks for neighbours again.
            for protocol in [Tcp, Udp] {
                way.goes(&place.node, protocol, &format!("{} by {protocol}, {ip}", way.name));
            }
        }
    }
}

impl Way<'_> {
    fn goes(&self, node: &Node, protocol: Protocol, what: &str) {
        let failed = |error| panic!("{what}: {error}");
        let mut talk = self.dial.open(protocol).unwrap_or_else(failed);
        let before = Counters::of(node);
        let answer = talk.ask_times(REQUESTS).unwrap_or_else(|error| panic!("{what}: {error}"));
        let now = Counters::of(node).since(&before);
        assert_eq!(answer.server, self.server, "{what}");
        match self.seen {
            Seen::As(wanted) => assert_eq!(answer.client_ip(), wanted, "{what}"),
            Seen::Not(hidden) => assert_ne!(answer.client_ip(), hidden, "{what}"),
        }
        assert!(now.hits() >= HITS, "{what}: {} hits of {}: {now:?}", now.hits(), 2 * REQUESTS);
        assert_eq!(now.drops(), 0, "{what}: {now:?}");
        if protocol == Tcp {
            let bulk = talk.send_bulk(100_000).map(drop).and_then(|()| talk.fetch_bulk(100_000));
            bulk.and_then(|()| talk.close()).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

/// By the list of whom a proxy has seen: each connection of a client's goes to the pod that its first went to.
#[rstest]
fn a_client_stays_with_its_backend(
    #[values(Kind::Alone, Kind::BehindPtp)] kind: Kind,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
    #[values(V4, V6)] ip: Family,
) {
    /// Each goes elsewhere by chance, half the time.
    const CONNECTIONS: usize = 8;
    let place = Place::of(kind).expect("it needs nothing");
    let other = place.node.add_pod_to("other", place.web.network()).listening(PORT);
    let backends = [SocketAddr::new(place.web_ip(ip), PORT), other.at(ip, PORT)];
    let mut services = Vec::new();
    for protocol in Protocol::BOTH {
        let of = |port, node_port| Service::new(protocol, port, &backends).node_port(node_port);
        services.push(of(CLUSTER.0, CLUSTER.1).affine());
        services.push(of(LOCAL.0, LOCAL.1).local().affine());
    }
    proxy.serve(place.node.namespace(), &services);
    let node_port = |port| SocketAddr::new(place.node_ip(ip), port);
    let outside = place.node.outside();
    for (name, dial) in [
        ("pod → service", place.client.dial(SocketAddr::new(SERVICE.ip(ip), CLUSTER.0))),
        ("outside → NodePort", outside.dial(node_port(CLUSTER.1))),
        ("outside → local NodePort", outside.dial(node_port(LOCAL.1))),
    ] {
        for protocol in [Tcp, Udp] {
            let what = format!("{name} by {protocol}");
            let mut servers = Vec::new();
            for _ in 0..CONNECTIONS {
                let before = Counters::of(&place.node);
                let answer = dial.open(protocol).and_then(|mut talk| talk.ask_times(REQUESTS));
                servers.push(answer.unwrap_or_else(|error| panic!("{what}: {error}")).server);
                let now = Counters::of(&place.node).since(&before);
                assert!(now.hits() >= HITS, "{what}: {now:?}");
            }
            assert!(servers.iter().all(|server| *server == servers[0]), "{what}: {servers:?}");
        }
    }
}
