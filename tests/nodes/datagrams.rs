//! Flows of datagrams, which the host takes up and forgets without a word on the wire.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::NODE_1;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::traffic::IMPATIENCE;
use rstest::rstest;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{NODE_PORT, Scene};

const FLOWS: usize = 16;
/// Between two questions of a flow.
const PACE: Duration = Duration::from_millis(20);

fn conntrack(node: &Namespace, ip: Family, work: &str) -> String {
    let family = if ip == V4 { "ipv4" } else { "ipv6" };
    node.run(&format!("conntrack {work} -f {family} -p udp"))
}

/// kube-proxy has the host forget a service's datagrams when an endpoint goes: the next question tells it all again, so that the
/// answers are the service's still, whenever either asks the host.
#[rstest]
fn answers_find_back_where_the_host_was_made_to_forget(
    #[values(V4, V6)] ip: Family,
    #[values(false, true)] from_outside: bool,
    #[values(Learn, Always)] steering: Steering,
) {
    const REVISIT: Duration = Duration::from_secs(4);
    let scene = Scene::new(steering.network().with("revisit", "4s"));
    let dial = if from_outside {
        scene.node.outside().dial(SocketAddr::new(NODE_1.ip(ip), NODE_PORT))
    } else {
        scene.client.dial(scene.service(ip))
    };
    let mut talks: Vec<_> = (0..FLOWS).map(|_| dial.patience(IMPATIENCE).udp().unwrap()).collect();
    for talk in &mut talks {
        talk.ask_times(20).unwrap();
    }
    conntrack(scene.node.namespace(), ip, "-D");
    let began = Instant::now();
    while began.elapsed() < 2 * REVISIT {
        for talk in &mut talks {
            talk.ask("still the service's?").unwrap();
        }
        std::thread::sleep(PACE);
    }
}

/// conntrack keeps a flow that it takes for a stream longer, and under pressure; it needs to see a packet of it after two seconds.
#[rstest]
fn a_session_is_a_stream_to_the_host(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let mut talks: Vec<_> =
        (0..FLOWS).map(|_| scene.client.dial(scene.service(ip)).udp().unwrap()).collect();
    eventually(SOON, || {
        for talk in &mut talks {
            talk.ask("in session").unwrap();
        }
        let known = conntrack(scene.node.namespace(), ip, "-L");
        let streams = known.lines().filter(|line| line.contains("[ASSURED]")).count();
        if streams == FLOWS { Ok(()) } else { Err(known) }
    });
}
