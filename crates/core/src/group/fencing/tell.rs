//! The commands of fencing, how they end, and what people are told.

use std::time::Duration;

use super::Sent;
use crate::action::Command;
use crate::addr::Addr;
use crate::event::{CommandId, CommandResult};
use crate::group::{Context, Group};
use crate::instance::MinReplicas;
use crate::node::Token;
use crate::notice::What;
use crate::record::{GroupEntry, Kept};
use crate::time::Time;
use crate::watch::Watch;

/// After this long without being changed by somebody else, an instance is set again at once the next time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

impl Group {
    pub(super) fn command_fence(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        addr: &Addr,
        set: MinReplicas,
    ) {
        let id = self.command(ctx.now, token, addr, Command::Fence { set });
        let deadline = ctx.now + self.policy.command_timeout * 2;
        self.fencing.sent = Some(Sent { id, addr: addr.clone(), set, deadline });
    }

    /// Whether a command is on its way. One that does not end has an unknown end.
    pub(in crate::group) fn fence_is_on_its_way(&mut self, ctx: &Context<'_>) -> bool {
        let Some(sent) = &self.fencing.sent else { return false };
        if ctx.now < sent.deadline {
            return true;
        }
        let addr = sent.addr.clone();
        self.fencing.sent = None;
        self.fence_failed(ctx, &addr, "it is not known whether it was done");
        false
    }

    /// A command ended. Returns whether it was one of fencing.
    pub(in crate::group) fn fence_ended(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        id: CommandId,
        result: &CommandResult,
    ) -> bool {
        let Some(Sent { addr, set, .. }) = self.fencing.sent.take_if(|sent| sent.id == id) else {
            return false;
        };
        match result {
            CommandResult::Done { warnings, .. } => {
                let kept = match warnings.as_slice() {
                    [] => Kept::Written,
                    [..] => Kept::Lost { why: warnings.join("; ") },
                };
                self.fence_is_set(ctx, token, (&addr, set), kept);
            }
            CommandResult::NotSent(why) => self.put_off(ctx.now, why),
            CommandResult::Refused(why) | CommandResult::Unknown(why) => {
                if let Some(watch) = self.watches.get_mut(&addr) {
                    watch.ask(ctx.now, ctx.now);
                }
                self.fence_failed(ctx, &addr, why);
            }
        }
        true
    }

    /// It took the setting: record whether it keeps it.
    fn fence_is_set(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        (addr, set): (&Addr, MinReplicas),
        kept: Kept,
    ) {
        let mut entry = self.entry.clone();
        let known = entry.instances.get_mut(addr).and_then(|known| known.fenced.as_mut());
        // Something else was decided meanwhile.
        let Some(fenced) = known.filter(|fenced| fenced.set == set) else { return };
        match &kept {
            Kept::Written | Kept::Unknown => {
                self.fencing.unwritten.remove(addr);
            }
            Kept::Lost { .. } => {
                let before = self.fencing.unwritten.get(addr);
                let (again, _) = self.told_in_vain(ctx.now, before);
                self.fencing.unwritten.insert(addr.clone(), again);
            }
        }
        self.fencing.pauses.remove(addr);
        if self.entry.leaving.is_some() {
            self.fencing.restored.insert(addr.clone());
        }
        let news = fenced.kept != kept;
        let MinReplicas { to_write, max_lag_secs } = set;
        if !news {
            return;
        }
        fenced.kept = kept.clone();
        let (what, sentence) = match kept {
            Kept::Written | Kept::Unknown => (
                What::Fenced { addr: addr.clone(), to_write },
                format!(
                    "min-replicas-to-write of {addr} is {to_write}, with a max-lag of {max_lag_secs} s"
                ),
            ),
            Kept::Lost { why } => (
                What::Warned { addr: Some(addr.clone()) },
                format!(
                    "min-replicas-to-write of {addr} is {to_write} only until it restarts: {why}; start it with a \
                     configuration file that it may write"
                ),
            ),
        };
        self.publish(ctx.now, what, sentence);
        let idle = matches!(self.work, crate::group::Work::Idle) && self.entry.saga.is_none();
        if idle && self.entry.leaving.is_none() {
            let what = format!("{addr} was fenced as decided");
            self.propose(token, what, entry, None);
        }
    }

    fn fence_failed(&mut self, ctx: &Context<'_>, addr: &Addr, why: &str) {
        let (again, pause) = self.told_in_vain(ctx.now, self.fencing.pauses.get(addr));
        self.fencing.pauses.insert(addr.clone(), again);
        let sentence = format!(
            "min-replicas-to-write of {addr} could not be set: {why}; it is tried again after {} s (the program's user \
             needs the permission for CONFIG SET)",
            pause.as_secs_f64()
        );
        self.publish(ctx.now, What::Warned { addr: Some(addr.clone()) }, sentence);
    }

    /// When one may be told again that was told in vain before, or not yet.
    fn told_in_vain(&self, now: Time, before: Option<&(Time, u32)>) -> ((Time, u32), Duration) {
        let failures = before.map_or(1, |(_, failures)| failures + 1);
        let pause = self.policy.pause_after(failures);
        ((now + pause, failures), pause)
    }

    /// Somebody else changed what was set: it is set again, less and less willingly.
    pub(super) fn tell_undone(&mut self, now: Time, addr: &Addr, found: u32, set: MinReplicas) {
        let times = match self.fencing.undone.get(addr) {
            Some((until, times)) if now < *until + FORGIVEN_AFTER => times + 1,
            Some(_) | None => 1,
        };
        let again_at = now + self.policy.pause_after(times + 1);
        self.fencing.undone.insert(addr.clone(), (again_at, times));
        let sentence = format!(
            "min-replicas-to-write or min-replicas-max-lag of {addr} was changed by somebody else, or lost in a restart \
             (min-replicas-to-write is {found}); it is set to {} again, because the program keeps it while fencing is on",
            set.to_write
        );
        self.publish(now, What::Warned { addr: Some(addr.clone()) }, sentence);
    }

    /// Tells, once under each leadership, which instances cannot be fenced at all.
    pub(super) fn tell_unable(&mut self, now: Time) {
        for (addr, why) in self.unable_to_fence() {
            if self.fencing.unable.insert(addr.clone()) {
                let sentence = format!("{addr} cannot be fenced: {why}");
                self.publish(now, What::Warned { addr: Some(addr) }, sentence);
            }
        }
    }

    /// Instances that answer and do not have the setting, or do not show it.
    fn unable_to_fence(&self) -> Vec<(Addr, String)> {
        if self.policy.fence().is_none() {
            return Vec::new();
        }
        let serving = self.watches.iter().filter(|(_, watch)| watch.serves());
        let facts = serving.filter_map(|(addr, watch)| Some((addr, watch.facts()?)));
        facts
            .filter(|(_, facts)| facts.fence.is_none())
            .map(|(addr, facts)| {
                let why = format!(
                    "{} {} has no min-replicas-to-write, or does not let the program read it with CONFIG GET",
                    facts.flavor.name(),
                    facts.version
                );
                (addr.clone(), why)
            })
            .collect()
    }

    /// What is not as people expect of a fenced group, to be put behind the reason of its diagnosis.
    pub(in crate::group) fn fencing_in_words(&self) -> Option<String> {
        self.policy.fence()?;
        let unable = self.unable_to_fence();
        if let Some((addr, why)) = unable.first() {
            return Some(format!("{addr} is not fenced: {why}"));
        }
        let master = &self.entry.master;
        let facts = self.watches.get(master).and_then(Watch::facts)?;
        let fence = facts.fence.filter(|_| facts.is_master())?;
        match (fence.set.is_on(), fence.online) {
            (false, _) => Some(format!(
                "{master} is not fenced (min-replicas-to-write is 0) until a replica acknowledges its writes"
            )),
            (true, 0) => Some(format!(
                "{master} takes no writes (min-replicas-to-write is {}) until a replica acknowledges them, or until \
                 all of them were down, or without data, for {} s",
                fence.set.to_write, fence.set.max_lag_secs
            )),
            (true, _) => None,
        }
    }
}

/// The instances whose setting is gone after their restart, in one sentence.
pub(in crate::group) fn not_durable(entry: &GroupEntry) -> Option<String> {
    let lost: Vec<String> = entry
        .instances
        .iter()
        .filter_map(|(addr, known)| match &known.fenced.as_ref()?.kept {
            Kept::Lost { why } => Some(format!("{addr} ({why})")),
            Kept::Written | Kept::Unknown => None,
        })
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "fencing does not outlast a restart of {}: start it with a configuration file that it may write",
            lost.join(", ")
        )
    })
}
