//! What the host's firewall forbids stays forbidden, learned or not.

use std::time::{Duration, Instant};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::counters::{Counters, flows};
use netplug_tests::eventually::eventually;
use netplug_tests::rules;
use netplug_tests::traffic::IMPATIENCE;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, Scene};

/// A short one, so that a test can wait for it.
const REVISIT: Duration = Duration::from_secs(2);

#[rstest]
fn a_flow_that_is_dropped_is_never_learned(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let (from, to) = (scene.client.ip(ip), scene.web.ip(ip));
    rules::forbid(scene.node.namespace(), from, to);
    let before = Counters::of(&scene.node);
    for _ in 0..3 {
        scene
            .client
            .dial(scene.web.at(ip, PORT))
            .patience(IMPATIENCE)
            .ask(protocol, "may I?")
            .unwrap_err();
    }
    let now = Counters::of(&scene.node).since(&before);
    assert!(now.visits() >= 3, "{now:?}");
    let learned: Vec<_> =
        flows(&scene.node).into_iter().filter(|flow| flow.is_between(from, to)).collect();
    assert!(learned.is_empty(), "{learned:?}");
    rules::allow(scene.node.namespace(), from, to);
    scene.client.dial(scene.web.at(ip, PORT)).ask(protocol, "may I?").unwrap();
}

#[rstest]
fn a_new_rule_takes_effect_within_revisit(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::new(Learn.network().with("revisit", "2s"));
    let dial = scene.client.dial(scene.web.at(ip, PORT)).patience(Duration::from_millis(200));
    let mut talk = dial.open(protocol).unwrap();
    talk.ask_times(20).unwrap();
    rules::forbid(scene.node.namespace(), scene.client.ip(ip), scene.web.ip(ip));
    let start = Instant::now();
    let (from, to) = (scene.client.ip(ip), scene.web.ip(ip));
    eventually(REVISIT * 3, || match talk.ask("still?") {
        // Nothing but the rule may have kept the answer away.
        Err(_) if rules::forbidden(scene.node.namespace(), from, to) > 0 => Ok(()),
        other => Err(other),
    });
    // Jitter included, and the client's own patience.
    assert!(
        start.elapsed() < REVISIT * 3 / 2 + Duration::from_secs(1),
        "after {:?}",
        start.elapsed()
    );
}

#[rstest]
fn a_new_rule_takes_effect_at_once_after_a_flush(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    let dial = scene.client.dial(scene.web.at(ip, PORT)).patience(IMPATIENCE);
    let mut talk = dial.open(protocol).unwrap();
    talk.ask_times(20).unwrap();
    rules::forbid(scene.node.namespace(), scene.client.ip(ip), scene.web.ip(ip));
    scene.node.netplug("flush");
    talk.ask("still?").unwrap_err();
}

/// TCP only: a datagram may be an answer that the host must translate back, so UDP visits once in any case.
#[rstest]
fn with_steering_direct_connections_do_not_ask_the_host(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Direct);
    rules::forbid(scene.node.namespace(), scene.client.ip(ip), scene.web.ip(ip));
    scene.client.dial(scene.web.at(ip, PORT)).ask(Tcp, "may I?").unwrap();
}
