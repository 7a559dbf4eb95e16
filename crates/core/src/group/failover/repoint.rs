//! Pointing the other replicas at the new master, `parallel_syncs` at a time, and verifying each.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::addr::Addr;
use crate::event::{CommandId, CommandResult};
use crate::group::window::{Window, clients_cut};
use crate::group::{Context, Group, Work};
use crate::instance::Facts;
use crate::node::Token;
use crate::notice::What;
use crate::policy::Policy;
use crate::record::Outcome;
use crate::time::Time;
use crate::view::{How, State};
use crate::watch::Watch;

/// The other replicas on their way to the new master.
#[derive(Debug)]
pub(in crate::group) struct Repointing {
    since: Time,
    waiting: Vec<Addr>,
    active: BTreeMap<Addr, Active>,
    /// Those that could not be repointed, and since when; they are repaired later.
    failed: BTreeMap<Addr, Time>,
    /// Those that accepted the order.
    told: Vec<Addr>,
    again_at: Time,
}

/// One replica on its way.
#[derive(Debug)]
struct Active {
    /// The command, until it ended.
    sent: Option<CommandId>,
    since: Time,
    /// Why it is not known whether the command was executed.
    unknown: Option<String>,
}

/// The pause until a replica that was told to follow is asked for its link again: a partial resync takes milliseconds,
/// and a full one is not hurried by asking.
fn link_pause(policy: &Policy, age: Duration) -> Duration {
    let step = policy.corroboration_interval;
    if age < step * 20 {
        step
    } else if age < policy.promote_timeout {
        step * 20
    } else {
        policy.check_interval
    }
}

impl Repointing {
    /// Whom a command that is on its way was sent to.
    pub(super) fn sent_to(&self, id: CommandId) -> Option<&Addr> {
        self.active.iter().find(|(_, active)| active.sent == Some(id)).map(|(addr, _)| addr)
    }

    /// Time in which this node stood still is nobody's fault.
    pub(in crate::group) fn discard(&mut self, later: impl Fn(&mut Time)) {
        later(&mut self.since);
        self.active.values_mut().for_each(|active| later(&mut active.since));
    }

    /// When something is to be done about it without a new event.
    pub(in crate::group) fn timeout(&self, policy: &Policy) -> Option<Time> {
        let overdue = self.active.values().map(|active| active.since + policy.link_timeout).min();
        let whole = self.since + policy.failover_timeout;
        [Some(self.again_at), overdue, Some(whole)].into_iter().flatten().min()
    }
}

impl Group {
    /// Points the other replicas at the new master, `parallel_syncs` at a time, and verifies each.
    pub(in crate::group) fn drive_repointing(&mut self, ctx: &Context<'_>, token: Token) {
        let down =
            self.watches.get(&self.entry.master).is_some_and(|watch| watch.state() == State::Down);
        if down && self.reached_by(ctx.now, &self.entry.master).is_none() {
            self.finish_failover(
                ctx,
                token,
                Some("the new master died while its replicas were repointed"),
            );
            return;
        }
        if let Some(why) = self.restart_in_doubt() {
            // Whoever is pointed at it now loses what it has.
            self.finish_failover(ctx, token, Some(&why));
            return;
        }
        let master = self.entry.master.clone();
        let certain = self.led_since.max(self.master_since);
        let read = self.facts_of(ctx.now, &master);
        if read.is_some_and(|facts| !facts.is_master() && facts.asked_at >= certain) {
            self.finish_failover(ctx, token, Some("the new master became a replica"));
            return;
        }
        if !matches!(self.work, Work::Repointing(_)) {
            let is_master = |facts: &Facts| facts.is_master() && facts.asked_at >= self.led_since;
            if !read.is_some_and(is_master) {
                // Another leader promoted it, and it may be gone with that one: nobody is demoted for a dead master.
                self.read_target(ctx, token, &master, certain);
                return;
            }
            let mut waiting: Vec<Addr> = self
                .watches
                .iter()
                .filter(|(addr, watch)| **addr != self.entry.master && watch.state() != State::Down)
                .filter(|(_, watch)| watch.last_reply().is_some())
                // One that reads its data refuses; it is called when it serves, and would count as failed until then.
                .filter(|(_, watch)| watch.how() != How::Loading)
                // A full copy is a repair of its own: one after the other, and longer than a failover.
                .filter(|(addr, _)| {
                    self.entry.instances.get(*addr).is_none_or(|known| known.copy.is_none())
                })
                // One that was never seen attached may be somebody else's master, and so may one that was given the
                // address of another.
                .filter(|(addr, _)| {
                    self.entry.instances.get(*addr).is_some_and(|known| known.attached)
                        && !self.is_stranger(ctx, addr)
                })
                .map(|(addr, _)| addr.clone())
                .rev()
                .collect();
            // The new master may have copied, right before it was promoted, what a master without its data had.
            let uncounted = waiting.iter().filter(|addr| self.awaits_count(ctx.now, addr)).count();
            if uncounted > 0 {
                return;
            }
            waiting.retain(|addr| self.would_be_missed(addr).is_none());
            // The last is the first to go: an old master that was switched from, because its clients still believe in
            // it; then whoever answers, since the others may keep everybody waiting. Where histories are not compared that
            // one comes last: it passes on what is new, and whoever gets it that way has more than the new master began with.
            waiting.sort_by_key(|addr| {
                let serves = self.watches.get(addr).is_some_and(Watch::serves);
                let was_master = Some(addr) == self.switched_from();
                (was_master == self.manners().finds_common, serves)
            });
            self.work = Work::Repointing(Repointing {
                since: ctx.now,
                waiting,
                active: BTreeMap::new(),
                failed: BTreeMap::new(),
                told: Vec::new(),
                again_at: ctx.now,
            });
        }
        self.verify_links(ctx);
        self.call_returned(ctx, token);
        self.start_repoints(ctx, token);
        let Work::Repointing(work) = &mut self.work else { return };
        work.again_at = ctx.now + link_pause(&self.policy, ctx.now.since(work.since));
        let over = ctx.now >= work.since + self.policy.failover_timeout;
        if over || (work.waiting.is_empty() && work.active.is_empty()) {
            let note = over.then_some("failover_timeout passed before every replica was verified");
            self.finish_failover(ctx, token, note);
        }
    }

    fn verify_links(&mut self, ctx: &Context<'_>) {
        let Work::Repointing(work) = &mut self.work else { return };
        let mut verified = Vec::new();
        let mut failed = Vec::new();
        let mut returned = Vec::new();
        for (addr, active) in work.active.iter().filter(|(_, active)| active.sent.is_none()) {
            let Some(watch) = self.watches.get_mut(addr) else { continue };
            let facts = watch.facts().filter(|facts| facts.asked_at >= active.since);
            let of = facts.and_then(Facts::follows).and_then(|of| self.entry.instance_of(of));
            let follows = of == Some(&self.entry.master);
            let overdue = ctx.now >= active.since + self.policy.promote_timeout;
            let began = watch.answers_since().max(watch.process_since());
            if began > active.since && facts.is_some_and(Facts::takes_writes) {
                // Another process of it, which was told nothing, and takes writes.
                returned.push(addr.clone());
            } else if follows && facts.is_some_and(Facts::link_up) {
                verified.push((addr.clone(), active.unknown.clone()));
            } else if watch.state() == State::Down {
                failed.push((addr.clone(), "it went down".to_owned()));
            } else if let Some(why) = active.unknown.as_ref().filter(|_| overdue && !follows) {
                failed.push((addr.clone(), why.clone()));
            } else if ctx.now >= active.since + self.policy.link_timeout {
                let secs = self.policy.link_timeout.as_secs();
                failed.push((addr.clone(), format!("its link was not up within {secs} s")));
            } else {
                let pause = link_pause(&self.policy, ctx.now.since(active.since));
                watch.ask(ctx.now + pause, active.since);
            }
        }
        for addr in verified.iter().map(|(addr, _)| addr).chain(&returned) {
            work.active.remove(addr);
        }
        for (addr, _) in &failed {
            work.active.remove(addr);
        }
        for (addr, unknown) in verified {
            if unknown.is_some() {
                self.mark(ctx, "repointed", Some(&addr), unknown);
            }
            self.mark(ctx, "link_verified", Some(&addr), None);
        }
        for (addr, why) in failed {
            self.repoint_failed(ctx, &addr, &why);
        }
    }

    fn start_repoints(&mut self, ctx: &Context<'_>, token: Token) {
        loop {
            let Work::Repointing(work) = &mut self.work else { return };
            if work.active.len() >= self.policy.parallel_syncs {
                return;
            }
            let others = !work.active.is_empty();
            if others && !self.manners().finds_common && self.is_next_the_old_master() {
                return;
            }
            let Work::Repointing(work) = &mut self.work else { return };
            let Some(addr) = work.waiting.pop() else { return };
            self.repoint(ctx, token, addr);
        }
    }

    fn is_next_the_old_master(&self) -> bool {
        let Work::Repointing(work) = &self.work else { return false };
        let next = work.waiting.last();
        next.is_some() && next == self.switched_from()
    }

    /// An instance that comes back as a master while others are repointed waits for nobody: a full sync of one of them
    /// may take long, and it takes writes meanwhile.
    fn call_returned(&mut self, ctx: &Context<'_>, token: Token) {
        let master = &self.entry.master;
        let is_master =
            |watch: &Watch| watch.serves() && watch.facts().is_some_and(Facts::takes_writes);
        let Work::Repointing(work) = &self.work else { return };
        if !self.watches.get(master).is_some_and(is_master) {
            return;
        }
        let mut returned: Vec<Addr> = self
            .watches
            .iter()
            .filter(|(addr, watch)| *addr != master && is_master(watch))
            .filter(|(addr, _)| !work.active.contains_key(*addr))
            // One that came back since it failed is not the one that failed.
            .filter(|(addr, watch)| {
                let back = watch.answers_since().max(watch.process_since());
                work.failed.get(*addr).is_none_or(|failed_at| back > *failed_at)
            })
            .filter(|(addr, watch)| {
                self.entry.instances.get(*addr).is_some_and(|known| {
                    let left_behind = watch.returned() || !self.settled.contains_key(*addr);
                    known.attached && (left_behind || known.abandoned.is_some())
                })
            })
            .filter(|(addr, _)| !self.is_stranger(ctx, addr))
            .map(|(addr, _)| addr.clone())
            .collect();
        returned.retain(|addr| {
            !self.awaits_count(ctx.now, addr) && self.would_be_missed(addr).is_none()
        });
        // An answer that was long on its way does not say that there is a master now.
        let lately = ctx.now - self.policy.testimony_age_max;
        if !returned.is_empty()
            && let Some(watch) = self.watches.get_mut(&self.entry.master)
            && watch.facts().is_some_and(|facts| facts.asked_at < lately)
        {
            watch.ask(ctx.now, lately);
            return;
        }
        let Work::Repointing(work) = &mut self.work else { return };
        work.waiting.retain(|addr| !returned.contains(addr));
        for addr in returned {
            let note = self.windows.get(&addr).map(Window::beginning);
            self.mark(ctx, "returned", Some(&addr), note);
            self.repoint(ctx, token, addr);
        }
    }

    fn repoint(&mut self, ctx: &Context<'_>, token: Token, addr: Addr) {
        let master = self.entry.master.clone();
        let id = self.command_follow(ctx.now, token, &addr, master);
        if let Work::Repointing(work) = &mut self.work {
            work.active.insert(addr, Active { sent: Some(id), since: ctx.now, unknown: None });
        }
    }

    /// The command of a repointing ended.
    pub(super) fn repoint_ended(
        &mut self,
        ctx: &Context<'_>,
        id: CommandId,
        result: CommandResult,
    ) {
        let Work::Repointing(work) = &mut self.work else { return };
        let Some(addr) = work.sent_to(id).cloned() else { return };
        let copies = self.entry.instances.get(&addr).is_some_and(|known| known.copy.is_some());
        let Some(active) = work.active.get_mut(&addr) else { return };
        active.sent = None;
        let cut = clients_cut(&result);
        match result {
            CommandResult::Done { facts, warnings } => {
                work.again_at = ctx.now;
                work.told.push(addr.clone());
                if copies {
                    // Nobody waits for a full copy here: what is left of it is a repair.
                    work.active.remove(&addr);
                }
                self.warn(ctx.now, &addr, &warnings);
                let window = self.close_window(ctx.now, &addr, Some(&*facts));
                let demoted = window.is_some();
                if let Some((note, _)) = window {
                    self.mark(ctx, "demoted", Some(&addr), Some(note));
                }
                self.mark(ctx, "repointed", Some(&addr), None);
                if cut && (demoted || self.switched_from().is_some_and(|old| *old == addr)) {
                    // They were cut off by the same command.
                    self.mark(ctx, "clients_cut", Some(&addr), None);
                }
                let sentence =
                    format!("{addr} was told to follow the new master {}", self.entry.master);
                self.publish(ctx.now, What::Repointed { addr }, sentence);
            }
            CommandResult::Unknown(why) => {
                active.since = ctx.now;
                active.unknown = Some(why);
                work.again_at = ctx.now;
            }
            CommandResult::NotSent(why) => {
                work.active.remove(&addr);
                work.waiting.push(addr);
                self.put_off(ctx.now, &why);
            }
            CommandResult::Refused(why) => {
                work.active.remove(&addr);
                self.repoint_failed(ctx, &addr, &why);
            }
        }
    }

    fn repoint_failed(&mut self, ctx: &Context<'_>, addr: &Addr, why: &str) {
        if let Work::Repointing(work) = &mut self.work {
            work.failed.insert(addr.clone(), ctx.now);
        }
        self.mark(ctx, "failed", Some(addr), Some(format!("could not be repointed: {why}")));
        let sentence = format!(
            "{addr} could not be pointed at the new master {}: {why}; it is tried again as a repair",
            self.entry.master
        );
        self.publish(ctx.now, What::RepointFailed { addr: addr.clone() }, sentence);
    }

    /// The promotion holds; what is left over is repaired later.
    fn finish_failover(&mut self, ctx: &Context<'_>, token: Token, note: Option<&str>) {
        let mut told = Vec::new();
        if let Work::Repointing(work) = &mut self.work {
            told = std::mem::take(&mut work.told);
        }
        let Some((mut entry, mut history)) = self.close_saga(ctx.now, Outcome::Done) else {
            return;
        };
        self.note_copies(ctx.now, &mut entry, &told);
        if let Some(note) = note {
            history.reason = format!("{}; {note}", history.reason);
        }
        if let Some(why) = self.not_fenced_because(&history.old_master) {
            history.reason = format!("{}; {why}", history.reason);
        }
        self.propose(
            token,
            format!("the change of master of {} is finished", self.name),
            entry,
            Some(history),
        );
    }
}
