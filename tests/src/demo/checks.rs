//! Every way that a pod's traffic can go. A check returns what was seen.

use std::net::SocketAddr;

use anyhow::{Context, ensure};

use super::scene::{NODE_PORT, OTHER_PORT, PORT, SELF_PORT, Scene};
use crate::cast::{Actor, Family, INTRANET, NODE_1, OUTSIDE};
use crate::counters::{Counters, flows};
use crate::pod::Pod;
use crate::rules;
use crate::traffic::{Answer, Dial, IMPATIENCE, PATIENCE, Protocol, ping};

/// A check of one family.
type Check = fn(&Scene, Family) -> anyhow::Result<String>;

/// The checks, in the order of the demo.
pub(super) const ALL: [(&str, Check); 8] = [
    ("pod → pod", pod_to_pod),
    ("pod → service → other pod", pod_to_service),
    ("pod → service → itself", pod_to_itself),
    ("pod → outside", pod_to_outside),
    ("pod → non-masquerade CIDR", pod_to_intranet),
    ("outside → NodePort → pod", outside_to_node_port),
    ("outside → pod address", outside_to_pod),
    ("FORWARD forbids pod → pod", forbidden),
];

/// Asks by TCP and by UDP, several times each; both must have gone the same way.
fn ask(dial: Dial<'_>) -> anyhow::Result<Answer> {
    let [tcp, udp] = Protocol::BOTH.map(|protocol| {
        let answers = dial.open(protocol).and_then(|mut talk| talk.ask_times(20));
        answers.with_context(|| protocol.to_string())
    });
    let (tcp, udp) = (tcp?, udp?);
    ensure!(tcp.client_ip() == udp.client_ip(), "tcp: {tcp}, but udp: {udp}");
    Ok(tcp)
}

/// Asserts who saw whom.
fn seen(
    scene: &Scene,
    answer: &Answer,
    server: &str,
    client: std::net::IpAddr,
) -> anyhow::Result<String> {
    let saw = format!("{} answered and saw {}", answer.server, scene.whose(answer.client_ip()));
    ensure!(answer.server == server, "{saw}; {server} should have answered");
    ensure!(answer.client_ip() == client, "{saw}; it should have seen {}", scene.whose(client));
    Ok(saw)
}

fn pod_to_pod(scene: &Scene, family: Family) -> anyhow::Result<String> {
    let mut saw = Vec::new();
    for (from, to) in
        [(&scene.client, &scene.web), (&scene.client, &scene.chained), (&scene.chained, &scene.web)]
    {
        let answer = ask(from.dial(to.at(family, PORT)))?;
        saw.push(seen(scene, &answer, to.name(), from.ip(family))?);
        ping(from.namespace(), to.ip(family), 7, 56, PATIENCE).context("ping")?;
    }
    Ok(format!("{}; echo too", saw.swap_remove(0)))
}

fn pod_to_service(scene: &Scene, family: Family) -> anyhow::Result<String> {
    let service = scene.service(family, OTHER_PORT);
    let answer = ask(scene.client.dial(service))?;
    let saw = seen(scene, &answer, scene.chained.name(), scene.client.ip(family))?;
    Ok(format!("{service}: {saw}"))
}

fn pod_to_itself(scene: &Scene, family: Family) -> anyhow::Result<String> {
    let service = scene.service(family, SELF_PORT);
    let answer = ask(scene.web.dial(service))?;
    let saw =
        format!("{service}: {} answered itself and saw {}", answer.server, answer.client_ip());
    ensure!(answer.server == scene.web.name(), "{saw}; web should have answered");
    ensure!(
        answer.client_ip() != scene.web.ip(family),
        "{saw}; kube-proxy should have masqueraded"
    );
    Ok(saw)
}

fn to_outside(
    scene: &Scene,
    family: Family,
    actor: Actor,
    as_whom: impl Fn(&Pod) -> std::net::IpAddr,
) -> anyhow::Result<String> {
    let at = SocketAddr::new(actor.ip(family), PORT);
    let mut saw = String::new();
    for pod in [&scene.chained, &scene.client] {
        let answer = ask(pod.dial(at))?;
        saw = seen(scene, &answer, actor.name, as_whom(pod))?;
        ping(pod.namespace(), at.ip(), 7, 56, PATIENCE).context("ping")?;
    }
    Ok(saw)
}

fn pod_to_outside(scene: &Scene, family: Family) -> anyhow::Result<String> {
    to_outside(scene, family, OUTSIDE, |_| NODE_1.ip(family))
}

fn pod_to_intranet(scene: &Scene, family: Family) -> anyhow::Result<String> {
    to_outside(scene, family, INTRANET, |pod| pod.ip(family))
}

fn outside_to_node_port(scene: &Scene, family: Family) -> anyhow::Result<String> {
    let at = SocketAddr::new(NODE_1.ip(family), NODE_PORT);
    let answer = ask(scene.node.outside().dial(at))?;
    Ok(format!("{at}: {} answered and saw {}", answer.server, scene.whose(answer.client_ip())))
}

fn outside_to_pod(scene: &Scene, family: Family) -> anyhow::Result<String> {
    let mut saw = String::new();
    for pod in [&scene.chained, &scene.web] {
        let answer = ask(scene.node.outside().dial(pod.at(family, PORT)))?;
        saw = seen(scene, &answer, pod.name(), OUTSIDE.ip(family))?;
    }
    Ok(saw)
}

fn forbidden(scene: &Scene, family: Family) -> anyhow::Result<String> {
    let node = scene.node.namespace();
    let (from, to) = (&scene.web, &scene.client);
    rules::forbid(node, from.ip(family), to.ip(family));
    scene.node.netplug("flush");
    let before = Counters::of(&scene.node);
    let asked = Protocol::BOTH.map(|protocol| {
        from.dial(to.at(family, PORT)).patience(IMPATIENCE).ask(protocol, "may I?")
    });
    rules::allow(node, from.ip(family), to.ip(family));
    if let Some(answer) = asked.into_iter().flatten().next() {
        anyhow::bail!("{answer}, although a rule forbids it");
    }
    let visits = Counters::of(&scene.node).since(&before).visits();
    ask(from.dial(to.at(family, PORT))).context("after the rule was gone")?;
    Ok(format!(
        "no answer; {visits} packets visited the host, where the rule is; answered once it was gone"
    ))
}

/// Requests of the connection by which packets are counted.
const REQUESTS: usize = 5_000;

/// How many flows there are, and which way the packets of one connection go.
pub(super) fn flows_learned(scene: &Scene) -> anyhow::Result<String> {
    let before = Counters::of(&scene.node);
    scene.client.dial(scene.service(Family::V4, OTHER_PORT)).tcp()?.ask_times(REQUESTS)?;
    let now = Counters::of(&scene.node).since(&before);
    let learned = flows(&scene.node).len();
    let saw = format!(
        "{learned} flows are cached; of {REQUESTS} requests to a service on one connection {} packets visited the host and {} took the short way",
        now.visits(),
        now.hits()
    );
    ensure!(learned > 0, "{saw}; some should be cached");
    ensure!(now.visits() * 20 < now.hits(), "{saw}; nearly all should");
    Ok(saw)
}
