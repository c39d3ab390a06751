//! Load the object, pin what it holds, and hand over from an older load without losing a packet: pinned maps
//! are taken on with their entries, programs are replaced where they are attached.

use std::fs;

use aya::maps::MapError;
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;

use super::attach::{PROGRAMS, served};
use super::{Datapath, Error, maps, pin, sockets};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netplug.bpf.o"));

/// Digest of the object, the build script's.
pub(super) const DIGEST: &str = env!("NETPLUG_OBJECT_DIGEST");

/// The eBPF object that is built into the binary.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// How much the programs tell a developer. A constant of the load: what is off costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off,
    /// Drops.
    Info,
    /// Drops, what is learned, ports that masquerade takes.
    Debug,
    /// All that, and each packet that visits.
    Trace,
}

impl LogLevel {
    /// As `aya-log` counts: error 1 … trace 5.
    const fn number(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Info => 3,
            Self::Debug => 4,
            Self::Trace => 5,
        }
    }
}

/// The most entries that a flow cache may have: 64 times the default. All are taken at the first load, up to 200 octets
/// each of the kernel's memory: 3 GiB for IPv6.
pub const FLOWS_MOST: u32 = 1 << 24;

/// Loads and pins. `flow_cache`: entries of each FLOWS map, where they are not pinned yet. With a log level other than
/// off, returns the loaded object, whose log [`run_logger`] prints.
pub fn load(flow_cache: u32, level: LogLevel) -> Result<Option<Ebpf>, Error> {
    let _lock = pin::Lock::exclusive()?;
    if level == LogLevel::Off && loaded()?.as_deref() == Some(&mark(level)) {
        // Another process was first.
        return Ok(None);
    }
    pin::prepare()?;
    maps::refuse_other_shapes()?;
    if let Some(map) = maps::torn() {
        let pods = served()?.len();
        if pods > 0 {
            return Err(Error::Torn { map, pods });
        }
    }
    let is_first = !maps::is_any_pinned();
    let mut new: Vec<_> = maps::NAMES.iter().chain(PROGRAMS).map(|name| pin::path(name)).collect();
    new.retain(|pin| !pin.exists());
    let loaded = load_and_pin(flow_cache, level);
    if loaded.is_err() && is_first {
        // The next begins anew, and may ask for other sizes. What cannot be removed it takes on.
        for pin in &new {
            let _ = pin::remove(pin);
        }
    }
    loaded
}

fn load_and_pin(flow_cache: u32, level: LogLevel) -> Result<Option<Ebpf>, Error> {
    let paths: Vec<_> = maps::NAMES.iter().map(|name| (*name, pin::path(name))).collect();
    let (level_number, keeps_type) = (level.number(), u8::from(peer_keeps_type()));
    let mut loader = EbpfLoader::new();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    loader
        .map_max_entries("FLOWS4", flow_cache)
        .map_max_entries("FLOWS6", flow_cache)
        .override_global("AYA_LOG_LEVEL", &level_number, false)
        .override_global("PEER_KEEPS_TYPE", &keeps_type, true);
    let mut object = loader.load(OBJECT).map_err(refused)?;
    verify(&mut object)?;
    let datapath = Datapath { maps: maps::Maps, _lock: None };
    datapath.write_first_config(flow_cache)?;
    // From here until all hang where they should, no build's programs are loaded whole.
    pin::remove(LOADED.as_ref())?;
    for name in PROGRAMS {
        let path = pin::path(name);
        let fresh = pin::path(&format!("new_{name}"));
        pin::remove(&fresh)?;
        program(&mut object, name)
            .map_err(|source| Error::Program {
                verb: "find",
                program: name,
                source: Box::new(source),
            })?
            .pin(&fresh)
            .map_err(|source| Error::Pin { path: fresh.clone(), source })?;
        fs::rename(&fresh, &path).map_err(|source| Error::File {
            verb: "replace",
            path,
            source,
        })?;
    }
    datapath.reattach()?;
    if sockets::are_attached() {
        sockets::attach()?;
    }
    datapath.serve_host_ports()?;
    fs::write(LOADED, mark(level)).map_err(|source| Error::File {
        verb: "write",
        path: LOADED.into(),
        source,
    })?;
    Ok((level != LogLevel::Off).then_some(object))
}

/// Why an object is not taken.
pub(super) fn refused(source: EbpfError) -> Error {
    match source {
        EbpfError::MapError(MapError::CreateError { name: map, io_error: source })
            if source.kind() != std::io::ErrorKind::PermissionDenied =>
        {
            Error::Make { map, source }
        }
        EbpfError::MapError(MapError::PinError { name: Some(map), error: source }) => {
            Error::Pin { path: pin::path(&map), source }
        }
        source if is_forbidden(&source) => Error::Load(Box::new(source)),
        source => Error::Refused(Box::new(source)),
    }
}

/// Whether, at the bottom of it, somebody lacks the rights.
fn is_forbidden(error: &EbpfError) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// Hands the programs to the kernel, all at once: its verifier works for each caller by itself, and takes most of a load.
fn verify(object: &mut Ebpf) -> Result<(), Error> {
    let fail =
        |program| move |source| Error::Program { verb: "load", program, source: Box::new(source) };
    std::thread::scope(|scope| {
        let mut verifying = Vec::new();
        for (found, program) in object.programs_mut() {
            let Some(name) = PROGRAMS.iter().find(|name| **name == found) else { continue };
            verifying.push(scope.spawn(move || {
                <&mut SchedClassifier>::try_from(program)
                    .and_then(SchedClassifier::load)
                    .map_err(fail(*name))
            }));
        }
        verifying.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn program<'a>(
    object: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, aya::programs::ProgramError> {
    object.program_mut(name).ok_or(aya::programs::ProgramError::NotLoaded)?.try_into()
}

/// Says which object is loaded, and how much it tells, so that another replaces it and the same does not.
pub(super) const LOADED: &str = "/run/netplug/loaded";

/// What [`LOADED`] says of this build's object.
fn mark(level: LogLevel) -> String {
    format!("{DIGEST} {}", level.number())
}

/// Whether this build's programs are loaded, however much they tell.
pub(super) fn is_current() -> Result<bool, Error> {
    let loaded = loaded()?;
    let digest = loaded.as_deref().and_then(|mark| mark.split(' ').next());
    Ok(digest == Some(DIGEST))
}

fn loaded() -> Result<Option<String>, Error> {
    if !pin::is_loaded() {
        return Ok(None);
    }
    match fs::read_to_string(LOADED) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { verb: "read", path: LOADED.into(), source }),
    }
}

/// Before Linux 6.15 `bpf_redirect_peer` left the packet type as it was.
fn peer_keeps_type() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 15)
}

/// Prints the programs' log on stderr until the process ends.
pub fn run_logger(mut object: Ebpf) -> Result<std::convert::Infallible, Error> {
    let mut logger = EbpfLogger::init_with_logger(&mut object, Stderr)
        .map_err(|error| Error::Log(Box::new(error)))?;
    loop {
        logger.flush();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}", record.level().as_str().to_ascii_lowercase(), record.args());
    }

    fn flush(&self) {}
}
