//! The rows of the table: which lanes race against each other. Later work adds its own here.

use std::io;
use std::net::SocketAddr;

use super::engine::{Lane, Outcome};
use super::lanes::{Connections, Datagrams, Requests};
use super::roads::{Bare, Road};
use crate::cast::Family;
use crate::namespace::Namespace;

/// A row: one kind of work, by several lanes. The first lane is what the others are compared with, the second
/// is the first once more (A/A): differences smaller than those two's mean nothing.
#[derive(Debug)]
pub struct Row {
    /// What is done, and what the figures count.
    pub work: &'static str,
    /// Each lane's turns.
    pub lanes: Vec<Outcome>,
}

/// Where all rows are measured.
#[derive(Debug)]
pub struct Places {
    /// What no node network can beat.
    pub bare: Bare,
    /// A node of netplug's.
    pub ours: Road,
    /// Today's node.
    pub today: Road,
}

/// Who takes part in a race.
pub type Lanes<'p> = Vec<Box<dyn Lane + 'p>>;

/// A row before it is measured: the work, and its lanes.
pub type Plan = (&'static str, for<'p> fn(&'p Places, Family) -> io::Result<Lanes<'p>>);

/// All that are measured in each family.
pub const ROWS: [Plan; 8] = [
    ("pod → pod, UDP, ns per packet", pod_to_pod),
    ("pod → service → pod, UDP, ns per packet", pod_to_service),
    ("pod → outside masqueraded, UDP, ns per packet", masqueraded),
    ("pod → outside masqueraded, UDP request and answer, ns each", masqueraded_requests),
    ("pod → outside masqueraded, TCP connect-request-close, ns each", masqueraded_connects),
    ("outside → HostPort → pod, UDP, ns per packet", host_port),
    ("outside → HostPort → pod, TCP connect-request-close, ns each", host_port_connects),
    ("pod → pod, TCP connect-request-close, ns each", connects),
];

/// UDP between two pods of a node.
fn pod_to_pod(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    let mut lanes = bare_datagrams(places, family)?;
    for (name, road) in [("netplug", &places.ours), ("bridge + br_netfilter", &places.today)] {
        let at = road.at(family);
        let (client, server) = pods(road);
        lanes.push(Box::new(Datagrams::new(name, client, server, at, at)?));
    }
    Ok(lanes)
}

/// UDP from a pod by a service to another pod of the node.
fn pod_to_service(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    let mut lanes = bare_datagrams(places, family)?;
    for (name, road) in
        [("netplug", &places.ours), ("bridge + br_netfilter + kube-proxy", &places.today)]
    {
        let (client, server) = pods(road);
        let (to, at) = (road.service(family), road.at(family));
        lanes.push(Box::new(Datagrams::new(name, client, server, to, at)?));
    }
    Ok(lanes)
}

/// UDP over the bare pair, twice.
fn bare_datagrams(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    let Bare { client, server } = &places.bare;
    let at = places.bare.at(family);
    Ok(vec![
        Box::new(Datagrams::new("bare", client, server, at, at)?),
        Box::new(Datagrams::new("bare again", client, server, again(at), again(at))?),
    ])
}

/// UDP from a pod to the outside.
fn masqueraded(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    to_outside(places, family, 9001, |name, client, server, to| {
        Ok(Box::new(Datagrams::new(name, client, server, to, to)?))
    })
}

/// UDP requests from a pod to the outside, one at a time.
fn masqueraded_requests(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    to_outside(places, family, 9003, |name, client, server, to| {
        Ok(Box::new(Requests::new(name, client, server, to, to)?))
    })
}

/// TCP connections from a pod to the outside.
fn masqueraded_connects(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    to_outside(places, family, 9005, |name, client, server, to| {
        Ok(Box::new(Connections::new(name, client, server, to, to)?))
    })
}

/// Lanes from a client to the outside, each to a port of its own from `port` on.
fn to_outside<'p>(
    places: &'p Places,
    family: Family,
    port: u16,
    lane: impl Fn(&str, &'p Namespace, &'p Namespace, SocketAddr) -> io::Result<Box<dyn Lane + 'p>>,
) -> io::Result<Lanes<'p>> {
    let lanes = [
        ("bridge + MASQUERADE", &places.today, port),
        ("bridge + MASQUERADE again", &places.today, port + 1),
        ("netplug", &places.ours, port),
    ];
    let of = |(name, road, port): (&str, &'p Road, u16)| {
        let mut to = road.outside(family);
        to.set_port(port);
        lane(name, road.client.namespace(), road.node.outside().namespace(), to)
    };
    lanes.into_iter().map(of).collect()
}

/// UDP from the outside to a port of the node that leads to a pod.
fn host_port(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    to_host_port(places, family, |name, outside, server, to, at| {
        Ok(Box::new(Datagrams::new(name, outside, server, to, at)?))
    })
}

/// TCP connections from the outside to a port of the node that leads to a pod.
fn host_port_connects(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    to_host_port(places, family, |name, outside, server, to, at| {
        Ok(Box::new(Connections::new(name, outside, server, to, at)?))
    })
}

/// Lanes from the outside to a pod by a HostPort, each to one of its own.
fn to_host_port<'p>(
    places: &'p Places,
    family: Family,
    lane: impl Fn(
        &str,
        &'p Namespace,
        &'p Namespace,
        SocketAddr,
        SocketAddr,
    ) -> io::Result<Box<dyn Lane + 'p>>,
) -> io::Result<Lanes<'p>> {
    let lanes = [
        ("bridge + portmap", &places.today, 0),
        ("bridge + portmap again", &places.today, 1),
        ("netplug", &places.ours, 0),
    ];
    let of = |(name, road, number): (&str, &'p Road, u16)| {
        let (to, at) = road.host_port(family, number);
        lane(name, road.node.outside().namespace(), road.ported.namespace(), to, at)
    };
    lanes.into_iter().map(of).collect()
}

/// TCP connect, request, answer, close between two pods of a node.
fn connects(places: &Places, family: Family) -> io::Result<Lanes<'_>> {
    let Places { bare, ours, today } = places;
    let (pair, own, other) = (bare.at(family), ours.at(family), today.at(family));
    let lanes = [
        ("bridge + br_netfilter", pods(today), other),
        ("bridge + br_netfilter again", pods(today), again(other)),
        ("netplug", pods(ours), own),
        ("bare", (&bare.client, &bare.server), pair),
    ];
    let of = |(name, (client, server), at)| -> io::Result<Box<dyn Lane + '_>> {
        Ok(Box::new(Connections::new(name, client, server, at, at)?))
    };
    lanes.into_iter().map(of).collect()
}

/// The next port, for the second socket of an A/A pair.
fn again(mut at: SocketAddr) -> SocketAddr {
    at.set_port(at.port() + 1);
    at
}

fn pods(road: &Road) -> (&Namespace, &Namespace) {
    (road.client.namespace(), road.server.namespace())
}
