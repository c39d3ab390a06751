//! Echo, errors and fragments: what has no ports, or not all of them, visits the host and works.

use std::io::ErrorKind;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, GATEWAY, INTRANET, NODE_1, OUTSIDE};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, becomes};
use netplug_tests::namespace::Namespace;
use netplug_tests::packet::{self, eth, payload, udp};
use netplug_tests::traffic::{PATIENCE, Servers, ping, send_frame, trace};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, Scene, actor};

#[rstest]
fn echo_goes_everywhere(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let (client, web) = (scene.client.namespace(), scene.web.namespace());
    for number in 0..20 {
        ping(client, scene.web.ip(ip), number, 56, PATIENCE).unwrap();
        ping(client, OUTSIDE.ip(ip), number, 56, PATIENCE).unwrap();
        ping(client, INTRANET.ip(ip), number, 56, PATIENCE).unwrap();
        ping(client, NODE_1.ip(ip), number, 56, PATIENCE).unwrap();
        ping(scene.node.outside().namespace(), scene.web.ip(ip), number, 56, PATIENCE).unwrap();
    }
    // Two pods with one identifier towards one host.
    ping(web, OUTSIDE.ip(ip), 7, 56, PATIENCE).unwrap();
    ping(client, OUTSIDE.ip(ip), 7, 56, PATIENCE).unwrap();
}

#[rstest]
fn a_closed_port_behind_a_service_refuses(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    scene.web.servers().stop();
    let mut udp = scene.client.dial(scene.service(ip)).udp().unwrap();
    assert_eq!(udp.ask("anyone?").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let tcp = scene.client.dial(scene.service(ip)).tcp().map(drop);
    assert_eq!(tcp.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[rstest]
fn a_datagram_in_fragments_passes_a_service(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let mut talk = scene.client.dial(scene.service(ip)).udp().unwrap();
    talk.ask_times(20).unwrap();
    let large = "0123456789".repeat(1_000);
    for _ in 0..3 {
        assert_eq!(talk.ask(&large).unwrap().server, "web");
        talk.ask("small").unwrap();
    }
    scene.client.dial(scene.web.at(ip, PORT)).udp().unwrap().ask(&large).unwrap();
}

/// A host behind the outside one, by a link whose near end takes less than its far end.
struct Far {
    namespace: Namespace,
    servers: Servers,
}

const FAR: Actor = Actor {
    name: "far",
    v4: std::net::Ipv4Addr::new(198, 51, 100, 2),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2),
    mac: *b"\x02far_1",
};

impl Far {
    fn behind(scene: &Scene, mtu: u16) -> Self {
        let outside = scene.node.outside().namespace();
        let path = std::path::Path::new("/run/netplug-tests/far");
        let namespace = scene.node.namespace().sibling(FAR.name, path);
        for sysctl in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            outside.set_sysctl(sysctl, "1");
        }
        let cable = path.display();
        outside.feed(
            "ip -batch -",
            &format!(
                "link add far mtu {mtu} type veth peer name eth0 netns {cable}\n\
                 address add 198.51.100.1/24 dev far\n\
                 address add 2001:db8:2::1/64 dev far nodad\n\
                 link set far up\n"
            ),
        );
        namespace.feed(
            "ip -batch -",
            &format!(
                "link set eth0 mtu 1500 up\n\
                 address add {}/24 dev eth0\n\
                 address add {}/64 dev eth0 nodad\n\
                 route add default via 198.51.100.1\n\
                 route add default via 2001:db8:2::1\n",
                FAR.v4, FAR.v6
            ),
        );
        Self { namespace, servers: Servers::default() }
    }

    fn listening(self, port: u16) -> Self {
        for family in Family::BOTH {
            let at = std::net::SocketAddr::new(FAR.ip(family), port);
            self.servers.start(&self.namespace, FAR.name, at);
        }
        self
    }
}

/// Without the error that says so, a pod would send too long packets for ever.
#[rstest]
fn a_pod_learns_of_a_narrow_link_far_away(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let _far = Far::behind(&scene, 1300).listening(PORT);
    let to = std::net::SocketAddr::new(FAR.ip(ip), PORT);
    let mut talk = scene.client.dial(to).tcp().unwrap();
    talk.ask_times(20).unwrap();
    talk.send_bulk(1_000_000).unwrap();
    talk.fetch_bulk(1_000_000).unwrap();
    talk.close().unwrap();
    let flag = if ip == V4 { "-4" } else { "-6" };
    let route = scene.client.namespace().run(&format!("ip {flag} route get {}", to.ip()));
    assert!(route.contains("mtu 1300"), "{route}");
}

#[rstest]
fn a_pod_traces_its_way(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let _far = Far::behind(&scene, 1500);
    let client = scene.client.namespace();
    for (hops, name, who) in [(1, "the node", GATEWAY), (2, "the router", OUTSIDE)] {
        let found = trace(client, FAR.ip(ip), 3_000, hops, PATIENCE);
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, who.ip(ip), "{name}");
    }
    ping(client, FAR.ip(ip), 3_000, 8, PATIENCE).unwrap();
}

#[rstest]
fn a_closed_port_outside_refuses(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let to = std::net::SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut udp = scene.client.dial(to).udp().unwrap();
    assert_eq!(udp.ask("anyone?").unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// The pod has no socket for an answer that comes: whoever answers hears of it.
#[rstest]
fn a_pod_refuses_what_it_does_not_wait_for(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let (client, web) = (actor(&scene.client), actor(&scene.web));
    // Whatever MAC it is sent to, it is brought to the gateway.
    let question =
        eth(client, web) / packet::ip(ip, client, OUTSIDE) / udp(20_000, PORT) / payload(b"?");
    let before = Counters::of(&scene.node);
    send_frame(scene.client.namespace(), "eth0", &question.bytes()).unwrap();
    becomes(SOON, 1, || {
        let file = if ip == V4 { "snmp" } else { "snmp6" };
        let path = format!("/proc/thread-self/net/{file}");
        let outside = scene.node.outside().namespace();
        refusals(&outside.enter(|| std::fs::read_to_string(path)).unwrap(), ip)
    });
    assert_eq!(Counters::of(&scene.node).since(&before).drops(), 0);
}

/// "Destination unreachable" messages that came in.
fn refusals(text: &str, ip: Family) -> u64 {
    if ip == V6 {
        let mut words = text.split_whitespace().skip_while(|word| *word != "Icmp6InDestUnreachs");
        return words.nth(1).and_then(|count| count.parse().ok()).expect("Linux counts them");
    }
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut counts = names.split_whitespace().zip(values.split_whitespace());
    let count = counts.find(|(name, _)| *name == "InDestUnreachs").map(|(_, count)| count);
    count.and_then(|count| count.parse().ok()).expect("Linux counts them")
}
