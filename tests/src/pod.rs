//! A pod: a network namespace that a list of plugins has given an interface, with servers and clients in it.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::cast::Family;
use crate::namespace::Namespace;
use crate::network::Network;
use crate::runtime::{Attachment, addresses};
use crate::traffic::{Dial, Servers};

/// A pod of a [`crate::node::Node`].
#[derive(Debug)]
pub struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) attachment: Attachment,
    pub(crate) network: Network,
    pub(crate) result: Value,
    servers: Servers,
}

impl Pod {
    pub(crate) fn new(
        namespace: Namespace,
        attachment: Attachment,
        network: Network,
        result: Value,
    ) -> Self {
        Self { namespace, attachment, network, result, servers: Servers::default() }
    }

    /// What it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What its plugins made of ADD.
    #[must_use]
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// The network that it is of.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What its runtime knows it by.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Its address of `family`.
    ///
    /// # Panics
    /// When ADD gave it none.
    #[must_use]
    #[track_caller]
    pub fn ip(&self, family: Family) -> IpAddr {
        let mut all = addresses(&self.result).into_iter();
        let found = all.find(|address| Family::of(*address) == family);
        found.unwrap_or_else(|| panic!("{} got no {family} address: {}", self.name(), self.result))
    }

    /// Its address of `family`, with `port`.
    #[must_use]
    #[track_caller]
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// The pod, answering on `port` of every address of its, TCP and UDP.
    #[must_use]
    #[track_caller]
    pub fn listening(self, port: u16) -> Self {
        self.listen(port);
        self
    }

    /// Answers on `port` of every address of its, TCP and UDP.
    #[track_caller]
    pub fn listen(&self, port: u16) {
        for ip in addresses(&self.result) {
            self.servers.start(&self.namespace, self.name(), SocketAddr::new(ip, port));
        }
    }

    /// Its servers.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Speaks to `to`.
    #[must_use]
    pub fn dial(&self, to: SocketAddr) -> Dial<'_> {
        Dial::new(&self.namespace, to)
    }

    /// The host end of its interface, by the name that ADD reported.
    ///
    /// # Panics
    /// When the result names no host end.
    #[must_use]
    #[track_caller]
    pub fn host_end(&self) -> String {
        let interfaces =
            self.result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_host_end = |interface: &&Value| {
            interface["sandbox"].as_str().unwrap_or_default().is_empty()
                && interface["name"] != "cbr0"
        };
        let found =
            interfaces.iter().find(is_host_end).and_then(|interface| interface["name"].as_str());
        found.unwrap_or_else(|| panic!("no host end in {}", self.result)).to_owned()
    }
}
