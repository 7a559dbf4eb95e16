//! How nodes agree: one contract, a closed set of brokers.
//!
//! A broker says who leads and who votes, makes proposals agreed under a fencing token, and hands out the fence that is
//! asked right before a server is changed. What is agreed is the record of the core; a broker only stores it.

#[expect(dead_code, reason = "not chosen by any setting yet")]
mod raft;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use failover_core::event::{Event, ProposalId};
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::record::Change;
use tokio::sync::watch;
use tokio::time::timeout;

/// The broker in use.
#[derive(Debug)]
pub(crate) enum Broker {
    /// One node, alone: what it proposes is committed at once, and forgotten when it ends.
    Solo {
        /// The one member.
        node: NodeId,
    },
}

/// The only term of a node that is alone.
const SOLO_TOKEN: Token = Token(1);

impl Broker {
    /// Its name in settings and answers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Solo { .. } => "none",
        }
    }

    /// What is to be known before anything else: who votes, who leads.
    pub(crate) fn first_events(&self) -> Vec<Event> {
        match self {
            Self::Solo { node } => vec![
                Event::Voters(vec![node.clone()]),
                Event::Leadership(Leadership::Leader(SOLO_TOKEN)),
            ],
        }
    }

    /// Makes changes agreed. The answer comes as an event, here and now when there is nobody to wait for.
    pub(crate) fn propose(
        &mut self,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) -> Option<Event> {
        match self {
            Self::Solo { .. } if token == SOLO_TOKEN => {
                Some(Event::Committed { id: Some(id), changes })
            }
            Self::Solo { .. } => Some(Event::NotCommitted {
                id,
                why: "it was decided under a term that is over".to_owned(),
            }),
        }
    }

    /// What is asked right before a server is changed.
    pub(crate) fn fence(&self) -> Fence {
        match self {
            Self::Solo { .. } => Fence::Solo,
        }
    }
}

/// Whether this node may still act under a token.
#[derive(Clone, Debug)]
pub(crate) enum Fence {
    /// A node that is alone is never deposed.
    Solo,
}

impl Fence {
    /// Whether a command that was decided under this token may be written now.
    pub(crate) fn allows(&self, token: Token) -> bool {
        match self {
            Self::Solo => token == SOLO_TOKEN,
        }
    }

    /// Whether this node may write for a leader that acts under this token.
    pub(crate) fn allows_leader(&self, _token: Token) -> bool {
        match self {
            Self::Solo => false,
        }
    }
}

/// What a broker has to say by itself, in order.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Who leads, who votes, the whole record, or the end of a proposal that was not committed.
    Event(Event),
    /// One entry of the log was committed.
    Committed {
        /// Its place in the log.
        index: u64,
        /// What came of it.
        events: Vec<Event>,
    },
}

/// How far the loop is with what was committed, by the index of the log.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    begun: Arc<AtomicU64>,
    done: Arc<watch::Sender<u64>>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { begun: Arc::new(AtomicU64::new(0)), done: Arc::new(watch::Sender::new(0)) }
    }

    /// The loop begins to handle an entry.
    pub(crate) fn begin(&self, index: u64) {
        self.begun.store(index, Ordering::SeqCst);
    }

    /// The loop handled an entry, and shows what came of it.
    pub(crate) fn finish(&self, index: u64) {
        self.done.send_replace(index);
    }

    /// The newest entry that the loop has begun to handle: whatever it answered by now is in it or before it.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until the loop has handled an entry, or for so long.
    pub(crate) async fn reach(&self, index: u64, limit: Duration) {
        let mut done = self.done.subscribe();
        let _ = timeout(limit, done.wait_for(|done| *done >= index)).await;
    }
}
