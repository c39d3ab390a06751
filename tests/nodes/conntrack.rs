//! The host's conntrack sees every connection begin and end.

use std::net::SocketAddr;
use std::time::Duration;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::OUTSIDE;
use netplug_tests::eventually::eventually;
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
