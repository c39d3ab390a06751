//! How programs are made up.

use netplug_tests::cast::Family;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::place::Place::{Far, Forbidden, Intranet, Node, Nowhere, OtherPod, Outside, Pod};
use crate::place::Way;
use crate::program::{Datagrams, End, Identifier, Port, Probe, Program, SLOTS, Source, Step};

/// Programs of `family`: some acts, each in a slot of its own, and in which order their steps come.
pub fn program(family: Family) -> impl Strategy<Value = Program> {
    let v6 = family == Family::V6;
    let acts = vec(act(family), 1..=usize::from(SLOTS));
    let order = vec(any::<prop::sample::Index>(), 24);
    (acts, order, prop::bool::weighted(0.2)).prop_map(move |(acts, order, is_crowded)| {
        let acts = acts.into_iter().zip(0..).map(|(act, slot)| act.in_slot(slot).into_iter());
        let mut acts: Vec<_> = acts.collect();
        let mut steps = Vec::new();
        for index in order {
            acts.retain(|act| act.len() > 0);
            if acts.is_empty() {
                break;
            }
            let act = index.index(acts.len());
            steps.extend(acts[act].next());
        }
        if is_crowded {
            steps.iter_mut().for_each(crowd);
        }
        keep_hosts_ports(&mut steps);
        Program { v6, steps }
    })
}

/// Has whoever speaks to the outside speak to one server, by one port.
fn crowd(step: &mut Step) {
    if let Step::Connect { way, from, .. } | Step::Open { way, from, .. } = step
        && way.may_change_ports()
        && way.to.is_somewhere()
    {
        way.to = Outside;
        *from = Source::Chosen(5_000);
    }
}

/// Takes out what frees a port of the host's that a pod may have then. netplug goes by the host's sockets: a port is free for pods
/// as soon as its socket is gone. conntrack keeps the flow for a while, and with it the port.
fn keep_hosts_ports(steps: &mut Vec<Step>) {
    let hosts: Vec<u8> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Open { slot, way, from: Source::Chosen(_), .. } if way.from == Node => {
                Some(*slot)
            }
            _ => None,
        })
        .collect();
    steps.retain(|step| !matches!(step, Step::Forget { slot } if hosts.contains(slot)));
}

/// Steps that belong together.
#[derive(Debug, Clone)]
struct Act(Vec<Step>);

impl Act {
    fn in_slot(self, own: u8) -> Vec<Step> {
        let set = |mut step| {
            match &mut step {
                Step::Connect { slot, .. }
                | Step::Write { slot, .. }
                | Step::HalfClose { slot, .. }
                | Step::Close { slot, .. }
                | Step::Reset { slot, .. }
                | Step::Reconnect { slot, .. }
                | Step::Open { slot, .. }
                | Step::Send { slot, .. }
                | Step::Burst { slot, .. }
                | Step::Limit { slot, .. }
                | Step::Forget { slot } => *slot = own,
                Step::Echo { .. } | Step::Trace { .. } => {}
            }
            step
        };
        self.0.into_iter().map(set).collect()
    }
}

fn act(family: Family) -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (connect(), vec(about_connection(), 0..7)).prop_map(one_after_the_other),
        4 => (open(family), vec(about_flow(), 1..7)).prop_map(one_after_the_other),
        2 => vec(prop_oneof![2 => echo(), 1 => trace()], 1..4).prop_map(Act),
    ]
}

fn one_after_the_other((first, others): (Step, Vec<Step>)) -> Act {
    Act(std::iter::once(first).chain(others).collect())
}

fn connect() -> impl Strategy<Value = Step> {
    (way(), port(), source()).prop_map(|(way, to, from)| Step::Connect { slot: 0, way, to, from })
}

fn about_connection() -> impl Strategy<Value = Step> {
    let slot = 0;
    prop_oneof![
        6 => (end(), write()).prop_map(move |(by, size)| Step::Write { slot, by, size }),
        1 => end().prop_map(move |by| Step::HalfClose { slot, by }),
        1 => end().prop_map(move |by| Step::Close { slot, by }),
        1 => end().prop_map(move |by| Step::Reset { slot, by }),
        2 => end().prop_map(move |first| Step::Reconnect { slot, first }),
        1 => connect(),
    ]
}

fn open(family: Family) -> impl Strategy<Value = Step> {
    (way(), port(), source(), datagrams(family)).prop_map(|(way, to, from, kind)| Step::Open {
        slot: 0,
        way,
        to,
        from,
        kind,
    })
}

fn about_flow() -> impl Strategy<Value = Step> {
    let slot = 0;
    prop_oneof![
        12 => (end(), datagram()).prop_map(move |(by, size)| Step::Send { slot, by, size }),
        1 => (2u8..20, 1u16..1_300)
            .prop_map(move |(count, size)| Step::Burst { slot, count, size }),
        1 => select(vec![1, 2, 3, 64]).prop_map(move |hops| Step::Limit { slot, hops }),
        1 => Just(Step::Forget { slot }),
    ]
}

fn end() -> impl Strategy<Value = End> {
    select(vec![End::Client, End::Server])
}

fn port() -> impl Strategy<Value = Port> {
    prop_oneof![9 => Just(Port::Listening), 1 => Just(Port::Closed)]
}

/// Chosen ports: a common one, one of the privileged, one of NodePorts, and one that the node's own sockets get.
fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Free),
        select(vec![5_000, 5_000, 5_000, 700, 31_000, 40_000]).prop_map(Source::Chosen)
    ]
}

fn way() -> impl Strategy<Value = Way> {
    let mut ways = Vec::new();
    for pod in [Pod, OtherPod] {
        let often = [Outside; 5].into_iter().chain([Far; 3]);
        let seldom = [Intranet, Intranet, Node, Nowhere, Forbidden];
        ways.extend(often.chain(seldom).map(|to| Way::straight(pod, to)));
        ways.extend([Outside, Far, Intranet, Node].map(|from| Way::straight(from, pod)));
        ways.extend([Outside, Far].map(|from| Way { from, to: pod, by_host_port: true }));
    }
    ways.extend([Way::straight(Pod, OtherPod), Way::straight(OtherPod, Pod)]);
    // The node may want a port that a pod's flow has.
    ways.extend([Outside, Outside, Far].map(|to| Way::straight(Node, to)));
    select(ways)
}

fn write() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), 1u32..3_000, Just(1_448), Just(65_536), 3_000u32..100_000]
}

/// Sizes at the edges of the links' MTUs, with headers of either family, and of what a datagram may be.
fn datagram() -> impl Strategy<Value = u32> {
    let edges = [0, 1, 2, 3, 1_232, 1_252, 1_253, 1_272, 1_273, 1_452, 1_453, 1_472, 1_473];
    let large = [1_480, 8_000, 8_001, 65_000, 65_507, 65_508];
    prop_oneof![
        4 => select(edges.to_vec()),
        2 => 0u32..1_500,
        1 => select(large.to_vec()),
    ]
}

fn datagrams(family: Family) -> impl Strategy<Value = Datagrams> {
    let v4 = family == Family::V4;
    let class = select(vec![0, 0x28, 0xb8]);
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), class).prop_map(
        move |(checksum, whole, record_route, class)| Datagrams {
            checksum: checksum || !v4,
            whole,
            record_route: record_route && v4,
            class,
        },
    )
}

fn echo() -> impl Strategy<Value = Step> {
    let identifier = prop_oneof![
        (0u8..2).prop_map(Identifier::OfProgram),
        any::<u16>().prop_map(Identifier::Chosen)
    ];
    (way(), identifier, datagram()).prop_map(|(way, identifier, size)| {
        let way = Way { by_host_port: false, ..way };
        // A reply that the way back is too narrow for is lost; whoever asked cannot know.
        let size = if way.from == Far { size.min(1_252) } else { size.min(65_507) };
        Step::Echo { way, identifier, size }
    })
}

fn trace() -> impl Strategy<Value = Step> {
    let ways = [Pod, OtherPod]
        .into_iter()
        .flat_map(|pod| [Outside, Far, Intranet].map(|to| Way::straight(pod, to)))
        .chain([Outside, Far].map(|from| Way::straight(from, Pod)));
    let probe = select(vec![Probe::Tcp, Probe::Udp, Probe::Echo]);
    (select(ways.collect::<Vec<_>>()), probe, 1u8..4).prop_map(|(way, by, hops)| Step::Trace {
        way,
        by,
        hops,
    })
}
