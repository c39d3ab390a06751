//! netplug as the `loopback` plugin: a pod's `lo` is up.

use serde_json::{Value, json};

use super::Error;
use super::request::Request;
use crate::node::link::Link;
use crate::node::namespace::Namespace;
use crate::node::{self};

const LO: &str = "lo";

pub(super) fn add(request: &Request) -> Result<Value, Error> {
    set(request, true)?;
    if let Some(previous) = request.config.get("prevResult") {
        return Ok(previous.clone());
    }
    let sandbox = request.netns.as_deref().map(|path| path.display().to_string());
    let mut ips =
        json!([{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]);
    if request.cni_version.starts_with("0.") {
        ips[0]["version"] = json!("4");
        ips[1]["version"] = json!("6");
    }
    Ok(json!({
        "cniVersion": request.cni_version,
        "interfaces": [{"name": LO, "mac": "00:00:00:00:00:00", "sandbox": sandbox}],
        "ips": ips,
        "dns": {},
    }))
}

pub(super) fn del(request: &Request) -> Result<(), Error> {
    match set(request, false) {
        Err(Error::Node(node::Error::NamespaceGone { .. })) => Ok(()),
        result => result,
    }
}

pub(super) fn check(request: &Request) -> Result<(), Error> {
    let Some(path) = request.netns.as_deref() else { return Ok(()) };
    let lo = Namespace::open(path)?.enter(|netlink| netlink.link(LO))?;
    if lo.is_some_and(|lo: Link| lo.is_up) {
        Ok(())
    } else {
        Err(Error::Drift(vec!["lo is down".into()]))
    }
}

fn set(request: &Request, up: bool) -> Result<(), Error> {
    let Some(path) = request.netns.as_deref() else { return Ok(()) };
    Namespace::open(path)?.enter(|netlink| {
        let Some(lo) = netlink.link(LO)? else { return Ok(()) };
        let message = rtnetlink::LinkUnspec::new_with_index(lo.index);
        netlink.set(if up { message.up() } else { message.down() }.build(), LO)
    })?;
    Ok(())
}
