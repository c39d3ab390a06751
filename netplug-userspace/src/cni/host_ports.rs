//! HostPorts, as runtimes ask for them by the capability `portMappings`: in the reference portmap plugin's spelling, and in
//! containerd's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netplug_common::tuple::{TCP, UDP};
use rustix::net::{AddressFamily, SocketType, bind, sockopt};
use serde_json::Value;

use super::Error;
use crate::datapath::{Datapath, HostPort, Owner};
use crate::node::{Netlink, state};
use crate::protocol;
use crate::settings::uplinks;
use crate::warning::warn;

const KEY: &str = "runtimeConfig.portMappings";

/// A mapping as it is asked for, before the pod has addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    protocol: u8,
    /// `None`: any, of both families.
    address: Option<IpAddr>,
    port: u16,
    pod_port: u16,
}

/// Reads the list. Those without a host port are no HostPorts.
pub(super) fn read(list: &Value) -> Result<Vec<Wanted>, Error> {
    let wrong = |text: String| Error::config(KEY, text);
    let list = match list {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        other => return Err(wrong(format!("{other} is not a list"))),
    };
    let mut all: Vec<Wanted> = Vec::new();
    for mapping in list {
        let keys = mapping.as_object().ok_or_else(|| wrong(format!("{mapping} is no mapping")))?;
        let get = |name: &str| {
            keys.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
        };
        let port = |name: &str| match get(name) {
            None => Ok(0),
            Some(number) => number
                .as_u64()
                .and_then(|number| u16::try_from(number).ok())
                .ok_or_else(|| wrong(format!("{name} {number} of {mapping} is not a port"))),
        };
        let (host, pod_port) = (port("hostPort")?, port("containerPort")?);
        if host == 0 {
            continue;
        }
        if pod_port == 0 {
            return Err(wrong(format!("{mapping} has no containerPort")));
        }
        let text = |name: &str| get(name).and_then(Value::as_str).unwrap_or_default();
        let protocol = match text("protocol") {
            "" => TCP,
            name => protocol::with_ports(name)
                .ok_or_else(|| wrong(format!("protocol {name:?} is not tcp, udp or sctp")))?,
        };
        let address = match text("hostIP") {
            "" => None,
            text => Some(
                text.parse().map_err(|_| wrong(format!("hostIP {text:?} is not an address")))?,
            ),
        };
        let wanted = Wanted { protocol, address, port: host, pod_port };
        if let Some(twin) = all.iter().find(|other| other.is_at_the_place_of(&wanted)) {
            if *twin == wanted {
                continue;
            }
            return Err(wrong(format!("{mapping} is at the place of another mapping of this pod")));
        }
        all.push(wanted);
    }
    Ok(all)
}

impl Wanted {
    fn is_at_the_place_of(&self, other: &Self) -> bool {
        let is_any =
            |address: Option<IpAddr>| address.is_none_or(|address| address.is_unspecified());
        let is_one_family = match (self.address, other.address) {
            (Some(one), Some(other)) => one.is_ipv4() == other.is_ipv4(),
            _ => true,
        };
        self.protocol == other.protocol
            && self.port == other.port
            && is_one_family
            && (is_any(self.address) || is_any(other.address) || self.address == other.address)
    }

    /// What it means for a pod with `addresses`: one HostPort for each family of both.
    fn of_pod(&self, addresses: &[IpAddr]) -> Result<Vec<HostPort>, Error> {
        let mut ports: Vec<HostPort> = Vec::new();
        for pod in addresses {
            let address = match (self.address, pod) {
                (Some(address), _) => address,
                (None, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
                (None, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            };
            // The first address of a family counts, as with the reference plugin.
            let is_there = ports.iter().any(|port| port.address == address);
            if address.is_ipv4() == pod.is_ipv4() && !is_there {
                let Self { protocol, port, pod_port, .. } = *self;
                ports.push(HostPort { protocol, address, port, pod: *pod, pod_port });
            }
        }
        match self.address {
            Some(address) if ports.is_empty() => Err(Error::config(
                KEY,
                format!("hostIP {address} is of a family of which the pod has no address"),
            )),
            _ => Ok(ports),
        }
    }
}

/// All that `wanted` means for a pod with `addresses`.
pub(super) fn of_pod(wanted: &[Wanted], addresses: &[IpAddr]) -> Result<Vec<HostPort>, Error> {
    let mut all = Vec::new();
    for wanted in wanted {
        all.extend(wanted.of_pod(addresses)?);
    }
    Ok(all)
}

/// Opens them for a pod that is registered, `owner`'s. Warns of those that a process of the node has: it will not be called any more.
pub(super) fn open(
    netlink: &Netlink,
    datapath: &Datapath,
    owner: Owner,
    ports: &[HostPort],
) -> Result<(), Error> {
    if ports.is_empty() {
        return Ok(());
    }
    for port in ports.iter().filter(|port| is_busy(port)) {
        warn(format_args!(
            "a process of the node listens on {} {}; callers reach the pod from now on",
            protocol::name(port.protocol),
            SocketAddr::new(port.address, port.port)
        ));
    }
    // Nobody writes an older list of the node's addresses over a newer one.
    state::with(|_| {
        let locals = uplinks::locals(netlink)?;
        Ok::<_, Error>(datapath.open_host_ports(owner, ports, &locals)?)
    })
}

/// Whether a socket of the node's has the port: then it cannot be bound. Anything else that fails is no sign of one.
fn is_busy(port: &HostPort) -> bool {
    let kind = match port.protocol {
        TCP => SocketType::STREAM,
        UDP => SocketType::DGRAM,
        _ => return false,
    };
    let family = if port.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let Ok(socket) = rustix::net::socket(family, kind, None) else { return false };
    if port.protocol == TCP {
        // Connections that have ended do not count.
        let _ = sockopt::set_socket_reuseaddr(&socket, true);
    }
    if port.address.is_ipv6() {
        let _ = sockopt::set_ipv6_v6only(&socket, true);
    }
    let at = SocketAddr::new(port.address, port.port);
    matches!(bind(&socket, &at), Err(rustix::io::Errno::ADDRINUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

    fn read_and_apply(list: &Value) -> Result<Vec<String>, Error> {
        let ports = of_pod(&read(list)?, &[V4, V6])?;
        Ok(ports.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn both_spellings_are_read() {
        for list in [
            json!([{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]),
            json!([{"HostPort": 80, "ContainerPort": 8080, "Protocol": "TCP", "HostIP": ""}]),
        ] {
            let ports = read_and_apply(&list).unwrap();
            assert_eq!(ports, ["tcp 0.0.0.0:80 to 10.0.0.2:8080", "tcp [::]:80 to [fd00::2]:8080"]);
        }
    }

    #[test]
    fn an_address_names_its_family_only() {
        let list =
            json!([{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::"}]);
        assert_eq!(read_and_apply(&list).unwrap(), ["udp [::]:53 to [fd00::2]:53"]);
        let wanted = read(&list).unwrap();
        assert!(
            of_pod(&wanted, &[V4]).unwrap_err().to_string().contains("hostIP :: is of a family")
        );
    }

    #[test]
    fn what_has_no_host_port_is_none() {
        let list = json!([{"containerPort": 80}, {"hostPort": 0, "containerPort": 80}]);
        assert!(read_and_apply(&list).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (list, told) in [
            (json!([{"hostPort": 70_000, "containerPort": 1}]), "hostPort 70000"),
            (json!([{"hostPort": 80}]), "has no containerPort"),
            (json!([{"hostPort": 80, "containerPort": 1, "protocol": "gre"}]), "\"gre\""),
            (json!([{"hostPort": 80, "containerPort": 1, "hostIP": "node"}]), "\"node\""),
            (json!({"hostPort": 80}), "is not a list"),
            (
                json!([
                    {"hostPort": 80, "containerPort": 1},
                    {"hostPort": 80, "containerPort": 2, "hostIP": "192.0.2.1"}
                ]),
                "at the place of another",
            ),
        ] {
            let error = read(&list).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
