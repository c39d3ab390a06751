//! Flows of a HostPort beside others of the same ports.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use netplug_common::counter::Counter;
use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::mappings;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Dial, IMPATIENCE, PATIENCE, Talk};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, with_host_ports};

const HOST_PORT: u16 = 9_000;
const CALLER: u16 = 5_000;

fn node_and_web(steering: Steering) -> (Node, Pod) {
    let node = Node::with(steering.network());
    let web = node.add_pod_to("web", &with_host_ports(steering.network(), &[(HOST_PORT, PORT)]));
    (node, web.listening(PORT))
}

fn at(ip: Family) -> SocketAddr {
    SocketAddr::new(NODE_1.ip(ip), HOST_PORT)
}

/// From the port that its server had. What other tests run at this moment may hold the server's socket for a while.
fn speak(web: &Pod, to: SocketAddr) -> Talk {
    eventually(SOON, || web.dial(to).from_port(PORT).udp())
}

/// A connection that was silent for longer than its mapping lives, as the kernel's `portmap` has it.
#[rstest]
fn a_connection_outlives_its_mapping(#[values(V4, V6)] ip: Family) {
    let (node, web) = node_and_web(Always);
    let mut talk = node.outside().dial(at(ip)).tcp().unwrap();
    talk.ask("who?").unwrap();
    mappings::end_all(node.namespace());
    assert_eq!(web.servers().speak("unasked"), 1);
    assert_eq!(talk.hear_line().unwrap().trim_end(), "unasked");
    assert_eq!(talk.ask("still?").unwrap().server, "web");
}

/// Whom it answers knows the node only.
#[rstest]
fn what_a_pod_sends_late_comes_from_the_node(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let (node, web) = node_and_web(steering);
    let dial = node.outside().dial(at(ip)).from_port(CALLER);
    let mut caller = dial.udp().unwrap();
    caller.ask("who?").unwrap();
    mappings::end_all(node.namespace());
    web.servers().stop();
    let to = SocketAddr::new(OUTSIDE.ip(ip), CALLER);
    let mut pods = speak(&web, to);
    for number in 0..10 {
        let (late, answer) = (format!("late {number}"), format!("answer {number}"));
        pods.say(&late).unwrap();
        assert_eq!(caller.hear_line().unwrap().trim_end(), late);
        caller.say(&answer).unwrap();
        assert_eq!(pods.hear_line().unwrap().trim_end(), answer);
    }
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// A port that is open no more is not answered by.
#[rstest]
fn what_a_pod_sends_late_comes_from_another_port_where_the_port_is_closed(
    #[values(V4, V6)] ip: Family,
) {
    let (node, web) = node_and_web(Always);
    let socket = node.outside().namespace().enter(|| {
        let socket = UdpSocket::bind((OUTSIDE.ip(ip), CALLER)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who?\n", at(ip)).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 100]).unwrap().1, at(ip));
        socket
    });
    mappings::end_all(node.namespace());
    assert!(Table::HostPorts.forget(node.namespace(), 1, &mut 1) > 0);
    web.servers().stop();
    let to = SocketAddr::new(OUTSIDE.ip(ip), CALLER);
    speak(&web, to).say("anew").unwrap();
    let from = socket.recv_from(&mut [0; 100]).unwrap().1;
    assert_eq!(from, SocketAddr::new(NODE_1.ip(ip), PORT));
}

/// By masquerade it was another port of the node's; who calls the HostPort is answered by that.
#[rstest]
fn whom_the_pod_spoke_to_first_may_call(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let (node, web) = node_and_web(steering);
    web.servers().stop();
    let socket = node.outside().namespace().enter(|| {
        let socket = UdpSocket::bind((OUTSIDE.ip(ip), CALLER)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    let to = SocketAddr::new(OUTSIDE.ip(ip), CALLER);
    let mut pods = speak(&web, to);
    for _ in 0..10 {
        pods.say("first").unwrap();
        let from = socket.recv_from(&mut [0; 100]).unwrap().1;
        assert_eq!(from, SocketAddr::new(NODE_1.ip(ip), PORT));
        socket.send_to(b"yes\n", from).unwrap();
        pods.hear_line().unwrap();
    }
    for _ in 0..10 {
        socket.send_to(b"call\n", at(ip)).unwrap();
        assert_eq!(pods.hear_line().unwrap().trim_end(), "call");
        pods.say("answer").unwrap();
        assert_eq!(socket.recv_from(&mut [0; 100]).unwrap().1, at(ip));
    }
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// The pod could not tell it from the other, and would break that.
#[rstest]
fn a_call_by_the_port_of_a_direct_connection_is_refused_and_that_one_lives(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Direct)] steering: Steering,
) {
    let (node, web) = node_and_web(steering);
    let client = node.add_pod("client");
    let mut direct = client.dial(web.at(ip, PORT)).from_port(CALLER).tcp().unwrap();
    direct.ask_times(20).unwrap();
    let call = client.dial(at(ip)).from_port(CALLER).patience(IMPATIENCE);
    assert_eq!(call.tcp().map(drop).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(Counters::of(&node).get(Counter::TupleInUse) > 0);
    direct.ask_times(20).unwrap();
    // Another port is another connection.
    client.dial(at(ip)).from_port(CALLER + 1).tcp().unwrap().ask_times(20).unwrap();
}

/// It left by that port before it was a HostPort, and NAT_IN has lost it.
#[rstest]
fn a_pods_connection_by_a_port_that_was_opened_later_finds_back(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut talk = client.dial(to).from_port(HOST_PORT).tcp().unwrap();
    assert_eq!(talk.ask("by which?").unwrap().client.port(), HOST_PORT);
    let _web = node
        .add_pod_to("web", &with_host_ports(steering.network(), &[(HOST_PORT, PORT)]))
        .listening(PORT);
    for number in 0..10 {
        Table::NatIn.forget(node.namespace(), 1, &mut 1);
        Table::Flows.forget(node.namespace(), 1, &mut 1);
        // The outside speaks first: nothing of the pod's heals it.
        assert_eq!(node.outside().servers().speak("unasked"), 1, "{number}");
        assert_eq!(talk.hear_line().unwrap().trim_end(), "unasked");
    }
    assert_eq!(talk.ask("still?").unwrap().server, OUTSIDE.name);
    // Who calls the port reaches the pod.
    let answer = node.outside().dial(at(ip)).ask(Tcp, "who?").unwrap();
    assert_eq!(answer.server, "web");
    assert_eq!(node.outside().dial(at(ip)).ask(Udp, "who?").unwrap().server, "web");
}

/// Who calls, one port for all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Pod,
    Outside,
    /// One whom pods speak with as themselves: nothing of its calls is noted.
    Intranet,
}

impl Caller {
    fn dial<'n>(self, node: &'n Node, client: &'n Pod, to: SocketAddr) -> Dial<'n> {
        let dial = match self {
            Self::Pod => client.dial(to),
            Self::Outside => node.outside().dial(to),
            Self::Intranet => node.outside().dial(to).from_ip(INTRANET.ip(Family::of(to.ip()))),
        };
        dial.from_port(CALLER)
    }
}

/// The port was the HostPort's caller's, long ago.
#[rstest]
fn a_direct_call_is_answered_where_the_ports_flow_has_ended(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
    #[values(Caller::Pod, Caller::Outside, Caller::Intranet)] caller: Caller,
) {
    let (node, web) = node_and_web(steering);
    let client = node.add_pod("client");
    let mut talk = caller.dial(&node, &client, at(ip)).open(protocol).unwrap();
    talk.ask_times(3).unwrap();
    talk.close().unwrap();
    mappings::age(node.namespace(), 200);
    node.netplug("flush");
    let mut direct = caller.dial(&node, &client, web.at(ip, PORT)).open(protocol).unwrap();
    assert_eq!(direct.ask_times(20).unwrap().server, "web");
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// A connection that has closed is no twin.
#[rstest]
fn what_has_closed_makes_way_for_a_call_by_the_other_way(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always, Direct)] steering: Steering,
    #[values(Caller::Pod, Caller::Outside, Caller::Intranet)] caller: Caller,
    #[values(true, false)] is_direct_first: bool,
) {
    let (node, web) = node_and_web(steering);
    let client = node.add_pod("client");
    let mut ways = [web.at(ip, PORT), at(ip)];
    if !is_direct_first {
        ways.reverse();
    }
    for to in ways {
        let mut talk = caller.dial(&node, &client, to).tcp().unwrap();
        talk.ask_times(5).unwrap();
        talk.close().unwrap();
    }
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// Where all is lost while a connection opens, the pod's acceptance looks like one of a direct call.
#[rstest]
fn a_connection_whose_halves_are_lost_while_it_opens_opens(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let (node, web) = node_and_web(steering);
    let table = if ip == V4 { "ip" } else { "ip6" };
    let rules = format!(
        "add table {table} slow\n\
         add chain {table} slow out {{ type filter hook output priority 0; }}\n\
         add rule {table} slow out tcp flags syn,ack / syn,ack drop\n"
    );
    web.namespace().feed("nft -f -", &rules);
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let dial = node.outside().dial(at(ip)).from_port(CALLER);
            dial.patience(4 * PATIENCE).ask(Tcp, "slowly")
        });
        eventually(SOON, || match mappings::count(node.namespace(), ip) {
            [2, 1] => Ok(()),
            counts => Err(counts),
        });
        Table::NatIn.forget(node.namespace(), 1, &mut 1);
        Table::NatOut.forget(node.namespace(), 1, &mut 1);
        web.namespace().run(&format!("nft delete table {table} slow"));
        call.join().unwrap()
    });
    assert_eq!(answer.unwrap().server, "web");
}
