//! `netplug endpoints`: the pod interfaces that are served.

use serde_json::json as object;

use super::output::{Format, json, table};
use super::{interface, mac};
use crate::datapath::{Datapath, How};

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for endpoint in datapath.endpoints()? {
        // An interface that is gone has nothing attached.
        let attached = datapath.how_attached(endpoint.ifindex, "from_pod").unwrap_or(None);
        found.push((endpoint, attached));
    }
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
        ]
    });
    table(["INTERFACE", "ADDRESSES", "MAC", "BRIDGE", "GUARD", "ATTACHED"], rows)
}
