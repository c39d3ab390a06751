//! netplug's programs. Each function below is one TC program; what it does is told in `hook/`.
//!
//! A program gives a verdict or a reason to drop; `finish` is the only place that turns either into what TC
//! understands, and the only one that counts drops.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(missing_docs, reason = "`classifier` repeats each program as a function without its doc")]

mod apart;
mod atomic;
mod hook;
mod log;
mod mapping;
mod maps;
mod packet;
mod report;
mod route;
mod skb;
mod stage;
mod verdict;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use netplug_common::ip::{V4, V6};

use crate::hook::socket::{Call, Mapped4, Plain4, Plain6};
use crate::packet::ethernet::{ARP, IPV4, IPV6, SERVICE_VLAN, VLAN};
use crate::skb::Skb;
use crate::verdict::{Verdict, finish};

/// TC ingress of a host end: a pod speaks, its packet enters the host.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        IPV4 => hook::from_pod::run::<V4>(skb),
        IPV6 => hook::from_pod::run::<V6>(skb),
        ARP => hook::from_pod::run_arp(skb),
        VLAN | SERVICE_VLAN => hook::from_pod::run_tagged(skb),
        _ => Ok(Verdict::Next),
    };
    finish(skb, verdict)
}

/// TC ingress of an uplink: a packet from outside enters the host.
#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        IPV4 => hook::from_uplink::run::<V4>(skb),
        IPV6 => hook::from_uplink::run::<V6>(skb),
        _ => Ok(Verdict::Next),
    };
    finish(skb, verdict)
}

/// TC egress of a host end: a packet leaves the host for a pod.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        IPV4 => hook::to_pod::run::<V4>(skb),
        IPV6 => hook::to_pod::run::<V6>(skb),
        _ => Ok(Verdict::Next),
    };
    finish(skb, verdict)
}

/// TC egress of an uplink: a packet leaves the host for the outside.
#[classifier]
pub fn to_uplink(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        IPV4 => hook::to_uplink::run::<V4>(skb),
        IPV6 => hook::to_uplink::run::<V6>(skb),
        _ => Ok(Verdict::Next),
    };
    finish(skb, verdict)
}

/// What each socket hook returns: the call goes on.
const ALLOW: i32 = 1;

macro_rules! socket_hooks {
    ($($hook:ident $does:ident $form:ident $(or $mapped:ident)?;)*) => {$(
        /// A socket hook of the node's cgroup.
        #[cgroup_sock_addr($hook)]
        pub fn $hook(ctx: SockAddrContext) -> i32 {
            let call = Call(ctx.sock_addr);
            $(hook::socket::$does::<$mapped>(call);)?
            hook::socket::$does::<$form>(call);
            ALLOW
        }
    )*};
}
socket_hooks! {
    connect4 call Plain4;
    connect6 call Plain6 or Mapped4;
    sendmsg4 call Plain4;
    sendmsg6 call Plain6 or Mapped4;
    recvmsg4 tell Plain4;
    recvmsg6 tell Plain6 or Mapped4;
    getpeername4 tell Plain4;
    getpeername6 tell Plain6 or Mapped4;
}

/// Unreachable: the build fails if a panic is left in the object. The helpers that the programs use are for
/// GPL-compatible ones.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
