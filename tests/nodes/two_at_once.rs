//! Both ends of a flow, or two parts of one, at the same time, on a CPU each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Barrier;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::pod::Pod;
use netplug_tests::rules;
use netplug_tests::rules::Service;
use netplug_tests::traffic::PATIENCE;
use netplug_tests::traffic::Protocol::Tcp;
use rstest::rstest;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::scene::Scene;
use crate::scene::Steering::{self, Always, Direct, Learn};

const FROM: u16 = 5_001;
const TO: u16 = 5_002;

/// Has the calling thread run on one CPU: another for `false` than for `true`, where there are two.
fn pin(first: bool) {
    let allowed = sched_getaffinity(None).expect("a thread has CPUs");
    let mut all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let cpu = if first { all.next() } else { all.next_back() };
    let mut one = CpuSet::new();
    one.set(cpu.expect("it runs on one"));
    sched_setaffinity(None, &one).expect("it is allowed");
}

/// Returns once a pod has a connection that waits for the other end (`TCP_SYN_SENT`, include/net/tcp_states.h).
fn calls(pod: &Pod) {
    eventually(SOON, || {
        let sockets = pod.namespace().run("cat /proc/net/tcp /proc/net/tcp6");
        let mut states = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
        if states.any(|state| state == "02") { Ok(()) } else { Err(sockets.clone()) }
    });
}

/// RFC 9293 §3.5: neither listens, both call, and the calls cross.
#[rstest]
fn two_that_call_each_other_have_one_connection(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let (one, other) = (&scene.client, &scene.web);
    let drop_calls = "add table inet late\n\
         add chain inet late in { type filter hook input priority 0; }\n\
         add rule inet late in tcp flags syn drop\n";
    for pod in [one, other] {
        pod.namespace().feed("nft -f -", drop_calls);
    }
    let mut talks = std::thread::scope(|scope| {
        let call = |from: &'static str, to: SocketAddr, port: u16| {
            let pod = if from == "one" { one } else { other };
            scope.spawn(move || pod.dial(to).from_port(port).patience(3 * PATIENCE).open(Tcp))
        };
        let calls_begun =
            [call("one", other.at(ip, TO), FROM), call("other", one.at(ip, FROM), TO)];
        calls(one);
        calls(other);
        for pod in [one, other] {
            pod.namespace().run("nft delete table inet late");
        }
        calls_begun.map(|call| call.join().expect("no panic").expect("the calls meet"))
    });
    let [here, there] = &mut talks;
    for number in 0..50 {
        here.say(&number.to_string()).unwrap();
        assert_eq!(there.hear_line().unwrap(), format!("{number}\n"));
        there.say(&format!("{number} too")).unwrap();
        assert_eq!(here.hear_line().unwrap(), format!("{number} too\n"));
    }
}

/// Octets that tell where they are of a stream.
fn content(length: usize, whose: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ whose).collect()
}

/// Sends all that is `whose`, and hears all of the other's meanwhile.
fn speak(mut stream: TcpStream, whose: u8) {
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let mut write = stream.try_clone().expect("there are descriptors");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(whose == 0);
            write.write_all(&content(200_000, whose)).expect("it is heard");
        });
        let mut heard = vec![0; 200_000];
        stream.read_exact(&mut heard).expect("it is said");
        assert!(heard == content(200_000, 0xff ^ whose), "not what was said");
    });
}

/// What each direction forgets of the other as it is learned must not be what was learned just now.
#[rstest]
fn both_directions_are_learned_at_once(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let at = scene.web.at(ip, 5_003);
    let service = Service::new(netplug_tests::traffic::Protocol::Tcp, 80, &[at]);
    rules::serve(scene.node.namespace(), std::slice::from_ref(&service));
    let listener = scene.web.namespace().enter(|| TcpListener::bind(at)).unwrap();
    let before = Counters::of(&scene.node);
    for _ in 0..100 {
        let here = scene.client.namespace().enter(|| TcpStream::connect(service.at)).unwrap();
        let (there, _) = listener.accept().unwrap();
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            for (stream, whose) in [(here, 0), (there, 0xff)] {
                let both = &both;
                scope.spawn(move || {
                    both.wait();
                    speak(stream, whose);
                });
            }
        });
    }
    let now = Counters::of(&scene.node).since(&before);
    assert!(now.hits() > 2 * now.visits(), "{now:?}");
    assert_eq!(now.drops(), 0, "{now:?}");
}

/// One socket, two threads.
#[rstest]
fn one_flow_may_be_on_two_cpus(#[values(V4, V6)] ip: Family) {
    const EACH: u32 = 20_000;
    let scene = Scene::steered(Learn);
    let at = scene.web.at(ip, 5_004);
    let service = Service::new(netplug_tests::traffic::Protocol::Udp, 80, &[at]);
    rules::serve(scene.node.namespace(), std::slice::from_ref(&service));
    let receiver = scene.web.namespace().enter(|| UdpSocket::bind(at)).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let any = match ip {
        V4 => Ipv4Addr::UNSPECIFIED.into(),
        V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sender =
        scene.client.namespace().enter(|| UdpSocket::bind(SocketAddr::new(any, 0))).unwrap();
    sender.connect(service.at).unwrap();
    let before = Counters::of(&scene.node);
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let next = std::sync::Mutex::new(may_go_on);
    let mut heard = [0; 2];
    std::thread::scope(|scope| {
        for whose in [0_u32, 1] {
            let (sender, next) = (&sender, &next);
            scope.spawn(move || {
                pin(whose == 0);
                for number in 0..EACH {
                    // No more are under way than the receiver has room for.
                    next.lock().expect("no panic").recv().expect("it is heard");
                    sender.send(&(number << 1 | whose).to_be_bytes()).expect("there is a way");
                }
            });
        }
        (0..64).for_each(|_| go_on.send(()).expect("they wait"));
        for _ in 0..2 * EACH {
            let mut octets = [0; 4];
            assert_eq!(receiver.recv(&mut octets).expect("none is lost"), 4);
            let number = u32::from_be_bytes(octets);
            let of_its = &mut heard[(number & 1) as usize];
            // Of one thread's each comes once, if not in turn: one that visits takes longer.
            *of_its += u64::from(number >> 1);
            let _ = go_on.send(());
        }
    });
    let all = u64::from(EACH) * u64::from(EACH - 1) / 2;
    assert_eq!(heard, [all, all]);
    let now = Counters::of(&scene.node).since(&before);
    assert!(now.hits() > u64::from(EACH), "{now:?}");
}
