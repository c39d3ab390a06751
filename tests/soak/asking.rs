//! Who asks, by which way, and what each answer has to be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netplug_tests::cast::{Family, NODE_1, OUTSIDE};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Answer, Dial, PATIENCE, Talk};

use crate::Random;
use crate::known::{REVISIT, SLACK};
use crate::node::{HOST_PORT, PORT, SERVICES, World};

/// How long a datagram is waited for before it is sent again: the host may be made to forget a flow while its answer is under
/// way, and whoever translates has to drop it then.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is sent.
const TIMES: usize = 4;

/// A way for questions to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pod,
    Service,
    NodePort,
    Outside,
    FromOutside,
    HostPort,
    Passing,
    Wall,
}

impl Way {
    pub const ALL: [Self; 8] = [
        Self::Pod,
        Self::Service,
        Self::NodePort,
        Self::Outside,
        Self::FromOutside,
        Self::HostPort,
        Self::Passing,
        Self::Wall,
    ];
}

/// Whether a server, by its name, may answer what was asked between the two.
type May<'a> = dyn Fn(&str, Instant, Instant) -> bool + 'a;

/// Who is asked, and what is held against the answers.
struct Question<'a> {
    dial: Dial<'a>,
    /// Who may answer.
    may: Box<May<'a>>,
    /// As whom the server is to see the client, where it is to see somebody.
    seen: Option<IpAddr>,
}

/// Asks by one way until `end`.
pub fn ask(world: &World, way: Way, mut random: Random, end: Instant) {
    while Instant::now() < end {
        let family = random.one_of(&Family::BOTH);
        let protocol = random.one_of(&[Tcp, Udp]);
        match way {
            Way::Wall => wall(world, family, protocol, &mut random),
            Way::Passing => passing(world, family, protocol),
            _ => {
                let question = question(world, way, family, &mut random);
                let count = 1 + random.below(40);
                if let Err(error) = talk(world, way, &question, protocol, count) {
                    panic!("{way:?} by {family} and {protocol}: {error}");
                }
            }
        }
        world.asked[way as usize].fetch_add(1, Ordering::SeqCst);
    }
}

fn question<'a>(world: &'a World, way: Way, family: Family, random: &mut Random) -> Question<'a> {
    let client = &world.clients[random.below(2) as usize];
    let number = u16::try_from(random.below(SERVICES.into())).expect("few");
    let servers = &world.servers[usize::from(number)];
    let server = &servers[random.below(u32::try_from(servers.len()).expect("few")) as usize];
    let outside = world.node.outside();
    let only = |name: &'a str| Box::new(move |server: &str, _, _| server == name) as Box<_>;
    let of_service = Box::new(move |server: &str, from, until| {
        servers.iter().any(|pod| pod.name() == server) && world.known.was(server, from, until)
    });
    match way {
        Way::Service => Question {
            // Servers call their own service, too.
            dial: if random.below(4) == 0 { server } else { client }
                .dial(World::service(number, family)),
            may: of_service,
            seen: None,
        },
        Way::NodePort => Question {
            dial: outside.dial(World::node_port(number, family)),
            may: of_service,
            seen: (number + 1 == SERVICES).then(|| OUTSIDE.ip(family)),
        },
        Way::Outside => Question {
            dial: client.dial(SocketAddr::new(OUTSIDE.ip(family), PORT)),
            may: only(OUTSIDE.name),
            seen: Some(NODE_1.ip(family)),
        },
        Way::FromOutside => Question {
            dial: outside.dial(server.at(family, PORT)),
            may: only(server.name()),
            seen: Some(OUTSIDE.ip(family)),
        },
        Way::HostPort => Question {
            dial: outside.dial(SocketAddr::new(NODE_1.ip(family), HOST_PORT)),
            may: only(world.ported.name()),
            seen: Some(OUTSIDE.ip(family)),
        },
        Way::Pod | Way::Passing | Way::Wall => Question {
            dial: client.dial(server.at(family, PORT)),
            may: only(server.name()),
            seen: Some(client.ip(family)),
        },
    }
}

/// One flow, of `count` questions.
fn talk(
    world: &World,
    way: Way,
    question: &Question<'_>,
    protocol: Protocol,
    count: u32,
) -> io::Result<()> {
    let begun = Instant::now();
    let patience = if protocol == Tcp { 4 * PATIENCE } else { AGAIN };
    let mut talk = question.dial.patience(patience).open(protocol)?;
    let mut first: Option<Answer> = None;
    for number in 0..count {
        let asked = Instant::now();
        let answer = one(world, &mut talk, protocol, number)?;
        let Answer { server, .. } = &answer;
        // A connection stays with whom it has; a datagram follows what its flow has cached for a while.
        let since = if protocol == Tcp { begun } else { asked - REVISIT - SLACK };
        let fits = (question.may)(server, since, Instant::now())
            && question.seen.is_none_or(|seen| answer.client_ip() == seen);
        if !fits {
            let (served, asked) = (world.known.lately(server), since.elapsed());
            return Err(io::Error::other(format!(
                "question {number} was answered by {answer:?}, which served {served:?} seconds ago; asked {asked:?} ago"
            )));
        }
        let before = first.get_or_insert_with(|| answer.clone());
        let may_move = protocol == Udp && matches!(way, Way::Service | Way::NodePort);
        if !may_move && (&before.server, before.client) != (&answer.server, answer.client) {
            return Err(io::Error::other(format!("{before:?} became {answer:?}")));
        }
    }
    if protocol == Tcp {
        talk.send_bulk(20_000 * (1 + count as usize % 4))?;
        talk.fetch_bulk(30_000)?;
        let is_services = matches!(way, Way::Service | Way::NodePort);
        match count % 3 {
            0 if is_services => {
                // The client's port is free at once: what calls by it next may be led elsewhere.
                talk.say("close")?;
                let _ = talk.hear_line();
                talk.close()?;
            }
            // conntrack does not believe the reset of a connection that it has seen little of, for ten seconds.
            0 => talk.reset()?,
            _ => talk.close()?,
        }
    }
    Ok(())
}

/// One question and the answer to it.
fn one(world: &World, talk: &mut Talk, protocol: Protocol, number: u32) -> io::Result<Answer> {
    let mut last = io::Error::other("never asked");
    for time in 0..if protocol == Tcp { 1 } else { TIMES } {
        if time > 0 {
            world.lost.fetch_add(1, Ordering::SeqCst);
        }
        let text = format!("{number}.{time}");
        match talk.say(&text).and_then(|()| hear(talk, &text)) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The answer to `text`; what comes late of others is left.
fn hear(talk: &mut Talk, text: &str) -> io::Result<Answer> {
    loop {
        let answer = talk.hear()?;
        if answer.text == text {
            return Ok(answer);
        }
    }
}

/// Where a wall has been for long enough nobody gets through; where none is, everybody.
fn wall(world: &World, family: Family, protocol: Protocol, random: &mut Random) {
    let client = &world.clients[random.below(2) as usize];
    let ip = client.ip(family);
    let asked = Instant::now();
    let dial = client.dial(world.walled.at(family, PORT)).patience(AGAIN);
    let is_walled = world.known.is_since(&format!("wall {ip}"), asked - REVISIT - SLACK);
    let mut through = None;
    for time in 0..TIMES {
        match dial.ask(protocol, &format!("{time}")) {
            Ok(answer) => through = Some(answer),
            Err(_) if is_walled => break,
            Err(_) => continue,
        }
        break;
    }
    if let Some(answer) = &through {
        assert!(!is_walled, "{answer:?} came through a wall");
        assert_eq!((answer.server.as_str(), answer.client_ip()), (world.walled.name(), ip));
    } else if world.known.is_since(&format!("gap {ip}"), asked) {
        panic!("{ip} by {protocol}: no way, where no wall is");
    }
}

/// Whoever answers at the address of a pod that passes is the pod that has it.
fn passing(world: &World, family: Family, protocol: Protocol) {
    let passing = world.passing.lock().unwrap_or_else(PoisonError::into_inner);
    let pod = passing.as_ref().expect("there is always one");
    let (name, at) = (pod.name().to_owned(), pod.at(family, PORT));
    drop(passing);
    let asked = Instant::now();
    let client = &world.clients[0];
    let mut is_answered = false;
    for time in 0..TIMES {
        let Ok(answer) = client.dial(at).patience(AGAIN).ask(protocol, &format!("{time}")) else {
            continue;
        };
        let who = format!("{} {}", answer.server, at.ip());
        assert!(world.known.was(&who, asked, Instant::now()), "{answer:?} answers at {at}");
        is_answered = true;
        break;
    }
    let is_there = world.known.is_since(&format!("{name} {}", at.ip()), asked);
    assert!(is_answered || !is_there, "{name} does not answer at {at} by {protocol}");
}
