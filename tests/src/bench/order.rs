//! What streams send again. A packet that visits takes longer than those behind it, and a stream may take it for lost.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use serde_json::{Value, json};

use super::roads::Road;
use crate::cast::Family;

/// What is done, and what the figures count.
pub const WORK: &str = "pod → service → pod, TCP streams of 64 MiB, segments sent again";

const LENGTH: usize = 64 << 20;

/// By netplug, and by today's node.
#[derive(Debug)]
pub struct Order {
    family: Family,
    streams: usize,
    ours: u32,
    today: u32,
}

/// Sends `streams` streams each way, in turn: what the machine does to one, it does to its neighbour.
pub fn count(
    ours: &Road,
    today: &Road,
    family: Family,
    port: u16,
    streams: usize,
) -> io::Result<Order> {
    let mut order = Order { family, streams, ours: 0, today: 0 };
    let listen = |road: &Road| {
        let at = road.server.at(family, port);
        road.server.namespace().enter(|| TcpListener::bind(at))
    };
    let listeners = (listen(ours)?, listen(today)?);
    for _ in 0..streams {
        order.ours += stream(ours, &listeners.0, family)?;
        order.today += stream(today, &listeners.1, family)?;
    }
    Ok(order)
}

/// What is sent again of one stream.
fn stream(road: &Road, listener: &TcpListener, family: Family) -> io::Result<u32> {
    let to: SocketAddr = road.service(family);
    let mut sender = road.client.namespace().enter(|| TcpStream::connect(to))?;
    let (mut receiver, _) = listener.accept()?;
    std::thread::scope(|scope| {
        let hearing = scope.spawn(move || io::copy(&mut receiver, &mut io::sink()));
        let piece = vec![7; 1 << 16];
        for _ in 0..LENGTH / piece.len() {
            sender.write_all(&piece)?;
        }
        sender.shutdown(Shutdown::Write)?;
        let heard = hearing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if heard == LENGTH as u64 {
            io::Result::Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    })?;
    sent_again(&sender)
}

/// Segments that the sender has sent again (`tcpi_total_retrans`, include/uapi/linux/tcp.h).
fn sent_again(stream: &TcpStream) -> io::Result<u32> {
    // SAFETY: all of it are numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` has `length` writable octets.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info.tcpi_total_retrans) } else { Err(io::Error::last_os_error()) }
}

impl Order {
    /// As a line of text.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { family, streams, ours, today } = self;
        format!(
            "{WORK}, {streams} streams, {family}\n  netplug {ours}, bridge + br_netfilter {today}\n"
        )
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self { family, streams, ours, today } = self;
        json!({"work": WORK, "family": family.name(), "streams": streams, "netplug": ours, "bridge + br_netfilter": today})
    }
}
