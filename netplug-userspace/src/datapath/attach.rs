//! Attach and detach. A clsact filter is quick to make and goes with its device; a TCX link is quicker for each
//! packet, takes an RCU grace period to make, and needs a pin, which DEL removes.

use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use super::{Attach, Error, clsact, pin};

/// The programs, in the order in which they are pinned.
pub const PROGRAMS: &[&str] = &["from_pod", "to_pod", "from_uplink", "to_uplink"];
/// Those of uplinks.
pub(super) const UPLINK_PROGRAMS: [&str; 2] = ["to_uplink", "from_uplink"];

/// Where among the filters of a device ours stands: other software finds room on either side. Where another's stands there,
/// ours comes behind.
const PRIORITY: u16 = 50;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How a program was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By a pinned TCX link.
    Tcx,
    /// By a clsact filter.
    Clsact,
}

/// A packet that enters the host is at TC ingress of the device, whatever side the pod calls it.
const fn side(program: &str) -> TcAttachType {
    match program.as_bytes() {
        [b'f', ..] => TcAttachType::Ingress,
        _ => TcAttachType::Egress,
    }
}

fn link_name(ifindex: u32, program: &str) -> String {
    format!("link-{ifindex}-{program}")
}

/// The name of an interface of this namespace.
pub fn interface_name(ifindex: u32) -> Result<String, Error> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .map_err(|source| Error::Interface { ifindex, source: source.into() })?;
    rustix::net::netdevice::index_to_name(&socket, ifindex)
        .map_err(|source| Error::Interface { ifindex, source: source.into() })
}

fn pinned(program: &'static str) -> Result<SchedClassifier, Error> {
    SchedClassifier::from_pin(pin::path(program)).map_err(|source| Error::Program {
        verb: "open",
        program,
        source: Box::new(source),
    })
}

/// Attaches `program` to a device, as `attach` says; `prefer` decides for `auto`. Where it hangs already, it is
/// replaced by the pinned one without a gap.
pub(super) fn attach(
    ifindex: u32,
    program: &'static str,
    attach: Attach,
    prefer: How,
) -> Result<How, Error> {
    let interface = interface_name(ifindex)?;
    let ways: &[How] = match (attach, prefer) {
        (Attach::Tcx, _) => &[How::Tcx],
        (Attach::Clsact, _) => &[How::Clsact],
        (Attach::Auto, How::Tcx) => &[How::Tcx, How::Clsact],
        (Attach::Auto, How::Clsact) => &[How::Clsact, How::Tcx],
    };
    let mut first = None;
    for how in ways {
        let attached = match how {
            How::Tcx => attach_tcx(ifindex, &interface, program),
            How::Clsact => attach_clsact(ifindex, &interface, program),
        };
        match attached {
            Ok(()) => return Ok(*how),
            Err(AttachError::Refused(source)) => {
                first.get_or_insert(source);
            }
            Err(AttachError::Ours(error)) => return Err(error),
        }
    }
    let source = first.unwrap_or_else(|| ProgramError::NotAttached.into());
    Err(Error::Attach { verb: "attach", program, interface, source })
}

/// The kernel's refusal, after which the other way is tried, or an error of ours.
enum AttachError {
    Refused(Cause),
    Ours(Error),
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl From<ProgramError> for AttachError {
    fn from(error: ProgramError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<LinkError> for AttachError {
    fn from(error: LinkError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

fn attach_clsact(ifindex: u32, interface: &str, name: &'static str) -> Result<(), AttachError> {
    let place = match tc::qdisc_add_clsact(interface) {
        Ok(()) => {
            // An endpoint's goes with the device.
            if UPLINK_PROGRAMS.contains(&name) {
                clsact::note_ours(ifindex)?;
            }
            Place::Free(PRIORITY)
        }
        // aya tells EEXIST by the netlink error only; what is wrong with the qdisc, the filter finds out.
        Err(tc::TcError::AlreadyAttached | tc::TcError::NetlinkError(_)) => {
            let fail =
                |source| Error::File { verb: "list the qdiscs of", path: interface.into(), source };
            if clsact::has_ingress(ifindex).map_err(fail)? {
                let wrong = "there is an ingress qdisc, which leaves no room for clsact: take it away, or set attach to tcx";
                return Err(AttachError::Refused(wrong.into()));
            }
            place(ifindex, interface, name)?
        }
        Err(error) => return Err(ProgramError::from(error).into()),
    };
    let mut program = pinned(name)?;
    let options =
        |priority| TcAttachOptions::Netlink(NlOptions { priority, handle: HANDLE, classid: None });
    let link = match place {
        Place::Ours(known) => program.attach_to_link(known)?,
        Place::Free(priority) => {
            program.attach_with_options(interface, side(name), options(priority))?
        }
    };
    // Dropping the link would detach it; the filter is to stay for as long as its device.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Where a program of ours can be on one side of a device.
enum Place {
    /// Where it is, in an older form perhaps.
    Ours(SchedClassifierLink),
    /// At the first priority that nobody has.
    Free(u16),
}

fn place(ifindex: u32, interface: &str, name: &'static str) -> Result<Place, Error> {
    let fail = |source| Error::File { verb: "list the filters of", path: interface.into(), source };
    let filters = clsact::filters(ifindex, side(name)).map_err(fail)?;
    if let Some(ours) = filters.iter().find(|filter| filter.program.as_deref() == Some(name)) {
        let (priority, handle) = (ours.priority, TcHandle::from(ours.handle));
        let known = SchedClassifierLink::attached(interface, side(name), priority, handle, None);
        return known.map(Place::Ours).map_err(fail);
    }
    let is_taken = |priority: &u16| filters.iter().any(|filter| filter.priority == *priority);
    (PRIORITY..u16::MAX).find(|priority| !is_taken(priority)).map(Place::Free).ok_or_else(|| {
        Error::NoPlace { program: name, interface: interface.into(), first: PRIORITY }
    })
}

fn attach_tcx(ifindex: u32, interface: &str, name: &'static str) -> Result<(), AttachError> {
    let mut program = pinned(name)?;
    let path = pin::path(&link_name(ifindex, name));
    if path.exists() {
        match replace_tcx(&mut program, &path) {
            Ok(()) => return Ok(()),
            // The device that the link belonged to is gone, and its index was given to another.
            Err(_) => pin::remove(&path)?,
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = program.attach_with_options(interface, side(name), options)?;
    let link = FdLink::try_from(program.take_link(link)?)?;
    link.pin(&path).map_err(|source| Error::Pin { path, source })?;
    Ok(())
}

/// Puts `program` into a pinned link, in the place of the one there.
fn replace_tcx(program: &mut SchedClassifier, path: &Path) -> Result<(), AttachError> {
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    let link = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
    // The pin holds it.
    drop(program.take_link(link)?);
    Ok(())
}

/// Whether `program` hangs on a device, and how.
pub(super) fn attached(ifindex: u32, program: &'static str) -> Result<Option<How>, Error> {
    let interface = interface_name(ifindex)?;
    if pin::path(&link_name(ifindex, program)).exists() {
        return Ok(Some(How::Tcx));
    }
    let found = clsact::has_filter(ifindex, side(program), program).map_err(|source| {
        Error::File { verb: "list the filters of", path: interface.into(), source }
    })?;
    Ok(found.then_some(How::Clsact))
}

/// The devices of pods, by what hangs on them and not by the maps, which may be lost. An adopted port has `from_pod` alone.
pub fn served() -> Result<Vec<u32>, Error> {
    let mut served = clsact::devices()?;
    for program in ["from_pod", "to_pod"] {
        let mut with = Vec::new();
        for ifindex in served {
            match attached(ifindex, program) {
                Ok(Some(_)) => with.push(ifindex),
                // Gone in the meantime.
                Ok(None) | Err(Error::Interface { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        served = with;
    }
    Ok(served)
}

/// Puts the pinned program on a device, in the place of an older one if one hangs there. Content where the device is gone.
pub(super) fn replace(ifindex: u32, program: &'static str) -> Result<(), Error> {
    let how = match attached(ifindex, program) {
        Ok(Some(How::Tcx)) => Attach::Tcx,
        Ok(Some(How::Clsact) | None) => Attach::Auto,
        Err(Error::Interface { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    match attach(ifindex, program, how, How::Clsact) {
        // Gone in between.
        Err(_) if interface_name(ifindex).is_err() => Ok(()),
        attached => attached.map(drop),
    }
}

/// Takes `program` off a device, however it hangs there. Content if it does not, or the device is gone.
pub(super) fn detach(ifindex: u32, program: &'static str) -> Result<(), Error> {
    pin::remove(&pin::path(&link_name(ifindex, program)))?;
    detach_filter(ifindex, program)
}

fn detach_filter(ifindex: u32, program: &'static str) -> Result<(), Error> {
    let interface = match interface_name(ifindex) {
        Ok(interface) => interface,
        Err(Error::Interface { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    match tc::qdisc_detach_program(&interface, side(program), program) {
        Ok(()) => Ok(()),
        Err(tc::TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Gone in between, by another's hand or with the device, is gone.
        Err(_) if clsact::has_filter(ifindex, side(program), program).is_ok_and(|it| !it) => Ok(()),
        Err(source) => {
            Err(Error::Attach { verb: "detach", program, interface, source: source.into() })
        }
    }
}

/// Takes both endpoint programs off.
pub(super) fn detach_endpoint(ifindex: u32) -> Result<(), Error> {
    detach(ifindex, "from_pod")?;
    detach(ifindex, "to_pod")
}

/// Moves `from_pod` from clsact to TCX: attached there first, then the filter goes. A miss that runs both in between
/// does no harm.
pub(super) fn promote(ifindex: u32) -> Result<(), Error> {
    attach(ifindex, "from_pod", Attach::Tcx, How::Tcx)?;
    detach_filter(ifindex, "from_pod")
}
