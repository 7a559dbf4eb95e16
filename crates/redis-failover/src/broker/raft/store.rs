//! What a member must not forget: its vote, its log, its snapshot, and who it is. One redb file.
//!
//! A thread of its own waits for the disk; the workers of the runtime never do. The log is short, because a snapshot
//! replaces its beginning, and is kept in memory too: the file is read once, when it is opened.

mod disk;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use failover_core::addr::Addr;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use redb::Database;
use tokio::sync::{mpsc, oneshot};

pub(crate) use disk::{Cluster, Founder, Meta, OpenError};
pub(crate) use writer::Failure;
use writer::{Done, JOBS_MAX, Job, Writer};

use super::types::{Entry, LogId, MemberId, SnapshotMeta, StorageError, Types, Vote};

/// Most bytes of entries that are sent to a follower at once, unless one entry alone has more.
const SENT_BYTES_MAX: usize = 1 << 20;

/// Whether a directory has, or had, a store.
pub(crate) fn exists(dir: &Path) -> bool {
    disk::exists(dir)
}

/// The store, as Raft and the state machine use it.
#[derive(Clone)]
pub(crate) struct Store {
    mirror: Arc<Mutex<Mirror>>,
    jobs: mpsc::Sender<Job>,
    failure: Failure,
    /// Held while a snapshot is written, so that an older one never follows a newer one.
    snapshots: Arc<tokio::sync::Mutex<()>>,
}

/// The thread that writes.
pub(crate) struct StoreThread(std::thread::JoinHandle<()>);

/// What the file holds, or soon will.
#[derive(Default)]
struct Mirror {
    log: BTreeMap<u64, Kept>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    snapshot: Option<(SnapshotMeta, Arc<[u8]>)>,
}

/// An entry, and how long it is when it is written down.
struct Kept {
    entry: Entry,
    bytes: usize,
}

impl Mirror {
    /// Whether an entry with this index leaves no hole.
    fn follows(&self, index: u64) -> bool {
        self.last_log_id().is_none_or(|last| last.index + 1 == index)
    }

    fn last_log_id(&self) -> Option<LogId> {
        let last = self.log.last_key_value().map(|(_, kept)| kept.entry.log_id);
        last.or(self.purged)
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        self.log.insert(entry.log_id.index, Kept { entry, bytes });
    }
}

/// A store that was opened.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) thread: StoreThread,
    pub(crate) meta: Meta,
}

impl Store {
    /// Opens the store in this directory for the node that advertises `addr`. Waits for the disk.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the directory, and what to do.
    pub(crate) fn open(dir: &Path, addr: &Addr) -> Result<Opened, OpenError> {
        let disk::Opened { database, meta, mirror, path } = disk::open(dir, addr)?;
        let (store, thread) = Self::start(database, mirror, path);
        Ok(Opened { store, thread, meta })
    }

    fn start(database: Database, mirror: Mirror, path: PathBuf) -> (Self, StoreThread) {
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let failure = Failure::default();
        let writer = Writer { database, jobs, failure: failure.clone(), path };
        let thread = std::thread::spawn(move || writer.run());
        let mirror = Arc::new(Mutex::new(mirror));
        let store = Self { mirror, jobs: sender, failure, snapshots: Arc::default() };
        (store, StoreThread(thread))
    }

    /// Where it says why it stopped to work, once it did.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Remembers who this member is.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(crate) async fn save_meta(&self, meta: &Meta) -> Result<(), String> {
        let bytes = meta.to_bytes()?;
        self.write(|done| Job::Meta(bytes, done)).await
    }

    /// Makes a member that led when it ended stand for election again. openraft would let it go on in the same term, but
    /// what a process decided is over with the process: the next one must not have its token.
    pub(super) async fn resign(&mut self, own: MemberId) -> Result<(), String> {
        let vote = self.mirror().vote;
        match vote {
            Some(vote) if vote.committed && vote.leader_id.node_id == own => {
                let vote = Vote { committed: false, ..vote };
                self.save_vote(&vote).await.map_err(|error| error.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Makes this a store that holds nothing, and lets nobody write to it any more.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(super) async fn forget(&self, meta: &Meta, why: &'static str) -> Result<(), String> {
        let meta = meta.to_bytes()?;
        self.write(|done| Job::Forget { meta, why, done }).await
    }

    /// Keeps a snapshot in place of the one before, unless that one covers more: this one was begun before it came.
    pub(super) async fn save_snapshot(
        &self,
        covers: &SnapshotMeta,
        record: Arc<[u8]>,
    ) -> Result<(), String> {
        let _alone = self.snapshots.lock().await;
        if self.snapshot().is_some_and(|(kept, _)| kept.last_log_id > covers.last_log_id) {
            return Ok(());
        }
        let bytes = disk::to_bytes(covers)?;
        let kept = record.clone();
        self.write(|done| Job::Snapshot { covers: bytes, record, done }).await?;
        self.mirror().snapshot = Some((covers.clone(), kept));
        Ok(())
    }

    /// Replaces the log by a snapshot and these entries after it, under another vote and in another cluster: all or
    /// nothing.
    pub(super) async fn replace(
        &self,
        covers: &SnapshotMeta,
        record: Arc<[u8]>,
        rest: Vec<Entry>,
        vote: &Vote,
        meta: &Meta,
    ) -> Result<(), String> {
        let last = covers.last_log_id;
        let [covers_bytes, last_bytes, vote_bytes] =
            [disk::to_bytes(covers)?, disk::to_bytes(&last)?, disk::to_bytes(vote)?];
        let (meta, kept) = (meta.to_bytes()?, record.clone());
        let entries: Result<Vec<_>, String> =
            rest.iter().map(|entry| Ok((entry.log_id.index, disk::to_bytes(entry)?))).collect();
        let entries = entries?;
        let lengths: Vec<usize> = entries.iter().map(|(_, bytes)| bytes.len()).collect();
        self.write(|done| Job::Replace {
            covers: covers_bytes,
            record,
            entries,
            last: last_bytes,
            vote: vote_bytes,
            meta,
            done,
        })
        .await?;
        let mut mirror = self.mirror();
        mirror.log.clear();
        for (entry, bytes) in rest.into_iter().zip(lengths) {
            mirror.push(entry, bytes);
        }
        mirror.snapshot = Some((covers.clone(), kept));
        (mirror.purged, mirror.committed, mirror.vote) = (last, last, Some(*vote));
        Ok(())
    }

    /// Everything in the log, and the last vote.
    pub(super) fn log_and_vote(&self) -> (Vec<Entry>, Vote) {
        let vote = self.mirror().vote.unwrap_or_default();
        (self.entries(.., usize::MAX), vote)
    }

    /// The last entry that is known to be agreed.
    pub(super) fn committed(&self) -> Option<LogId> {
        self.mirror().committed
    }

    /// The last snapshot.
    pub(super) fn snapshot(&self) -> Option<(SnapshotMeta, Arc<[u8]>)> {
        self.mirror().snapshot.clone()
    }

    /// Has something written, and waits until it is on disk.
    async fn write(&self, job: impl FnOnce(Done) -> Job) -> Result<(), String> {
        let (done, written) = oneshot::channel();
        self.queue(job(done)).await?;
        written.await.unwrap_or_else(|_| Err(self.gone()))
    }

    async fn queue(&self, job: Job) -> Result<(), String> {
        self.jobs.send(job).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> String {
        let why = self.failure.get().map(String::as_str);
        why.unwrap_or("the thread that writes the store has ended").to_owned()
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_entries(
        &self,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let mut queued = Vec::new();
        let mut mirror = self.mirror();
        for entry in entries {
            let bytes = disk::to_bytes(&entry)?;
            let index = entry.log_id.index;
            mirror.push(entry, bytes.len());
            queued.push((index, bytes));
        }
        Ok(queued)
    }

    fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for kept in self.mirror().log.range(range).map(|(_, kept)| kept) {
            bytes += kept.bytes;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(kept.entry.clone());
        }
        entries
    }
}

impl StoreThread {
    /// Waits until everything is written and the file is closed. Every [`Store`] must have been dropped.
    pub(crate) async fn join(self) {
        let _ = tokio::task::spawn_blocking(move || self.0.join()).await;
    }
}

fn error(why: String, of: fn(AnyError) -> StorageIOError<MemberId>) -> StorageError {
    of(AnyError::error(why)).into()
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.entries(range, usize::MAX))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.entries(start..end, SENT_BYTES_MAX))
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let mirror = self.mirror();
        Ok(LogState { last_purged_log_id: mirror.purged, last_log_id: mirror.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let fail = |why| error(why, StorageIOError::write_vote);
        let bytes = disk::to_bytes(vote).map_err(fail)?;
        self.write(|done| Job::Vote(bytes, done)).await.map_err(fail)?;
        self.mirror().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.mirror().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let fail = |why| error(why, StorageIOError::write);
        let bytes = disk::to_bytes(&committed).map_err(fail)?;
        self.mirror().committed = committed;
        self.queue(Job::Committed(bytes)).await.map_err(fail)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.mirror().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let fail = |why| error(why, StorageIOError::write_logs);
        let entries = self.append_entries(entries).map_err(fail)?;
        self.queue(Job::Append { entries, flushed }).await.map_err(fail)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        drop(self.mirror().log.split_off(&log_id.index));
        let job = Job::Truncate { from: log_id.index };
        self.queue(job).await.map_err(|why| error(why, StorageIOError::write_logs))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let fail = |why| error(why, StorageIOError::write_logs);
        let purged = disk::to_bytes(&log_id).map_err(fail)?;
        let upto = log_id.index;
        {
            let mut mirror = self.mirror();
            mirror.log = mirror.log.split_off(&(upto + 1));
            mirror.purged = Some(log_id);
        }
        self.queue(Job::Purge { upto, purged }).await.map_err(fail)
    }
}
