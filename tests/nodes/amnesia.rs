//! No correctness hangs on a map entry being there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::OUTSIDE;
use netplug_tests::mappings;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Dial, IMPATIENCE};
use rstest::rstest;

use crate::scene::Steering::{self, Direct, Learn};
use crate::scene::{PORT, Scene};

/// Asks on five ways at once while `forget` is called over and over.
fn under_load(scene: &Scene, ip: Family, protocol: Protocol, mut forget: impl FnMut() + Send) {
    let outside = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let open = |dial: Dial<'_>| dial.open(protocol).expect("nothing is forgotten yet");
    let talks = [
        open(scene.client.dial(scene.web.at(ip, PORT))),
        open(scene.client.dial(scene.service(ip))),
        open(scene.web.dial(scene.service(ip))),
        open(scene.client.dial(outside)),
        open(scene.node.outside().dial(scene.web.at(ip, PORT))),
    ];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = talks.map(|mut talk| scope.spawn(move || talk.ask_times(8_000)));
        let forgetting = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                forget();
            }
        });
        let answers = asking.map(|thread| thread.join().expect("clients do not panic"));
        done.store(true, Ordering::SeqCst);
        forgetting.join().expect("all maps can be opened");
        for (way, answer) in answers.into_iter().enumerate() {
            answer.unwrap_or_else(|error| panic!("way {way}: {error}"));
        }
    });
}

/// One half of NAT: both at once is a restart, which no mapping survives.
#[rstest]
fn entries_may_vanish_at_random_under_load(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Direct)] steering: Steering,
    #[values(Table::NatOut, Table::NatIn)] half: Table,
) {
    let scene = Scene::steered(steering);
    scene.node.outside().listen(PORT);
    let (mut seed, mut forgotten) = (0x2545_f491, 0);
    let mut halved = Instant::now();
    under_load(&scene, ip, protocol, || {
        let mut forget =
            |table: Table| forgotten += table.forget(scene.node.namespace(), 2, &mut seed);
        forget(Table::Flows);
        forget(Table::Visits);
        // An answer without its half has all halves searched, but not more often than ten times a second.
        if halved.elapsed() > Duration::from_millis(200) {
            forget(half);
            halved = Instant::now();
        }
    });
    assert!(forgotten > 100, "only {forgotten} entries were there to be forgotten");
}

/// What is left of a mapping says whose its port was: since it has ended, the port may have become a socket's of the node.
#[rstest]
fn a_half_that_has_ended_does_not_take_its_port_again(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = scene.client.dial(to).from_port(20_001).udp().unwrap();
    assert_eq!(pod.ask("first").unwrap().client.port(), 20_001);
    mappings::end_all(scene.node.namespace());
    for table in [Table::NatIn, Table::Flows] {
        table.forget(scene.node.namespace(), 1, &mut 1);
    }
    let mut own = Dial::new(scene.node.namespace(), to).from_port(20_001).udp().unwrap();
    assert_eq!(own.ask("meanwhile").unwrap().client.port(), 20_001);
    for number in 0..5 {
        let seen = [&mut own, &mut pod].map(|talk| talk.ask(&number.to_string()).unwrap().client);
        assert_ne!(seen[0], seen[1]);
    }
}

#[rstest]
fn all_flows_and_visits_may_vanish_under_load(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let mut seed = 1;
    under_load(&scene, ip, protocol, || {
        Table::Flows.forget(scene.node.namespace(), 1, &mut seed);
        Table::Visits.forget(scene.node.namespace(), 1, &mut seed);
    });
}

#[rstest]
fn flushing_under_load_breaks_nothing(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    under_load(&scene, ip, protocol, || drop(scene.node.netplug("flush")));
}

/// What is noted of a call from outside may be gone before the host has let it through.
#[rstest]
fn visits_may_vanish_while_connections_open(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let forgetting = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                Table::Visits.forget(scene.node.namespace(), 1, &mut 1);
            }
        });
        let failed: Vec<_> = (0..300)
            .filter(|number| {
                let dial = scene.node.outside().dial(scene.web.at(ip, PORT));
                let dial = dial.from_port(20_000 + number).patience(IMPATIENCE);
                // A datagram may be lost, and is sent again, from the same port; segments are sent again by themselves.
                let mut talk = dial.open(protocol);
                let asked = (0..4).find_map(|_| talk.as_mut().ok()?.ask("hello").ok());
                asked.is_none()
            })
            .collect();
        done.store(true, Ordering::SeqCst);
        forgetting.join().expect("all maps can be opened");
        assert_eq!(failed, Vec::<u16>::new(), "{}", scene.node.netplug("nat"));
    });
}
