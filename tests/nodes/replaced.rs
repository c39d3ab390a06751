//! A service proxy that writes all of its rules anew, again and again, while traffic runs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, SERVICE};
use netplug_tests::counters::Counters;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{Service, fillers};
use netplug_tests::traffic::Protocol::{Tcp, Udp};
use netplug_tests::traffic::{Dial, PATIENCE};
use rstest::rstest;

use crate::scene::Steering::Learn;
use crate::scene::{NODE_PORT, PORT, Proxy};

/// How often the rules are replaced.
const TURNS: usize = 4;
/// Other services, so that it takes a while.
const OTHERS: usize = 50;
/// Connections that are there before, by each way.
const CONNECTIONS: usize = 3;

/// Ends the traffic when the test does, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Connections that were opened before all go on, each with the pod that it has.
fn stay(ways: &[Dial<'_>], is_over: &AtomicBool) {
    let open = |dial: &Dial<'_>| dial.tcp().expect("the service is there");
    let mut talks: Vec<_> = ways.iter().flat_map(|dial| [dial; CONNECTIONS]).map(open).collect();
    let ask = |talk: &mut netplug_tests::traffic::Talk| {
        talk.ask_times(10).unwrap_or_else(|error| panic!("a connection broke: {error}"))
    };
    let first: Vec<_> = talks.iter_mut().map(ask).collect();
    while !is_over.load(Ordering::SeqCst) {
        for (talk, first) in talks.iter_mut().zip(&first) {
            let now = ask(talk);
            assert_eq!((&now.server, now.client), (&first.server, first.client));
        }
    }
    talks.into_iter().for_each(|talk| talk.close().expect("both ends are there"));
}

/// Connections come and go.
fn come_and_go(ways: &[Dial<'_>], is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        for dial in ways {
            let went = dial.tcp().and_then(|mut talk| talk.ask_times(5).and(talk.close()));
            went.unwrap_or_else(|error| panic!("a new connection: {error}"));
        }
    }
}

/// A socket that hears whoever speaks to it: nobody does but the service, and of it one pod.
fn is_only_answered_by(client: &Pod, service: SocketAddr, is_over: &AtomicBool) {
    let any = match service {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = client.namespace().enter(|| UdpSocket::bind(SocketAddr::new(any, 0)));
    let socket = socket.expect("there is a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let mut server = None;
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        socket.send_to(format!("{number}\n").as_bytes(), service).expect("there is a way");
        let mut answer = [0; 256];
        let (length, from) = socket.recv_from(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert_eq!(from, service, "{answer}");
        let words: Vec<_> = answer.trim_end().split('\t').map(str::to_owned).collect();
        assert_eq!(words[2], number.to_string(), "{answer}");
        assert_eq!(*server.get_or_insert(words[0].clone()), words[0], "{answer}");
        number += 1;
    }
}

/// What a pod that is in no service gets.
fn count_what_comes(pod: &Pod) -> impl Fn() -> String {
    let rules = "add table inet seen\n\
         add chain inet seen in { type filter hook prerouting priority -300; }\n\
         add rule inet seen in meta l4proto { tcp, udp } counter\n";
    pod.namespace().feed("nft -f -", rules);
    || pod.namespace().run("nft list table inet seen")
}

#[rstest]
fn no_flow_breaks_and_none_goes_astray(
    #[values(V4, V6)] ip: Family,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let node = Node::with(Learn.network());
    let pods = ["a", "b", "c"].map(|name| node.add_pod(name).listening(PORT));
    let stranger = node.add_pod("stranger").listening(PORT);
    let client = node.add_pod("client");
    let seen = count_what_comes(&stranger);
    let others = fillers(ip, OTHERS);
    let write = |backends: &[&Pod]| {
        let backends: Vec<_> = backends.iter().map(|pod| pod.at(ip, PORT)).collect();
        let of = |service: Service| {
            [
                service.clone().node_port(NODE_PORT),
                Service {
                    at: SocketAddr::new(SERVICE.ip(ip), 81),
                    name: format!("{}-local", service.name),
                    ..service.node_port(NODE_PORT + 1).local()
                },
            ]
        };
        let services = Service::both(80, &backends).into_iter().flat_map(of);
        let services: Vec<_> = services.chain(others.iter().cloned()).collect();
        proxy.serve(node.namespace(), &services);
    };
    let service = SocketAddr::new(SERVICE.ip(ip), 80);
    let [a, b, c] = &pods;
    write(&[a, b]);
    let before = Counters::of(&node);
    let node_port = |port| node.outside().dial(SocketAddr::new(NODE_1.ip(ip), port));
    let ways =
        [client.dial(service), node_port(NODE_PORT), node_port(NODE_PORT + 1), a.dial(service)];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| stay(&ways, &is_over));
        scope.spawn(|| come_and_go(&ways, &is_over));
        scope.spawn(|| is_only_answered_by(&client, service, &is_over));
        for now in [[b, c], [c, a], [a, b]].iter().cycle().take(TURNS) {
            write(now);
            for (dial, protocol) in ways.iter().flat_map(|way| [(way, Tcp), (way, Udp)]) {
                let answer = dial.ask(protocol, "who?").expect("an answer");
                let names = now.map(Pod::name);
                assert!(names.contains(&answer.server.as_str()), "{answer}: {names:?}");
            }
        }
    });
    let now = Counters::of(&node).since(&before);
    assert!(now.hits() > now.visits(), "{now:?}");
    assert_eq!(now.drops(), 0, "{now:?}");
    assert!(seen().contains("counter packets 0 "), "{}", seen());
}
