//! One source port, two ways to the same pod: by its service and by its own address.

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{PORT, Proxy, Scene};

/// Which of the two opens first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    ByService,
    ByAddress,
}

#[rstest]
fn one_source_port_may_be_used_for_both_at_once(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(First::ByService, First::ByAddress)] first: First,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let (service, address) = (scene.service(ip), scene.web.at(ip, PORT));
    let order = if first == First::ByService { [service, address] } else { [address, service] };
    let mut talks = order.map(|to| {
        let mut talk = scene.client.dial(to).from_port(20_000).open(protocol).unwrap();
        talk.ask_times(20).unwrap();
        talk
    });
    for number in 0..100 {
        for talk in &mut talks {
            assert_eq!(talk.ask(&number.to_string()).unwrap().server, "web");
        }
    }
}

#[rstest]
fn a_source_port_may_be_used_again_at_once(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let scene = Scene::served_by(steering.network(), proxy);
    for number in 0..30 {
        let to = if number % 2 == 0 { scene.service(ip) } else { scene.web.at(ip, PORT) };
        let mut talk = scene.client.dial(to).from_port(20_002).tcp().unwrap();
        talk.ask_times(10).unwrap();
        talk.reset().unwrap();
    }
}

/// The host forgets a flow that netplug still knows, and gives its tuple to a service's client.
#[rstest]
fn a_flow_that_the_host_forgot_makes_room_for_a_services(
    #[values(V4, V6)] ip: Family,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let scene = Scene::served_by(Learn.network(), proxy);
    let by_address = scene.client.dial(scene.web.at(ip, PORT)).from_port(20_003);
    by_address.open(Udp).unwrap().ask_times(20).unwrap();
    scene.node.namespace().run("conntrack -F");
    let mut by_service = scene.client.dial(scene.service(ip)).from_port(20_003).open(Udp).unwrap();
    by_service.ask_times(20).unwrap();
}
