//! The rows of the table: which lanes race against each other. Later work adds its own here.

use std::io;

use super::engine::{Lane, Outcome, Pace, race};
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

/// UDP between two pods of a node.
pub fn pod_to_pod(
    family: Family,
    pace: Pace,
    bare: &Bare,
    ours: &Road,
    today: &Road,
) -> io::Result<Row> {
    let at = bare.at(family);
    let mut lanes: Vec<Box<dyn Lane>> = vec![
        Box::new(Datagrams::new("bare", &bare.client, &bare.server, at, at)?),
        Box::new(Datagrams::new("bare again", &bare.client, &bare.server, again(at), again(at))?),
    ];
    for (name, road) in [("netplug", ours), ("bridge + br_netfilter", today)] {
        let at = road.at(family);
        let lane = Datagrams::new(name, road.client.namespace(), road.server.namespace(), at, at)?;
        lanes.push(Box::new(lane));
    }
    Ok(Row { work: "pod → pod, UDP, ns per packet", lanes: race(&mut lanes, pace)? })
}

/// UDP from a pod by a service to another pod of the node.
pub fn pod_to_service(
    family: Family,
    pace: Pace,
    bare: &Bare,
    ours: &Road,
    today: &Road,
) -> io::Result<Row> {
    let at = bare.at(family);
    let mut lanes: Vec<Box<dyn Lane>> = vec![
        Box::new(Datagrams::new("bare", &bare.client, &bare.server, at, at)?),
        Box::new(Datagrams::new("bare again", &bare.client, &bare.server, again(at), again(at))?),
    ];
    for (name, road) in [("netplug", ours), ("bridge + br_netfilter + kube-proxy", today)] {
        let (client, server) = (road.client.namespace(), road.server.namespace());
        lanes.push(Box::new(Datagrams::new(
            name,
            client,
            server,
            road.service(family),
            road.at(family),
        )?));
    }
    Ok(Row { work: "pod → service → pod, UDP, ns per packet", lanes: race(&mut lanes, pace)? })
}

/// UDP from a pod to the outside, masqueraded.
pub fn masqueraded(family: Family, pace: Pace, ours: &Road, today: &Road) -> io::Result<Row> {
    let mut lanes = to_outside(family, ours, today, 9001, |name, client, server, to| {
        Ok(Box::new(Datagrams::new(name, client, server, to, to)?))
    })?;
    Ok(Row {
        work: "pod → outside masqueraded, UDP, ns per packet",
        lanes: race(&mut lanes, pace)?,
    })
}

/// UDP requests from a pod to the outside, one at a time.
pub fn masqueraded_requests(
    family: Family,
    pace: Pace,
    ours: &Road,
    today: &Road,
) -> io::Result<Row> {
    let mut lanes = to_outside(family, ours, today, 9003, |name, client, server, to| {
        Ok(Box::new(Requests::new(name, client, server, to, to)?))
    })?;
    Ok(Row {
        work: "pod → outside masqueraded, UDP request and answer, ns each",
        lanes: race(&mut lanes, pace)?,
    })
}

/// TCP connections from a pod to the outside.
pub fn masqueraded_connects(
    family: Family,
    pace: Pace,
    ours: &Road,
    today: &Road,
) -> io::Result<Row> {
    let mut lanes = to_outside(family, ours, today, 9005, |name, client, server, to| {
        Ok(Box::new(Connections::new(name, client, server, to, to)?))
    })?;
    Ok(Row {
        work: "pod → outside masqueraded, TCP connect-request-close, ns each",
        lanes: race(&mut lanes, pace)?,
    })
}

/// Lanes from a client to the outside, each to a port of its own from `port` on.
fn to_outside<'r>(
    family: Family,
    ours: &'r Road,
    today: &'r Road,
    port: u16,
    lane: impl Fn(
        &str,
        &'r Namespace,
        &'r Namespace,
        std::net::SocketAddr,
    ) -> io::Result<Box<dyn Lane + 'r>>,
) -> io::Result<Vec<Box<dyn Lane + 'r>>> {
    let lanes = [
        ("bridge + MASQUERADE", today, port),
        ("bridge + MASQUERADE again", today, port + 1),
        ("netplug", ours, port),
    ];
    let of = |(name, road, port): (&str, &'r Road, u16)| {
        let mut to = road.outside(family);
        to.set_port(port);
        lane(name, road.client.namespace(), road.node.outside().namespace(), to)
    };
    lanes.into_iter().map(of).collect()
}

/// UDP from the outside to a port of the node that leads to a pod.
pub fn host_port(family: Family, pace: Pace, ours: &Road, today: &Road) -> io::Result<Row> {
    let lane = |name: &str, road: &Road, number: u16| -> io::Result<Box<dyn Lane>> {
        let (to, at) = road.host_port(family, number);
        let (outside, server) = (road.node.outside().namespace(), road.ported.namespace());
        Ok(Box::new(Datagrams::new(name, outside, server, to, at)?))
    };
    let mut lanes = vec![
        lane("bridge + portmap", today, 0)?,
        lane("bridge + portmap again", today, 1)?,
        lane("netplug", ours, 0)?,
    ];
    Ok(Row {
        work: "outside → HostPort → pod, UDP, ns per packet", lanes: race(&mut lanes, pace)?
    })
}

/// TCP connections from the outside to a port of the node that leads to a pod.
pub fn host_port_connects(
    family: Family,
    pace: Pace,
    ours: &Road,
    today: &Road,
) -> io::Result<Row> {
    let mut lanes: Vec<Box<dyn Lane + '_>> = Vec::new();
    for (name, road, number) in
        [("bridge + portmap", today, 0), ("bridge + portmap again", today, 1), ("netplug", ours, 0)]
    {
        let (to, at) = road.host_port(family, number);
        let (outside, server) = (road.node.outside().namespace(), road.ported.namespace());
        lanes.push(Box::new(Connections::new(name, outside, server, to, at)?));
    }
    Ok(Row {
        work: "outside → HostPort → pod, TCP connect-request-close, ns each",
        lanes: race(&mut lanes, pace)?,
    })
}

/// TCP connect, request, answer, close between two pods of a node.
pub fn connects(
    family: Family,
    pace: Pace,
    bare: &Bare,
    ours: &Road,
    today: &Road,
) -> io::Result<Row> {
    let at = bare.at(family);
    let mut lanes: Vec<Box<dyn Lane + '_>> = Vec::new();
    for (name, road) in [("bridge + br_netfilter", today), ("netplug", ours)] {
        let at = road.at(family);
        lanes.push(Box::new(Connections::new(
            name,
            road.client.namespace(),
            road.server.namespace(),
            at,
            at,
        )?));
    }
    let own = today.client.namespace();
    let at_again = again(today.at(family));
    let second = Connections::new(
        "bridge + br_netfilter again",
        own,
        today.server.namespace(),
        at_again,
        at_again,
    )?;
    lanes.insert(1, Box::new(second));
    lanes.push(Box::new(Connections::new("bare", &bare.client, &bare.server, at, at)?));
    Ok(Row {
        work: "pod → pod, TCP connect-request-close, ns each",
        lanes: race(&mut lanes, pace)?,
    })
}

/// The next port, for the second socket of an A/A pair.
fn again(mut at: std::net::SocketAddr) -> std::net::SocketAddr {
    at.set_port(at.port() + 1);
    at
}
