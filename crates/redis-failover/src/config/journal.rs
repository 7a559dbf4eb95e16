//! Where everything that happens to a node is written down.

use std::path::PathBuf;

/// A journal that the simulator replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The file; `None`: no journal.
    pub file: Option<PathBuf>,
    /// How long the file may get, in bytes, with what is in it already.
    pub bytes_max: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { file: None, bytes_max: 1 << 30 }
    }
}
