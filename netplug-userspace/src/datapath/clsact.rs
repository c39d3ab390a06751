//! The clsact qdisc and its filters, as far as aya does not know them.

use std::io;

use aya::programs::TcAttachType;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::{Error, pin};

/// `TC_H_CLSACT` (include/uapi/linux/pkt_sched.h): the qdisc's parent, whose upper half is also its handle.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };

/// A filter on one side of a device.
pub(super) struct Filter {
    /// Who comes first.
    pub(super) priority: u16,
    /// Which of that priority.
    pub(super) handle: u32,
    /// The name of the program that it runs, if it does.
    pub(super) program: Option<String>,
}

impl Filter {
    fn read(message: &TcMessage) -> Self {
        let options = message.attributes.iter().filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        let program = options.flatten().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
            _ => None,
        });
        // `TC_H_MAJ(tcm_info)` is the priority (net/sched/cls_api.c); the rest is the protocol.
        let priority = (message.header.info >> 16) as u16;
        Self { priority, handle: u32::from(message.header.handle), program }
    }
}

/// Whether a device has an `ingress` qdisc, which stands where clsact would, and has one side only.
pub(super) fn has_ingress(ifindex: u32) -> io::Result<bool> {
    has_any(ifindex, &["ingress"])
}

/// Whether a device has a qdisc of one of these kinds.
fn has_any(ifindex: u32, kinds: &[&str]) -> io::Result<bool> {
    let index = i32::try_from(ifindex).map_err(io::Error::other)?;
    let qdiscs: Vec<TcMessage> = with_handle(async |handle| {
        let qdiscs = handle.qdisc().get().index(index).execute();
        qdiscs.try_collect().await.map_err(io::Error::other)
    })?;
    let is_one = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kinds.contains(&kind.as_str()));
    let of_device = qdiscs.iter().filter(|qdisc| qdisc.header.index == index);
    Ok(of_device.flat_map(|qdisc| &qdisc.attributes).any(is_one))
}

/// Whether a filter of the name `program` is on that side of a device.
pub(super) fn has_filter(ifindex: u32, side: TcAttachType, program: &str) -> io::Result<bool> {
    Ok(filters(ifindex, side)?.iter().any(|filter| filter.program.as_deref() == Some(program)))
}

/// Whether the kernel says that there is nothing: no such filter or qdisc, no such device, or no filters at all in this kernel.
fn is_nothing(errno: Option<i32>) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NODEV, Errno::OPNOTSUPP].iter().any(|it| Some(it.raw_os_error()) == errno)
}

/// Notes that the qdisc of a device will be made for our filters, if it has none where it would be.
pub(super) fn note_if_free(ifindex: u32) -> Result<(), Error> {
    let fail = |source| Error::File {
        verb: "list the qdiscs of",
        path: format!("interface {ifindex}").into(),
        source,
    };
    if has_any(ifindex, &["clsact", "ingress"]).map_err(fail)? {
        Ok(())
    } else {
        note_ours(ifindex)
    }
}

/// Notes that the qdisc of an uplink was made for our filters. (A folder, since that is all that a bpffs has besides
/// pins.)
pub(super) fn note_ours(ifindex: u32) -> Result<(), Error> {
    let path = pin::path(&note(ifindex));
    match std::fs::create_dir(&path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::File { verb: "make", path, source })
        }
        _ => Ok(()),
    }
}

/// Removes the qdisc, if it was made for our filters and nobody else has put one there.
pub(super) fn give_back(ifindex: u32) -> Result<(), Error> {
    let path = pin::path(&note(ifindex));
    match std::fs::remove_dir(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(|source| Error::File { verb: "remove", path, source })?,
    }
    let fail = |source| Error::File {
        verb: "remove the clsact qdisc of",
        path: format!("interface {ifindex}").into(),
        source,
    };
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        if !filters(ifindex, side).map_err(fail)?.is_empty() {
            return Ok(());
        }
    }
    with_handle(async |handle| {
        let mut request = handle.qdisc().del(i32::try_from(ifindex).map_err(io::Error::other)?);
        request.message_mut().header.parent = CLSACT;
        match request.execute().await {
            // Gone already, with its device or by somebody's hand.
            Err(rtnetlink::Error::NetlinkError(error))
                if is_nothing(error.to_io().raw_os_error()) =>
            {
                Ok(())
            }
            Err(rtnetlink::Error::NetlinkError(error)) => Err(error.to_io()),
            done => done.map_err(io::Error::other),
        }
    })
    .map_err(fail)
}

/// The indexes of all devices.
pub(super) fn devices() -> Result<Vec<u32>, Error> {
    let links = with_handle(async |handle| {
        handle.link().get().execute().try_collect::<Vec<_>>().await.map_err(io::Error::other)
    });
    let fail = |source| Error::File { verb: "list", path: "interfaces".into(), source };
    Ok(links.map_err(fail)?.into_iter().map(|link| link.header.index).collect())
}

fn note(ifindex: u32) -> String {
    format!("clsact-{ifindex}")
}

/// The filters on one side of a device; none where it has no clsact qdisc, or is gone.
pub(super) fn filters(ifindex: u32, side: TcAttachType) -> io::Result<Vec<Filter>> {
    let found: Vec<TcMessage> = with_handle(async |handle| {
        let mut request =
            handle.traffic_filter(i32::try_from(ifindex).map_err(io::Error::other)?).get();
        request = match side {
            TcAttachType::Ingress => request.ingress(),
            _ => request.egress(),
        };
        match request.execute().try_collect().await {
            Err(rtnetlink::Error::NetlinkError(error))
                if is_nothing(error.to_io().raw_os_error()) =>
            {
                Ok(Vec::new())
            }
            Err(rtnetlink::Error::NetlinkError(error)) => Err(error.to_io()),
            found => found.map_err(io::Error::other),
        }
    })?;
    // The kernel tells of each priority, too, with no handle.
    Ok(found.iter().map(Filter::read).collect())
}

fn with_handle<T>(work: impl AsyncFnOnce(rtnetlink::Handle) -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        work(handle).await
    })
}
