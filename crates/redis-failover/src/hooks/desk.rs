//! The desk from which hooks are told: a task of its own, so that whatever a hook does is beside the loop.
//!
//! It begins what is due, tries again what failed, and tells the loop which hooks know what, which takes it out of the
//! record. What needs a leadership is begun only while the broker allows it, and dropped when another one leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use failover_core::event::Event;
use failover_core::node::{GroupName, NodeId, Token};
use failover_core::record::Occurrence;
use failover_core::time::Time;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::ask::{self, Asked};
use super::line::{Job, Line, Next, Ran};
use super::shown::Shown;
use super::{FailoverPlan, Hook, HookCall, Hooks, tell};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::events::Events;
use crate::shown;

/// Most messages that wait for the desk, which never waits for hooks. What is lost here is told by the next leader.
const MESSAGES_MAX: usize = 65_536;
/// How many scripts run at the same time, as with Sentinel.
const SCRIPTS_RUNNING_MAX: usize = 16;
/// How soon a leader looks for what would go wrong with the next new master, and how often from then on.
const LOOK_AHEAD_FIRST: Duration = Duration::from_secs(1);
const LOOK_AHEAD_INTERVAL: Duration = Duration::from_secs(60);
/// How long a hook may take to give back what it took of others when the node stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long the others are waited for until the record says which hooks know already.
const PARTLY_TOLD_AFTER: Duration = Duration::from_secs(1);

/// The way to the desk.
#[derive(Clone)]
pub(crate) struct Desk {
    hooks: Arc<Vec<Arc<Hook>>>,
    messages: mpsc::Sender<Message>,
    shown: Shown,
    node: NodeId,
    clock: Clock,
}

/// What the desk needs of the program.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) node: NodeId,
    pub(crate) clock: Clock,
    pub(crate) broker: Broker,
    pub(crate) events: Events,
    /// The groups as they are by now.
    pub(crate) groups: Arc<shown::Shown>,
    pub(crate) stop: watch::Receiver<bool>,
}

enum Message {
    Leads(Option<Token>),
    Tell { group: GroupName, token: Token, occurrence: Box<Occurrence> },
    Seen { call: Box<HookCall>, token: Option<Token> },
    Observed(Box<HookCall>),
    Asked(Asked),
    Finish(oneshot::Sender<()>),
}

impl Desk {
    /// Opens the desk. The future is its work, to be spawned.
    pub(crate) fn open(hooks: Hooks, around: Surroundings) -> (Self, impl Future<Output = ()>) {
        let hooks: Vec<Arc<Hook>> = hooks.all.into_iter().map(Arc::new).collect();
        let lines: Vec<Line> = hooks.iter().map(|hook| Line::new(Arc::clone(hook))).collect();
        let shown = Shown::new(lines.iter().map(Line::view));
        let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
        let desk = Self {
            hooks: Arc::new(hooks),
            messages,
            shown: shown.clone(),
            node: around.node.clone(),
            clock: around.clock,
        };
        let work = Work {
            lines,
            shown,
            leads: None,
            outstanding: BTreeMap::new(),
            partly: BTreeMap::new(),
            running: JoinSet::new(),
            ahead: JoinSet::new(),
            look_ahead_at: None,
            finishing: None,
            around,
        };
        (desk, work.run(inbox))
    }

    /// What people see of the hooks.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Who tells what it sees, and when.
    pub(crate) fn now(&self) -> (Time, &NodeId) {
        (self.clock.now(), &self.node)
    }

    /// Under which leadership this node acts, if it does.
    pub(crate) fn leads(&self, token: Option<Token>) {
        self.send(Message::Leads(token));
    }

    /// Tells what is in the record.
    pub(crate) fn tell(&self, group: GroupName, token: Token, occurrence: Box<Occurrence>) {
        self.send(Message::Tell { group, token, occurrence });
    }

    /// Tells what this node sees, as the leader of that token, or of itself.
    pub(crate) fn seen(&self, call: HookCall, token: Option<Token>) {
        if self.hooks.iter().any(|hook| hook.wants(call.event, call.group.as_ref())) {
            self.send(Message::Seen { call: Box::new(call), token });
        }
    }

    /// Tells what another node did as the leader to the hooks that run everywhere.
    pub(crate) fn observed(&self, call: HookCall) {
        if self.hooks.iter().any(|hook| hook.observes()) {
            self.send(Message::Observed(Box::new(call)));
        }
    }

    /// Whether nobody wants to be asked before a failover.
    pub(crate) fn nobody_to_ask(&self, group: &GroupName) -> bool {
        use failover_core::record::HookEvent::BeforeFailover;
        !self.hooks.iter().any(|hook| hook.wants(BeforeFailover, Some(group)))
    }

    /// Asks the before-failover hooks; a reason is a no.
    pub(crate) async fn ask(&self, plan: &FailoverPlan, deadline: Instant) -> Option<String> {
        let desk = self.clone();
        let note = move |asked| desk.send(Message::Asked(asked));
        ask::ask(&self.hooks, plan, (self.now(), deadline), note).await
    }

    /// Waits, at most so long, until what happened so far was told once. What failed is left to the next leader.
    pub(crate) async fn finish(&self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        self.send(Message::Finish(done));
        if timeout(limit, finished).await.is_err() {
            tracing::warn!(
                "hooks are still running after {} s and are ended: what they were told may be told again by the next leader",
                limit.as_secs_f64()
            );
        }
    }

    fn send(&self, message: Message) {
        if let Err(TrySendError::Full(_)) = self.messages.try_send(message) {
            tracing::error!(
                "hooks are not told of something, since {MESSAGES_MAX} messages wait for them; what is in the record is \
                 told by the next leader"
            );
        }
    }
}

/// What is outstanding of one occurrence.
struct Outstanding {
    token: Token,
    /// The hooks that do not know it yet.
    lines: BTreeSet<usize>,
}

type Key = (GroupName, u64);

struct Work {
    lines: Vec<Line>,
    shown: Shown,
    leads: Option<Token>,
    outstanding: BTreeMap<Key, Outstanding>,
    /// When the record is to say of an occurrence which hooks know it while others do not, and which.
    partly: BTreeMap<Key, (Instant, BTreeSet<String>)>,
    running: JoinSet<(usize, Job, Ran)>,
    /// What the hooks find that look ahead, and when they look again.
    ahead: JoinSet<(usize, u64, Option<Vec<String>>)>,
    look_ahead_at: Option<Instant>,
    finishing: Option<oneshot::Sender<()>>,
    around: Surroundings,
}

impl Work {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut stop = self.around.stop.clone();
        loop {
            self.begin();
            self.look_ahead();
            self.note_partly().await;
            self.publish();
            let due = self.due();
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return self.close().await,
                Some(ended) = self.running.join_next() => {
                    if let Ok((index, job, ran)) = ended {
                        self.ended(index, job, ran).await;
                    }
                }
                Some(found) = self.ahead.join_next() => {
                    if let Ok((index, since, Some(objections))) = found {
                        self.lines[index].foreseen(since, &objections);
                    }
                }
                message = inbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Ends what is on its way, and what it has to do with others.
    async fn close(&mut self) {
        self.running.shutdown().await;
        for line in &self.lines {
            line.hook.close(CLOSE_LIMIT).await;
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Leads(token) if token == self.leads => {}
            Message::Leads(token) => {
                self.leads = token;
                self.look_ahead_at = token.map(|_| Instant::now() + LOOK_AHEAD_FIRST);
                self.outstanding.clear();
                self.partly.clear();
                for line in &mut self.lines {
                    line.keep(token);
                }
            }
            Message::Tell { group, token, occurrence } => {
                self.tell(group, token, &occurrence).await;
            }
            Message::Seen { call, token } => self.add_seen(*call, token, false),
            Message::Observed(call) => self.add_seen(*call, None, true),
            Message::Asked(Asked { index, error }) => {
                let now = self.around.clock.now();
                if let Some(line) = self.lines.get_mut(index) {
                    line.asked(error, now);
                }
            }
            Message::Finish(done) => self.finishing = Some(done),
        }
    }

    /// What is in no record is dropped when there is too much of it.
    fn add_seen(&mut self, call: HookCall, token: Option<Token>, observer: bool) {
        let call = Arc::new(call);
        for index in self.wanting(&call) {
            let line = &mut self.lines[index];
            if !observer || line.hook.observes() {
                let call = Arc::clone(&call);
                let _ = line.push(Job { call, token, number: None, observer, tries: 0 });
            }
        }
    }

    fn wanting(&self, call: &HookCall) -> Vec<usize> {
        let wants = |line: &Line| line.hook.wants(call.event, call.group.as_ref());
        (0..self.lines.len()).filter(|index| wants(&self.lines[*index])).collect()
    }

    async fn tell(&mut self, group: GroupName, token: Token, occurrence: &Occurrence) {
        let key = (group, occurrence.number);
        if self.leads != Some(token) || self.outstanding.contains_key(&key) {
            return;
        }
        let call = Arc::new(HookCall::of_record(&key.0, occurrence));
        let mut wanting = self.wanting(&call);
        wanting.retain(|index| !occurrence.told.contains(&self.lines[*index].hook.name));
        let lines = wanting.iter().copied().collect();
        self.outstanding.insert(key.clone(), Outstanding { token, lines });
        for index in &wanting {
            let number = Some(occurrence.number);
            let call = Arc::clone(&call);
            let job = Job { call, token: Some(token), number, observer: false, tries: 0 };
            if let Some(gone) = self.lines[*index].push(job) {
                self.knows(*index, &gone).await;
            }
        }
        if wanting.is_empty() {
            self.all_know(key).await;
        }
    }

    /// A hook was told, or is given up on.
    async fn knows(&mut self, index: usize, job: &Job) {
        let Some((group, number)) = job.call.group.clone().zip(job.number) else { return };
        let key = (group, number);
        let Some(of) = self.outstanding.get_mut(&key) else { return };
        if Some(of.token) != job.token || !of.lines.remove(&index) {
            return;
        }
        if of.lines.is_empty() {
            self.all_know(key).await;
            return;
        }
        let at = Instant::now() + PARTLY_TOLD_AFTER;
        let partly = self.partly.entry(key).or_insert_with(|| (at, BTreeSet::new()));
        partly.1.insert(self.lines[index].hook.name.clone());
    }

    async fn all_know(&mut self, key: Key) {
        self.outstanding.remove(&key);
        self.partly.remove(&key);
        let (group, number) = key;
        self.around.events.send(Event::Told { group, number, hook: None }).await;
    }

    /// While some hooks wait for another try, the record says who need not be told again.
    async fn note_partly(&mut self) {
        let now = Instant::now();
        let due: Vec<Key> = self
            .partly
            .iter()
            .filter(|(_, (at, _))| *at <= now || self.finishing.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some((_, hooks)) = self.partly.remove(&key) else { continue };
            for hook in hooks {
                let (group, number) = key.clone();
                self.around.events.send(Event::Told { group, number, hook: Some(hook) }).await;
            }
        }
        if self.finishing.is_some()
            && self.lines.iter().all(Line::at_rest)
            && let Some(done) = self.finishing.take()
        {
            let _ = done.send(());
        }
    }

    fn begin(&mut self) {
        let now = Instant::now();
        let is_script = |line: &&Line| line.hook.is_script();
        let mut scripts: usize = self.lines.iter().filter(is_script).map(Line::running).sum();
        for (index, line) in self.lines.iter_mut().enumerate() {
            while let Some(job) = line.begin(now, scripts < SCRIPTS_RUNNING_MAX) {
                scripts += usize::from(line.hook.is_script());
                let (hook, around) = (Arc::clone(&line.hook), self.around.clone());
                self.running.spawn(async move {
                    let allowed = job.token.is_none_or(|token| around.broker.allows(token));
                    let ran =
                        if allowed { tell::run(&hook, &job, &around).await } else { Ran::NotNow };
                    (index, job, ran)
                });
            }
        }
    }

    /// Has the hooks look that can, while this node leads.
    fn look_ahead(&mut self) {
        let now = Instant::now();
        if self.look_ahead_at.is_none_or(|at| now < at) || !self.ahead.is_empty() {
            return;
        }
        self.look_ahead_at = Some(now + LOOK_AHEAD_INTERVAL);
        for (index, line) in self.lines.iter().enumerate() {
            let Some(since) = line.quiet().filter(|_| line.hook.leads_proxies()) else { continue };
            let (hook, groups) = (Arc::clone(&line.hook), Arc::clone(&self.around.groups));
            self.ahead.spawn(async move { (index, since, hook.objections(&groups).await) });
        }
    }

    async fn ended(&mut self, index: usize, mut job: Job, ran: Ran) {
        let (now, tried) = (self.around.clock.now(), ran != Ran::NotNow);
        let hook = Arc::clone(&self.lines[index].hook);
        let why = match &ran {
            Ran::Failed { why, .. } => why.clone(),
            Ran::Done | Ran::NotNow => String::new(),
        };
        match self.lines[index].ended(&job, ran, now) {
            Next::Told => self.knows(index, &job).await,
            Next::GivenUp(why) => {
                log_failure(&hook, &job, &format!("{why}; it is not told again"));
                self.knows(index, &job).await;
            }
            Next::Again(_) if job.token.is_some() && job.token != self.leads => {}
            Next::Again(pause) => {
                if tried {
                    let again = format!("{why}; it is told again in {} s", pause.as_secs_f64());
                    log_failure(&hook, &job, &again);
                    job.tries += 1;
                }
                self.lines[index].put_off(job, Instant::now() + pause);
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let later = self.lines.iter().filter_map(Line::due);
        let ahead = self.look_ahead_at.filter(|_| self.ahead.is_empty());
        later.chain(self.partly.values().map(|(at, _)| *at)).chain(ahead).min()
    }

    fn publish(&mut self) {
        for (index, line) in self.lines.iter_mut().enumerate() {
            if std::mem::take(&mut line.changed) {
                self.shown.publish(index, line.view());
            }
        }
    }
}

fn log_failure(hook: &Hook, job: &Job, what: &str) {
    let (name, event) = (&hook.name, job.call.event.name());
    match &job.call.group {
        Some(group) => tracing::warn!(%group, "the hook {name} was not told of {event}: {what}"),
        None => tracing::warn!("the hook {name} was not told of {event}: {what}"),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.hooks.iter().map(|hook| &hook.name)).finish()
    }
}
