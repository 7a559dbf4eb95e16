//! What the program logs, and where: its own messages to standard error, and what Raft says of its own work to a file of
//! its own, where one is wanted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use redis_failover::config::{BrokerKind, Config, LogFormat, LogLevel};
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

/// Under what name Raft's own messages come.
const RAFT: &str = "openraft";
/// Under what name the messages of ZooKeeper's client come.
const ZOOKEEPER: &str = "zookeeper_client";
/// The file of Raft's messages, in `raft_log_dir`.
const RAFT_LOG: &str = "raft.log";
/// What it is called once it is full; the one before is overwritten.
const RAFT_LOG_OLD: &str = "raft.log.1";
/// How long it may become.
const RAFT_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Starts to log, for the rest of the process.
///
/// # Errors
/// A sentence, when the file of Raft's messages cannot be written.
pub(crate) fn start(config: &Config) -> Result<(), String> {
    let level = match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let raft = match &config.raft.log_dir {
        Some(dir) if config.broker == BrokerKind::Raft => {
            Some(raft_layer(BoundedFile::open(dir, RAFT_LOG_BYTES_MAX)?))
        }
        Some(_) | None => None,
    };
    let own = fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    let own = match config.log.format {
        LogFormat::Text => own.boxed(),
        LogFormat::Json => own.json().boxed(),
    };
    registry().with(own.with_filter(own_filter(level))).with(raft).init();
    Ok(())
}

/// Raft speaks of terms and indexes, and calls it an error, several times a second, that another node is not there.
/// What it means for the groups is said by the program itself, also that Raft broke. Whoever looks for details gets its
/// errors, and those of ZooKeeper's client, which is as talkative.
fn own_filter(level: LevelFilter) -> Targets {
    let raft = if level >= LevelFilter::DEBUG { LevelFilter::ERROR } else { LevelFilter::OFF };
    Targets::new().with_default(level).with_target(RAFT, raft).with_target(ZOOKEEPER, raft)
}

fn raft_layer<S>(file: impl Write + Send + 'static) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = Targets::new().with_target(RAFT, LevelFilter::INFO);
    fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).with_filter(filter)
}

/// A file that begins anew when it is full; what it had until then is kept once, beside it.
///
/// What cannot be written is lost: a full disk must not become the business of whoever logs.
struct BoundedFile {
    dir: PathBuf,
    /// `None`: it could not be opened when it was to begin anew; tried again with the next message.
    file: Option<File>,
    bytes: u64,
    bytes_max: u64,
}

impl BoundedFile {
    fn open(dir: &Path, bytes_max: u64) -> Result<Self, String> {
        let fail = |error| {
            format!("raft_log_dir: {} cannot be written: {error}", dir.join(RAFT_LOG).display())
        };
        fs::create_dir_all(dir).map_err(fail)?;
        let file = append(dir).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len();
        Ok(Self { dir: dir.to_owned(), file: Some(file), bytes, bytes_max })
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.bytes + length > self.bytes_max && self.bytes > 0 {
            self.file = None;
            fs::rename(self.dir.join(RAFT_LOG), self.dir.join(RAFT_LOG_OLD)).or_else(is_gone)?;
            self.bytes = 0;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(append(&self.dir)?),
        };
        file.write_all(line)?;
        self.bytes += length;
        Ok(())
    }
}

/// Somebody else took it away, which is as good as having moved it.
fn is_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn append(dir: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(dir.join(RAFT_LOG))
}

impl Write for BoundedFile {
    /// Is given whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.try_write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_raft_says_goes_to_its_file_and_its_errors_to_a_log_with_details() {
        for (level, has_errors) in [
            (LevelFilter::ERROR, false),
            (LevelFilter::INFO, false),
            (LevelFilter::DEBUG, true),
            (LevelFilter::TRACE, true),
        ] {
            logged(level, has_errors);
        }
    }

    fn logged(level: LevelFilter, has_errors: bool) {
        let (own, raft) = (Memory::default(), Memory::default());
        let own_layer =
            fmt::layer().with_writer(Mutex::new(own.clone())).with_filter(own_filter(level));
        let subscriber = registry().with(own_layer).with(raft_layer(raft.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("of the program");
            tracing::info!(target: "openraft::core", "of raft");
            tracing::debug!(target: "openraft::core", "in detail");
            tracing::error!(target: "openraft", "badly");
        });
        let (own, raft) = (own.text(), raft.text());
        assert!(own.contains("of the program"), "{own}");
        assert_eq!(own.contains("badly"), has_errors, "{level}: {own}");
        assert!(!own.contains("of raft") && !own.contains("in detail"), "{own}");
        assert!(raft.contains("of raft") && raft.contains("badly"), "{raft}");
        assert!(!raft.contains("of the program") && !raft.contains("in detail"), "{raft}");
    }

    #[test]
    fn a_full_file_begins_anew_and_the_one_before_is_kept_once() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("made/on/demand");
        let read = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let mut file = BoundedFile::open(&dir, 10).expect("it can be written");
        for line in ["first\n", "2nd\n", "third\n", "a line that is too long\n", "last\n"] {
            file.write_all(line.as_bytes()).expect("it never fails");
            assert!(read(RAFT_LOG).ends_with(line), "{line}");
        }
        assert_eq!(
            (read(RAFT_LOG_OLD), read(RAFT_LOG)),
            ("a line that is too long\n".into(), "last\n".into())
        );
        drop(file);
        let mut file = BoundedFile::open(&dir, 10).expect("it can be written");
        file.write_all(b"more\n").expect("it never fails");
        assert_eq!(read(RAFT_LOG), "last\nmore\n", "what was there is kept");

        // Somebody took it away: it goes on when it can.
        fs::remove_dir_all(&dir).expect("it is ours");
        file.write_all(b"lost\n").expect("it never fails");
        fs::create_dir_all(&dir).expect("it is ours");
        for _ in 0..3 {
            file.write_all(b"again\n").expect("it never fails");
        }
        assert_eq!(read(RAFT_LOG), "again\n");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let error = BoundedFile::open(Path::new("/dev/null/log"), 10).err().expect("no directory");
        assert!(error.starts_with("raft_log_dir: /dev/null/log/raft.log cannot be"), "{error}");
    }
}
