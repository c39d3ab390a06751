//! An address as netplug reads it.

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The interface's index.
    pub index: u32,
    /// The address, with its prefix.
    pub network: IpNetwork,
    /// Whether it is of global scope.
    pub is_global: bool,
    /// How well packets may be sent from it.
    pub state: AddressState,
}

/// How well packets may be sent from an address; the best comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressState {
    /// Settled.
    Preferred,
    /// Nobody answers for it yet: duplicate address detection runs.
    Tentative,
    /// On its way out.
    Deprecated,
    /// Another host has it, and nobody here ever answers for it.
    Duplicate,
}

impl Held {
    pub(super) fn read(message: &AddressMessage) -> Option<Self> {
        let flags = message.header.flags;
        let states = [
            (AddressHeaderFlags::Dadfailed, AddressState::Duplicate),
            (AddressHeaderFlags::Deprecated, AddressState::Deprecated),
            (AddressHeaderFlags::Tentative, AddressState::Tentative),
        ];
        let state = states.into_iter().find(|(flag, _)| flags.contains(*flag));
        Some(Self {
            index: message.header.index,
            network: network_of(message)?,
            is_global: message.header.scope == AddressScope::Universe,
            state: state.map_or(AddressState::Preferred, |(_, state)| state),
        })
    }
}

/// The interface's own address and its prefix. (`Address` is the other end's where there is one.)
pub(super) fn network_of(message: &AddressMessage) -> Option<IpNetwork> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    let address = find(true).or_else(|| find(false))?;
    IpNetwork::new(address, message.header.prefix_len).ok()
}
