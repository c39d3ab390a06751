//! Echo, errors and fragments: what has no ports, or not all of them, visits the host and works.

use std::io::ErrorKind;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE};
use netplug_tests::traffic::{PATIENCE, ping};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, Scene};

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
