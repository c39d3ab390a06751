//! HostPorts: connections that came in to a port of the node, and go to a pod.
//!
//! The way in is one half, in NAT_IN, and heals by itself: HOSTPORTS says the same again. The way back is the other, in NAT_OUT,
//! and a spare of it lies in NAT_IN by the tuple as the pod gets it.
//! A pod that calls itself gets its own packet from the node's address, and answers that: two more halves, for the way there.

mod answer;
mod call;
mod halves;
mod held;

pub use answer::answered;
pub use call::called;
pub use halves::hold;
pub use held::keep_from_callers;

use netplug_common::ip::Address;
use netplug_common::maps::config::Config;
use netplug_common::maps::host_port::HostPort;
use netplug_common::maps::nat::Mapping;
use netplug_common::tuple::Tuple;

use crate::maps;
use crate::packet::Header;

/// Puts the pod and port that the port of the node that `tuple` goes to leads to into `half`. Those of loopback addresses are for
/// the node's own processes, whose sockets are told: what comes for one from elsewhere is a martian, and the host's to drop. Out of
/// line.
#[inline(never)]
fn find_target<V: Header>(tuple: &Tuple<V>, config: &Config, half: &mut Mapping<V>) -> bool {
    if tuple.destination.is_loopback() {
        return false;
    }
    let mut wanted = HostPort {
        address: tuple.destination,
        port: tuple.destination_port,
        protocol: tuple.protocol,
        _pad: [0; 5],
    };
    let target = match maps::host_port::<V>(&wanted) {
        Some(target) => target,
        None => {
            wanted.address = bytemuck::Zeroable::zeroed();
            let Some(target) = maps::host_port::<V>(&wanted) else { return false };
            if !maps::is_nodes::<V>(config, &tuple.destination) {
                return false;
            }
            target
        }
    };
    half.address = target.address;
    half.port = target.port;
    true
}
