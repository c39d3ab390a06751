//! `netplug endpoints`: the pod interfaces that are served.

use serde_json::json as object;

use super::output::{Format, json, table};
use super::{interface, mac};
use crate::datapath::{Datapath, Endpoint, HostPort, How};
use crate::protocol;

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for endpoint in datapath.endpoints()? {
        // An interface that is gone has nothing attached.
        let attached = datapath.how_attached(endpoint.ifindex, "from_pod").unwrap_or(None);
        found.push((endpoint, attached));
    }
    let open = datapath.host_ports()?;
    let ports_of = |endpoint: &Endpoint| -> Vec<HostPort> {
        let mine = open.iter().filter(|(owner, _)| *owner == endpoint.owner);
        mine.map(|(_, port)| *port).collect()
    };
    let how = |attached: &Option<How>| match attached {
        Some(How::Tcx) => "tcx",
        Some(How::Clsact) => "clsact",
        None => "none",
    };
    if format == Format::Json {
        let endpoints = found.iter().map(|(endpoint, attached)| {
            object!({
                "ifindex": endpoint.ifindex,
                "interface": interface(endpoint.ifindex),
                "bridge": endpoint.bridge.map(interface),
                "mac": mac(endpoint.pod_mac),
                "gateway_mac": mac(endpoint.gateway_mac),
                "addresses": endpoint.addresses,
                "source_guard": endpoint.source_guard,
                "attached": how(attached),
                "host_ports": ports_of(endpoint),
            })
        });
        return json("endpoints", endpoints.collect());
    }
    let rows = found.iter().map(|(endpoint, attached)| {
        let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
        [
            interface(endpoint.ifindex),
            addresses.join(","),
            mac(endpoint.pod_mac),
            endpoint.bridge.map_or("-".into(), interface),
            if endpoint.source_guard { "yes" } else { "no" }.into(),
            how(attached).into(),
            host_ports(&ports_of(endpoint)),
        ]
    });
    table(["INTERFACE", "ADDRESSES", "MAC", "BRIDGE", "GUARD", "ATTACHED", "HOST PORTS"], rows)
}

fn host_ports(ports: &[HostPort]) -> String {
    let text = |port: &HostPort| {
        let at = std::net::SocketAddr::new(port.address, port.port);
        format!("{}/{at}>{}", protocol::name(port.protocol), port.pod_port)
    };
    if ports.is_empty() { "-".into() } else { ports.iter().map(text).collect::<Vec<_>>().join(",") }
}
