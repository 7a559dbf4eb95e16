//! The loop: events in, fleet, actions out.
//!
//! One task owns all decision state; there is no mutex around any of it. The loop never waits for what it asks: an
//! action leaves through a slot of its instance, a spawned task or the broker, and its end comes back as an event.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use failover_core::action::Action;
use failover_core::addr::Addr;
use failover_core::event::{Answer, CommandResult, Event, ProposalId, RequestId};
use failover_core::journal::Recorded;
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::notice::Notice;
use failover_core::record::{Change, Kind, Occurrence, Phase};
use failover_core::time::Time;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::broker::Broker;
use crate::clock::Clock;
use crate::events::{Events, Lanes};
use crate::fault;
use crate::hooks::{Desk, FailoverPlan, Sights};
use crate::journal::Journal;
use crate::logged::{Level, Unsaid};
use crate::redis::{Instance, Login, Order, OrderedBy};
use crate::requests::Waiting;
use crate::resolve::Resolver;
use crate::shown::Shown;
use crate::talk::{Inbound, Talk};

/// The number of the request that registers the configured groups.
pub(crate) const FIRST_REQUEST: RequestId = 0;
/// Most events that are handled between two looks at the clock.
const BATCH_EVENTS_MAX: usize = 256;
/// How often some of the shown groups get new ages and offsets, without anything having changed.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// Most groups that are refreshed at once, and fewest.
const REFRESH_GROUPS_MAX: usize = 50;
const REFRESH_GROUPS_MIN: usize = 5;
/// In how many turns all of them are, as long as that takes no more than the most at once: 5 s.
const REFRESH_TURNS: usize = 50;

/// Everything the loop owns.
pub(crate) struct Driver {
    pub(crate) fleet: Recorded<Journal>,
    pub(crate) clock: Clock,
    pub(crate) broker: Broker,
    pub(crate) logins: Logins,
    pub(crate) resolver: Resolver,
    pub(crate) events: Events,
    pub(crate) lanes: Lanes,
    pub(crate) requests: mpsc::Receiver<Waiting>,
    /// What the broker says by itself; it never does for a node that is alone.
    pub(crate) heard: mpsc::Receiver<Event>,
    /// What other nodes want to know.
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    /// The way to other nodes; `None` for a node that is alone.
    pub(crate) talk: Option<Talk>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) hooks: Desk,
    pub(crate) sights: Sights,
    pub(crate) unsaid: Unsaid,
    pub(crate) notices: broadcast::Sender<Notice>,
}

/// How to log in, by group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logins {
    pub(crate) default: Login,
    pub(crate) by_group: BTreeMap<GroupName, Login>,
}

impl Logins {
    /// To the instances of one group.
    pub(crate) fn of(&self, group: &GroupName) -> &Login {
        self.by_group.get(group).unwrap_or(&self.default)
    }
}

/// What goes out when everything that it is about is shown.
enum Word {
    Occurrence(GroupName, Token, Box<Occurrence>),
    Notice(Notice),
    Answer(RequestId, Answer),
}

/// What the loop keeps between two rounds.
struct Round {
    instances: BTreeMap<Addr, Instance>,
    /// Events that need no way round through a channel.
    at_once: VecDeque<Event>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    /// What other nodes are to be asked, all groups of one leadership in one question.
    questions: BTreeMap<(NodeId, Token), Vec<GroupName>>,
    next_request: RequestId,
    refreshed: Option<GroupName>,
    words: Vec<Word>,
}

impl Driver {
    /// Runs until it is told to stop. `first` is handled before anything else; `answered` hears how the first request
    /// in it ended, or is dropped when its end is not known after that.
    pub(crate) async fn run(
        mut self,
        first: Vec<Event>,
        answered: oneshot::Sender<Answer>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut round = Round {
            instances: BTreeMap::new(),
            at_once: first.into(),
            waiting: BTreeMap::from([(FIRST_REQUEST, answered)]),
            questions: BTreeMap::new(),
            next_request: FIRST_REQUEST,
            refreshed: None,
            words: Vec::new(),
        };
        let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            self.settle(&mut round).await;
            round.waiting.remove(&FIRST_REQUEST);
            if let Some(at) = self.fleet.poll_timeout() {
                timer.as_mut().reset(self.clock.instant(at));
            }
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                // Before anything else, so that whatever is taken below comes after what the broker has said by then.
                Some(event) = self.heard.recv() => round.at_once.push_back(event),
                Some(event) = self.lanes.urgent.recv() => round.at_once.push_back(event),
                Some(inbound) = self.inbound.recv() => self.serve(&mut round, inbound).await,
                Some(waiting) = self.requests.recv() => self.request(&mut round, waiting),
                Some(event) = self.lanes.routine.recv() => round.at_once.push_back(event),
                () = &mut timer => {}
                _ = refresh.tick() => self.refresh(&mut round),
            }
            self.gather(&mut round);
        }
    }

    /// Takes what else is there already, the urgent first.
    fn gather(&mut self, round: &mut Round) {
        while round.at_once.len() < BATCH_EVENTS_MAX {
            let next = self.heard.try_recv();
            let next = next.or_else(|_| self.lanes.urgent.try_recv());
            let next = next.or_else(|_| self.lanes.routine.try_recv());
            let Ok(event) = next else { return };
            round.at_once.push_back(event);
        }
    }

    /// Handles every event that is there, lets time pass, carries out every action, and publishes what changed.
    async fn settle(&mut self, round: &mut Round) {
        loop {
            while let Some(event) = round.at_once.pop_front() {
                self.handle(round, event).await;
            }
            self.fleet.handle_timeout(self.clock.now());
            self.drain(round).await;
            if round.at_once.is_empty() {
                break;
            }
        }
        for ((node, token), groups) in std::mem::take(&mut round.questions) {
            if let Some(talk) = &self.talk {
                talk.ask_sight(&node, token, &groups);
            }
        }
        self.sights.tell_quorum(&self.hooks, &self.fleet);
        // Whoever is told or answered must find what was changed, and what is to be done for it has left already.
        self.publish_changed();
        for word in round.words.drain(..) {
            match word {
                Word::Occurrence(group, token, occurrence) => {
                    self.hooks.tell(group, token, occurrence);
                }
                Word::Notice(notice) => self.tell(notice),
                Word::Answer(id, answer) => {
                    if let Some(waiting) = round.waiting.remove(&id) {
                        let _ = waiting.send(answer);
                    }
                }
            }
        }
    }

    async fn handle(&mut self, round: &mut Round, event: Event) {
        let event = after_commit(event).await;
        self.log_standing(&event);
        let leads = if let Event::Leadership(leads) = &event { Some(leads.token()) } else { None };
        if let Some(token) = leads {
            self.hooks.leads(token);
        }
        self.fleet.handle(self.clock.now(), event);
        if leads.is_some() {
            self.sights.begin(&self.hooks, &self.fleet);
        }
        self.drain(round).await;
    }

    /// Who acts, and who votes, in the words of the log. A node that is alone has nothing to say about that.
    fn log_standing(&self, event: &Event) {
        match (event, &self.talk) {
            (Event::Leadership(Leadership::Leader(token)), Some(_)) => {
                tracing::info!("this node leads the cluster in term {}", token.0);
            }
            (Event::Leadership(Leadership::Follower { leader }), Some(_)) => {
                tracing::info!("{leader} leads the cluster");
            }
            (Event::Leadership(Leadership::None), Some(_)) => {
                tracing::warn!("no leader is known; nobody acts until there is one");
            }
            (Event::Voters(voters), Some(_)) => {
                let voters: Vec<String> = voters.iter().map(ToString::to_string).collect();
                tracing::info!("the cluster's voters are {}", voters.join(", "));
            }
            _ => {}
        }
    }

    /// Does for another node what only the loop can.
    async fn serve(&mut self, round: &mut Round, inbound: Inbound) {
        match inbound {
            Inbound::Sight(groups, reply) => {
                let mut sights = Vec::with_capacity(groups.len());
                for group in groups {
                    if let Some(testimony) = self.fleet.testify(self.clock.now(), &group) {
                        sights.push((group, testimony));
                    }
                }
                let _ = reply.send(sights);
                self.drain(round).await;
            }
            Inbound::CaughtUp(reply) => drop(reply.send(())),
            Inbound::Hint(group) => round.at_once.push_back(Event::Hinted { group }),
            Inbound::Command { group, addr, command, token, deadline, reply } => {
                let entry = self.fleet.record().entry(&group);
                if !entry.is_some_and(|entry| entry.instances.contains_key(&addr)) {
                    // Nobody would ever close a connection that is opened for it.
                    let why = format!("this node knows no {addr} in the group {group}");
                    let _ = reply.send(CommandResult::NotSent(why));
                    return;
                }
                let by = OrderedBy::Leader(reply);
                self.instance(round, &group, &addr).order(Order { command, token, deadline, by });
            }
        }
    }

    /// Takes a request, or hands it on to the leader.
    fn request(&mut self, round: &mut Round, waiting: Waiting) {
        let Waiting { request, forwarded, answer } = waiting;
        if let (Leadership::Follower { leader }, Some(talk), false) =
            (self.fleet.leadership(), &self.talk, forwarded)
        {
            talk.forward(leader.clone(), request, answer);
            return;
        }
        round.next_request += 1;
        round.waiting.insert(round.next_request, answer);
        round.at_once.push_back(Event::Request { id: round.next_request, request });
    }

    fn publish_changed(&mut self) {
        self.shown.set_leadership(self.fleet.leadership());
        self.shown.beat();
        let changed = self.fleet.take_changed();
        if !changed.is_empty() {
            self.show(changed);
        }
    }

    /// Gives a few groups new ages and offsets, going round through all of them.
    fn refresh(&self, round: &mut Round) {
        let after = round.refreshed.take();
        let all = self.fleet.record().len();
        let share = (all / REFRESH_TURNS).clamp(REFRESH_GROUPS_MIN, REFRESH_GROUPS_MAX);
        let names: Vec<GroupName> =
            self.fleet.names_after(after.as_ref()).take(share).cloned().collect();
        round.refreshed = names.last().cloned();
        self.show(names);
    }

    fn show(&self, names: impl IntoIterator<Item = GroupName>) {
        let now = self.clock.now();
        self.shown.publish(names.into_iter().map(|name| {
            let view = self.fleet.view(now, &name);
            (name, view)
        }));
    }

    async fn drain(&mut self, round: &mut Round) {
        while let Some(action) = self.fleet.poll() {
            match action {
                Action::Probe { group, addr, seq, fresh } => {
                    self.instance(round, &group, &addr).probe(seq, fresh);
                }
                Action::Forget { addr } => {
                    round.instances.remove(&addr);
                }
                Action::Propose { id, token, changes } => {
                    self.propose(round, id, token, changes).await;
                }
                Action::Command { group, id, addr, command, token, via: None, deadline } => {
                    let by = OrderedBy::Loop(group.clone(), id);
                    let order = Order { command, token, deadline, by };
                    self.instance(round, &group, &addr).order(order);
                }
                Action::Command { group, id, addr, command, token, via: Some(node), deadline } => {
                    if let Some(talk) = &self.talk {
                        talk.command(node, (group, id), (addr, command), token, deadline);
                    }
                }
                Action::AskPeer { node, group, token } => {
                    round.questions.entry((node, token)).or_default().push(group);
                }
                Action::Hint { leader, group } => {
                    if let Some(talk) = &self.talk {
                        talk.hint(leader, group);
                    }
                }
                Action::Vet { group, id, old_master, candidate, reason, deadline } => {
                    let plan = FailoverPlan { group, old_master, candidate, reason };
                    self.vet(round, id, plan, deadline);
                }
                Action::Tell { group, token, occurrence } => {
                    round.words.push(Word::Occurrence(group, token, occurrence));
                }
                Action::Publish(notice) => round.words.push(Word::Notice(notice)),
                Action::Answer { id, answer } => round.words.push(Word::Answer(id, answer)),
            }
        }
    }

    fn instance<'a>(&self, round: &'a mut Round, group: &GroupName, addr: &Addr) -> &'a Instance {
        let start = || {
            let login = self.logins.of(group);
            Instance::start(
                addr.clone(),
                login.clone(),
                self.clock,
                self.events.clone(),
                self.broker.clone(),
                self.resolver.clone(),
            )
        };
        match round.instances.entry(addr.clone()) {
            Entry::Vacant(place) => place.insert(start()),
            Entry::Occupied(mut place) => {
                if place.get().ended() {
                    tracing::error!(%group, "the task of {addr} broke and is started anew; please report this");
                    place.insert(start());
                }
                place.into_mut()
            }
        }
    }

    async fn propose(
        &mut self,
        round: &mut Round,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) {
        for change in &changes {
            tracing::debug!(group = %change.group, "proposing: {}", change.what);
        }
        if let Some((before, _)) = fault_points(&changes)
            && let Err(why) = fault::point(before).await
        {
            round.at_once.push_back(Event::NotCommitted { id, why });
            return;
        }
        round.at_once.extend(self.broker.propose(id, token, changes));
    }

    fn vet(&self, round: &mut Round, id: u64, plan: FailoverPlan, deadline: Time) {
        let group = plan.group.clone();
        if self.hooks.nobody_to_ask(&group) {
            round.at_once.push_back(Event::Vetted { group, id, veto: None });
            return;
        }
        let (hooks, events) = (self.hooks.clone(), self.events.clone());
        let deadline = self.clock.instant(deadline);
        tokio::spawn(async move {
            let veto = hooks.ask(&plan, deadline).await;
            events.send(Event::Vetted { group, id, veto }).await;
        });
    }

    fn tell(&mut self, notice: Notice) {
        let Notice { group, sentence, .. } = &notice;
        let leaderless = self.talk.is_some() && *self.fleet.leadership() == Leadership::None;
        match self.unsaid.level(&notice, leaderless) {
            Level::Debug => tracing::debug!(%group, "{sentence}"),
            Level::Info => tracing::info!(%group, "{sentence}"),
            Level::Warn => tracing::warn!(%group, "{sentence}"),
            Level::Error => tracing::error!(%group, "{sentence}"),
        }
        self.sights.tell(&self.hooks, &self.fleet, &notice);
        // Nobody listening is fine.
        let _ = self.notices.send(notice);
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The fault points behind a commit. One that is told to fail loses the news that this was our own proposal.
async fn after_commit(event: Event) -> Event {
    if let Event::Committed { id: Some(_), changes } = &event
        && let Some((_, Some(after))) = fault_points(changes)
        && fault::point(after).await.is_err()
        && let Event::Committed { changes, .. } = event
    {
        return Event::Committed { id: None, changes };
    }
    event
}

/// The fault points around the commit of a failover's steps.
fn fault_points(changes: &[Change]) -> Option<(&'static str, Option<&'static str>)> {
    let change = changes.first()?;
    if let Some(history) = &change.history {
        return match history.kind {
            Kind::Failover | Kind::ManualFailover => Some(("before-done-commit", None)),
            Kind::Switchover
            | Kind::Demotion
            | Kind::Repair
            | Kind::Adoption
            | Kind::ReplicaEvent => None,
        };
    }
    let saga = change.entry.as_ref()?.saga.as_ref()?;
    match (saga.history.kind, saga.phase) {
        (Kind::Failover | Kind::ManualFailover, Phase::Decided) => {
            Some(("before-decision-commit", Some("after-decision-commit")))
        }
        (Kind::Failover | Kind::ManualFailover, Phase::Promoted) => {
            Some(("before-result-commit", Some("after-result-commit")))
        }
        (Kind::Switchover, Phase::Demoting) => Some(("switchover-equal", None)),
        (Kind::Switchover, Phase::Promoted) => Some(("switchover-promoted", None)),
        (Kind::Failover | Kind::ManualFailover, Phase::Demoting | Phase::Undoing)
        | (Kind::Switchover, Phase::Decided | Phase::Undoing)
        | (Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent, _) => None,
    }
}
