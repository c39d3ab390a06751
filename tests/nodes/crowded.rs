//! More flows than the flow cache has room for.

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::Udp;
use rstest::rstest;

use crate::scene::PORT;
use crate::scene::Steering::Learn;

/// Entries, and flows of two directions each.
const ROOM: u32 = 512;
const FLOWS: usize = 1_024;

/// By turns, so that a cache that takes in whatever comes has displaced each flow before its next packet.
#[rstest]
fn those_that_have_room_keep_it(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Learn.network().with("flowCache", ROOM));
    let (client, web) = (node.add_pod("client"), node.add_pod("web"));
    web.listen(PORT);
    let dial = || client.dial(web.at(ip, PORT)).open(Udp).expect("there are ports");
    let mut talks: Vec<_> = (0..FLOWS).map(|_| dial()).collect();
    let mut ask_all =
        || talks.iter_mut().for_each(|talk| drop(talk.ask("hello").expect("answered")));
    // Taken in at first, and, since conntrack is to see datagrams again, some once more.
    (0..3).for_each(|_| ask_all());
    let before = Counters::of(&node);
    (0..4).for_each(|_| ask_all());
    let since = Counters::of(&node).since(&before);
    let hits = since.get(Counter::Hit);
    // A quarter of them has room.
    assert!(hits > 8 * FLOWS as u64 / 8, "{hits} hits");
    assert!(since.get(Counter::Crowded) > 0);
}

/// What had no room gets it when others have gone.
#[rstest]
fn those_that_had_none_get_it_later(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Learn.network().with("flowCache", 16));
    let (client, web) = (node.add_pod("client"), node.add_pod("web"));
    web.listen(PORT);
    let dial = || client.dial(web.at(ip, PORT)).open(Udp).expect("there are ports");
    let mut others: Vec<_> = (0..32).map(|_| dial()).collect();
    others.iter_mut().for_each(|talk| drop(talk.ask("hello").expect("answered")));
    let mut talk = dial();
    eventually(SOON, || {
        let before = Counters::of(&node);
        talk.ask_times(10).map_err(|error| error.to_string())?;
        let hits = Counters::of(&node).since(&before).get(Counter::Hit);
        if hits >= 18 { Ok(()) } else { Err(format!("{hits} of 20 packets were hits")) }
    });
}
