//! The network configuration that a runtime would have found in `/etc/cni/net.d`: a list of plugins.

use serde_json::{Value, json};

use crate::cast::{Family, NON_MASQUERADE, pod_cidr, ptp_cidr};

/// The name of every network here that is not [`Network::named`] otherwise: one name, one folder of leases, whoever
/// gives them out.
pub const NAME: &str = "pods";

/// A conflist, in parts.
#[derive(Debug, Clone)]
pub struct Network {
    /// `name`.
    pub name: String,
    /// `cniVersion`.
    pub cni_version: String,
    /// `plugins`, in the order of their ADD.
    pub plugins: Vec<Value>,
}

impl Network {
    fn of(plugins: Vec<Value>) -> Self {
        Self { name: NAME.into(), cni_version: "1.0.0".into(), plugins }
    }

    /// netplug alone, with an answer to every question that it may be asked.
    #[must_use]
    pub fn netplug() -> Self {
        let mut plugin = json!({
            "type": "netplug",
            "bridge": "cbr0",
            "isGateway": true,
            "ipam": host_local(pod_cidr),
        });
        datapath_settings(&mut plugin);
        Self::of(vec![plugin])
    }

    /// Debian's `bridge` and `host-local`, as a kubenet node had them.
    #[must_use]
    pub fn bridge() -> Self {
        Self::of(vec![json!({
            "type": "bridge",
            "bridge": "cbr0",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": host_local(pod_cidr),
        })])
    }

    /// Debian's `ptp` and `host-local`: routed pods, in a subnet of their own.
    #[must_use]
    pub fn ptp() -> Self {
        Self::of(vec![json!({"type": "ptp", "ipMasq": false, "ipam": host_local(ptp_cidr)})])
    }

    /// The network under a name of its own: another beside the first, with leases of its own.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// netplug after the plugins that are there.
    #[must_use]
    pub fn then_netplug(mut self) -> Self {
        let mut plugin = json!({"type": "netplug"});
        datapath_settings(&mut plugin);
        self.plugins.push(plugin);
        self
    }

    /// The network with `key` of netplug's part set to `value`; no change where netplug has no part.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        for plugin in self.plugins.iter_mut().filter(|plugin| plugin["type"] == "netplug") {
            plugin[key] = value.clone();
        }
        self
    }

    /// Whether netplug has a part in it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin["type"] == "netplug")
    }
}

fn datapath_settings(plugin: &mut Value) {
    plugin["steering"] = json!("learn");
    plugin["revisit"] = json!("20s");
    plugin["masquerade"] = json!({"nonMasqueradeCIDRs": NON_MASQUERADE});
}

/// `host-local` with one range of each family and a default route for each.
fn host_local(cidr: fn(Family) -> &'static str) -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{"subnet": cidr(Family::V4)}], [{"subnet": cidr(Family::V6)}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    })
}
