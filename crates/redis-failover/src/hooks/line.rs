//! One hook's queue: what waits for it, what is tried again later, and what is on its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use failover_core::node::{GroupName, Token};
use failover_core::time::Time;
use tokio::time::Instant;

use super::shown::HookView;
use super::{Hook, HookCall, Target, printable};

/// Most that waits for one handler or webhook: room for an event or two of every group that a node can guard.
const WAITING_MAX: usize = 20_000;
/// Most that waits for one script, as with Sentinel.
const SCRIPTS_WAITING_MAX: usize = 256;
/// How many of one handler or webhook may be on their way at once.
const RUNNING_MAX: usize = 8;
/// The first pause after a failure; each is twice as long as the one before.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// The longest where clients go on writing to the old master until it is told.
const LEADING_RETRY_LONGEST: Duration = Duration::from_secs(10);
/// How often a script is run at most, as with Sentinel.
const SCRIPT_TRIES_MAX: u32 = 10;
/// What could not be told for this long is given up: nobody acts on yesterday's failover.
const KEPT_FOR: Duration = Duration::from_secs(86_400);

/// One thing that one hook is to be told.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) call: Arc<HookCall>,
    /// The leadership that it needs; none for what a node says of itself.
    pub(super) token: Option<Token>,
    /// Its number in the record of its group.
    pub(super) number: Option<u64>,
    /// Another node leads and tells everybody else.
    pub(super) observer: bool,
    /// How often it was tried.
    pub(super) tries: u32,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// The hook knows.
    Done,
    /// It does not.
    Failed {
        /// Why, a sentence.
        why: String,
        /// Whether another try may help.
        again: bool,
    },
    /// This node may not act at this moment; nothing was tried.
    NotNow,
}

/// What follows from the end of a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The hook was told.
    Told,
    /// It is given up, for this reason.
    GivenUp(String),
    /// It is tried again after so long.
    Again(Duration),
}

pub(super) struct Line {
    pub(super) hook: Arc<Hook>,
    ready: VecDeque<Job>,
    later: BTreeMap<(Instant, u64), Job>,
    /// The groups of what is on its way: of one group one at a time, so that first tries keep their order.
    busy: BTreeSet<Option<GroupName>>,
    running: usize,
    pauses: u64,
    pushes: u64,
    delivered: u64,
    failed: u64,
    last_error: Option<String>,
    last_at: Option<Time>,
    /// What was last foreseen to go wrong.
    foreseen: Option<String>,
    pub(super) changed: bool,
}

impl Line {
    pub(super) fn new(hook: Arc<Hook>) -> Self {
        Self {
            hook,
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            busy: BTreeSet::new(),
            running: 0,
            pauses: 0,
            pushes: 0,
            delivered: 0,
            failed: 0,
            last_error: None,
            last_at: None,
            foreseen: None,
            changed: false,
        }
    }

    /// Takes one more. Returns what had to go for it.
    #[must_use]
    pub(super) fn push(&mut self, job: Job) -> Option<Job> {
        self.changed = true;
        self.pushes += 1;
        let max = if self.hook.is_script() { SCRIPTS_WAITING_MAX } else { WAITING_MAX };
        let full = self.ready.len() + self.later.len() >= max;
        let gone = if full {
            self.failed += 1;
            self.last_error = Some("too much waited, and the oldest was dropped".to_owned());
            self.ready.pop_front().or_else(|| self.later.pop_first().map(|(_, job)| job))
        } else {
            None
        };
        self.ready.push_back(job);
        gone
    }

    /// What can be begun now, when there is room for one more script.
    pub(super) fn begin(&mut self, now: Instant, room_for_script: bool) -> Option<Job> {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            self.ready.push_back(entry.remove());
        }
        // Scripts are begun in their order and not waited for, as with Sentinel.
        let is_script = self.hook.is_script();
        let room = match &self.hook.target {
            Target::Script(_) => room_for_script,
            // Whatever is done there is done under one lock.
            Target::Xcodis(_) => self.running == 0,
            Target::Before(_) | Target::Handler(_) | Target::Webhook(_) | Target::Codis(_) => {
                self.running < RUNNING_MAX
            }
        };
        if !room {
            return None;
        }
        let free = |job: &Job| is_script || !self.busy.contains(&job.call.group);
        let index = self.ready.iter().position(free)?;
        let job = self.ready.remove(index)?;
        self.busy.insert(job.call.group.clone());
        self.running += 1;
        Some(job)
    }

    /// When the next one that waits for another try is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// A try ended.
    pub(super) fn ended(&mut self, job: &Job, ran: Ran, now: Time) -> Next {
        self.running -= 1;
        self.busy.remove(&job.call.group);
        self.changed = true;
        match ran {
            Ran::NotNow => Next::Again(RETRY_FIRST / 10),
            Ran::Done => {
                self.delivered += 1;
                self.last_at = Some(now);
                Next::Told
            }
            Ran::Failed { why, again } => {
                self.last_error = Some(why.clone());
                self.last_at = Some(now);
                let again = if again { self.again(job, now) } else { None };
                let Some(pause) = again else {
                    self.failed += 1;
                    return Next::GivenUp(why);
                };
                Next::Again(pause)
            }
        }
    }

    /// The pause until the next try; `None`: there is none.
    fn again(&self, job: &Job, now: Time) -> Option<Duration> {
        match &self.hook.target {
            Target::Before(_) => None,
            Target::Script(script) => (job.tries + 1 < SCRIPT_TRIES_MAX)
                .then(|| script.limits.retry_delay * 2_u32.pow(job.tries.min(SCRIPT_TRIES_MAX))),
            Target::Handler(_) | Target::Webhook(_) => {
                let pause = RETRY_FIRST * 2_u32.pow(job.tries.min(16));
                let pause = pause.min(RETRY_LONGEST);
                (now.since(job.call.happened_at) + pause < KEPT_FOR).then_some(pause)
            }
            // Never given up: it holds until there is another master, which ends it.
            Target::Xcodis(_) | Target::Codis(_) => {
                Some((RETRY_FIRST * 2_u32.pow(job.tries.min(16))).min(LEADING_RETRY_LONGEST))
            }
        }
    }

    pub(super) fn put_off(&mut self, job: Job, at: Instant) {
        self.pauses += 1;
        self.later.insert((at, self.pauses), job);
    }

    /// It was asked whether a failover may happen.
    pub(super) fn asked(&mut self, error: Option<String>, now: Time) {
        self.changed = true;
        self.last_at = Some(now);
        match error {
            None => self.delivered += 1,
            Some(error) => {
                self.failed += 1;
                self.last_error = Some(error);
            }
        }
    }

    /// A mark of this moment, for what is looked for from now on; `None` while it is told something, which may be what puts
    /// things right.
    pub(super) fn quiet(&self) -> Option<u64> {
        (self.queued() == 0).then_some(self.pushes)
    }

    /// What was found to be wrong with groups that it is told of, since that moment.
    pub(super) fn foreseen(&mut self, since: u64, objections: &[String]) {
        if self.quiet() != Some(since) {
            return;
        }
        let found = objections.first().map(|first| match objections.len() {
            1 => printable(first),
            count => {
                format!("{} (and {} more groups are not in order)", printable(first), count - 1)
            }
        });
        if found == self.foreseen {
            return;
        }
        let name = &self.hook.name;
        match &found {
            Some(why) => {
                tracing::warn!("{name}: {why}");
                self.last_error = Some(why.clone());
                self.changed = true;
            }
            None => tracing::info!("{name}: all its groups are in order"),
        }
        self.foreseen = found;
    }

    /// Drops what waits and needs another leadership than this one.
    pub(super) fn keep(&mut self, token: Option<Token>) {
        let fits = |job: &Job| job.token.is_none() || job.token == token;
        self.ready.retain(fits);
        self.later.retain(|_, job| fits(job));
        self.changed = true;
    }

    /// How many are on their way.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Whether nothing is on its way or waits for its first try.
    pub(super) fn at_rest(&self) -> bool {
        self.running == 0 && self.ready.is_empty()
    }

    fn queued(&self) -> usize {
        self.ready.len() + self.later.len() + self.running
    }

    pub(super) fn view(&self) -> HookView {
        HookView {
            name: self.hook.name.clone(),
            kind: self.hook.kind(),
            events: self.hook.events.iter().copied().collect(),
            queued: self.queued(),
            delivered: self.delivered,
            failed: self.failed,
            last_error: self.last_error.clone(),
            last_at: self.last_at,
        }
    }
}
