//! What people on call do to the world, through the leader or behind its back.

use std::time::Duration;

use failover_core::action::{Command, Keep};
use failover_core::addr::Addr;
use failover_core::event::{Event, GroupSpec, Request};
use failover_core::node::GroupName;
use failover_core::record::{GivenRule, GroupEntry, Rule, Status};

use super::{Happening, World};
use crate::deed::Deed;
use crate::model_redis::{Effect, Part, Running};
use crate::operations::{BY_HAND_MAX, IdleRequest, Operation};

/// How long whoever asked for a switchover waits.
const SWITCHOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a group is not guarded when it is taken away and added again.
const UNGUARDED: Duration = Duration::from_millis(700);

impl World {
    /// Somebody does something.
    pub fn operate(&mut self, operation: Operation) {
        let group = self.group.clone();
        let named = |to: Option<usize>| to.map(|to| self.addrs[to].clone());
        let request = match operation {
            Operation::Switchover { to } => Request::Switchover {
                group,
                to: named(to),
                timeout: SWITCHOVER_TIMEOUT,
                dry_run: false,
            },
            Operation::Failover { to, force } => {
                Request::Failover { group, to: named(to), force, dry_run: false }
            }
            Operation::Pause { ms } => {
                let until = ms.map(|ms| self.now + Duration::from_millis(ms));
                Request::Pause { group: Some(group), reason: None, until }
            }
            Operation::Resume => Request::Resume(group),
            Operation::Rule { server, never } => {
                let given = GivenRule { rule: Rule::Never, expires_at: None };
                let (addr, rule) = (self.addrs[server].clone(), never.then_some(given));
                Request::Rule { group, addr, rule }
            }
            Operation::PromoteByHand(server) => {
                let command = Command::Promote { run_id: None, at_least: None, fence: None };
                self.change_by_hand(&operation, server, &command);
                return;
            }
            Operation::FollowByHand { server, of } => {
                let master = self.addrs[of].clone();
                let command = Command::Follow { master, master_run_id: None, keep: Keep::Common };
                self.change_by_hand(&operation, server, &command);
                return;
            }
            // Nobody takes a group away whose roles are not what they should be, or forgets with it who owes a full copy.
            Operation::Replace | Operation::ReplaceByNone | Operation::ReplaceByAddress
                if self.is_whole() && !self.owes_copies() =>
            {
                let master = self.recorded();
                self.after(UNGUARDED, Happening::Add { master, gone: false });
                if operation == Operation::ReplaceByNone {
                    Request::Replace(Vec::new())
                } else if operation == Operation::ReplaceByAddress {
                    Request::Remove(vec![self.addrs[master].to_string()])
                } else {
                    Request::Remove(vec![group.to_string()])
                }
            }
            Operation::Replace | Operation::ReplaceByNone | Operation::ReplaceByAddress => return,
            Operation::PauseAll => Request::Pause { group: None, reason: None, until: None },
            Operation::ResumeAll => Request::ResumeAll,
            Operation::Forget(server) => {
                if !self.may_be_forgotten(server) {
                    return;
                }
                self.forgotten[server] = true;
                Request::Forget { group, addr: self.addrs[server].clone() }
            }
            Operation::AskFollower => {
                self.ask_follower(&operation);
                return;
            }
            // What is not guarded right now would be, under another name.
            Operation::Idle(_) if self.agreed().is_none() => return,
            Operation::Idle(idle) => self.idle(idle),
        };
        self.done(&operation);
        self.ask(request);
    }

    /// A request that changes nothing.
    fn idle(&self, idle: IdleRequest) -> Request {
        let group = self.group.clone();
        let named = |name: &str| GroupName::new(name).unwrap_or_else(|_| group.clone());
        let stranger = Addr::new("10.9.9.9", 6379).unwrap_or_else(|_| self.addrs[0].clone());
        let master = self.addrs[self.recorded()].clone();
        let spec = |name: &str| GroupSpec {
            name: Some(named(name)),
            master: master.clone(),
            replicas: Vec::new(),
        };
        let switchover = |group: GroupName, to: Option<Addr>, dry_run: bool| Request::Switchover {
            group,
            to,
            timeout: SWITCHOVER_TIMEOUT,
            dry_run,
        };
        let failover = |to: Option<Addr>, dry_run: bool| Request::Failover {
            group: group.clone(),
            to,
            force: true,
            dry_run,
        };
        match idle {
            IdleRequest::WouldSwitch => switchover(group, None, true),
            IdleRequest::WouldFailOver => failover(None, true),
            IdleRequest::SwitchToStranger => switchover(group, Some(stranger), false),
            IdleRequest::FailOverToStranger => failover(Some(stranger), false),
            IdleRequest::OfNoGroup => switchover(named("none"), None, false),
            IdleRequest::PauseNothing => {
                Request::Pause { group: Some(named("none")), reason: None, until: None }
            }
            IdleRequest::ResumeNothing => Request::Resume(named("none")),
            IdleRequest::RuleForStranger => Request::Rule { group, addr: stranger, rule: None },
            IdleRequest::ForgetStranger => Request::Forget { group, addr: stranger },
            IdleRequest::ForgetMaster => Request::Forget { group, addr: master },
            IdleRequest::AddAgain => Request::Add(vec![spec("g")]),
            IdleRequest::AddUnderAnotherName => Request::Add(vec![spec("another")]),
            IdleRequest::RemoveNothing => Request::Remove(vec!["none".to_owned()]),
            IdleRequest::ReplaceByItself => Request::Replace(vec![spec("g")]),
            IdleRequest::ReplaceUnderAnotherName => Request::Replace(vec![spec("another")]),
            IdleRequest::AddTwice => Request::Add(vec![spec("one"), spec("another")]),
            IdleRequest::SwitchAtOnce => {
                Request::Switchover { group, to: None, timeout: Duration::ZERO, dry_run: false }
            }
        }
    }

    /// A replica that has nothing left to do with the group but what a person knows of it: nobody forgets a master of old, which
    /// would come back as one beside the recorded one.
    fn may_be_forgotten(&self, server: usize) -> bool {
        let is = &self.servers[server];
        let follows = is.part() == Part::Replica(self.recorded());
        let known = self.agreed().and_then(|entry| entry.instances.get(&self.addrs[server]));
        let owes = known.is_some_and(|known| known.copy.is_some() || known.abandoned.is_some());
        follows && !owes && !is.is_ledisdb() && !self.fenced
    }

    fn ask_follower(&mut self, operation: &Operation) {
        let leader = self.broker.leader().unwrap_or(0);
        let follower = (leader + 1) % self.nodes.len();
        if follower != leader {
            self.done(operation);
            self.requests += 1;
            let request = Request::ResumeAll;
            self.tell(follower, Event::Request { id: self.requests, request });
        }
    }

    fn done(&mut self, operation: &Operation) {
        self.counts.operations += 1;
        self.note_deed(Deed::Operation(operation.clone()));
        self.journal.note(self.now, || format!("!! {operation:?}"));
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        self.tell_leader(Event::Request { id: self.requests, request });
    }

    /// A role is changed without a word to anybody.
    fn change_by_hand(&mut self, operation: &Operation, server: usize, command: &Command) {
        if self.by_hand >= BY_HAND_MAX || (self.troubles && !self.is_whole()) {
            return;
        }
        self.by_hand += 1;
        self.done(operation);
        self.touched[server] = true;
        let mut out = Vec::new();
        let fresh_id = self.rng.u64(..);
        self.servers[server].by_hand(self.now, command, fresh_id, &mut out);
        out.retain(|effect| !matches!(effect, Effect::Promoted { .. }));
        self.effects(server, out);
    }

    /// Whether everyone is there and as the record says, and nothing is open.
    fn is_whole(&self) -> bool {
        let recorded = self.recorded();
        let stands = |(index, server): (usize, &crate::model_redis::Server)| {
            let right = match server.part() {
                Part::Master => index == recorded && server.takes_writes(),
                Part::Replica(of) => index != recorded && of == recorded && server.link_up(),
            };
            right && server.running() == Running::Up
        };
        let open = self.agreed().is_none_or(|entry| {
            entry.saga.is_some()
                || entry.status != Status::Active
                || entry.instances.values().any(|known| known.abandoned.is_some())
        });
        !open && self.servers.iter().enumerate().all(stands)
    }

    fn owes_copies(&self) -> bool {
        let known = |entry: &GroupEntry| entry.instances.values().any(|known| known.copy.is_some());
        self.agreed().is_some_and(known)
    }

    /// The group is guarded again: asked for when it is gone, and until it is there.
    pub(super) fn add(&mut self, master: usize, gone: bool) {
        let gone = gone || self.agreed().is_none();
        if self.agreed().is_none() {
            let spec = GroupSpec {
                name: Some(self.group.clone()),
                master: self.addrs[master].clone(),
                // Whoever is away right now is not found in what the master says.
                replicas: self
                    .addrs
                    .iter()
                    .filter(|addr| **addr != self.addrs[master])
                    .cloned()
                    .collect(),
            };
            self.ask(Request::Add(vec![spec]));
        } else if gone {
            return;
        }
        self.after(Duration::from_secs(1), Happening::Add { master, gone });
    }

    /// Chains that were made by hand are only reported, and left to people, and so are rings in which somebody restarted,
    /// masters that were never seen attached to the group since it was added again, and whoever was forgotten on request.
    fn undo_by_hand(&mut self) {
        let recorded = self.recorded();
        for server in 0..self.servers.len() {
            let known = self.agreed().and_then(|entry| entry.instances.get(&self.addrs[server]));
            let is = &self.servers[server];
            let stands_alone = is.part() == Part::Master && is.takes_writes();
            let is_forgotten = self.forgotten[server] && known.is_none();
            let is_left = match is.part() {
                Part::Master if is_forgotten => stands_alone && server != recorded,
                Part::Replica(of) if is_forgotten => of != recorded,
                Part::Master => {
                    let is_stranger = known.is_some_and(|known| !known.attached);
                    stands_alone && server != recorded && is_stranger
                }
                Part::Replica(of) => of != recorded && self.touched[server],
            };
            if !is_left || is.running() != Running::Up {
                continue;
            }
            // Where nobody finds out what two servers have in common, a person does not trust to it.
            let keep = if is.is_ledisdb() && stands_alone { Keep::Nothing } else { Keep::Common };
            self.by_hand = 0;
            if server == recorded {
                let command = Command::Promote { run_id: None, at_least: None, fence: None };
                self.change_by_hand(&Operation::PromoteByHand(server), server, &command);
            } else {
                let master = self.addrs[recorded].clone();
                let command = Command::Follow { master, master_run_id: None, keep };
                let operation = Operation::FollowByHand { server, of: recorded };
                self.change_by_hand(&operation, server, &command);
            }
        }
    }

    /// Where the program says that a person has to decide with a failover, one does: for whoever has the most.
    fn follow_advice(&mut self) {
        let Some(view) = self.view() else { return };
        let why = view.diagnosis.not_acting_because.unwrap_or_default();
        if !why.contains("failover with force") && !why.contains("decide with a failover") {
            return;
        }
        let recorded = self.recorded();
        let held = |server: &usize| {
            let is = &self.servers[*server];
            (is.part() == Part::Master, is.data().len())
        };
        let best = (0..self.servers.len()).filter(|server| *server != recorded).max_by_key(held);
        if let Some(to) = best.filter(|to| self.servers[*to].serves()) {
            let (group, to) = (self.group.clone(), Some(self.addrs[to].clone()));
            self.ask(Request::Failover { group, to, force: true, dry_run: false });
        }
    }

    fn has_rule(&self, server: usize) -> bool {
        let known = self.agreed().and_then(|entry| entry.instances.get(&self.addrs[server]));
        known.is_some_and(|known| known.rule.is_some())
    }

    /// Whoever is on call resumes a group that is halted, and in the end one that is paused.
    pub(super) fn look_as_operator(&mut self) {
        let resumes = self.agreed().is_some_and(|entry| match entry.status {
            Status::Halted { .. } => true,
            Status::Paused { .. } => !self.troubles,
            Status::Active | Status::Resuming => false,
        });
        if resumes {
            self.ask(Request::Resume(self.group.clone()));
        }
        if !self.troubles {
            self.undo_by_hand();
            self.follow_advice();
            let ruled: Vec<usize> =
                (0..self.addrs.len()).filter(|server| self.has_rule(*server)).collect();
            for server in ruled {
                self.operate(Operation::Rule { server, never: false });
            }
        }
        if resumes || !self.troubles {
            // It may have come while nobody led, or before it was needed.
            self.after(Duration::from_secs(1), Happening::Operator);
        }
    }
}
