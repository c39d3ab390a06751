//! The asking side.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, connect_unspec, socket_with,
};

use super::{Answer, PATIENCE, Protocol, content, timed_out, uninterrupted};
use crate::namespace::Namespace;

/// A client about to speak.
#[derive(Debug, Clone, Copy)]
pub struct Dial<'n> {
    namespace: &'n Namespace,
    to: SocketAddr,
    from_ip: Option<IpAddr>,
    from_port: u16,
    patience: Duration,
}

impl<'n> Dial<'n> {
    /// A client in `namespace` that will speak to `to`.
    #[must_use]
    pub const fn new(namespace: &'n Namespace, to: SocketAddr) -> Self {
        Self { namespace, to, from_ip: None, from_port: 0, patience: PATIENCE }
    }

    /// From this address, rather than one that the kernel chooses.
    #[must_use]
    pub const fn from_ip(self, from_ip: IpAddr) -> Self {
        Self { from_ip: Some(from_ip), ..self }
    }

    /// From this port, rather than one that the kernel chooses.
    #[must_use]
    pub const fn from_port(self, from_port: u16) -> Self {
        Self { from_port, ..self }
    }

    /// Waiting no longer than this for the connection, and for each answer.
    #[must_use]
    pub const fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Connects.
    pub fn open(self, protocol: Protocol) -> io::Result<Talk> {
        let socket = self.namespace.enter(|| self.connect(protocol))?;
        let socket = match protocol {
            Protocol::Tcp => {
                let stream = TcpStream::from(socket);
                stream.set_nodelay(true)?;
                Socket::Tcp(BufReader::new(stream))
            }
            Protocol::Udp => Socket::Udp(UdpSocket::from(socket)),
        };
        Ok(Talk { socket })
    }

    /// Connects by TCP.
    pub fn tcp(self) -> io::Result<Talk> {
        self.open(Protocol::Tcp)
    }

    /// Connects by UDP, which sends nothing yet.
    pub fn udp(self) -> io::Result<Talk> {
        self.open(Protocol::Udp)
    }

    /// Connects, asks one question and closes.
    pub fn ask(self, protocol: Protocol, text: &str) -> io::Result<Answer> {
        self.open(protocol)?.ask(text)
    }

    fn connect(self, protocol: Protocol) -> io::Result<OwnedFd> {
        let (family, any): (_, IpAddr) = match self.to {
            SocketAddr::V4(_) => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let kind = match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if self.from_port != 0 || self.from_ip.is_some() {
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddr::new(self.from_ip.unwrap_or(any), self.from_port))?;
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(self.patience))?;
        // Linux bounds connect(2) by this, too.
        set_socket_timeout(&socket, Timeout::Send, Some(self.patience))?;
        let connected = uninterrupted(|| match connect(&socket, &self.to) {
            // What was interrupted goes on, and a second call finds it done.
            Err(Errno::ISCONN) => Ok(()),
            result => Ok(result?),
        });
        connected.map_err(|error| timed_out(error, "connection"))?;
        Ok(socket)
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
}

/// A client that is connected.
#[derive(Debug)]
pub struct Talk {
    socket: Socket,
}

impl Talk {
    /// One request and its answer, which must be to that very text.
    pub fn ask(&mut self, text: &str) -> io::Result<Answer> {
        self.say(text)?;
        let answer = self.hear()?;
        if answer.text == text {
            Ok(answer)
        } else {
            Err(wrong(format!("asked {text:?}, got {answer:?}")))
        }
    }

    /// `count` requests one after the other; the last answer. All must come from one server that sees one client.
    pub fn ask_times(&mut self, count: usize) -> io::Result<Answer> {
        let first = self.ask("0")?;
        for number in 1..count {
            let answer = self.ask(&number.to_string())?;
            if (&answer.server, answer.client) != (&first.server, first.client) {
                return Err(wrong(format!(
                    "answer {number} is from elsewhere: {first}, then {answer}"
                )));
            }
        }
        Ok(first)
    }

    /// Sends a line.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        let line = format!("{text}\n");
        match &mut self.socket {
            Socket::Tcp(stream) => stream.get_mut().write_all(line.as_bytes()),
            Socket::Udp(socket) => uninterrupted(|| socket.send(line.as_bytes())).map(drop),
        }
        .map_err(|error| timed_out(error, "room to send"))
    }

    /// Waits for an answer.
    pub fn hear(&mut self) -> io::Result<Answer> {
        Answer::parse(&self.hear_line()?)
    }

    /// Waits for a line, which the server may send unasked.
    pub fn hear_line(&mut self) -> io::Result<String> {
        match &mut self.socket {
            Socket::Tcp(stream) => {
                let mut line = String::new();
                stream.read_line(&mut line).map_err(|error| timed_out(error, "answer"))?;
                if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
            }
            Socket::Udp(socket) => {
                let mut datagram = vec![0; 65_536];
                let length = uninterrupted(|| socket.recv(&mut datagram))
                    .map_err(|error| timed_out(error, "answer"))?;
                Ok(String::from_utf8_lossy(&datagram[..length]).into_owned())
            }
        }
    }

    /// Sends `octets` octets of known content over TCP; the server must find them whole.
    pub fn send_bulk(&mut self, octets: usize) -> io::Result<Answer> {
        self.say(&format!("take {octets}"))?;
        let Socket::Tcp(stream) = &mut self.socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let data: Vec<u8> = (0..octets).map(content).collect();
        stream.get_mut().write_all(&data).map_err(|error| timed_out(error, "room to send"))?;
        let answer = self.hear()?;
        if answer.text == "whole" {
            Ok(answer)
        } else {
            Err(wrong(format!("the server got {}", answer.text)))
        }
    }

    /// Has the server send `octets` octets of known content over TCP, and finds them whole.
    pub fn fetch_bulk(&mut self, octets: usize) -> io::Result<()> {
        self.say(&format!("give {octets}"))?;
        let Socket::Tcp(stream) = &mut self.socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut data = vec![0; octets];
        stream.read_exact(&mut data).map_err(|error| timed_out(error, "data"))?;
        match data.iter().enumerate().find(|(index, octet)| **octet != content(*index)) {
            None => Ok(()),
            Some((index, _)) => {
                Err(wrong(format!("octet {index} of {octets} is not as it was sent")))
            }
        }
    }

    /// The address that the client speaks from.
    pub fn local(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            Socket::Tcp(stream) => stream.get_ref().local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }

    /// Ends a TCP connection by FIN and waits for the server's.
    pub fn close(self) -> io::Result<()> {
        if let Socket::Tcp(mut stream) = self.socket {
            stream.get_ref().shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map_err(|error| timed_out(error, "close"))?;
        }
        Ok(())
    }

    /// Ends a TCP connection by RST; its port is free at once.
    pub fn reset(self) -> io::Result<()> {
        if let Socket::Tcp(stream) = &self.socket {
            // Closed would not yet be gone: a child that another thread is just starting holds a copy until its exec(2).
            connect_unspec(stream.get_ref())?;
        }
        Ok(())
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
