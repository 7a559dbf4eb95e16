//! The way of a proposal into the log, and that it ends exactly once.
//!
//! Proposals that wait while others are on their way go together into one entry, so that many at once cost few
//! appends. Each ends as what the state machine makes of it; when that does not come, as *unsettled*.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failover_core::event::{Event, ProposalId};
use failover_core::node::Token;
use failover_core::record::Change;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::types::{Batch, Origin, Proposal, Raft};

/// Most proposals that wait to be put into an entry.
const WAITING_MAX: usize = 4096;
/// Most proposals in one entry.
const BATCH_PROPOSALS_MAX: usize = 256;
/// Most bytes of proposals in one entry, unless one proposal alone has more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one proposal: an entry must fit into one message between nodes.
const PROPOSAL_BYTES_MAX: usize = 8 << 20;
/// Most entries that are on their way at once.
const BATCHES_MAX: usize = 4;
/// How long a proposal may be on its way.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The proposals of this process that did not end yet.
#[derive(Clone)]
pub(crate) struct Ours {
    origin: Origin,
    next: Arc<AtomicU64>,
    open: Arc<Mutex<BTreeMap<u64, ProposalId>>>,
}

impl Ours {
    /// Of this run of this process.
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, next: Arc::new(AtomicU64::new(1)), open: Arc::default() }
    }

    /// Numbers a proposal.
    pub(super) fn begin(&self, id: ProposalId) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, id);
        number
    }

    /// Whoever gets the name tells how it ended; nobody gets it twice.
    pub(super) fn end(&self, origin: Origin, number: u64) -> Option<ProposalId> {
        if origin != self.origin {
            return None;
        }
        self.open().remove(&number)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, ProposalId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proposal that waits, and its length.
struct Waiting {
    number: u64,
    token: Token,
    changes: Vec<Change>,
    bytes: usize,
}

/// Takes proposals.
#[derive(Clone)]
pub(crate) struct Proposer {
    ours: Ours,
    waiting: mpsc::Sender<Waiting>,
    acting: watch::Receiver<Option<Token>>,
}

impl Proposer {
    /// Starts to put proposals into the log, as long as `acting` says under which token.
    pub(crate) fn start(
        raft: Raft,
        ours: Ours,
        acting: watch::Receiver<Option<Token>>,
        told: mpsc::Sender<Event>,
    ) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let batches = Batches { raft, ours: ours.clone(), acting: acting.clone(), told };
        tokio::spawn(batches.run(waiting));
        Self { ours, waiting: sender, acting }
    }

    /// Has changes agreed. Its end is told with the other events, unless it is known here and now.
    pub(crate) fn propose(
        &self,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) -> Option<Event> {
        let refused = |why: String| Some(Event::NotCommitted { id: id.clone(), why });
        if let Err(why) = may_act(&self.acting, token) {
            return refused(why);
        }
        let bytes = match bytes(&changes) {
            Ok(bytes) if bytes <= PROPOSAL_BYTES_MAX => bytes,
            Ok(bytes) => {
                return refused(format!(
                    "it has {bytes} bytes, and one decision may have {PROPOSAL_BYTES_MAX}: ask for fewer groups at once"
                ));
            }
            Err(error) => return refused(format!("it cannot be written down: {error}")),
        };
        let number = self.ours.begin(id.clone());
        let waiting = Waiting { number, token, changes, bytes };
        if self.waiting.try_send(waiting).is_ok() {
            return None;
        }
        self.ours.end(self.ours.origin, number)?;
        refused(format!("{WAITING_MAX} decisions wait already to be agreed"))
    }
}

fn may_act(acting: &watch::Receiver<Option<Token>>, token: Token) -> Result<(), String> {
    match *acting.borrow() {
        Some(own) if own == token => Ok(()),
        Some(own) => Err(format!("it was decided in term {}, and this is term {}", token.0, own.0)),
        None => Err("this node does not lead the cluster, or not any more".to_owned()),
    }
}

/// Counts what would be written.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bytes(changes: &[Change]) -> Result<usize, serde_json::Error> {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, changes)?;
    Ok(count.0)
}

struct Batches {
    raft: Raft,
    ours: Ours,
    acting: watch::Receiver<Option<Token>>,
    told: mpsc::Sender<Event>,
}

impl Batches {
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        let ways = Arc::new(Semaphore::new(BATCHES_MAX));
        // What did not fit into the last entry.
        let mut kept: Option<Waiting> = None;
        loop {
            let Some(first) = (match kept.take() {
                Some(first) => Some(first),
                None => waiting.recv().await,
            }) else {
                return;
            };
            // What comes until a way is free goes together.
            let Ok(way) = ways.clone().acquire_owned().await else { return };
            let mut bytes = first.bytes;
            let mut batch = vec![first];
            while batch.len() < BATCH_PROPOSALS_MAX
                && let Ok(next) = waiting.try_recv()
            {
                if bytes + next.bytes > BATCH_BYTES_MAX {
                    kept = Some(next);
                    break;
                }
                bytes += next.bytes;
                batch.push(next);
            }
            let batch = self.current(batch).await;
            if batch.is_empty() {
                continue;
            }
            let (raft, ours, told) = (self.raft.clone(), self.ours.clone(), self.told.clone());
            tokio::spawn(async move {
                write(&raft, &ours, &told, batch).await;
                drop(way);
            });
        }
    }

    /// Sorts out what was decided under a leadership that is over: it surely is in no log.
    async fn current(&self, batch: Vec<Waiting>) -> Vec<Proposal> {
        let mut current = Vec::with_capacity(batch.len());
        for Waiting { number, token, changes, .. } in batch {
            let origin = self.ours.origin;
            match may_act(&self.acting, token) {
                Ok(()) => current.push(Proposal { origin, number, token, changes }),
                Err(why) => {
                    if let Some(id) = self.ours.end(origin, number) {
                        let _ = self.told.send(Event::NotCommitted { id, why }).await;
                    }
                }
            }
        }
        current
    }
}

/// Puts an entry into the log and waits until it is applied. The state machine ended its proposals by then; those that
/// are open after an error may be committed or not, and by whoever leads next too.
async fn write(raft: &Raft, ours: &Ours, told: &mpsc::Sender<Event>, proposals: Vec<Proposal>) {
    let numbers: Vec<u64> = proposals.iter().map(|proposal| proposal.number).collect();
    let batch = Batch { proposals: proposals.into() };
    let why = match timeout(END_TIMEOUT, raft.client_write(batch)).await {
        Ok(Ok(_)) => "the log moved on without a word of it".to_owned(),
        Ok(Err(error)) => format!("this node may have lost the lead before it was agreed: {error}"),
        Err(_) => format!("it was not agreed within {} s", END_TIMEOUT.as_secs()),
    };
    for number in numbers {
        if let Some(id) = ours.end(ours.origin, number) {
            let _ = told.send(Event::Unsettled { id, why: why.clone() }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_ends_once_and_only_here() {
        let ours = Ours::new(Origin(1));
        let number = ours.begin(ProposalId::Fleet(9));
        assert_eq!(ours.end(Origin(2), number), None, "another process has the same number");
        assert_eq!(ours.end(Origin(1), number), Some(ProposalId::Fleet(9)));
        assert_eq!(ours.end(Origin(1), number), None);
    }

    #[test]
    fn only_what_this_leadership_decided_is_proposed() {
        let (sender, acting) = watch::channel(None);
        assert!(may_act(&acting, Token(1)).expect_err("none").contains("does not lead"));
        sender.send_replace(Some(Token(2)));
        assert!(may_act(&acting, Token(1)).expect_err("older").contains("this is term 2"));
        assert_eq!(may_act(&acting, Token(2)), Ok(()));
    }
}
