//! The world outside of the node: one host, at the other end of the node's uplink, that knows the way to pods.

use std::net::SocketAddr;
use std::path::Path;

use crate::cast::{Family, INTRANET, NODE_1, OUTSIDE, cluster_cidr};
use crate::eventually::{SOON, eventually};
use crate::namespace::Namespace;
use crate::traffic::{Dial, Servers};

/// The outside host.
#[derive(Debug)]
pub struct Outside {
    namespace: Namespace,
    servers: Servers,
}

impl Outside {
    /// A host joined to `node` by a cable, `eth0` at both ends, with addresses and routes on both.
    pub(crate) fn joined_to(node: &Namespace) -> Self {
        let path = Path::new("/run/netplug-tests/outside");
        let namespace = node.sibling(OUTSIDE.name, path);
        // Usable at once: no duplicate address detection on the cable.
        for end in [node, &namespace] {
            end.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        }
        let (cable, node_mac, outside_mac) =
            (path.display(), NODE_1.mac_text(), OUTSIDE.mac_text());
        node.feed(
            "ip -batch -",
            &format!(
                "link set lo up\n\
                 link add eth0 address {node_mac} type veth peer name eth0 address {outside_mac} netns {cable}\n\
                 address add {}/24 dev eth0\n\
                 address add {}/64 dev eth0 nodad\n\
                 link set eth0 up\n",
                NODE_1.v4, NODE_1.v6
            ),
        );
        namespace.feed(
            "ip -batch -",
            &format!(
                "address add {}/24 dev eth0\n\
                 address add {}/64 dev eth0 nodad\n\
                 address add {}/32 dev lo\n\
                 address add {}/128 dev lo nodad\n\
                 link set eth0 up\n\
                 route add {} via {}\n\
                 route add {} via {}\n",
                OUTSIDE.v4,
                OUTSIDE.v6,
                INTRANET.v4,
                INTRANET.v6,
                cluster_cidr(Family::V4),
                NODE_1.v4,
                cluster_cidr(Family::V6),
                NODE_1.v6,
            ),
        );
        node.feed(
            "ip -batch -",
            &format!(
                "route add default via {}\nroute add default via {}\n",
                OUTSIDE.v4, OUTSIDE.v6
            ),
        );
        node.set_sysctl("net/ipv6/conf/default/accept_dad", "1");
        // Until the kernel has looked at its carrier, an end drops what it is to send; then it gets its link-local address.
        for end in [node, &namespace] {
            eventually(SOON, || {
                let shown = end.run("ip address show eth0");
                let is_ready = shown.contains("state UP") && shown.contains("scope link");
                if is_ready { Ok(()) } else { Err(shown) }
            });
        }
        Self { namespace, servers: Servers::default() }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its servers.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Answers on `port` of each of its addresses, as [`OUTSIDE`] and as [`INTRANET`], TCP and UDP.
    #[track_caller]
    pub fn listen(&self, port: u16) {
        for family in Family::BOTH {
            for actor in [OUTSIDE, INTRANET] {
                self.servers.start(
                    &self.namespace,
                    actor.name,
                    SocketAddr::new(actor.ip(family), port),
                );
            }
        }
    }

    /// Speaks to `to`.
    #[must_use]
    pub fn dial(&self, to: SocketAddr) -> Dial<'_> {
        Dial::new(&self.namespace, to)
    }
}
