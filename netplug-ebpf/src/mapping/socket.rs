//! The host's sockets.

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::tuple::{TCP, Tuple, UDP};

use crate::packet::Header;
use crate::skb::{Skb, bytes_of};

/// Whether a socket of the host's would receive a packet of this tuple.
#[inline(always)]
pub fn has_socket<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    // `struct bpf_sock_tuple` is the tuple's first fields: addresses, then ports (include/uapi/linux/bpf.h).
    let size = (2 * size_of::<V::Address>() + 4) as u32;
    let namespace = BPF_F_CURRENT_NETNS as i64 as u64;
    let wanted = bytes_of(tuple).cast::<bpf_sock_tuple>().cast_mut();
    // SAFETY: `wanted` has `size` readable bytes; a socket that is found is released.
    unsafe {
        let socket = match tuple.protocol {
            TCP => helpers::bpf_skc_lookup_tcp(skb.raw(), wanted, size, namespace, 0),
            UDP => helpers::bpf_sk_lookup_udp(skb.raw(), wanted, size, namespace, 0),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        helpers::bpf_sk_release(socket.cast());
        true
    }
}

/// Whether a socket of the host's is connected by this tuple, rather than waiting for anybody's.
#[inline(always)]
pub(super) fn has_connection<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    match tuple.protocol {
        TCP => is_connected_tcp(skb, tuple),
        UDP => is_connected_udp(skb, tuple),
        _ => false,
    }
}

/// `struct bpf_sock_tuple` is the tuple's first fields: addresses, then ports (include/uapi/linux/bpf.h).
const fn size_of_sock_tuple<V: Header>() -> u32 {
    (2 * size_of::<V::Address>() + 4) as u32
}

/// Two functions, since one load cannot be of two kinds of pointers.
#[inline(never)]
fn is_connected_tcp<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    /// `TCP_LISTEN` (include/net/tcp_states.h).
    const LISTEN: u32 = 10;
    let wanted = bytes_of(tuple).cast::<bpf_sock_tuple>().cast_mut();
    let (size, namespace) = (size_of_sock_tuple::<V>(), BPF_F_CURRENT_NETNS as i64 as u64);
    // SAFETY: `wanted` has `size` readable bytes; the socket is looked at before it is released.
    unsafe {
        let socket = helpers::bpf_skc_lookup_tcp(skb.raw(), wanted, size, namespace, 0);
        if socket.is_null() {
            return false;
        }
        let state = core::ptr::read_volatile(&raw const (*socket).state);
        helpers::bpf_sk_release(socket.cast());
        state != LISTEN
    }
}

/// See [`is_connected_tcp`].
#[inline(never)]
fn is_connected_udp<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    let wanted = bytes_of(tuple).cast::<bpf_sock_tuple>().cast_mut();
    let (size, namespace) = (size_of_sock_tuple::<V>(), BPF_F_CURRENT_NETNS as i64 as u64);
    // SAFETY: as above.
    unsafe {
        let socket = helpers::bpf_sk_lookup_udp(skb.raw(), wanted, size, namespace, 0);
        if socket.is_null() {
            return false;
        }
        let peer = core::ptr::read_volatile(&raw const (*socket).dst_port);
        helpers::bpf_sk_release(socket.cast());
        peer != 0
    }
}
