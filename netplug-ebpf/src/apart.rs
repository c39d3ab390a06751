//! Functions that the verifier takes apart from their callers, once each: BPF's *global* functions. Without them it
//! would follow every way through masquerade with every way through learning, and take seconds for a load.
//!
//! A global function takes the context, numbers and pointers to whole structs, returns a number, and cannot be generic;
//! the trait below hands a family its own.

use aya_ebpf::bindings::__sk_buff;
use netplug_common::counter::Counter;
use netplug_common::ip::{IpVersion, V4, V6};

use crate::packet::{Header, Packet};
use crate::skb::Skb;
use crate::stage::{errors, learn, masquerade};
use crate::{mapping, maps};

/// The stages that are taken apart.
pub trait Apart: Header {
    /// [`learn::learn`].
    fn learn(skb: Skb, packet: &mut Packet<Self>, to_uplink: bool);
    /// [`masquerade::outbound`].
    fn masquerade(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`masquerade::inbound`].
    fn unmasquerade(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`errors::outbound`].
    fn masquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`errors::inbound`].
    fn unmasquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`masquerade::arrived`].
    fn note_arrival(skb: Skb, packet: &Packet<Self>);
    /// [`mapping::find`].
    fn find_port(skb: Skb, packet: &Packet<Self>, address: &Self::Address) -> u32;
}

const DONE: u32 = 0;

/// A result as a number: counters of drops are above 0.
#[inline(always)]
fn number(result: Result<(), Counter>) -> u32 {
    match result {
        Ok(()) => DONE,
        Err(reason) => reason as u32,
    }
}

/// The result of a number. The stages here drop for five reasons only.
#[inline(always)]
fn result(number: u32) -> Result<(), Counter> {
    const EXHAUSTED: u32 = Counter::PortsExhausted as u32;
    const NOT_TRANSLATABLE: u32 = Counter::NotTranslatable as u32;
    const NO_MAPPING: u32 = Counter::NoMapping as u32;
    const IN_USE: u32 = Counter::TupleInUse as u32;
    match number {
        DONE => Ok(()),
        EXHAUSTED => Err(Counter::PortsExhausted),
        NOT_TRANSLATABLE => Err(Counter::NotTranslatable),
        NO_MAPPING => Err(Counter::NoMapping),
        IN_USE => Err(Counter::TupleInUse),
        _ => Err(Counter::RewriteFailed),
    }
}

macro_rules! family {
    ($family:ty, $learn:ident, $masquerade:ident, $unmasquerade:ident,
     $error_out:ident, $error_in:ident, $arrived:ident, $find_port:ident) => {
        impl Apart for $family {
            #[inline(always)]
            fn learn(skb: Skb, packet: &mut Packet<Self>, to_uplink: bool) {
                $learn(skb.0, packet, u32::from(to_uplink));
            }
            #[inline(always)]
            fn masquerade(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($masquerade(skb.0, packet))
            }
            #[inline(always)]
            fn unmasquerade(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($unmasquerade(skb.0, packet))
            }
            #[inline(always)]
            fn masquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($error_out(skb.0, packet))
            }
            #[inline(always)]
            fn unmasquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($error_in(skb.0, packet))
            }
            #[inline(always)]
            fn note_arrival(skb: Skb, packet: &Packet<Self>) {
                $arrived(skb.0, packet);
            }
            #[inline(always)]
            fn find_port(skb: Skb, packet: &Packet<Self>, address: &Self::Address) -> u32 {
                $find_port(skb.0, packet, address)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $learn(
            skb: *mut __sk_buff,
            packet: *mut Packet<$family>,
            to_uplink: u32,
        ) -> u32 {
            // SAFETY: the verifier has every caller pass a whole packet, or nothing.
            if let Some(packet) = unsafe { packet.as_mut() } {
                learn::learn(Skb(skb), packet, to_uplink != 0);
            }
            DONE
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $masquerade(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(masquerade::outbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $unmasquerade(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(masquerade::inbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $error_out(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(errors::outbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $error_in(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(errors::inbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $arrived(skb: *mut __sk_buff, packet: *const Packet<$family>) -> u32 {
            // SAFETY: as above.
            if let (Some(packet), Some(config)) = (unsafe { packet.as_ref() }, maps::config()) {
                masquerade::arrived(Skb(skb), packet, config);
            }
            DONE
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find_port(
            skb: *mut __sk_buff,
            packet: *const Packet<$family>,
            address: *const <$family as IpVersion>::Address,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { (packet.as_ref(), address.as_ref()) } {
                (Some(packet), Some(address)) => mapping::find(Skb(skb), packet, address),
                _ => 0,
            }
        }
    };
}

family!(V4, learn4, masquerade4, unmasquerade4, error_out4, error_in4, arrived4, find_port4);
family!(V6, learn6, masquerade6, unmasquerade6, error_out6, error_in6, arrived6, find_port6);
