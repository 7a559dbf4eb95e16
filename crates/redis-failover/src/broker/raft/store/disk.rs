//! The file of the store: opening it, and saying clearly why it cannot be.
//!
//! Only a directory that never held a store is fresh. Everything else that cannot be read is an error: a member that
//! forgot whom it voted for could elect a second leader.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use failover_core::addr::Addr;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Mirror;
use crate::broker::raft::types::{Entry, MemberId, random};

/// The entries of the log, by index.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Everything else, by the names below.
pub(super) const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// [`Meta`].
pub(super) const META: &str = "meta";
/// The vote.
pub(super) const VOTE: &str = "vote";
/// The last entry that is known to be committed.
pub(super) const COMMITTED: &str = "committed";
/// The last entry that was removed because a snapshot has it.
pub(super) const PURGED: &str = "purged";
/// What the snapshot covers.
pub(super) const SNAPSHOT_META: &str = "snapshot_meta";
/// The snapshot: the record, in its own format.
pub(super) const SNAPSHOT: &str = "snapshot";

const STORE_FILE: &str = "record.redb";
/// The store while it is made: it gets its name once it is whole.
const NEW_STORE_FILE: &str = "record.redb.new";
/// Says that there is a store, for when the store itself is gone.
const MARKER_FILE: &str = "node.json";
/// Memory for pages of the file. It is read once, when it is opened; the log is kept in memory anyway.
const CACHE_BYTES: usize = 4 << 20;

/// Why the store cannot be opened: a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Whose store this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Who this member is in its cluster.
    pub(crate) id: MemberId,
    /// The address it advertised when the store was made.
    pub(crate) addr: Addr,
    /// A random number: two stores of one address are not the same.
    pub(crate) nonce: u64,
    /// Which cluster it belongs to, once it does.
    pub(crate) cluster: Option<Cluster>,
}

/// A cluster, from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// A random number. What is said in one cluster is not heard in another.
    pub(crate) id: u64,
    /// The first members.
    pub(crate) list: Vec<Addr>,
    /// Those of them that were there when it was founded.
    pub(crate) founders: Vec<Founder>,
}

/// A node that was there and fresh when its cluster was founded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founder {
    /// Its address.
    pub(crate) addr: Addr,
    /// The number of the store it had then.
    pub(crate) nonce: u64,
}

/// [`Meta`] as it is stored. Its version is that of the whole store.
#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum StoredMeta {
    #[serde(rename = "1")]
    V1(Meta),
}

impl Meta {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        to_bytes(&StoredMeta::V1(self.clone()))
    }
}

/// Only the version, to tell a newer format from damage.
#[derive(Deserialize)]
struct VersionOnly {
    version: String,
}

/// A store that was opened.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) meta: Meta,
    pub(super) mirror: Mirror,
    /// Its file, for messages.
    pub(super) path: PathBuf,
}

pub(super) fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| format!("it cannot be written as JSON: {error}"))
}

/// Whether a directory has a store, or had one that is gone.
pub(super) fn exists(dir: &Path) -> bool {
    dir.join(STORE_FILE).exists() || dir.join(MARKER_FILE).exists()
}

/// Opens the store in this directory, or makes one when there never was any.
pub(super) fn open(dir: &Path, addr: &Addr) -> Result<Opened, OpenError> {
    let place = Place { dir, path: dir.join(STORE_FILE) };
    fs::create_dir_all(dir).map_err(|error| place.unwritable(&error))?;
    if !place.path.exists() {
        if dir.join(MARKER_FILE).exists() {
            return Err(place.missing());
        }
        place.create(addr)?;
    }
    let database = place.guarded(|| place.open_file(&place.path))?;
    let (meta, mirror) = place.guarded(|| place.read(&database))?;
    if meta.addr != *addr {
        return Err(place.foreign(&meta.addr, addr));
    }
    place.mark(&meta)?;
    Ok(Opened { database, meta, mirror, path: place.path })
}

/// Where the store is.
struct Place<'a> {
    dir: &'a Path,
    path: PathBuf,
}

impl Place<'_> {
    /// Makes a store under another name first, so that one with the right name is always whole.
    fn create(&self, addr: &Addr) -> Result<(), OpenError> {
        let new = self.dir.join(NEW_STORE_FILE);
        let nonce = random().map_err(OpenError)?;
        let meta = Meta { id: MemberId::first(addr), addr: addr.clone(), nonce, cluster: None };
        let bytes = meta.to_bytes().map_err(|why| self.damaged(&why))?;
        let create = || {
            let database = builder().create(&new).map_err(|error| self.failed(error))?;
            write_first(&database, &bytes).map_err(|error| self.failed(error))?;
            // Renamed while it is locked, so that of two processes only one makes the store.
            fs::rename(&new, &self.path)
                .and_then(|()| sync_dir(self.dir))
                .map_err(|error| self.unwritable(&error))
        };
        match self.guarded(create) {
            Err(error) if error == self.locked() || !new.exists() => Err(error),
            // What a process left that was killed at it holds nothing.
            Err(_) => {
                fs::remove_file(&new).map_err(|error| self.unwritable(&error))?;
                self.guarded(create)
            }
            Ok(()) => Ok(()),
        }
    }

    fn open_file(&self, path: &Path) -> Result<Database, OpenError> {
        // The checksums of the whole file are compared: damage is to be found now, not at the next read.
        builder().set_check_integrity_on_open(true).open(path).map_err(|error| self.failed(error))
    }

    /// Runs what reads the file. On some damage redb panics; for us that is damage as any other.
    fn guarded<T>(&self, read: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
        catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(self.damaged("what it holds contradicts itself")))
    }

    fn read(&self, database: &Database) -> Result<(Meta, Mirror), OpenError> {
        let transaction = database.begin_read().map_err(|error| self.failed(error))?;
        let state = transaction.open_table(STATE).map_err(|error| self.failed(error))?;
        let bytes = |name: &str| match state.get(name) {
            Ok(value) => Ok(value.map(|value| value.value().to_vec())),
            Err(error) => Err(self.failed(error)),
        };
        let Some(meta) = bytes(META)? else {
            return Err(self.damaged("it does not say whose it is"));
        };
        let version: VersionOnly = self.json(META, &meta)?;
        if version.version != "1" {
            return Err(self.newer(&version.version));
        }
        let StoredMeta::V1(meta) = self.json(META, &meta)?;

        let mut mirror = Mirror {
            vote: self.optional(VOTE, bytes(VOTE)?)?,
            committed: self.optional(COMMITTED, bytes(COMMITTED)?)?.flatten(),
            purged: self.optional(PURGED, bytes(PURGED)?)?,
            ..Mirror::default()
        };
        if let Some(covers) = self.optional(SNAPSHOT_META, bytes(SNAPSHOT_META)?)? {
            let record = bytes(SNAPSHOT)?;
            let record =
                record.ok_or_else(|| self.damaged("the record of its snapshot is missing"))?;
            mirror.snapshot = Some((covers, record.into()));
        }
        let log = transaction.open_table(LOG).map_err(|error| self.failed(error))?;
        for item in log.iter().map_err(|error| self.failed(error))? {
            let (index, value) = item.map_err(|error| self.failed(error))?;
            let entry: Entry = self.json("log", value.value())?;
            if !mirror.follows(index.value()) || entry.log_id.index != index.value() {
                return Err(self.damaged("entries of its log are missing"));
            }
            mirror.push(entry, value.value().len());
        }
        Ok((meta, mirror))
    }

    fn optional<T: DeserializeOwned>(
        &self,
        name: &str,
        bytes: Option<Vec<u8>>,
    ) -> Result<Option<T>, OpenError> {
        bytes.map(|bytes| self.json(name, &bytes)).transpose()
    }

    fn json<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, OpenError> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.damaged(&format!("its part \"{name}\" cannot be read: {error}")))
    }

    /// Leaves a marker beside the store, unless it is there.
    fn mark(&self, meta: &Meta) -> Result<(), OpenError> {
        let marker = self.dir.join(MARKER_FILE);
        if marker.exists() {
            return Ok(());
        }
        let text = meta.to_bytes().map_err(|why| self.damaged(&why))?;
        let new = self.dir.join(format!("{MARKER_FILE}.new"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &marker)?;
            sync_dir(self.dir)
        };
        write().map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> OpenError {
        let dir = self.dir.display();
        OpenError(if is_full(error.kind()) {
            format!(
                "the data directory {dir} cannot be written, its disk is full ({error}): make room, or set raft_data_dir \
                 to a directory on another disk"
            )
        } else {
            format!(
                "the data directory {dir} cannot be created or written ({error}): set raft_data_dir to a directory that \
                 this user may write"
            )
        })
    }

    fn failed(&self, error: impl Into<redb::Error>) -> OpenError {
        let error = error.into();
        if let redb::Error::Io(error) = &error {
            return self.io(error);
        }
        if matches!(error, redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) {
            return self.locked();
        }
        self.damaged(&error.to_string())
    }

    fn io(&self, error: &io::Error) -> OpenError {
        let kind = error.kind();
        // redb's way to say that this is no file of its own, or a part of one.
        if matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
            return self.damaged(&error.to_string());
        }
        let refused = matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
        if refused || is_full(kind) {
            return self.unwritable(error);
        }
        let path = self.path.display();
        OpenError(format!("{path} cannot be read ({error}): see whether its disk is well"))
    }

    fn locked(&self) -> OpenError {
        let path = self.path.display();
        OpenError(format!(
            "{path} is in use by another process, and two nodes cannot share one data directory: stop the other one, or \
             give this node a raft_data_dir of its own"
        ))
    }

    fn damaged(&self, why: &str) -> OpenError {
        let (path, dir) = (self.path.display(), self.dir.display());
        OpenError(format!(
            "{path} is damaged ({why}), and a member that forgot how it voted must not go on: remove the directory {dir}, \
             and the other members take this node in again"
        ))
    }

    fn missing(&self) -> OpenError {
        let (path, dir) = (self.path.display(), self.dir.display());
        OpenError(format!(
            "{path} is missing, although {MARKER_FILE} beside it says that it was there, and a member that forgot how it \
             voted must not go on: bring it back, or remove the directory {dir}, and the other members take this node in again"
        ))
    }

    fn newer(&self, version: &str) -> OpenError {
        let path = self.path.display();
        OpenError(format!(
            "{path} has the format \"{version}\", which this release does not know: it was written by a newer one, so \
             start that one"
        ))
    }

    fn foreign(&self, theirs: &Addr, ours: &Addr) -> OpenError {
        let path = self.path.display();
        OpenError(format!(
            "{path} belongs to the node {theirs}, and raft_addr is {ours}: set raft_data_dir to this node's own directory, \
             or raft_addr to {theirs}"
        ))
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the tables and says whose store it is.
fn write_first(database: &Database, meta: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(STATE)?.insert(META, meta)?;
    transaction.commit()?;
    Ok(())
}

/// Makes a name in a directory outlast a crash of the host.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
