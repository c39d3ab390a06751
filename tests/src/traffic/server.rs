//! The answering side. A server of TCP does as the line says:
//! - `take N`: reads N octets of [`super::content`] and answers `whole`, or where they are not
//! - `give N`: sends N of them
//! - `close`, `reset`: ends the connection, by FIN or by RST
//! - anything else, and all of UDP: answers who it is, whom it sees, and the text.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recvfrom};

use super::{Answer, content};
use crate::namespace::Namespace;

/// tcpmux, which nobody serves: a peer that never writes.
const NOBODY: u16 = 1;

/// Servers that end with this value.
#[derive(Debug, Default)]
pub struct Servers {
    running: Mutex<Vec<Server>>,
}

/// The open connections of a server, by the client's address as it is seen here.
type Open = Arc<Mutex<HashMap<SocketAddr, Arc<TcpStream>>>>;

#[derive(Debug)]
struct Server {
    listener: Arc<TcpListener>,
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    open: Open,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Answers TCP and UDP at `at`, as `name`.
    ///
    /// # Panics
    /// When the address cannot be listened at.
    #[track_caller]
    pub fn start(&self, namespace: &Namespace, name: &str, at: SocketAddr) {
        let bound = namespace.enter(|| Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?)));
        let (listener, socket) = bound
            .unwrap_or_else(|error: io::Error| panic!("{name} cannot listen at {at}: {error}"));
        let (listener, socket) = (Arc::new(listener), Arc::new(socket));
        let (ended, open) = (Arc::new(AtomicBool::new(false)), Open::default());
        let threads = vec![
            std::thread::spawn({
                let (listener, ended, open, name) =
                    (listener.clone(), ended.clone(), open.clone(), name.to_owned());
                move || accept(&listener, &ended, &open, &name)
            }),
            std::thread::spawn({
                let (socket, ended, name) = (socket.clone(), ended.clone(), name.to_owned());
                move || echo(&socket, &ended, &name)
            }),
        ];
        lock(&self.running).push(Server { listener, socket, ended, open, threads });
    }

    /// Sends a line on every open connection, unasked; to how many clients.
    pub fn speak(&self, text: &str) -> usize {
        let running = lock(&self.running);
        let open: Vec<_> = running
            .iter()
            .flat_map(|server| lock(&server.open).values().cloned().collect::<Vec<_>>())
            .collect();
        open.iter()
            .filter(|stream| (&***stream).write_all(format!("{text}\n").as_bytes()).is_ok())
            .count()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.running).iter().map(|server| lock(&server.open).len()).sum()
    }

    /// Stops listening and ends every connection.
    pub fn stop(&self) {
        lock(&self.running).clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // A child that another thread is just starting holds a copy of each socket until its exec(2): closed is
        // not yet gone. A listener ends by its shutdown; a UDP socket with a peer is nobody else's to be asked.
        // Where there is no address any more, nobody asks either.
        if let Ok(at) = self.socket.local_addr() {
            let _ = self.socket.connect(SocketAddr::new(at.ip(), NOBODY));
        }
        // Wakes whoever waits on it; UDP sockets say that they are not connected, and wake all the same.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        let _ = rustix::net::shutdown(self.socket.as_fd(), rustix::net::Shutdown::Both);
        for stream in lock(&self.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, ended: &AtomicBool, open: &Open, name: &str) {
    while !ended.load(Ordering::SeqCst) {
        let Ok((stream, client)) = listener.accept() else { continue };
        let stream = Arc::new(stream);
        lock(open).insert(client, stream.clone());
        let (open, name) = (open.clone(), name.to_owned());
        std::thread::spawn(move || {
            // A client that went away is the test's business, not the server's.
            let _ = serve(&stream, client, &name);
            lock(&open).remove(&client);
        });
    }
}

fn serve(stream: &TcpStream, client: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let text = line.trim_end_matches('\n');
        let size = |text: &str| text.split_once(' ')?.1.parse::<usize>().ok();
        match (text.split(' ').next(), size(text)) {
            (Some("take"), Some(octets)) => {
                let found = take(&mut reader, octets)?;
                writer.write_all(Answer::write(name, client, &found).as_bytes())?;
            }
            (Some("give"), Some(octets)) => {
                let data: Vec<u8> = (0..octets).map(content).collect();
                writer.write_all(&data)?;
            }
            (Some("close"), None) => return Ok(()),
            (Some("reset"), None) => return Ok(set_socket_linger(stream, Some(Duration::ZERO))?),
            _ => writer.write_all(Answer::write(name, client, text).as_bytes())?,
        }
    }
}

fn take(reader: &mut impl Read, octets: usize) -> io::Result<String> {
    let mut data = vec![0; octets];
    reader.read_exact(&mut data)?;
    Ok(match data.iter().enumerate().find(|(index, octet)| **octet != content(*index)) {
        None => "whole".into(),
        Some((index, octet)) => format!("{octet} for octet {index}"),
    })
}

fn echo(socket: &UdpSocket, ended: &AtomicBool, name: &str) {
    let mut datagram = vec![0; 65_536];
    // Only in case that the wake-up of `drop` comes between this thread's look at `ended` and its wait.
    let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
    while !ended.load(Ordering::SeqCst) {
        // An error is an ICMP message about an earlier answer, or the end. Of a socket that was shut down the kernel
        // gives nothing from nobody, which the standard library takes for impossible.
        let received = recvfrom(socket, &mut datagram[..], RecvFlags::empty());
        let Ok((length, _, Some(client))) = received else { continue };
        let Ok(client) = SocketAddr::try_from(client) else { continue };
        let text = String::from_utf8_lossy(&datagram[..length]);
        let answer = Answer::write(name, client, text.trim_end_matches('\n'));
        let _ = socket.send_to(answer.as_bytes(), client);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::traffic::{Dial, Protocol};

    #[test]
    fn who_stopped_refuses_while_a_starting_child_still_holds_its_sockets() {
        let namespace = Namespace::machine("refusal");
        namespace.run("ip link set lo up");
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080);
        let servers = Servers::default();
        servers.start(&namespace, "web", at);
        let ask = |protocol| Dial::new(&namespace, at).ask(protocol, "hello");
        ask(Protocol::Udp).unwrap();
        let held = {
            let running = lock(&servers.running);
            (running[0].listener.try_clone().unwrap(), running[0].socket.try_clone().unwrap())
        };
        servers.stop();
        for protocol in Protocol::BOTH {
            assert_eq!(ask(protocol).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
        drop(held);
    }
}
