//! The demo's node: three pods, services for them, and an outside host.

use std::net::{IpAddr, SocketAddr};

use crate::cast::{Family, NODE_1, SERVICE};
use crate::node::Node;
use crate::pod::Pod;
use crate::rules::{self, Service};

/// Where the pods serve, and the outside host too.
pub(super) const PORT: u16 = 8080;
/// Port of the service that the two web pods stand behind.
pub(super) const WEB_PORT: u16 = 80;
/// Port of the service that only the first web pod stands behind.
pub(super) const SELF_PORT: u16 = 81;
/// Port of the service that only the other web pod stands behind.
pub(super) const OTHER_PORT: u16 = 82;
/// Port of the node at which the web pods are served.
pub(super) const NODE_PORT: u16 = 30080;

/// Everything that the checks need.
pub(super) struct Scene {
    pub(super) node: Node,
    /// Served by netplug alone.
    pub(super) web: Pod,
    /// Served by netplug after one of Debian's plugins.
    pub(super) chained: Pod,
    /// Served by netplug alone.
    pub(super) client: Pod,
}

impl Scene {
    /// Builds it; and says what it is.
    pub(super) fn new(after: &str) -> anyhow::Result<(Self, String)> {
        let node = Node::new();
        let web = node.add_pod("web").listening(PORT);
        let client = node.add_pod("client").listening(PORT);
        let chained = node.add_pod_chained("chained", after).listening(PORT);
        node.outside().listen(PORT);
        let scene = Self { node, web, chained, client };
        rules::serve(scene.node.namespace(), &scene.services());
        scene.node.bridge_netfilter(false);
        let address = |pod: &Pod| format!("{} {}", pod.name(), pod.ip(Family::V4));
        let saw = format!(
            "{}, {}, {} after Debian's {after}; bridge-nf-call-iptables={}",
            address(&scene.web),
            address(&scene.client),
            address(&scene.chained),
            scene
                .node
                .namespace()
                .sysctl("net/bridge/bridge-nf-call-iptables")
                .unwrap_or_else(|| "absent".into())
        );
        Ok((scene, saw))
    }

    fn services(&self) -> Vec<Service> {
        let mut services = Vec::new();
        for family in Family::BOTH {
            let (web, chained) = (self.web.at(family, PORT), self.chained.at(family, PORT));
            let both = Service::both(WEB_PORT, &[web, chained]);
            services.extend(both.into_iter().map(|service| service.node_port(NODE_PORT)));
            services.extend(Service::both(SELF_PORT, &[web]));
            services.extend(Service::both(OTHER_PORT, &[chained]));
        }
        services
    }

    /// The cluster address of the services, at `port`.
    pub(super) fn service(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(SERVICE.ip(family), port)
    }

    /// Who an address belongs to, as people say it.
    pub(super) fn whose(&self, address: IpAddr) -> String {
        let family = Family::of(address);
        let pods = [&self.web, &self.chained, &self.client];
        let pod = pods.iter().find(|pod| pod.ip(family) == address).map(|pod| pod.name());
        let node = (address == NODE_1.ip(family)).then_some("the node");
        pod.or(node).map_or_else(|| address.to_string(), |name| format!("{name} ({address})"))
    }

    /// DEL of every pod, unload, and a look at what is left.
    pub(super) fn leave(self) -> anyhow::Result<((), String)> {
        let Self { node, web, chained, client } = self;
        // The rules go first: they are the proxy's and would count as left behind.
        rules::clear(node.namespace());
        [chained, client, web].into_iter().for_each(|pod| node.del_pod(pod));
        node.finish();
        Ok(((), "no veth, address, route, program, pin or lease".into()))
    }
}
