//! Where a value was written, and what is wrong with it. No error repeats a password.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the config file.
    File {
        /// The path as it was given.
        path: Arc<Path>,
        /// Counted from 1.
        line: usize,
        /// Counted in characters, from 1.
        column: usize,
    },
    /// In an environment variable.
    Environment {
        /// Its whole name.
        name: String,
    },
    /// In a flag.
    Flag {
        /// Its name without dashes.
        name: &'static str,
    },
}

/// Why nothing was started. Its `Display` is complete, also with the cause below it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is wrong, or contradicts another, and was written in a known place.
    #[error("{origin}: {message}")]
    At {
        /// Where it was written.
        origin: Origin,
        /// What is wrong, in one sentence.
        message: String,
    },
    /// A value is wrong, or contradicts another, and has no place: it was built in code.
    #[error("{0}")]
    Invalid(String),
    /// The config file cannot be used at all.
    #[error("{}: the config file cannot be read: {error}", path.display())]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The command line has something that is no flag with its value.
    #[error("{0}; see redis-failover --help")]
    Usage(String),
}

impl Origin {
    /// This place as an error.
    pub(crate) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::At { origin: self.clone(), message: message.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { name } => write!(f, "environment variable {name}"),
            Self::Flag { name } => write!(f, "flag -{name}"),
        }
    }
}
