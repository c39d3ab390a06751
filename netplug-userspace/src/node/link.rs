//! A link as netplug reads it.

use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};

use super::Mac;

/// Whether an interface can be called so (`dev_valid_name`, net/core/dev.c). In `%d` the kernel would put a number of its
/// choice, and nobody would find the interface again.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_wrong = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && !name.contains(is_wrong)
}

/// `IFNAMSIZ` (include/uapi/linux/if.h), less the zero behind it.
const LONGEST_NAME: usize = 15;

/// An alias, of a text that may be longer than fits, and is cut then, and of an end that stays.
#[must_use]
pub fn alias(text: &str, end: &str) -> String {
    /// `IFALIASZ` (include/uapi/linux/if.h), less the zero behind it, and the one behind it in the message.
    const LONGEST: usize = 254;
    let fits = text.floor_char_boundary(LONGEST - end.len());
    format!("{}{end}", &text[..fits])
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC; zeros where it has none.
    pub mac: Mac,
    /// Its MTU in L3 bytes.
    pub mtu: u32,
    /// The index of the bridge (or the like) that it is a port of.
    pub master: Option<u32>,
    /// For a veth the other end's index, in the other end's namespace.
    pub peer: Option<u32>,
    /// What `ip link` shows as alias.
    pub alias: Option<String>,
    /// Its kind; `None` for hardware.
    pub kind: Option<InfoKind>,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it carries packets: its carrier was seen (RFC 2863's ifOperStatus), and the bridge that it is a port of, if
    /// any, has switched the port on. The kernel gets there some time after both ends are up (net/core/link_watch.c).
    pub is_running: bool,
    /// Whether it is `lo`.
    pub is_loopback: bool,
    /// Whether frames on it have Ethernet headers.
    pub is_ethernet: bool,
    /// Whether it is a bridge that parts VLANs (`vlan_filtering`).
    pub parts_vlans: bool,
}

impl Link {
    /// Whether it is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }

    /// Whether it is one end of a veth.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.kind == Some(InfoKind::Veth)
    }

    /// Whether containers or virtual machines are behind it: a veth, or a tap.
    #[must_use]
    pub fn leads_to_guests(&self) -> bool {
        matches!(self.kind, Some(InfoKind::Veth | InfoKind::Tun))
    }

    pub(super) fn read(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            master: None,
            peer: None,
            alias: None,
            kind: None,
            is_up: flags.contains(LinkFlags::Up),
            is_running: false,
            is_loopback: flags.contains(LinkFlags::Loopback),
            is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            parts_vlans: false,
        };
        let mut forwards = true;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::OperState(state) => link.is_running = *state == State::Up,
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => {
                    if let Ok(mac) = mac.as_slice().try_into() {
                        link.mac = mac;
                    }
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => {
                    link.master = Some(*master).filter(|index| *index != 0)
                }
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                    link.parts_vlans = infos.iter().any(parts_vlans);
                    forwards = !infos.iter().any(is_held_back);
                }
                _ => {}
            }
        }
        link.is_running &= forwards;
        link
    }
}

/// Whether it says of a bridge that it parts VLANs.
fn parts_vlans(info: &LinkInfo) -> bool {
    let LinkInfo::Data(InfoData::Bridge(attributes)) = info else { return false };
    attributes.iter().any(|attribute| matches!(attribute, InfoBridge::VlanFiltering(true)))
}

/// Whether it says of a bridge's port that it is off. (Where the bridge speaks the spanning tree protocol, a port listens
/// for half a minute before it forwards: that is the bridge's wish.)
fn is_held_back(info: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(attributes)) = info else { return false };
    attributes.iter().any(|attribute| {
        matches!(attribute, InfoBridgePort::State(state) if *state == BridgePortState::Disabled)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_that_is_cut_keeps_its_end_and_whole_characters() {
        assert_eq!(alias("netplug pods", ", no pod yet"), "netplug pods, no pod yet");
        let cut = alias(&"ü".repeat(200), ".");
        assert_eq!((cut.len(), cut.ends_with("ü.")), (253, true));
        assert_eq!(alias(&"n".repeat(300), "").len(), 254);
    }

    #[test]
    fn a_bridge_parts_vlans_where_it_says_so() {
        let says = |it| LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(it)]));
        assert_eq!([true, false].map(|it| parts_vlans(&says(it))), [true, false]);
    }

    #[test]
    fn names_that_the_kernel_refuses_or_changes_are_none() {
        let wrong = [
            "",
            ".",
            "..",
            "cbr%d",
            "100%",
            "a/b",
            "a:1",
            "a b",
            "a\tb",
            "a\0",
            "0123456789abcdef",
        ];
        for name in wrong {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["cbr0", "0123456789abcde", "br-lan.7", "...", "brücke"] {
            assert!(is_name(name), "{name:?}");
        }
    }
}
