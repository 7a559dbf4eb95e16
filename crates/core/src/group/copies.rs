//! Full copies, where servers do not find out by themselves that one is due.
//!
//! Such a replica goes on from its own offset, whatever it holds. So whoever may hold what the recorded master never had
//! owes a copy from the promotion on, and is told to take it over when it follows. It would do so again whenever its link is
//! lost: when it has its copy it is parted from its master for a moment, as a master that takes no writes, and follows again.

use super::elect::Contest;
use super::identity::follows_recorded;
use super::repair::Wrong;
use super::restart::Restarted;
use super::{Context, Group};
use crate::action::{Command, Keep};
use crate::addr::Addr;
use crate::event::CommandId;
use crate::flavor::Manners;
use crate::instance::{Facts, Flavor, Link, Role};
use crate::node::Token;
use crate::record::{FullCopy, GroupEntry, Kind, Phase};
use crate::time::Time;
use crate::watch::Watch;

/// The step of a repair that says that its instance follows nobody.
const PARTED: &str = "parted";

impl Group {
    /// How this group's servers behave; like Redis, as long as nobody answered.
    pub(super) fn manners(&self) -> Manners {
        self.entry.flavor.unwrap_or(Flavor::Redis).manners()
    }

    /// What an instance keeps of its data when it is told to follow the recorded master now.
    pub(super) fn keeps(&self, addr: &Addr) -> Keep {
        if self.manners().finds_common {
            return Keep::Common;
        }
        let saga = self.entry.saga.as_ref().filter(|saga| saga.phase == Phase::Promoted);
        match (self.copy_of(addr), saga.and_then(|saga| saga.promoted_at)) {
            (Some(FullCopy::Parted), _) => {
                let master = self.watches.get(&self.entry.master).and_then(Watch::facts);
                Keep::UpTo(master.map_or(0, |facts| facts.offset))
            }
            (None, Some(at)) => Keep::UpTo(at),
            (Some(FullCopy::Owed | FullCopy::Told), _) | (None, None) => Keep::Nothing,
        }
    }

    fn copy_of(&self, addr: &Addr) -> Option<FullCopy> {
        self.entry.instances.get(addr).and_then(|known| known.copy)
    }

    /// Notes with the promotion of a new master, which reports these facts, who has to copy everything from it: everyone
    /// but those who surely have a beginning of what it had.
    pub(super) fn note_owed_copies(&self, entry: &mut GroupEntry, facts: &Facts) {
        if facts.flavor.manners().finds_common {
            return;
        }
        let promoted_at = facts.second_offset.filter(|_| !facts.log_is_empty);
        for (addr, known) in &mut entry.instances {
            let begins_alike = promoted_at.is_some_and(|at| self.begins_alike(addr, at));
            let fits = *addr == entry.master || begins_alike;
            known.copy = (!fits).then_some(FullCopy::Owed);
        }
    }

    /// Notes with a master that nobody promoted for the group that everyone else owes a copy of what it has: nobody knows from
    /// where on they differ.
    pub(super) fn owe_copies_of(&self, master: &Addr, entry: &mut GroupEntry) {
        if self.manners().finds_common {
            return;
        }
        for (addr, known) in &mut entry.instances {
            known.copy = (addr != master).then_some(FullCopy::Owed);
        }
    }

    /// Whether an instance has what the group's master had until now, and nothing beyond an offset.
    fn begins_alike(&self, addr: &Addr, at: u64) -> bool {
        let watch = self.watches.get(addr).filter(|watch| watch.serves());
        let Some(facts) = watch.and_then(Watch::facts).filter(|facts| facts.offset <= at) else {
            return false;
        };
        if self.copy_of(addr).is_some() {
            return is_parted(&self.entry, addr, facts);
        }
        let of = facts.follows().and_then(|of| self.entry.instance_of(of));
        let is_fenced = *addr == self.entry.master && facts.is_master() && facts.read_only;
        is_fenced || of == Some(&self.entry.master) && !is_syncing(facts)
    }

    /// What is wrong with the data of an instance, and is put right by a copy, or after one.
    pub(super) fn wrong_copy(&self, addr: &Addr, watch: &Watch, facts: &Facts) -> Option<Wrong> {
        let master = &self.entry.master;
        let follows = follows_recorded(&self.entry, &self.watches, addr, facts);
        match self.copy_of(addr) {
            // When its master has more it goes on from where it was, and holds something else.
            None if follows
                && !self.manners().finds_common
                && (self.is_beyond(watch, facts) || self.drifts.contains_key(addr)) =>
            {
                Some(Wrong::Drift(
                    Kind::Repair,
                    format!(
                        "{addr} held more than its master {master}, or followed another one (it is at {} {}): what it holds is \
                         not what {master} has",
                        facts.offset,
                        facts.flavor.manners().unit
                    ),
                ))
            }
            Some(FullCopy::Owed) if follows => Some(match is_syncing(facts) {
                true => Wrong::Nothing,
                false => Wrong::Repair(Kind::Repair, owing(addr, master)),
            }),
            Some(FullCopy::Told) if follows => Some(if self.is_copied(addr, watch, facts) {
                Wrong::Repair(Kind::Repair, parting(addr, master))
            } else if self.has_not_copied(watch, facts) {
                Wrong::Repair(Kind::Repair, owing(addr, master))
            } else {
                Wrong::Nothing
            }),
            Some(FullCopy::Parted) if follows || is_parted(&self.entry, addr, facts) => {
                Some(Wrong::Repair(Kind::Repair, parting(addr, master)))
            }
            None | Some(FullCopy::Owed | FullCopy::Told | FullCopy::Parted) => None,
        }
    }

    /// Whether a replica said that it had more than its master has, before that one was asked.
    fn is_beyond(&self, watch: &Watch, facts: &Facts) -> bool {
        let master = self.watches.get(&self.entry.master).and_then(Watch::facts);
        let said_at = watch.last_reply().filter(|at| *at >= facts.asked_at);
        let before = master.zip(said_at).is_some_and(|(master, at)| {
            // One that nobody writes to, and that gets nothing, has no more by now than it said.
            let stands = !master.is_master() && !master.link_up();
            stands || at <= master.asked_at
        });
        before && self.has_more(facts)
    }

    /// Whether a replica has more than its master had when they were read last. It may have got that meanwhile.
    fn has_more(&self, facts: &Facts) -> bool {
        let master = self.watches.get(&self.entry.master).and_then(Watch::facts);
        let more = |master: &Facts| facts.offset > master.offset;
        !facts.flavor.manners().finds_common && !is_syncing(facts) && master.is_some_and(more)
    }

    /// Replicas of a master that has less than it had, which have more than it has. Once one was found it remains one also
    /// when it was read last.
    pub(super) fn survivors(&self) -> impl Iterator<Item = &Addr> {
        let found = matches!(self.restarted, Some(Restarted::Emptied | Restarted::Held(_)));
        self.watches.iter().filter_map(move |(addr, watch)| {
            let facts = watch.facts().filter(|_| watch.serves())?;
            let attached = self.entry.instances.get(addr).is_some_and(|known| known.attached);
            let whole = attached && self.copy_of(addr).is_none();
            let follows = follows_recorded(&self.entry, &self.watches, addr, facts);
            let more = self.is_beyond(watch, facts) || found && self.has_more(facts);
            (whole && follows && more).then_some(addr)
        })
    }

    /// Whether a replica that was told to take over a full copy has it. Its link is said to be up also for the moment before
    /// the copy begins, so it has to stand for a while.
    fn is_copied(&self, addr: &Addr, watch: &Watch, facts: &Facts) -> bool {
        let master = self.watches.get(&self.entry.master).filter(|watch| watch.serves());
        let master = master.and_then(Watch::facts).filter(|facts| facts.is_master());
        let told = self.copies.get(addr).copied().unwrap_or(self.led_since);
        let since = watch.standing_since().max(told);
        facts.link_up()
            && facts.asked_at >= since + self.policy.copied_after
            && master.is_some_and(|master| facts.offset <= master.offset)
    }

    /// Whether a replica that was told to take over a full copy has what its master never had: it restarted before it had the
    /// copy, with what there was, and nobody saw that.
    fn has_not_copied(&self, watch: &Watch, facts: &Facts) -> bool {
        let since = watch.standing_since();
        let stands = facts.link_up() && facts.asked_at >= since + self.policy.copied_after;
        stands && self.is_beyond(watch, facts)
    }

    /// How far a repair that is decided now gets an instance with its copy.
    pub(super) fn copy_decided(&self, addr: &Addr) -> Option<FullCopy> {
        if self.manners().finds_common || *addr == self.entry.master {
            return None;
        }
        let watch = self.watches.get(addr)?;
        let parts = watch.facts().is_some_and(|facts| {
            let follows = follows_recorded(&self.entry, &self.watches, addr, facts);
            match self.copy_of(addr) {
                Some(FullCopy::Told) => follows && self.is_copied(addr, watch, facts),
                // While it was parted another one was made the master, which may have less.
                Some(FullCopy::Parted) if is_parted(&self.entry, addr, facts) => {
                    !self.has_more(facts)
                }
                Some(FullCopy::Parted) => follows,
                None | Some(FullCopy::Owed) => false,
            }
        });
        Some(if parts { FullCopy::Parted } else { FullCopy::Owed })
    }

    /// Sends what brings an instance back to the recorded master. `None`: nothing yet, it is not parted for long enough.
    ///
    /// # Errors
    /// A sentence, when it is not what it was when this was decided.
    pub(super) fn command_return(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        addr: &Addr,
    ) -> Result<Option<CommandId>, String> {
        let master = self.entry.master.clone();
        if self.copy_of(addr) != Some(FullCopy::Parted) {
            return Ok(Some(self.command_follow(ctx.now, token, addr, master)));
        }
        let Some(watch) = self.watches.get_mut(addr) else { return Ok(None) };
        let read = watch.facts().filter(|facts| facts.asked_at >= self.led_since && watch.serves());
        let Some(facts) = read else {
            if watch.away() {
                // Others may be in need of a repair, and it is found again when it comes back.
                return Err(format!(
                    "{addr} went away before it was told to follow {master} again"
                ));
            }
            watch.ask(ctx.now, self.led_since);
            return Ok(None);
        };
        if facts.takes_writes() {
            return Err("it takes writes as a master".to_owned());
        }
        if !facts.is_master() {
            return Ok(Some(self.command(ctx.now, token, addr, Command::Part)));
        }
        let at = watch.standing_since() + self.policy.part_wait;
        if ctx.now < at {
            self.wake_at(at);
            return Ok(None);
        }
        Ok(Some(self.command_follow(ctx.now, token, addr, master)))
    }

    /// Whether a command made an instance follow nobody, on its way back to its master; notes that it did.
    pub(super) fn note_parted(&mut self, ctx: &Context<'_>, addr: &Addr, facts: &Facts) -> bool {
        let parted = is_parted(&self.entry, addr, facts);
        if parted {
            self.mark(ctx, PARTED, Some(addr), None);
        }
        parted
    }

    /// Whether an instance whose repair is open is still to be parted from its master.
    pub(super) fn is_to_be_parted(&self, addr: &Addr) -> bool {
        let parted = self
            .saga_so_far()
            .is_some_and(|saga| saga.history.steps.iter().any(|step| step.name == PARTED));
        self.copy_of(addr) == Some(FullCopy::Parted) && !parted
    }

    /// Notes that instances follow as they were told to.
    pub(super) fn note_copies(&mut self, now: Time, entry: &mut GroupEntry, followed: &[Addr]) {
        for addr in followed {
            let Some(known) = entry.instances.get_mut(addr) else { continue };
            known.copy = match known.copy {
                Some(FullCopy::Owed | FullCopy::Told) => {
                    self.copies.insert(addr.clone(), now);
                    Some(FullCopy::Told)
                }
                Some(FullCopy::Parted) | None => None,
            };
        }
    }

    /// One that restarted in the middle of its copy has forgotten the order, and may hold a part of it.
    pub(super) fn learn_copies(&mut self, now: Time, entry: &mut GroupEntry) {
        for (addr, known) in &mut entry.instances {
            if known.copy != Some(FullCopy::Told) {
                self.copies.remove(addr);
                continue;
            }
            let told = *self.copies.entry(addr.clone()).or_insert(now);
            let watch = self.watches.get(addr).filter(|watch| watch.serves());
            if watch.is_some_and(|watch| watch.answers_since() > told) {
                known.copy = Some(FullCopy::Owed);
            }
        }
    }

    /// Whether an instance has to be told to take over a full copy.
    pub(super) fn owes_copy(&self, addr: &Addr) -> bool {
        self.copy_of(addr) == Some(FullCopy::Owed)
    }

    /// A master that lost its data and took other writes since has replicas that go on from where they were, as soon as it has
    /// more than they do: from then on they hold something else. Whoever has more still is not among them.
    pub(super) fn learn_of_loss(&mut self, entry: &mut GroupEntry) {
        let master = self.watches.get(&entry.master).filter(|watch| watch.lost_writes());
        let Some((master, facts)) = master.and_then(|watch| Some((watch, watch.facts()?))) else {
            self.begun_anew.clear();
            return;
        };
        let lost_at = master.process_since();
        for (addr, known) in &mut entry.instances {
            if known.copy.is_some() {
                self.begun_anew.insert(addr.clone(), lost_at);
            }
            let watch = self.watches.get(addr).filter(|watch| watch.serves());
            let read = watch.and_then(Watch::facts).filter(|theirs| theirs.asked_at > lost_at);
            let goes_on = read.is_some_and(|theirs| {
                let of = theirs.follows().and_then(|of| self.entry.instance_of(of));
                of == Some(&self.entry.master) && theirs.link_up() && theirs.offset <= facts.offset
            });
            let done = self.begun_anew.get(addr) == Some(&lost_at);
            if goes_on && !done && self.restarted == Some(Restarted::Kept) {
                known.copy = Some(FullCopy::Owed);
            }
        }
    }

    /// Whether an instance takes over a full copy, as far as that is known.
    pub(super) fn is_taking_a_copy(&self, addr: &Addr) -> bool {
        self.copy_of(addr) == Some(FullCopy::Told)
    }
}

/// Whether an instance is parted from its master for a moment: it has all of a copy, and what came since.
pub(super) fn is_parted(entry: &GroupEntry, addr: &Addr, facts: &Facts) -> bool {
    let copy = entry.instances.get(addr).and_then(|known| known.copy);
    copy == Some(FullCopy::Parted) && facts.is_master() && facts.read_only
}

/// Whether an instance is a master because it was elected, and that is not recorded yet. It follows nobody any more, and has no
/// history by which it could be known.
pub(super) fn is_on_its_way(entry: &GroupEntry, addr: &Addr, facts: &Facts) -> bool {
    let saga = entry.saga.as_ref().filter(|saga| saga.target == *addr);
    let elected = saga.is_some_and(|saga| match saga.history.kind {
        Kind::Failover | Kind::ManualFailover | Kind::Switchover => true,
        Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent => false,
    });
    elected && facts.is_master() && !facts.flavor.manners().finds_common
}

/// Whether what an instance holds, and where it listens, lets it be a master.
pub(super) fn judge_copy(contest: &Contest<'_>, addr: &Addr, facts: &Facts) -> Result<(), String> {
    if let Some(why) = facts.flavor.unfit_port(addr.port()) {
        return Err(why);
    }
    match contest.entry.instances.get(addr).and_then(|known| known.copy) {
        Some(FullCopy::Owed) => Err(
            "may hold what the group's master never had, and has to take over a full copy first"
                .to_owned(),
        ),
        Some(FullCopy::Told) => {
            Err("takes over a full copy: its data is old or partial".to_owned())
        }
        Some(FullCopy::Parted) | None => Ok(()),
    }
}

pub(in crate::group) fn is_syncing(facts: &Facts) -> bool {
    matches!(facts.role, Role::Replica { link: Link::Syncing, .. })
}

fn owing(addr: &Addr, master: &Addr) -> String {
    format!(
        "{addr} may hold writes that {master} never had, and its kind does not find that out: it takes over a full copy"
    )
}

fn parting(addr: &Addr, master: &Addr) -> String {
    format!(
        "{addr} has its full copy; it is parted from {master} for a moment, or it would copy everything again whenever its \
         link is lost"
    )
}
