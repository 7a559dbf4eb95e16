//! The group as it is shown.

use super::diagnose::{Picture, diagnose};
use super::elect::{Contest, judge};
use super::rules::{location_of, priority_of, rule_on};
use super::{Context, Group, Work};
use crate::addr::Addr;
use crate::instance::{Link, ReplicationId, Role};
use crate::record::{HistoryEntry, Kind, Rule, Status};
use crate::time::Time;
use crate::view::{DiagnosisView, GroupView, InstanceView, NodeView, State, StatusView};
use crate::watch::Watch;

impl Group {
    /// How many of its instances are in trouble for this node.
    pub(crate) fn in_trouble(&self) -> usize {
        self.watches.values().filter(|watch| watch.trouble_since().is_some()).count()
    }

    /// The group as this node sees it, with its finished history (oldest first) from the record.
    pub fn view(&self, ctx: &Context<'_>, history: &[HistoryEntry]) -> GroupView {
        let (status, status_reason) = self.status();
        let mut shown: Vec<HistoryEntry> = history.iter().rev().cloned().collect();
        if let Some(saga) = &self.entry.saga {
            let mut running = saga.history.clone();
            running.steps.extend(self.steps.iter().cloned());
            shown.insert(0, running);
        }
        // Offsets of two histories cannot be compared.
        let history = self.watches.get(&self.entry.master).and_then(Watch::facts);
        let history = history.and_then(|facts| facts.replication_id.clone());
        let most = self
            .watches
            .values()
            .filter_map(Watch::facts)
            .filter(|facts| facts.replication_id == history)
            .map(|facts| facts.offset)
            .max();
        let mut addrs: Vec<&Addr> = self.entry.instances.keys().collect();
        addrs.sort_by_key(|addr| (**addr != self.entry.master, *addr));
        GroupView {
            name: self.name.clone(),
            flavor: self.entry.flavor,
            epoch: self.entry.epoch,
            master: self.entry.master.clone(),
            status,
            status_reason,
            diagnosis: DiagnosisView {
                name: self.diagnosis.name(),
                reason: self.reason(ctx),
                since_at: self.diagnosed_at,
                not_acting_because: self.idle_because.clone(),
            },
            quorum: self.policy.quorum_of(ctx.voters.len()).unwrap_or(self.policy.quorum),
            instances: addrs
                .into_iter()
                .map(|addr| self.instance_view(ctx, addr, (&history, most)))
                .collect(),
            fencing: self.fencing_view(),
            last_history_id: shown.first().map(|entry| entry.id.clone()),
            history: shown,
        }
    }

    /// What a diagnosis is made from.
    pub(super) fn picture<'a>(&'a self, ctx: &Context<'_>) -> Picture<'a> {
        Picture {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            now: ctx.now,
            led: ctx.led,
            master_since: self.master_since,
            peers: &self.peers,
            veto: self.veto.as_ref(),
            flapping: self.flapping(ctx.now),
            restarted: self.restarted.as_ref(),
        }
    }

    /// Why the diagnosis is what it is, in today's figures where it would be the same today.
    pub(super) fn reason(&self, ctx: &Context<'_>) -> String {
        let picture = self.picture(ctx);
        let finding = diagnose(&picture);
        let same = finding.diagnosis == self.diagnosis;
        let reason = if same { finding.reason() } else { self.reason.clone() };
        match self.fencing_in_words() {
            Some(fencing) => format!("{reason}; {fencing}"),
            None => reason,
        }
    }

    fn status(&self) -> (StatusView, Option<String>) {
        match &self.entry.status {
            Status::Halted { reason, .. } => return (StatusView::Halted, Some(reason.clone())),
            Status::Paused { .. } => return (StatusView::Paused, self.pause_in_words()),
            Status::Resuming | Status::Active => {}
        }
        let shown = self.entry.saga.as_ref().and_then(|saga| match saga.history.kind {
            Kind::Failover | Kind::ManualFailover => Some((StatusView::FailingOver, saga)),
            Kind::Switchover => Some((StatusView::SwitchingOver, saga)),
            Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent => None,
        });
        match (shown, &self.work) {
            (Some((status, saga)), _) => (status, Some(saga.history.reason.clone())),
            (None, Work::Vetting { .. }) => (StatusView::FailingOver, None),
            (
                None,
                Work::Idle
                | Work::Hearing { .. }
                | Work::Proposing { .. }
                | Work::Resuming { .. }
                | Work::Promoting { .. }
                | Work::Repointing(_)
                | Work::Repairing { .. },
            ) => (StatusView::Active, None),
        }
    }

    fn instance_view(
        &self,
        ctx: &Context<'_>,
        addr: &Addr,
        most: (&Option<ReplicationId>, Option<u64>),
    ) -> InstanceView {
        let watch = self.watches.get(addr);
        let facts = watch.and_then(Watch::facts);
        let (role, link) = match facts.map(|facts| &facts.role) {
            None => ("unknown", None),
            Some(Role::Master { .. }) => ("master", None),
            Some(Role::Replica { link, .. }) => ("replica", Some(link)),
        };
        let eligible = self.eligible(ctx.now, addr);
        let text = |text: Option<&str>| text.map(str::to_owned);
        let state = watch.map_or(State::Unknown, Watch::state);
        let how = watch.map_or(crate::view::How::Silent, Watch::how);
        let heard = watch.and_then(Watch::last_reply).unwrap_or(self.diagnosed_at);
        InstanceView {
            addr: addr.clone(),
            role,
            state,
            how,
            since_at: watch.map_or(ctx.now, Watch::since),
            offset: facts.map(|facts| facts.offset),
            lag_bytes: facts
                .filter(|facts| facts.replication_id == *most.0)
                .zip(most.1)
                .map(|(facts, most)| most.saturating_sub(facts.offset)),
            link: link.map(|link| match link {
                Link::Up { .. } => "up",
                Link::Down { .. } | Link::Syncing => "down",
            }),
            link_down_ms: link.and_then(|link| match link {
                Link::Down { since_secs } => since_secs.map(|secs| secs.saturating_mul(1000)),
                Link::Up { .. } | Link::Syncing => None,
            }),
            priority: facts.map(|facts| priority_of(&self.policy, &self.entry, addr, facts)),
            run_id: text(facts.and_then(|facts| facts.run_id.as_deref())),
            replication_id: text(
                facts.and_then(|facts| facts.replication_id.as_ref()).map(|id| &*id.0),
            ),
            version: text(facts.map(|facts| &*facts.version)),
            rule: rule_on(&self.policy, &self.entry, ctx.now, addr).map(Rule::name),
            location: text(location_of(&self.policy, &self.entry, addr)),
            eligible: eligible.is_ok(),
            not_eligible_because: eligible.err(),
            views: std::iter::once(NodeView {
                node: ctx.me.clone(),
                state,
                how,
                age_ms: u64::try_from(ctx.now.since(heard).as_millis()).unwrap_or(u64::MAX),
            })
            .chain(self.peers.views(ctx.now, addr))
            .collect(),
        }
    }

    pub(super) fn eligible(&self, now: Time, addr: &Addr) -> Result<(), String> {
        if *addr == self.entry.master {
            return Err("is the recorded master".to_owned());
        }
        let dead_since = self.watches.get(&self.entry.master).and_then(Watch::lost_since);
        let dead_since = dead_since.unwrap_or(now);
        judge(&Contest { dead_since, ..self.contest_at(now) }, addr).map(|_| ())
    }
}
