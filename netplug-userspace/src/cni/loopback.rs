//! netplug as the `loopback` plugin: a pod's `lo` is up.

use serde_json::{Value, json};

use super::request::Request;
use super::{Error, tell};
use crate::node::link::Link;
use crate::node::namespace::Namespace;

const LO: &str = "lo";

pub(super) fn add(request: &Request) -> Result<(), Error> {
    let pod = request.pod()?;
    set(&pod, true)?;
    let previous = request.config.get("prevResult").filter(|previous| !previous.is_null());
    tell(&previous.cloned().unwrap_or_else(|| result(request)))
}

fn result(request: &Request) -> Value {
    let sandbox = request.netns.as_deref().map(|path| path.display().to_string());
    let mut ips =
        json!([{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]);
    if request.cni_version.starts_with("0.") {
        ips[0]["version"] = json!("4");
        ips[1]["version"] = json!("6");
    }
    json!({
        "cniVersion": request.cni_version,
        "interfaces": [{"name": LO, "mac": "00:00:00:00:00:00", "sandbox": sandbox}],
        "ips": ips,
        "dns": {},
    })
}

pub(super) fn del(request: &Request) -> Result<(), Error> {
    match request.what_is_left_of_pod()? {
        Some(pod) => set(&pod, false),
        None => Ok(()),
    }
}

pub(super) fn check(request: &Request) -> Result<(), Error> {
    let lo = request.pod()?.enter(|netlink| netlink.link(LO))?;
    if lo.is_some_and(|lo: Link| lo.is_up) {
        Ok(())
    } else {
        Err(Error::Drift(vec!["lo is down".into()]))
    }
}

fn set(pod: &Namespace, up: bool) -> Result<(), Error> {
    pod.enter(|netlink| {
        let Some(lo) = netlink.link(LO)? else { return Ok(()) };
        let message = rtnetlink::LinkUnspec::new_with_index(lo.index);
        netlink.set(if up { message.up() } else { message.down() }.build(), LO)
    })?;
    Ok(())
}
