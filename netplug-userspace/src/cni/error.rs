//! What a runtime is told when something fails: the spec's codes where they fit, ours from 100. Append-only.

use serde_json::{Value, json};

use crate::{datapath, ipam, node, settings};

/// Code of a bug of ours.
pub(super) const BUG: u32 = 100;

/// What can go wrong with a CNI call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is of a version that netplug does not speak.
    #[error("cniVersion {0} is not supported; supported are {supported}", supported = super::VERSIONS.join(", "))]
    Version(String),
    /// The configuration asks for what netplug does not do.
    #[error("{key}: {value} is not supported: {instead}")]
    Unsupported {
        /// Which key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// An environment variable is missing or cannot be.
    #[error("{variable}: {wrong}")]
    Environment {
        /// Which.
        variable: &'static str,
        /// What is wrong with it.
        wrong: String,
    },
    /// stdin could not be read.
    #[error("cannot read the configuration from stdin")]
    Input(#[source] std::io::Error),
    /// The result cannot be told.
    #[error("cannot write the result to stdout")]
    Output(#[source] std::io::Error),
    /// The configuration is no JSON.
    #[error("the configuration is not JSON")]
    Json(#[source] serde_json::Error),
    /// The configuration cannot be.
    #[error("{key}: {wrong}")]
    Config {
        /// Which key.
        key: String,
        /// What is wrong with its value.
        wrong: String,
    },
    /// What CHECK found.
    #[error("{}", .0.join("; "))]
    Drift(Vec<String>),
    /// Several steps of DEL failed.
    #[error("{}", .0.join("; "))]
    Several(Vec<String>),
    /// The interface is there already.
    #[error("{container} has the interface {ifname} already; DEL it first")]
    Exists {
        /// Which container.
        container: String,
        /// Which interface.
        ifname: String,
    },
    /// The pod has an interface of that name that is not netplug's.
    #[error(
        "the pod has an interface {ifname} already that is not netplug's; take it out of the pod, or name another"
    )]
    NameTaken {
        /// Which interface.
        ifname: String,
    },
    /// Addresses.
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
    /// Interfaces, routes, sysctls.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// Programs and maps.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// An error, and what could not be undone after it.
    #[error("{error}")]
    Undone {
        /// The first error.
        error: Box<Error>,
        /// What else went wrong while undoing.
        also: Vec<String>,
    },
}

impl From<settings::Error> for Error {
    fn from(error: settings::Error) -> Self {
        match error {
            settings::Error::Node(error) => Self::Node(error),
            settings::Error::Datapath(error) => Self::Datapath(error),
        }
    }
}

impl Error {
    /// A key of the configuration that cannot be.
    pub(super) fn config(key: impl Into<String>, wrong: impl ToString) -> Self {
        Self::Config { key: key.into(), wrong: wrong.to_string() }
    }

    /// The code: 1 to 99 are the spec's ("Error", SPEC.md), 100 and above ours.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Unsupported { .. } => 2,
            Self::Environment { .. } => 4,
            Self::Input(_) | Self::Output(_) => 5,
            Self::Json(_) => 6,
            Self::Config { .. }
            | Self::Ipam(
                ipam::Error::Range { .. }
                | ipam::Error::NotOffered { .. }
                | ipam::Error::TooMany { .. },
            ) => 7,
            Self::Ipam(ipam::Error::Exhausted { .. } | ipam::Error::Taken { .. }) => 11,
            Self::Exists { .. } | Self::Ipam(ipam::Error::HasOne { .. }) => 101,
            Self::Ipam(ipam::Error::File { .. }) => 102,
            Self::Node(node::Error::MacTaken { .. }) => 110,
            Self::Node(_) => 103,
            Self::Datapath(datapath::Error::NoPorts { .. }) => 108,
            Self::Datapath(datapath::Error::HostPortTaken { .. }) => 109,
            Self::Datapath(_) => 104,
            Self::Drift(_) => 105,
            Self::Several(_) => 106,
            Self::NameTaken { .. } => 107,
            Self::Undone { error, .. } => error.code(),
        }
    }

    /// Message and causes, in one line.
    pub(super) fn whole(&self) -> String {
        let mut whole = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            whole = format!("{whole}: {cause}");
            source = cause.source();
        }
        whole
    }

    /// The spec's error object.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        let mut details = Vec::new();
        let mut source = std::error::Error::source(match self {
            Self::Undone { error, .. } => error.as_ref(),
            error => error,
        });
        while let Some(cause) = source {
            details.push(cause.to_string());
            source = cause.source();
        }
        if let Self::Undone { also, .. } = self {
            details.push(format!("and could not be undone: {}", also.join("; ")));
        }
        json(version, self.code(), &self.to_string(), &details.join(": "))
    }
}

/// The spec's error object, from its parts.
pub(super) fn json(version: &str, code: u32, message: &str, details: &str) -> Value {
    json!({"cniVersion": version, "code": code, "msg": message, "details": details})
}
