//! The MTU of pods, by kubenet's rule (pkg/kubelet/dockershim/network/kubenet/kubenet_linux.go, `updateMTU`): the
//! smallest of the host's interfaces that are up.

use super::link::Link;

/// The least MTU that is believed: what every IPv4 host takes (RFC 791 §3.1).
pub const LEAST: u32 = 576;
/// What is taken where none is found (kubenet's `fallbackMTU`).
const FALLBACK: u32 = 1460;

/// The MTU, less `overhead`. Left out: loopback, ports of bridges, pods' host ends, and bridges of ours.
#[must_use]
pub fn of_pods(links: &[Link], overhead: u32) -> u32 {
    let is_counted = |link: &&Link| {
        let is_ours = link.alias.as_deref().is_some_and(|alias| alias.starts_with("netplug "));
        link.is_up && !link.is_loopback && link.is_ethernet && link.master.is_none() && !is_ours
    };
    let smallest = links.iter().filter(is_counted).map(|link| link.mtu).min();
    let mtu = smallest.filter(|mtu| *mtu >= LEAST).unwrap_or(FALLBACK);
    mtu.saturating_sub(overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mtu: u32) -> Link {
        Link {
            index: 2,
            name: "eth0".into(),
            mac: [2; 6],
            mtu,
            master: None,
            peer: None,
            alias: None,
            kind: None,
            is_up: true,
            is_running: true,
            is_loopback: false,
            is_ethernet: true,
            parts_vlans: false,
        }
    }

    #[test]
    fn the_smallest_interface_that_is_up_decides() {
        let down = Link { is_up: false, ..link(600) };
        let lo = Link { is_loopback: true, ..link(700) };
        let port = Link { master: Some(9), ..link(800) };
        let bridge = Link { alias: Some("netplug net".into()), ..link(900) };
        assert_eq!(of_pods(&[link(9000), link(1500), down, lo, port, bridge], 0), 1500);
        assert_eq!(of_pods(&[link(1500)], 50), 1450);
    }

    #[test]
    fn an_mtu_that_ip_cannot_work_with_is_not_believed() {
        assert_eq!(of_pods(&[link(575)], 0), 1460);
        assert_eq!(of_pods(&[], 0), 1460);
        assert_eq!(of_pods(&[], 60), 1400);
    }
}
