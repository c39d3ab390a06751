//! The host's conntrack sees every connection begin and end.

use std::net::SocketAddr;
use std::time::Duration;

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::OUTSIDE;
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::node::Node;
use netplug_tests::rules;
use netplug_tests::traffic::Protocol;
use rstest::rstest;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{PORT, Scene};

#[rstest]
fn five_hundred_connections_leave_none_established(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    scene.node.outside().listen(PORT);
    let outside = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    for number in 0..500 {
        let to = match number % 3 {
            0 => scene.service(ip),
            1 => scene.web.at(ip, PORT),
            _ => outside,
        };
        let mut talk = scene.client.dial(to).tcp().unwrap();
        talk.ask_times(6).unwrap();
        // By FIN from either side first, and by RST from either side.
        match number % 4 {
            0 => talk.close().unwrap(),
            1 => talk.reset().unwrap(),
            2 => {
                talk.say("close").unwrap();
                talk.hear_line().unwrap_err();
            }
            _ => {
                talk.say("reset").unwrap();
                talk.hear_line().unwrap_err();
            }
        }
    }
    let family = if ip == V4 { "ipv4" } else { "ipv6" };
    let list = format!("conntrack -L -f {family} -p tcp --state ESTABLISHED");
    // conntrack keeps what a reset ended for 10 s (`nf_conntrack_tcp_timeout_close`).
    eventually(Duration::from_secs(40), || {
        let established = scene.node.namespace().run(&list);
        if established.is_empty() { Ok(()) } else { Err(established) }
    });
}

/// Seconds that conntrack will remember the established connections for, as it lists them.
fn remembered(scene: &Scene, ip: Family) -> Vec<u64> {
    let family = if ip == V4 { "ipv4" } else { "ipv6" };
    let list = format!("conntrack -L -f {family} -p tcp --state ESTABLISHED");
    let text = scene.node.namespace().run(&list);
    text.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).collect()
}

/// conntrack sees what the server said first, but not that it was acknowledged: that took the short way.
#[rstest]
fn a_connection_whose_server_speaks_first_is_not_forgotten_early(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let mut talk = scene.client.dial(scene.service(ip)).tcp().unwrap();
    for _ in 0..20 {
        // The connection may be accepted some time after it is open here.
        eventually(SOON, || match scene.web.servers().speak("hello") {
            1 => Ok(()),
            heard => Err(heard),
        });
        assert_eq!(talk.hear_line().unwrap(), "hello\n");
    }
    let remembered = remembered(&scene, ip);
    assert_eq!(remembered.len(), 1);
    assert!(remembered[0] > 400_000, "{remembered:?}");
}

/// A flow on the short way tells conntrack of itself once in `revisit` only, and then may be silent.
#[test]
fn a_cached_datagram_flow_is_not_forgotten_sooner_than_another() {
    let scene = Scene::new(Learn.network().with("revisit", "10s"));
    let seconds = |name| {
        let value = scene.node.namespace().sysctl(&format!("net/netfilter/{name}")).unwrap();
        value.parse::<u64>().unwrap()
    };
    assert_eq!(seconds("nf_conntrack_udp_timeout"), 30 + 11);
    assert_eq!(seconds("nf_conntrack_udp_timeout_stream"), 120 + 11);
    assert_eq!(seconds("nf_conntrack_tcp_timeout_close_wait"), 60 + 11);
    assert_eq!(seconds("nf_conntrack_tcp_timeout_fin_wait"), 120 + 11);
    assert_eq!(seconds("nf_conntrack_tcp_timeout_last_ack"), 30 + 11);
}

/// Where the sysctls cannot be set, kube-proxy's rules would drop what of a learned connection conntrack has not seen.
#[rstest]
fn where_conntrack_is_not_liberal_no_connection_is_learned(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let liberal = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
    node.namespace().run(&format!("mount --bind {liberal} {liberal}"));
    node.namespace().run(&format!("mount -o remount,ro,bind {liberal}"));
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    rules::serve(node.namespace(), &rules::Service::both(80, &[web.at(ip, PORT)]));
    let service = rules::Service::new(Protocol::Tcp, 80, &[web.at(ip, PORT)]).at;
    for dial in
        [node.outside().dial(web.at(ip, PORT)), client.dial(web.at(ip, PORT)), client.dial(service)]
    {
        let mut talk = dial.tcp().unwrap();
        talk.ask_times(20).unwrap();
        talk.fetch_bulk(2_000_000).unwrap();
    }
    assert_eq!(Counters::of(&node).get(Counter::Learned), 0);
}
