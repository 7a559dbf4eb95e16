//! The thread that writes: it alone waits for the disk.
//!
//! Whatever waits when a write begins goes into one transaction, and ends with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use openraft::storage::LogFlushed;
use redb::{Database, Durability, Table};
use tokio::sync::{mpsc, oneshot};

use super::disk::{COMMITTED, LOG, META, PURGED, SNAPSHOT, SNAPSHOT_META, STATE, VOTE};
use crate::broker::raft::types::Types;

/// Most jobs that wait for the thread. Raft waits for its appends, so that there are a handful.
pub(super) const JOBS_MAX: usize = 256;

/// Answers when a job is on disk, or says why it is not.
pub(super) type Done = oneshot::Sender<Result<(), String>>;

/// Something to be written.
pub(super) enum Job {
    /// Entries, by index.
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        flushed: LogFlushed<Types>,
    },
    /// Removes the entries from this index on.
    Truncate {
        from: u64,
    },
    /// Removes the entries up to this index, and remembers the last of them.
    Purge {
        upto: u64,
        purged: Vec<u8>,
    },
    /// Has no hurry: it is written with whatever is written next.
    Committed(Vec<u8>),
    Vote(Vec<u8>, Done),
    Meta(Vec<u8>, Done),
    Snapshot {
        covers: Vec<u8>,
        record: Arc<[u8]>,
        done: Done,
    },
    /// A snapshot and these entries in place of the whole log, under another vote and in another cluster.
    Replace {
        covers: Vec<u8>,
        record: Arc<[u8]>,
        entries: Vec<(u64, Vec<u8>)>,
        last: Vec<u8>,
        vote: Vec<u8>,
        meta: Vec<u8>,
        done: Done,
    },
    /// Nothing in place of everything. It is the last that is written, for this reason.
    Forget {
        meta: Vec<u8>,
        why: &'static str,
        done: Done,
    },
}

/// Why the store stopped to work, once it did: a sentence.
pub(crate) type Failure = Arc<OnceLock<String>>;

pub(super) struct Writer {
    pub(super) database: Database,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) failure: Failure,
    pub(super) path: PathBuf,
}

impl Writer {
    /// Writes until nobody is left who could ask for it.
    pub(super) fn run(mut self) {
        let mut committed = None;
        let mut jobs = Vec::with_capacity(JOBS_MAX);
        while self.jobs.blocking_recv_many(&mut jobs, JOBS_MAX) > 0 {
            // The last word counts.
            jobs.retain_mut(|job| {
                let Job::Committed(bytes) = job else { return true };
                committed = Some(std::mem::take(bytes));
                false
            });
            if jobs.is_empty() {
                continue;
            }
            let written = self.write(&jobs, committed.take());
            if written.is_ok() {
                self.end_with_it(&jobs);
            }
            for job in jobs.drain(..) {
                job.end(written.clone());
            }
        }
        if let Some(committed) = committed {
            let _ = self.write(&[], Some(committed));
        }
    }

    /// What follows in the same transaction is left out of it, and later ones fail.
    fn end_with_it(&self, jobs: &[Job]) {
        for job in jobs {
            if let Job::Forget { why, .. } = job {
                // Whoever was first says why.
                let _ = self.failure.set((*why).to_owned());
            }
        }
    }

    /// Everything or nothing, and on disk when it returns. After a failure nothing is written any more: what the file
    /// holds then is not known.
    fn write(&self, jobs: &[Job], committed: Option<Vec<u8>>) -> Result<(), String> {
        if let Some(why) = self.failure.get() {
            return Err(why.clone());
        }
        let write = AssertUnwindSafe(|| self.transaction(jobs, committed.as_deref()));
        let why = match catch_unwind(write) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "what it holds contradicts itself".to_owned(),
        };
        let sentence = format!(
            "{} cannot be written ({why}), and a member that cannot remember must not go on: see whether its disk is full \
             or broken, and start this node again",
            self.path.display()
        );
        Err(self.failure.get_or_init(|| sentence).clone())
    }

    fn transaction(&self, jobs: &[Job], committed: Option<&[u8]>) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut state = transaction.open_table(STATE)?;
            let mut forgotten = false;
            for job in jobs {
                job.write(&mut log, &mut state)?;
                if let Job::Forget { .. } = job {
                    forgotten = true;
                    break;
                }
            }
            if let Some(committed) = committed
                && !forgotten
            {
                state.insert(COMMITTED, committed)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Job {
    fn write(
        &self,
        log: &mut Table<'_, u64, &'static [u8]>,
        state: &mut Table<'_, &'static str, &'static [u8]>,
    ) -> Result<(), redb::Error> {
        match self {
            Self::Append { entries, .. } => {
                for (index, bytes) in entries {
                    log.insert(index, bytes.as_slice())?;
                }
            }
            Self::Truncate { from } => log.retain_in(*from.., |_, _| false)?,
            Self::Purge { upto, purged } => {
                log.retain_in(..=*upto, |_, _| false)?;
                state.insert(PURGED, purged.as_slice())?;
            }
            Self::Committed(bytes) => {
                state.insert(COMMITTED, bytes.as_slice())?;
            }
            Self::Vote(bytes, _) => {
                state.insert(VOTE, bytes.as_slice())?;
            }
            Self::Meta(bytes, _) => {
                state.insert(META, bytes.as_slice())?;
            }
            Self::Snapshot { covers, record, .. } => {
                state.insert(SNAPSHOT_META, covers.as_slice())?;
                state.insert(SNAPSHOT, &**record)?;
            }
            Self::Replace { covers, record, entries, last, vote, meta, .. } => {
                log.retain_in::<u64, _>(.., |_, _| false)?;
                for (index, bytes) in entries {
                    log.insert(index, bytes.as_slice())?;
                }
                state.insert(SNAPSHOT_META, covers.as_slice())?;
                state.insert(SNAPSHOT, &**record)?;
                state.insert(PURGED, last.as_slice())?;
                state.insert(COMMITTED, last.as_slice())?;
                state.insert(VOTE, vote.as_slice())?;
                state.insert(META, meta.as_slice())?;
            }
            Self::Forget { meta, .. } => {
                log.retain_in::<u64, _>(.., |_, _| false)?;
                for name in [SNAPSHOT_META, SNAPSHOT, PURGED, COMMITTED, VOTE] {
                    state.remove(name)?;
                }
                state.insert(META, meta.as_slice())?;
            }
        }
        Ok(())
    }

    /// Tells whoever waits. Nobody waiting is fine.
    fn end(self, written: Result<(), String>) {
        match self {
            Self::Append { flushed, .. } => {
                flushed.log_io_completed(written.map_err(std::io::Error::other));
            }
            Self::Vote(_, done)
            | Self::Meta(_, done)
            | Self::Snapshot { done, .. }
            | Self::Replace { done, .. }
            | Self::Forget { done, .. } => {
                let _ = done.send(written);
            }
            Self::Truncate { .. } | Self::Purge { .. } | Self::Committed(_) => {}
        }
    }
}
