//! Functions that the verifier takes apart from their callers, once each: BPF's *global* functions. Without them it
//! would follow every way through masquerade with every way through learning, and take seconds for a load.
//!
//! A global function takes the context, numbers and pointers to whole structs, returns a number, and cannot be generic;
//! the trait below hands a family its own.

use aya_ebpf::bindings::__sk_buff;
use netplug_common::counter::Counter;
use netplug_common::ip::{IpVersion, V4, V6};
use netplug_common::maps::nat::Mapping;
use netplug_common::tuple::Tuple;

use crate::packet::{Header, Packet, ipv6, rewrite};
use crate::skb::Skb;
use crate::stage::{errors, host_port, learn, masquerade};
use crate::{mapping, maps};

/// The stages that are taken apart.
pub trait Apart: Header {
    /// [`Header::any`].
    fn parse(skb: Skb, packet: &mut Packet<Self>) -> bool;
    /// [`masquerade::own`].
    fn own(skb: Skb) -> Result<(), Counter>;
    /// [`learn::learn`].
    fn learn(skb: Skb, packet: &mut Packet<Self>, to_uplink: bool);
    /// [`masquerade::outbound`].
    fn masquerade(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`masquerade::inbound`].
    fn unmasquerade(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`errors::outbound`].
    fn masquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`errors::hosts`].
    fn translate_hosts_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`errors::inbound`].
    fn unmasquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`masquerade::arrived`].
    fn note_arrival(skb: Skb, packet: &mut Packet<Self>);
    /// [`host_port::inbound`].
    fn address_call(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`host_port::outbound`].
    fn readdress_answer(skb: Skb, packet: &mut Packet<Self>) -> Result<bool, Counter>;
    /// [`masquerade::later_of_pods`].
    fn follow(skb: Skb, packet: &mut Packet<Self>, is_inward: bool) -> Result<(), Counter>;
    /// [`masquerade::first_fragment`].
    fn note_fragment(
        skb: Skb,
        packet: &Packet<Self>,
        entered: &Tuple<Self>,
        is_inward: bool,
    ) -> Result<(), Counter>;
    /// [`masquerade::later_outbound`].
    fn follow_outbound(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`masquerade::later_inbound`].
    fn follow_inbound(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter>;
    /// [`mapping::hold`].
    fn hold(key: &Tuple<Self>, half: &Mapping<Self>, packet: &Packet<Self>, is_out: bool) -> u32;
    /// [`mapping::sweep`].
    fn sweep(is_full: bool) -> bool;
    /// [`mapping::rebuild`].
    fn rebuild() -> bool;
    /// [`mapping::find`].
    fn find_port(skb: Skb, packet: &Packet<Self>, address: &Self::Address, is_urgent: bool) -> u32;
    /// [`mapping::try_port`].
    fn try_port(skb: Skb, packet: &Packet<Self>, address: &Self::Address, step: u32) -> u32;
}

const DONE: u32 = 0;
/// Above every counter's number.
const CHANGED: u32 = 1 << 16;

/// A result as a number: counters of drops are above 0.
#[inline(always)]
fn number(result: Result<(), Counter>) -> u32 {
    match result {
        Ok(()) => DONE,
        Err(reason) => reason as u32,
    }
}

/// The result of a number. The stages here drop for these reasons only.
#[inline(always)]
fn result(number: u32) -> Result<(), Counter> {
    macro_rules! reasons {
        ($($reason:ident)*) => {
            match number {
                DONE => Ok(()),
                $(number if number == Counter::$reason as u32 => Err(Counter::$reason),)*
                _ => Err(Counter::RewriteFailed),
            }
        };
    }
    reasons!(PortsExhausted NotTranslatable NoMapping TupleInUse MappingsFull FragmentKept FirstMissing SctpFragment)
}

macro_rules! family {
    ($family:ty, $parse:ident, $own:ident, $learn:ident, $masquerade:ident, $unmasquerade:ident,
     $error_out:ident, $error_in:ident, $arrived:ident, $find_port:ident, $try_port:ident,
     $sweep:ident, $rebuild:ident, $note_fragment:ident, $follow_out:ident, $follow_in:ident,
     $follow:ident, $call:ident, $answer:ident, $hold:ident, $hosts_error:ident) => {
        impl Apart for $family {
            #[inline(always)]
            fn parse(skb: Skb, packet: &mut Packet<Self>) -> bool {
                $parse(skb.0, packet) != 0
            }
            #[inline(always)]
            fn own(skb: Skb) -> Result<(), Counter> {
                result($own(skb.0))
            }
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
            fn translate_hosts_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($hosts_error(skb.0, packet))
            }
            #[inline(always)]
            fn unmasquerade_error(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($error_in(skb.0, packet))
            }
            #[inline(always)]
            fn note_arrival(skb: Skb, packet: &mut Packet<Self>) {
                $arrived(skb.0, packet);
            }
            #[inline(always)]
            fn address_call(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($call(skb.0, packet))
            }
            #[inline(always)]
            fn readdress_answer(skb: Skb, packet: &mut Packet<Self>) -> Result<bool, Counter> {
                match $answer(skb.0, packet) {
                    CHANGED => Ok(true),
                    number => result(number).map(|()| false),
                }
            }
            #[inline(always)]
            fn follow(skb: Skb, packet: &mut Packet<Self>, is_inward: bool) -> Result<(), Counter> {
                result($follow(skb.0, packet, u32::from(is_inward)))
            }
            #[inline(always)]
            fn note_fragment(
                skb: Skb,
                packet: &Packet<Self>,
                entered: &Tuple<Self>,
                is_inward: bool,
            ) -> Result<(), Counter> {
                result($note_fragment(skb.0, packet, entered, u32::from(is_inward)))
            }
            #[inline(always)]
            fn follow_outbound(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($follow_out(skb.0, packet))
            }
            #[inline(always)]
            fn follow_inbound(skb: Skb, packet: &mut Packet<Self>) -> Result<(), Counter> {
                result($follow_in(skb.0, packet))
            }
            #[inline(always)]
            fn hold(
                key: &Tuple<Self>,
                half: &Mapping<Self>,
                packet: &Packet<Self>,
                is_out: bool,
            ) -> u32 {
                $hold(key, half, packet, u32::from(is_out))
            }
            #[inline(always)]
            fn sweep(is_full: bool) -> bool {
                $sweep(u32::from(is_full)) != 0
            }
            #[inline(always)]
            fn rebuild() -> bool {
                $rebuild() != 0
            }
            #[inline(always)]
            fn find_port(
                skb: Skb,
                packet: &Packet<Self>,
                address: &Self::Address,
                is_urgent: bool,
            ) -> u32 {
                $find_port(skb.0, packet, address, u32::from(is_urgent))
            }
            #[inline(always)]
            fn try_port(
                skb: Skb,
                packet: &Packet<Self>,
                address: &Self::Address,
                step: u32,
            ) -> u32 {
                $try_port(skb.0, packet, address, step)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $parse(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: the verifier has every caller pass a whole packet, or nothing.
            match unsafe { packet.as_mut() } {
                Some(packet) => u32::from(<$family>::any(Skb(skb), packet)),
                None => 0,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $own(skb: *mut __sk_buff) -> u32 {
            number(masquerade::own::<$family>(Skb(skb)))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $learn(
            skb: *mut __sk_buff,
            packet: *mut Packet<$family>,
            to_uplink: u32,
        ) -> u32 {
            // SAFETY: as above.
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
        extern "C" fn $hosts_error(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(errors::hosts(Skb(skb), packet)),
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
        extern "C" fn $arrived(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            if let (Some(packet), Some(config)) = (unsafe { packet.as_mut() }, maps::config()) {
                masquerade::arrived(Skb(skb), packet, config);
            }
            DONE
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $call(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(host_port::inbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $answer(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            let Some(packet) = (unsafe { packet.as_mut() }) else { return DONE };
            match host_port::outbound(Skb(skb), packet) {
                Ok(true) => CHANGED,
                Ok(false) => DONE,
                Err(reason) => reason as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $follow(
            skb: *mut __sk_buff,
            packet: *mut Packet<$family>,
            is_inward: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(masquerade::later_of_pods(Skb(skb), packet, is_inward != 0)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $note_fragment(
            skb: *mut __sk_buff,
            packet: *const Packet<$family>,
            entered: *const Tuple<$family>,
            is_inward: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { (packet.as_ref(), entered.as_ref()) } {
                (Some(packet), Some(entered)) => {
                    number(masquerade::first_fragment(Skb(skb), packet, entered, is_inward != 0))
                }
                _ => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $follow_out(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(masquerade::later_outbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $follow_in(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => number(masquerade::later_inbound(Skb(skb), packet)),
                None => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $hold(
            key: *const Tuple<$family>,
            half: *const Mapping<$family>,
            packet: *const Packet<$family>,
            is_out: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { (key.as_ref(), half.as_ref(), packet.as_ref()) } {
                (Some(key), Some(half), Some(packet)) => {
                    mapping::hold(key, half, packet, is_out != 0)
                }
                _ => DONE,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $sweep(is_full: u32) -> u32 {
            u32::from(mapping::sweep::<$family>(is_full != 0))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $rebuild() -> u32 {
            u32::from(mapping::rebuild::<$family>())
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find_port(
            skb: *mut __sk_buff,
            packet: *const Packet<$family>,
            address: *const <$family as IpVersion>::Address,
            is_urgent: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { (packet.as_ref(), address.as_ref()) } {
                (Some(packet), Some(address)) => {
                    mapping::find(Skb(skb), packet, address, is_urgent != 0)
                }
                _ => mapping::NONE_LEFT,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $try_port(
            skb: *mut __sk_buff,
            packet: *const Packet<$family>,
            address: *const <$family as IpVersion>::Address,
            step: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { (packet.as_ref(), address.as_ref()) } {
                (Some(packet), Some(address)) => mapping::try_port(Skb(skb), packet, address, step),
                _ => mapping::NONE_LEFT,
            }
        }
    };
}

family!(
    V4,
    parse4,
    own4,
    learn4,
    masquerade4,
    unmasquerade4,
    error_out4,
    error_in4,
    arrived4,
    find_port4,
    try_port4,
    sweep4,
    rebuild4,
    note_fragment4,
    follow_out4,
    follow_in4,
    follow4,
    call4,
    answer4,
    hold4,
    hosts_error4
);
family!(
    V6,
    parse6,
    own6,
    learn6,
    masquerade6,
    unmasquerade6,
    error_out6,
    error_in6,
    arrived6,
    find_port6,
    try_port6,
    sweep6,
    rebuild6,
    note_fragment6,
    follow_out6,
    follow_in6,
    follow6,
    call6,
    answer6,
    hold6,
    hosts_error6
);

/// [`rewrite::crc_delta`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_delta(change: u32, length: u32) -> u32 {
    rewrite::crc_delta(change, length as u16)
}

/// [`ipv6::walk`], packed by [`ipv6::End::pack`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk(skb: *mut __sk_buff, offset: u32, protocol: u32) -> u64 {
    ipv6::walk(Skb(skb), offset, protocol as u8).pack()
}

/// [`mapping::life`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn life(before: u32, end: u32, protocol: u32, flags: u32, is_answer: u32) -> u64 {
    mapping::life(before, end, protocol as u8, flags as u8, is_answer != 0)
}
