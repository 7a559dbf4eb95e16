//! What the fleet is told and what it does, on disk: an incident can be gone through again.
//!
//! A journal without a gap is worth something, any other is not. So it ends, and says so, when it is full or when the
//! disk is too slow for it; the loop never waits for it. It begins with the run, for only from there a replay is exact.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use failover_core::journal::{Line, Scribe};

use crate::config::JournalConfig;

/// Most lines that wait for the disk.
const LINES_MAX: usize = 65_536;

/// The file, and the thread that writes it.
pub(crate) struct Journal {
    path: PathBuf,
    /// Gone once the journal has ended.
    lines: Option<SyncSender<Vec<u8>>>,
    /// How much may still be written.
    bytes_left: u64,
}

impl Journal {
    /// The journal that is wanted, if one is.
    ///
    /// # Errors
    /// A sentence, when it cannot be written.
    pub(crate) fn wanted(config: &JournalConfig) -> Result<Option<Self>, String> {
        config.file.as_deref().map(|path| Self::open(path, config.bytes_max)).transpose()
    }

    /// Opens the file behind what is in it, so that the run that ended before is not lost.
    fn open(path: &Path, bytes_max: u64) -> Result<Self, String> {
        let failed = |error: std::io::Error| {
            format!(
                "the journal {} cannot be written ({error}): see to its directory, or leave journal_file out",
                path.display()
            )
        };
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        end_last_line(&mut file, bytes).map_err(failed)?;
        let (lines, waiting) = sync_channel(LINES_MAX);
        std::thread::spawn({
            let path = path.to_owned();
            move || write_all(file, &waiting, &path)
        });
        let bytes_left = bytes_max.saturating_sub(bytes);
        Ok(Self { path: path.to_owned(), lines: Some(lines), bytes_left })
    }
}

impl Scribe for Journal {
    fn write(&mut self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let why = if bytes > self.bytes_left {
            "it has as many bytes as journal_max_mb allows"
        } else {
            match lines.try_send(text) {
                Ok(()) => {
                    self.bytes_left -= bytes;
                    return;
                }
                Err(TrySendError::Full(_)) => "the disk is too slow for it",
                // Its thread has said why.
                Err(TrySendError::Disconnected(_)) => {
                    self.lines = None;
                    return;
                }
            }
        };
        self.lines = None;
        tracing::warn!(
            "the journal {} ends here, because {why}: it can be replayed up to here. To begin another one, move it away and \
             restart the node",
            self.path.display()
        );
    }
}

/// A process that was killed may have left the beginning of a line.
fn end_last_line(file: &mut File, bytes: u64) -> std::io::Result<()> {
    let mut last = [b'\n'];
    if bytes > 0 {
        file.seek(SeekFrom::Start(bytes - 1))?;
        file.read_exact(&mut last)?;
    }
    if last == [b'\n'] { Ok(()) } else { file.write_all(b"\n") }
}

/// Writes what comes, and hands it to the system whenever nothing waits, so that a process that is killed leaves what
/// happened before.
fn write_all(file: File, lines: &Receiver<Vec<u8>>, path: &Path) {
    let mut file = BufWriter::new(file);
    while let Ok(line) = lines.recv() {
        let mut waiting = std::iter::once(line).chain(lines.try_iter());
        let written = waiting.try_for_each(|line| file.write_all(&line));
        if let Err(error) = written.and_then(|()| file.flush()) {
            tracing::warn!("the journal {} cannot be written any more: {error}", path.display());
            return;
        }
    }
}
