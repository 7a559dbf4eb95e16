//! The way of proposals into the store, and that each ends exactly once.
//!
//! One write is on its way at a time, so that they happen in the order in which they were decided; what waits meanwhile
//! goes together into the next. A proposal that has more than a write can take is written in parts: should one of the
//! later parts fail, it is not known to the core how much of it happened, and it looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use failover_core::event::{Event, ProposalId};
use failover_core::node::Token;
use failover_core::record::Change;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::groups::{Groups, Plan};
use super::store::{Fence, NotWritten, OPS_MAX, Session, WRITE_BYTES_MAX};

/// Most changes in one part of a proposal: with its history each is up to three operations, besides the two at the end.
const PART_CHANGES_MAX: usize = 32;
/// Most bytes of the proposals in one write, unless one group alone has more. The list of all masters comes on top.
const PROPOSALS_BYTES_MAX: usize = 400_000;
/// How long a write may be on its way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A decision to be agreed.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) id: ProposalId,
    pub(super) token: Token,
    pub(super) changes: Vec<Change>,
}

/// A part of a proposal that is written as a whole.
#[derive(Debug)]
struct Part {
    number: u64,
    token: Token,
    changes: Vec<Change>,
    is_last: bool,
}

/// What is on its way.
#[derive(Debug)]
struct Written {
    parts: Vec<Part>,
    plan: Plan,
    session: Arc<Session>,
    end: JoinHandle<Result<u64, NotWritten>>,
}

/// Proposals that did not end yet.
#[derive(Debug, Default)]
pub(super) struct Writer {
    next: u64,
    /// By number, and whether a part of it was written.
    open: BTreeMap<u64, (ProposalId, bool)>,
    waiting: VecDeque<Part>,
    /// So many parts go alone, because one of them does not fit.
    alone: usize,
    written: Option<Written>,
}

/// Whether something that was decided under a token may be written.
pub(super) fn may_act(acting: Option<Token>, token: Token) -> Result<(), String> {
    match acting {
        Some(own) if own == token => Ok(()),
        Some(own) => Err(format!("it was decided in term {}, and this is term {}", token.0, own.0)),
        None => Err("this node does not lead the cluster, or not any more".to_owned()),
    }
}

impl Writer {
    pub(super) fn is_writing(&self) -> bool {
        self.written.is_some()
    }

    /// How many parts wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add(&mut self, proposal: Proposal) {
        let Proposal { id, token, changes } = proposal;
        self.next += 1;
        let number = self.next;
        self.open.insert(number, (id, false));
        let mut rest = changes;
        loop {
            let more = rest.split_off(rest.len().min(PART_CHANGES_MAX));
            let is_last = more.is_empty();
            self.waiting.push_back(Part { number, token, changes: rest, is_last });
            if is_last {
                return;
            }
            rest = more;
        }
    }

    /// Begins to write what waits, if nothing is on its way. Returns what is told at once.
    pub(super) fn begin(
        &mut self,
        acting: Option<Token>,
        groups: &Groups,
        (session, fence): (&Arc<Session>, &Fence),
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if self.is_writing() {
            return events;
        }
        let (mut parts, mut plan) = (Vec::new(), Plan::default());
        while let Some(part) = self.waiting.pop_front() {
            let refused = may_act(acting, part.token);
            if let Err(why) = refused {
                events.extend(self.refuse(part.number, &why));
                continue;
            }
            let is_full = !parts.is_empty() && (self.alone > 0 || plan.has(&part.changes));
            if is_full {
                self.waiting.push_front(part);
                break;
            }
            match groups.plan(&part.changes, &plan) {
                Ok(more) => {
                    let fits = plan.weight() + more.weight() + 2 <= OPS_MAX
                        && plan.bytes() + more.bytes() <= PROPOSALS_BYTES_MAX;
                    if !parts.is_empty() && !fits {
                        self.waiting.push_front(part);
                        break;
                    }
                    plan.extend(more);
                    parts.push(part);
                }
                Err(why) => events.extend(self.refuse(part.number, &why)),
            }
        }
        if parts.is_empty() {
            return events;
        }
        self.alone = self.alone.saturating_sub(1);
        let too_large = match groups.complete(&mut plan) {
            Err(why) => Some(why),
            Ok(()) if plan.bytes() > WRITE_BYTES_MAX || plan.weight() > OPS_MAX => Some(format!(
                "it has {} bytes in {} parts, and one write may have {WRITE_BYTES_MAX} in {OPS_MAX}",
                plan.bytes(),
                plan.weight()
            )),
            Ok(()) => None,
        };
        if let Some(why) = too_large {
            for part in parts {
                events.extend(self.refuse(part.number, &why));
            }
            return events;
        }
        let (writing, fence, ops) = (Arc::clone(session), fence.clone(), plan.ops.clone());
        let end = tokio::spawn(async move {
            let write = writing.write(Some(&fence), &ops);
            timeout(WRITE_TIMEOUT, write).await.unwrap_or_else(|_| {
                let why = format!("it was not agreed within {} s", WRITE_TIMEOUT.as_secs());
                Err(NotWritten::Unknown(why))
            })
        });
        self.written = Some(Written { parts, plan, session: Arc::clone(session), end });
        events
    }

    /// Waits until what is on its way has ended; for ever, when nothing is.
    pub(super) async fn ended(&mut self) -> Result<u64, NotWritten> {
        let Some(written) = &mut self.written else { return std::future::pending().await };
        match (&mut written.end).await {
            Ok(end) => end,
            Err(error) => Err(NotWritten::Unknown(format!("the write broke off: {error}"))),
        }
    }

    /// Takes note of how it ended. Returns what is told, and up to which change of the store it is.
    pub(super) fn end(
        &mut self,
        end: Result<u64, NotWritten>,
        groups: &mut Groups,
    ) -> (Vec<Event>, Option<u64>) {
        let Some(Written { parts, plan, session, .. }) = self.written.take() else {
            return (Vec::new(), None);
        };
        match end {
            Ok(index) => {
                let all: Vec<Change> =
                    parts.iter().flat_map(|part| part.changes.iter().cloned()).collect();
                let version_after = |expect| session.version_after(expect, index);
                groups.written(plan, index, version_after, &all);
                (parts.into_iter().map(|part| self.commit(part)).collect(), Some(index))
            }
            Err(NotWritten::Conflict) if parts.len() > 1 => {
                self.alone = parts.len();
                for part in parts.into_iter().rev() {
                    self.waiting.push_front(part);
                }
                (Vec::new(), None)
            }
            Err(NotWritten::Conflict) => {
                (self.refuse_all(&parts, "another change came first"), None)
            }
            Err(NotWritten::Fenced) => {
                let why = "this node does not lead the cluster any more";
                (self.refuse_all(&parts, why), None)
            }
            Err(NotWritten::Refused(why)) => (self.refuse_all(&parts, &why), None),
            Err(NotWritten::Unknown(why)) => {
                let unsettled = |part: &Part| {
                    let (id, _) = self.open.remove(&part.number)?;
                    Some(Event::Unsettled { id, why: why.clone() })
                };
                let events = parts.iter().filter_map(unsettled).collect();
                self.forget_ended();
                (events, None)
            }
        }
    }

    /// Ends everything that waits, because the session is over. What is on its way goes on, and is heard of by reading.
    pub(super) fn give_up(&mut self, why: &str) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(Written { parts, .. }) = self.written.take() {
            for part in parts {
                if let Some((id, _)) = self.open.remove(&part.number) {
                    events.push(Event::Unsettled { id, why: why.to_owned() });
                }
            }
        }
        while let Some(part) = self.waiting.pop_front() {
            events.extend(self.refuse(part.number, why));
        }
        self.alone = 0;
        events
    }

    fn commit(&mut self, part: Part) -> Event {
        let id = if part.is_last {
            self.open.remove(&part.number).map(|(id, _)| id)
        } else {
            if let Some((_, is_begun)) = self.open.get_mut(&part.number) {
                *is_begun = true;
            }
            None
        };
        Event::Committed { id, changes: part.changes }
    }

    fn refuse_all(&mut self, parts: &[Part], why: &str) -> Vec<Event> {
        parts.iter().filter_map(|part| self.refuse(part.number, why)).collect()
    }

    /// Ends a proposal of which one part is not written.
    fn refuse(&mut self, number: u64, why: &str) -> Option<Event> {
        let (id, is_begun) = self.open.remove(&number)?;
        self.forget_ended();
        let why = why.to_owned();
        Some(if is_begun {
            let why = format!("a part of it was agreed, and the rest was not: {why}");
            Event::Unsettled { id, why }
        } else {
            Event::NotCommitted { id, why }
        })
    }

    /// The later parts of a proposal that has ended are not written any more.
    fn forget_ended(&mut self) {
        let open = &self.open;
        self.waiting.retain(|part| open.contains_key(&part.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_leadership_decided_is_written() {
        assert!(may_act(None, Token(1)).expect_err("none").contains("does not lead"));
        assert!(may_act(Some(Token(2)), Token(1)).expect_err("older").contains("this is term 2"));
        assert_eq!(may_act(Some(Token(2)), Token(2)), Ok(()));
    }

    #[test]
    fn a_long_proposal_ends_once() {
        let mut writer = Writer::default();
        let change = |at: usize| Change {
            group: failover_core::node::GroupName::new(&format!("g{at}")).expect("a name"),
            expect: 0,
            what: String::new(),
            entry: None,
            history: None,
        };
        let changes = (0..PART_CHANGES_MAX * 2 + 1).map(change).collect();
        writer.add(Proposal { id: ProposalId::Fleet(1), token: Token(1), changes });
        assert_eq!(writer.waiting.len(), 3);
        let first = writer.waiting.pop_front().expect("three parts");
        assert!(matches!(writer.commit(first), Event::Committed { id: None, .. }));
        let events = writer.give_up("the session is over");
        let [Event::Unsettled { id: ProposalId::Fleet(1), .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(writer.open.is_empty());
    }
}
