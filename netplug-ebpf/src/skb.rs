//! The kernel's packet, by the few things that netplug asks of it.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::{from_mut, from_ref};

use aya_ebpf::bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, bpf_sock};
use aya_ebpf::helpers::generated as helpers;

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET: u32 = 14;

/// `PACKET_HOST` (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// A packet in the kernel's hands. All offsets are from the start of the Ethernet header.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

/// Reads a field of the context. Volatile, so that the compiler neither merges two fields into one access, which
/// the verifier would refuse, nor keeps packet pointers across helpers that move the packet.
macro_rules! field {
    ($skb:expr, $name:ident) => {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { core::ptr::read_volatile(&raw const (*$skb.0).$name) }
    };
}

impl Skb {
    /// A pointer to a `T` at `offset`, if the packet's linear part reaches that far. Good until the next helper
    /// that may move the packet.
    #[inline(always)]
    pub fn at<T>(self, offset: usize) -> Option<*const T> {
        let (start, end) = (field!(self, data) as usize, field!(self, data_end) as usize);
        if start + offset + size_of::<T>() > end {
            None
        } else {
            Some((start + offset) as *const T)
        }
    }

    /// Makes the first `length` bytes linear, where the packet is that long and they are not.
    #[inline(always)]
    pub fn reach(self, length: u32) {
        let (start, end) = (field!(self, data) as usize, field!(self, data_end) as usize);
        let whole = self.length();
        if start + (length as usize) > end && (end - start) < whole as usize {
            let wanted = if whole < length { whole } else { length };
            // What cannot be pulled is found missing by `at`.
            // SAFETY: the context is valid.
            unsafe { helpers::bpf_skb_pull_data(self.0, wanted) };
        }
    }

    /// Copies a `T` from `offset`, also from beyond the linear part.
    #[inline(always)]
    pub fn load<T: bytemuck::Pod>(self, offset: u32) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes size_of::<T>() bytes or fails; any bytes are a `Pod`.
        unsafe {
            let failed = helpers::bpf_skb_load_bytes(
                self.0.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            if failed == 0 { Some(value.assume_init()) } else { None }
        }
    }

    /// Writes `length` bytes of `from` at `offset`; checksums are the caller's.
    #[inline(always)]
    pub fn store(self, offset: u32, from: *const c_void, length: u32) -> Result<(), ()> {
        // SAFETY: callers pass `length` readable bytes.
        done(unsafe { helpers::bpf_skb_store_bytes(self.0, offset, from.cast_mut(), length, 0) })
    }

    /// The same where the packet has no checksum that makes up for the change: a sum over all of it that it came with
    /// (CHECKSUM_COMPLETE) follows.
    #[inline(always)]
    pub fn store_summed(self, offset: u32, from: *const c_void, length: u32) -> Result<(), ()> {
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: as above.
        done(unsafe {
            helpers::bpf_skb_store_bytes(self.0, offset, from.cast_mut(), length, flags)
        })
    }

    /// Changes the L3 checksum at `offset` by a delta.
    #[inline(always)]
    pub fn add_to_header_checksum(self, offset: u32, delta: u32) -> Result<(), ()> {
        // SAFETY: the context is valid. A size of 0 in the flags makes `to` a delta (net/core/filter.c).
        done(unsafe { helpers::bpf_l3_csum_replace(self.0, offset, 0, u64::from(delta), 0) })
    }

    /// Changes the L4 checksum at `offset` by a delta; `flags` as `bpf_l4_csum_replace` has them.
    #[inline(always)]
    pub fn add_to_checksum(self, offset: u32, delta: u32, flags: u64) -> Result<(), ()> {
        // SAFETY: as above.
        done(unsafe { helpers::bpf_l4_csum_replace(self.0, offset, 0, u64::from(delta), flags) })
    }

    /// Length of the packet in bytes, Ethernet header included.
    #[inline(always)]
    pub fn length(self) -> u32 {
        field!(self, len)
    }

    /// EtherType, network order, as `skb->protocol` has it.
    #[inline(always)]
    pub fn ethertype(self) -> u32 {
        field!(self, protocol)
    }

    /// Whether a VLAN tag came with it, out of line.
    #[inline(always)]
    pub fn is_tagged(self) -> bool {
        field!(self, vlan_present) != 0
    }

    /// The VLAN of that tag; 0 is a priority tag, of no VLAN (IEEE 802.1Q §9.6).
    #[inline(always)]
    pub fn vlan(self) -> u32 {
        field!(self, vlan_tci) & 0x0fff
    }

    /// Whether it came with the tag of a VLAN, for another interface.
    #[inline(always)]
    pub fn is_of_vlan(self) -> bool {
        self.is_tagged() && self.vlan() != 0
    }

    /// Whether its MAC is the interface's: one that listens to all sees what is for others, and what is for a macvlan upon it.
    #[inline(always)]
    pub fn is_for_this_station(self) -> bool {
        field!(self, pkt_type) == PACKET_HOST
    }

    /// The interface that the program runs on.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        field!(self, ifindex)
    }

    /// The interface that it was received by last (`skb->skb_iif`); 0 for what the host itself sends.
    #[inline(always)]
    pub fn received_by(self) -> u32 {
        field!(self, ingress_ifindex)
    }

    /// The socket of the host's that sent it; `None` where none did, or that is gone.
    #[inline(always)]
    pub fn sender(self) -> Option<*const bpf_sock> {
        // SAFETY: the context is valid; the verifier has the pointer looked at before it is followed.
        unsafe {
            let socket = core::ptr::read_volatile(&raw const (*self.0).__bindgen_anon_2.sk);
            socket.as_ref().map(core::ptr::from_ref)
        }
    }

    /// The hash that it carries, or 0.
    #[inline(always)]
    pub fn hash(self) -> u32 {
        field!(self, hash)
    }

    /// Makes it carry `hash` through the host.
    #[inline(always)]
    pub fn set_hash(self, hash: u32) {
        // SAFETY: the context is valid. The helper cannot fail.
        unsafe { helpers::bpf_set_hash(self.0, hash) };
    }

    /// Has it carry none. Who needs one in the host computes it anew.
    #[inline(always)]
    pub fn clear_hash(self) {
        // SAFETY: the context is valid.
        unsafe { helpers::bpf_set_hash_invalid(self.0) };
    }

    /// The mark of a packet that is done with; see `Config::marker`.
    #[inline(always)]
    pub fn marker(self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).cb[0]) }
    }

    /// Writes the mark.
    #[inline(always)]
    pub fn set_marker(self, marker: u32) {
        // SAFETY: the context is valid, and its control block is ours to write between our programs.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).cb[0], marker) };
    }

    /// Bytes of payload in each of the segments that it will be cut into; 0: it will not be.
    #[inline(always)]
    pub fn segment_size(self) -> u32 {
        field!(self, gso_size)
    }

    /// The MTU of a device, in L3 bytes; `Err` if the packet is longer.
    #[inline(always)]
    pub fn check_mtu(self, ifindex: u32, flags: u64) -> Result<u32, u32> {
        let mut mtu = 0u32;
        // SAFETY: the context is valid, `mtu` is a u32 of ours.
        let refused =
            unsafe { helpers::bpf_check_mtu(self.0.cast(), ifindex, from_mut(&mut mtu), 0, flags) };
        if refused == 0 { Ok(mtu) } else { Err(mtu) }
    }

    /// Makes the stack that receives it next take it for its own.
    #[inline(always)]
    pub fn is_for_host(self) {
        // SAFETY: the context is valid. The helper fails only for types beyond PACKET_OTHERHOST.
        unsafe { helpers::bpf_skb_change_type(self.0, PACKET_HOST) };
    }

    /// The context for helpers that take any.
    #[inline(always)]
    pub fn raw(self) -> *mut c_void {
        self.0.cast()
    }
}

/// A number of which the compiler knows nothing: it would merge two checks of a range into one of another register, by which
/// the verifier learns nothing.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn opaque(number: u32) -> u32 {
    let mut number = u64::from(number);
    // SAFETY: changes nothing. (It is an instruction, since the compiler would tell a line number for nothing.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nostack, nomem)) };
    number as u32
}

/// The same for the host's compiler, which only checks this crate.
#[cfg(not(target_arch = "bpf"))]
pub fn opaque(number: u32) -> u32 {
    core::hint::black_box(number)
}

/// A pointer to a value, as the store helpers take it.
#[inline(always)]
pub fn bytes_of<T>(value: &T) -> *const c_void {
    from_ref(value).cast()
}

#[inline(always)]
fn done(code: i64) -> Result<(), ()> {
    if code == 0 { Ok(()) } else { Err(()) }
}
