//! What changes: one thing after the other, without a pause but what the changes themselves take.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family;

use crate::Random;
use crate::known::{REVISIT, SLACK};
use crate::node::{PORT, World};

/// How long nothing changes between two changes, at the most.
const PAUSE: u32 = 400;

/// Changes something or other until `end`.
pub fn change(world: &World, mut random: Random, end: Instant) {
    let (mut walled_at, mut passed) = (Instant::now(), 0);
    while Instant::now() < end {
        match random.below(16) {
            0..=4 => serve_by_others(world, &mut random),
            5..=7 => forget(world, &mut random),
            8 => drop(world.node.netplug("flush")),
            9 | 10 if walled_at.elapsed() > 2 * (REVISIT + SLACK) => {
                wall(world, &mut random);
                walled_at = Instant::now();
            }
            11 => {
                passed += 1;
                pass(world, passed);
            }
            _ => {}
        }
        // Chance, and no condition: that is what this test is about.
        std::thread::sleep(Duration::from_millis(random.below(PAUSE).into()));
    }
}

/// Has a service another set of servers, and the host forget the datagrams of those that serve no more, as kube-proxy does.
fn serve_by_others(world: &World, random: &mut Random) {
    let servers = &world.servers[random.below(u32::from(crate::node::SERVICES)) as usize];
    let chosen = 1 + random.below((1 << servers.len()) - 1);
    let mut gone = Vec::new();
    for (number, pod) in servers.iter().enumerate() {
        if chosen >> number & 1 == 1 {
            world.known.begins(pod.name());
            world.serving().insert(pod.name().into());
        } else if world.serving().remove(pod.name()) {
            gone.push(pod);
        }
    }
    world.write_rules();
    for pod in gone {
        for family in Family::BOTH {
            let to = pod.ip(family);
            let flag = if to.is_ipv4() { "ipv4" } else { "ipv6" };
            // It fails where there are none.
            let delete = format!("conntrack -D -f {flag} -p udp --reply-src {to}");
            world.node.namespace().try_feed(&delete, "");
        }
        // Not before that is anything to be held against it.
        world.known.has_ended(pod.name());
    }
}

/// Takes entries out of the maps: of masquerade one half at a time, since both are a restart.
fn forget(world: &World, random: &mut Random) {
    let half = random.one_of(&[Table::NatIn, Table::NatOut]);
    let one_in = 1 + random.below(3);
    let mut seed = random.below(u32::MAX) | 1;
    for table in [Table::Flows, Table::Visits, half] {
        if random.below(2) == 0 {
            table.forget(world.node.namespace(), one_in, &mut seed);
        }
    }
    // An answer without its half has all halves searched, but not more often than ten times a second.
    std::thread::sleep(Duration::from_millis(200));
}

/// Builds a wall before a pod, or takes it away.
fn wall(world: &World, random: &mut Random) {
    let client = &world.clients[random.below(2) as usize];
    for family in Family::BOTH {
        let (from, to) = (client.ip(family), world.walled.ip(family));
        let (wall, gap) = (format!("wall {from}"), format!("gap {from}"));
        let set = if from.is_ipv4() { "v4" } else { "v6" };
        let element = format!("element inet walls {set} {{ {from} . {to} }}\n");
        if world.known.is_since(&wall, Instant::now()) {
            world.known.has_ended(&wall);
            world.node.namespace().feed("nft -f -", &format!("delete {element}"));
            world.known.begins(&gap);
        } else {
            world.known.has_ended(&gap);
            world.node.namespace().feed("nft -f -", &format!("add {element}"));
            world.known.begins(&wall);
        }
    }
}

/// Replaces the pod that passes by another, which has another name, and in time its addresses.
pub fn pass(world: &World, number: u32) {
    let mut passing = world.passing.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pod) = passing.take() {
        let was = Family::BOTH.map(|family| format!("{} {}", pod.name(), pod.ip(family)));
        world.node.del_pod(pod);
        was.iter().for_each(|pod| world.known.has_ended(pod));
    }
    let pod = world.node.add_pod(&format!("p-{number}"));
    for family in Family::BOTH {
        world.known.begins(&format!("{} {}", pod.name(), pod.ip(family)));
    }
    *passing = Some(pod.listening(PORT));
}
