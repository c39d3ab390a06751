//! The result of an ADD, in the shape of the configuration's version.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::request::Request;
use crate::ipam::Lease;
use crate::node::{Mac, mac_text};

/// What ADD made.
pub(super) struct Made<'a> {
    pub(super) bridge: (&'a str, Mac),
    pub(super) host_end: (&'a str, Mac),
    pub(super) pod_mac: Mac,
    pub(super) leases: &'a [Lease],
    pub(super) routes: &'a [(IpNetwork, Option<IpAddr>)],
}

/// The result object. Before 1.0.0 each address also told its family.
pub(super) fn result(request: &Request, dns: Option<&Value>, made: &Made<'_>) -> Value {
    let sandbox = request.netns.as_deref().map(|path| path.display().to_string());
    let ips: Vec<_> = made
        .leases
        .iter()
        .map(|lease| {
            let mut ip = Map::new();
            ip.insert("address".into(), json!(lease.address));
            ip.insert("gateway".into(), json!(lease.gateway));
            ip.insert("interface".into(), json!(2));
            if request.cni_version.starts_with("0.") {
                ip.insert("version".into(), json!(if lease.address.is_ipv4() { "4" } else { "6" }));
            }
            Value::Object(ip)
        })
        .collect();
    let routes: Vec<_> = made
        .routes
        .iter()
        .map(|(to, gateway)| match gateway {
            Some(gateway) => json!({"dst": to, "gw": gateway}),
            None => json!({"dst": to}),
        })
        .collect();
    json!({
        "cniVersion": request.cni_version,
        "interfaces": [
            {"name": made.bridge.0, "mac": mac_text(made.bridge.1)},
            {"name": made.host_end.0, "mac": mac_text(made.host_end.1)},
            {"name": request.ifname, "mac": mac_text(made.pod_mac), "sandbox": sandbox},
        ],
        "ips": ips,
        "routes": routes,
        "dns": dns.cloned().unwrap_or_else(|| json!({})),
    })
}
