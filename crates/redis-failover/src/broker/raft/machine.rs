//! The state machine: the record, and what the driver is told of it.
//!
//! What was applied is told in its order. What is applied again at a start is not: the record of that moment is told
//! instead, and then what follows it.

use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use failover_core::event::Event;
use failover_core::record::Record;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use tokio::sync::{mpsc, watch};

use super::propose::Ours;
use super::store::Store;
use super::types::{
    Entry, LogId, Member, MemberId, Origin, Proposal, SnapshotMeta, StorageError, StoredMembership,
    Types,
};

/// The state machine, as Raft drives it.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    store: Store,
    ours: Ours,
    told: mpsc::Sender<Event>,
}

/// The state machine, as the rest of the broker sees it.
#[derive(Clone)]
pub(crate) struct Applied {
    shared: Arc<Shared>,
    last: watch::Receiver<Option<LogId>>,
}

struct Shared {
    state: Mutex<State>,
    last: watch::Sender<Option<LogId>>,
}

#[derive(Default)]
struct State {
    record: Record,
    last: Option<LogId>,
    membership: StoredMembership,
    /// Whether what is applied is told.
    live: bool,
}

impl Machine {
    /// Starts from the snapshot in the store. Nothing is told before [`Applied::go_live`].
    ///
    /// # Errors
    /// A sentence, when the snapshot cannot be read.
    pub(crate) fn restore(
        store: Store,
        ours: Ours,
        told: mpsc::Sender<Event>,
    ) -> Result<(Self, Applied), String> {
        let state = State::of_snapshot(&store)?;
        let (sender, last) = watch::channel(state.last);
        let shared = Arc::new(Shared { state: Mutex::new(state), last: sender });
        let applied = Applied { shared: shared.clone(), last };
        Ok((Self { shared, store, ours, told }, applied))
    }

    /// A receiver that is gone is a driver that has ended.
    async fn tell(&self, event: Event) {
        let _ = self.told.send(event).await;
    }
}

/// What a store holds.
pub(super) struct Replayed {
    /// The record as far as this member knows that it was agreed.
    pub(super) record: Record,
    /// The last entry in it.
    pub(super) last: Option<LogId>,
    /// The entries after that one: perhaps agreed, perhaps not.
    pub(super) rest: Vec<Entry>,
    /// The record with these.
    pub(super) all: Record,
    /// Who the members are then.
    pub(super) membership: StoredMembership,
}

/// Reads everything that is in the store.
///
/// # Errors
/// A sentence, when the snapshot cannot be read.
pub(super) fn replay(store: &Store) -> Result<Replayed, String> {
    let (mut agreed, mut all) = (State::of_snapshot(store)?, State::of_snapshot(store)?);
    let nobody = Ours::new(Origin(0));
    // The first entry of all is the same on every member.
    let known = store.committed().map_or(0, |last| last.index);
    // The log keeps some entries that the snapshot has.
    let first = agreed.last.map_or(0, |last| last.index + 1);
    let mut rest = Vec::new();
    for entry in store.log_and_vote().0.into_iter().filter(|entry| entry.log_id.index >= first) {
        all.apply(entry.clone(), &nobody, &mut Vec::new());
        if entry.log_id.index <= known {
            agreed.apply(entry, &nobody, &mut Vec::new());
        } else {
            rest.push(entry);
        }
    }
    let State { record, last, .. } = agreed;
    Ok(Replayed { record, last, rest, all: all.record, membership: all.membership })
}

impl Applied {
    /// Tells the record, and from now on everything that happens to it.
    pub(crate) fn go_live(&self, told: mpsc::Permit<'_, Event>) {
        let mut state = self.shared.state();
        state.live = true;
        // Under the lock: what is applied next is told next.
        told.send(Event::Restored(state.record.clone()));
    }

    /// The members, as far as they are agreed.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.shared.state().membership.clone()
    }

    /// The entry that was applied last, told already.
    pub(crate) fn last(&self) -> watch::Receiver<Option<LogId>> {
        self.last.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of_snapshot(store: &Store) -> Result<Self, String> {
        let Some((covers, record)) = store.snapshot() else { return Ok(Self::default()) };
        let record = serde_json::from_slice(&record).map_err(|error| {
            format!(
                "the stored record cannot be read ({error}): it is damaged, or a newer release wrote it. Start that \
                 release, or remove the data directory, and the other members take this node in again"
            )
        })?;
        let (last, membership) = (covers.last_log_id, covers.last_membership);
        Ok(Self { record, last, membership, live: false })
    }

    fn apply(&mut self, entry: Entry, ours: &Ours, told: &mut Vec<Event>) {
        let term = entry.log_id.leader_id.term;
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(batch) => {
                for proposal in batch.proposals.iter() {
                    let event = self.decide(proposal, term, ours);
                    told.extend(event.filter(|_| self.live));
                }
            }
        }
    }

    /// Applies a proposal, unless it was decided under another term or another change came first. Every member decides
    /// the same, from the log alone.
    fn decide(&mut self, proposal: &Proposal, term: u64, ours: &Ours) -> Option<Event> {
        let id = ours.end(proposal.origin, proposal.number);
        let why = if proposal.token.0 == term {
            match self.record.apply(&proposal.changes) {
                Ok(()) => {
                    return Some(Event::Committed { id, changes: proposal.changes.clone() });
                }
                Err(conflict) => format!(
                    "another change of {} came first: it is at revision {}, and this one was made for {}",
                    conflict.group, conflict.found, conflict.expected
                ),
            }
        } else {
            format!(
                "it was decided in term {}, and the cluster is in term {term}",
                proposal.token.0
            )
        };
        id.map(|id| Event::NotCommitted { id, why })
    }
}

fn unreadable(error: impl std::fmt::Display) -> StorageError {
    let why = format!("the snapshot of another member cannot be read: {error}");
    StorageIOError::read_snapshot(None, AnyError::error(why)).into()
}

fn unwritten(why: String) -> StorageError {
    StorageIOError::write_snapshot(None, AnyError::error(why)).into()
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, openraft::StoredMembership<MemberId, Member>), StorageError> {
        let state = self.shared.state();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut results, mut told) = (Vec::new(), Vec::new());
        let last = {
            let mut state = self.shared.state();
            for entry in entries {
                state.apply(entry, &self.ours, &mut told);
                results.push(());
            }
            state.last
        };
        for event in told {
            self.tell(event).await;
        }
        self.shared.last.send_replace(last);
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let state = self.shared.state();
        Builder {
            store: self.store.clone(),
            covers: covers(&state),
            record: Some(state.record.clone()),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let record: Record = serde_json::from_slice(&bytes).map_err(unreadable)?;
        self.store.save_snapshot(meta, bytes.into()).await.map_err(unwritten)?;
        let live = {
            let mut state = self.shared.state();
            state.record = record.clone();
            state.last = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.live
        };
        if live {
            self.tell(Event::Restored(record)).await;
        }
        self.shared.last.send_replace(meta.last_log_id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        Ok(self.store.snapshot().map(|(meta, record)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(record.to_vec())),
        }))
    }
}

fn covers(state: &State) -> SnapshotMeta {
    let at = state.last.as_ref();
    SnapshotMeta {
        last_log_id: state.last,
        last_membership: state.membership.clone(),
        snapshot_id: at
            .map_or_else(String::new, |last| format!("{}-{}", last.leader_id.term, last.index)),
    }
}

/// Makes a snapshot of one moment.
pub(crate) struct Builder {
    store: Store,
    covers: SnapshotMeta,
    record: Option<Record>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let record = self.record.take().unwrap_or_default();
        // A record of thousands of groups takes longer than a worker may be kept.
        let bytes = tokio::task::spawn_blocking(move || serde_json::to_vec(&record))
            .await
            .map_err(|error| unwritten(error.to_string()))?
            .map_err(|error| unwritten(error.to_string()))?;
        self.store.save_snapshot(&self.covers, bytes.clone().into()).await.map_err(unwritten)?;
        Ok(Snapshot { meta: self.covers.clone(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}

#[cfg(test)]
mod tests;
