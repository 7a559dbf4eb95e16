//! The named conclusion about a group, with a one-sentence reason. A pure function of what is known.

use std::collections::BTreeMap;

use crate::addr::Addr;
use crate::group::Veto;
use crate::group::elect::{Contest, ago, judge};
use crate::group::fencing::not_durable;
use crate::group::identity::{follows_recorded, same_process};
use crate::group::quorum::Peers;
use crate::group::restart::{Restarted, keys_in_words};
use crate::instance::{Link, Role};
use crate::policy::Policy;
use crate::record::{GroupEntry, Phase};
use crate::time::Time;
use crate::view::{How, State};
use crate::watch::{Death, Watch};

mod misfit;

use misfit::misconfigured;

/// What can be concluded about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// Its instances were not heard yet.
    NotYetSeen,
    /// The master answers and is a master, and at least one replica could replace it.
    Healthy,
    /// The master's host says that no process listens.
    MasterCrashed,
    /// The master accepts connections and gives no valid reply.
    MasterHung,
    /// The master does not answer at all, and its replicas have no news of it.
    MasterUnreachable,
    /// The master does not answer here, but its replicas have news of it.
    MasterUnreachableFromHere,
    /// The master reads its data from disk.
    MasterLoading,
    /// The master restarted without its data, which others have, or may have.
    MasterRestartedEmpty,
    /// A script blocks the master, or it takes no more clients.
    MasterBusy,
    /// The master refuses writes because it cannot save.
    MasterMisconfigured,
    /// The master does not let us in.
    AuthenticationFailed,
    /// The recorded master follows another.
    MasterBecameReplica,
    /// A second instance of the group reports to be a master.
    TwoMasters,
    /// A replica follows somebody else than the recorded master.
    ReplicaOfWrongMaster,
    /// A replica answers, but its link to the master is down.
    ReplicationBroken,
    /// The master has no replica.
    NoReplicas,
    /// None of the replicas could be promoted.
    NoEligibleReplica,
    /// No instance of the group answers.
    WholeGroupUnreachable,
    /// No leader is known, or too few voters answer: nobody acts.
    QuorumLost,
    /// The master was replaced so often within a short time that every cause is waited for now.
    Flapping,
    /// All is well until an instance restarts: it cannot write down how it is fenced.
    FencingNotDurable,
}

impl Diagnosis {
    /// The conclusion about a master that is dead in this way and can be replaced.
    pub(crate) const fn of_death(death: Death) -> Self {
        match death {
            Death::Refusing => Self::MasterCrashed,
            Death::Hung => Self::MasterHung,
            Death::Unreachable => Self::MasterUnreachable,
            Death::Loading => Self::MasterLoading,
            Death::Emptied => Self::MasterRestartedEmpty,
        }
    }

    /// The name that programs may rely on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotYetSeen => "NotYetSeen",
            Self::Healthy => "Healthy",
            Self::MasterCrashed => "MasterCrashed",
            Self::MasterHung => "MasterHung",
            Self::MasterUnreachable => "MasterUnreachable",
            Self::MasterUnreachableFromHere => "MasterUnreachableFromHere",
            Self::MasterLoading => "MasterLoading",
            Self::MasterRestartedEmpty => "MasterRestartedEmpty",
            Self::MasterBusy => "MasterBusy",
            Self::MasterMisconfigured => "MasterMisconfigured",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::MasterBecameReplica => "MasterBecameReplica",
            Self::TwoMasters => "TwoMasters",
            Self::ReplicaOfWrongMaster => "ReplicaOfWrongMaster",
            Self::ReplicationBroken => "ReplicationBroken",
            Self::NoReplicas => "NoReplicas",
            Self::NoEligibleReplica => "NoEligibleReplica",
            Self::WholeGroupUnreachable => "WholeGroupUnreachable",
            Self::QuorumLost => "QuorumLost",
            Self::Flapping => "Flapping",
            Self::FencingNotDurable => "FencingNotDurable",
        }
    }
}

impl Diagnosis {
    /// Why nothing is done about it, where the diagnosis itself is the reason.
    pub(crate) const fn why_idle(self) -> Option<&'static str> {
        match self {
            Self::Healthy
            | Self::MasterCrashed
            | Self::MasterHung
            | Self::MasterUnreachable
            | Self::MasterUnreachableFromHere
            | Self::MasterRestartedEmpty
            | Self::WholeGroupUnreachable
            | Self::QuorumLost
            | Self::Flapping
            | Self::TwoMasters
            | Self::ReplicaOfWrongMaster => None,
            Self::NotYetSeen => Some("what has not been heard yet is not judged"),
            Self::FencingNotDurable => Some(
                "the fence holds until the restart; CONFIG REWRITE is tried again every few minutes",
            ),
            Self::MasterLoading => {
                Some("the master lives, and gets max_down_time to read its data")
            }
            Self::MasterBusy => Some(
                "the master lives: a failover would lose what its script writes; SCRIPT KILL ends one that only reads",
            ),
            Self::MasterMisconfigured => Some(
                "the master lives and has all data: put right what the reason names, such as a full disk",
            ),
            Self::AuthenticationFailed => Some(
                "a server that does not let us in lives; whether it serves others is not known",
            ),
            Self::MasterBecameReplica => {
                Some("a change of roles that was made by hand is reported, not undone")
            }
            Self::ReplicationBroken => {
                Some("the replica points at the right master and tries again by itself")
            }
            Self::NoEligibleReplica => Some(
                "the master lives; a replica has to come back or catch up before one could replace it",
            ),
            Self::NoReplicas => {
                Some("the master lives; a replica has to be attached before one could replace it")
            }
        }
    }
}

/// What a diagnosis is made from.
#[derive(Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) entry: &'a GroupEntry,
    pub(crate) watches: &'a BTreeMap<Addr, Watch>,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Time,
    /// Somebody acts.
    pub(crate) led: bool,
    /// Since when it is known who the recorded master is.
    pub(crate) master_since: Time,
    /// What the other nodes see.
    pub(crate) peers: &'a Peers,
    /// Who contradicts, a replica that has news of the master or the other voters, and how they know.
    pub(crate) veto: Option<&'a Veto>,
    /// Until when there were too many failovers.
    pub(crate) flapping: Option<Time>,
    /// The recorded master runs as another process than the recorded one.
    pub(crate) restarted: Option<&'a Restarted>,
}

impl<'a> Picture<'a> {
    fn watch(&self, addr: &Addr) -> Option<&'a Watch> {
        self.watches.get(addr)
    }

    fn others(&self) -> impl Iterator<Item = (&'a Addr, &'a Watch)> {
        let master = &self.entry.master;
        self.watches.iter().filter(move |(addr, _)| *addr != master)
    }

    fn contest(&self) -> Contest<'a> {
        Contest {
            entry: self.entry,
            watches: self.watches,
            policy: self.policy,
            peers: self.peers,
            tried: &[],
            dead_since: self
                .watch(&self.entry.master)
                .and_then(Watch::trouble_since)
                .unwrap_or(self.now),
            read_after: None,
            emptied: self.restarted == Some(&Restarted::Emptied),
            now: self.now,
        }
    }

    /// Why each instance but the master could not be promoted, as one list; `None` when one could.
    fn no_candidate(&self) -> Option<String> {
        let contest = self.contest();
        let mut reasons = Vec::new();
        for (addr, _) in self.others() {
            match judge(&contest, addr) {
                Ok(_) => return None,
                Err(why) => reasons.push(format!("{addr} {why}")),
            }
        }
        Some(reasons.join("; "))
    }
}

/// Concludes, with the reason.
pub(crate) fn diagnose(picture: &Picture<'_>) -> (Diagnosis, String) {
    let Picture { entry, now, .. } = *picture;
    let master = &entry.master;
    let Some(watch) = picture.watch(master) else {
        return (Diagnosis::NotYetSeen, format!("{master} is not watched yet"));
    };
    if !picture.led {
        return (
            Diagnosis::QuorumLost,
            "no leader is known, so nobody acts on any group; this node goes on watching"
                .to_owned(),
        );
    }
    match watch.state() {
        State::Down => dead(picture, watch),
        State::Unknown if watch.how() == How::Auth => auth(master, watch),
        State::Unknown => {
            (Diagnosis::NotYetSeen, format!("{master} has not answered yet{}", said(watch)))
        }
        State::Up => match watch.how() {
            How::Auth => auth(master, watch),
            How::Busy => (
                Diagnosis::MasterBusy,
                format!("the master {master} answers, but serves nobody{}", said(watch)),
            ),
            How::Misconf => (
                Diagnosis::MasterMisconfigured,
                format!("the master {master} refuses writes{}", said(watch)),
            ),
            How::Loading => (
                Diagnosis::MasterLoading,
                format!(
                    "the master {master} is loading its data since {}",
                    ago(now, watch.since())
                ),
            ),
            How::Replied | How::Refusing | How::Silent | How::Garbage | How::Unresolved => {
                alive(picture, watch)
            }
        },
    }
}

fn auth(master: &Addr, watch: &Watch) -> (Diagnosis, String) {
    let what = format!(
        "the master {master} does not let us in{}; check redis_user, redis_password and the permissions of the user",
        said(watch)
    );
    (Diagnosis::AuthenticationFailed, what)
}

/// What the server or the system said, to be put behind a sentence.
pub(crate) fn said(watch: &Watch) -> String {
    watch.detail().map(|detail| format!(" ({detail})")).unwrap_or_default()
}

/// How a master is dead, in words.
pub(crate) fn death_in_words(master: &Addr, death: Death, watch: &Watch, now: Time) -> String {
    let since = watch.trouble_since().or(watch.loading_since()).unwrap_or(now);
    let since = ago(now, since);
    match death {
        Death::Refusing => {
            format!(
                "the master {master} crashed or was shut down: its host refuses connections since {since}"
            )
        }
        Death::Hung => format!(
            "the master {master} hangs: it accepts connections but gives no valid reply since {since}{}",
            said(watch)
        ),
        Death::Unreachable => {
            format!("the master {master} cannot be reached since {since}{}", said(watch))
        }
        Death::Loading => {
            format!("the master {master} restarted and is loading its data since {since}")
        }
        Death::Emptied => format!(
            "the master {master} restarted {} ago without its data or with older data: it holds {}, and others of the group \
             have more",
            ago(now, watch.process_since()),
            keys_in_words(watch)
        ),
    }
}

fn dead(picture: &Picture<'_>, watch: &Watch) -> (Diagnosis, String) {
    let master = &picture.entry.master;
    let Some(death) = watch.death() else {
        return (Diagnosis::NotYetSeen, format!("{master} is not judged yet"));
    };
    let words = death_in_words(master, death, watch, picture.now);
    let Picture { peers, now, policy, .. } = *picture;
    let answering = picture.others().any(|(addr, watch)| {
        watch.state() == State::Up || peers.facts(now, policy, addr).is_some()
    });
    // Whoever contradicts may see the group where this node is the one that is cut off.
    let contradicted = picture.veto.is_some_and(|veto| !veto.quorum_lost);
    if !answering && !contradicted {
        let others = picture.others().count();
        let what = match others {
            0 => format!("{words}; no other instance of the group is known"),
            _ => {
                format!("{words}; none of the other {others} instances of the group answers either")
            }
        };
        return (Diagnosis::WholeGroupUnreachable, what);
    }
    if let Some(veto) = picture.veto {
        let diagnosis = if veto.quorum_lost {
            Diagnosis::QuorumLost
        } else {
            Diagnosis::MasterUnreachableFromHere
        };
        return (diagnosis, format!("{words}, but {}", veto.why));
    }
    if let Some(reasons) = picture.no_candidate() {
        return (
            Diagnosis::NoEligibleReplica,
            format!("{words}, and no replica can take over: {reasons}"),
        );
    }
    let sign = watch.trouble_since().unwrap_or(watch.since());
    if let Some(until) = picture.flapping
        && picture.now < sign + picture.policy.max_down_time
    {
        let reason = format!(
            "{words}; the master was replaced too often, and until {until} a dead one is waited for"
        );
        return (Diagnosis::Flapping, reason);
    }
    (Diagnosis::of_death(death), words)
}

fn alive(picture: &Picture<'_>, watch: &Watch) -> (Diagnosis, String) {
    let Picture { entry, policy, now, .. } = *picture;
    let master = &entry.master;
    match picture.restarted {
        Some(Restarted::Emptied) => {
            let words = death_in_words(master, Death::Emptied, watch, now);
            let words = match picture.veto {
                Some(veto) => format!("{words}, but {}", veto.why),
                None => words,
            };
            return (Diagnosis::MasterRestartedEmpty, words);
        }
        Some(Restarted::Waiting { why, .. } | Restarted::Held(why)) => {
            return (Diagnosis::MasterRestartedEmpty, why.clone());
        }
        Some(Restarted::Asking { .. } | Restarted::Kept) | None => {}
    }
    let follows = watch.facts().and_then(|facts| Some((facts.asked_at, facts.follows()?)));
    if let Some((_, of)) = follows.filter(|(asked_at, _)| *asked_at >= picture.master_since) {
        return (
            Diagnosis::MasterBecameReplica,
            format!("the recorded master {master} reports to be a replica of {of}"),
        );
    }
    if let Some(saga) = entry.saga.as_ref().filter(|saga| saga.phase == Phase::Promoted) {
        return (
            Diagnosis::Healthy,
            format!(
                "{master} is the master since epoch {}, the other replicas are being pointed at it",
                saga.history.epoch
            ),
        );
    }
    if let Some(why) = misconfigured(entry, watch) {
        return (Diagnosis::MasterMisconfigured, why);
    }
    if follows.is_some() {
        let what = format!("{master} was promoted, and has not been heard since");
        return (Diagnosis::NotYetSeen, what);
    }
    let watch_master = watch.facts();
    let mut up = 0;
    let mut broken = None;
    let others =
        || picture.others().filter_map(|(addr, watch)| Some((addr, watch, watch.facts()?)));
    let second = others().find(|(_, watch, facts)| {
        let itself = watch_master.is_some_and(|master| same_process(master, facts));
        watch.serves() && facts.takes_writes() && !itself
    });
    if let Some((addr, ..)) = second {
        let words =
            format!("{addr} reports to be a master too, beside the recorded master {master}");
        return (Diagnosis::TwoMasters, words);
    }
    for (addr, watch, facts) in others().filter(|(_, watch, _)| watch.serves()) {
        match &facts.role {
            Role::Master { .. } => {}
            Role::Replica { master: of, .. }
                if !follows_recorded(entry, picture.watches, addr, facts) =>
            {
                return (
                    Diagnosis::ReplicaOfWrongMaster,
                    format!("{addr} follows {of} and not the recorded master {master}"),
                );
            }
            Role::Replica { link: Link::Up { .. }, .. } => up += 1,
            Role::Replica { link: Link::Down { since_secs }, .. } => {
                // A link that was lost a moment ago is on its way back on an ordinary day.
                let long = now.since(watch.standing_since()) >= policy.max_down_time;
                if long {
                    broken = Some(match since_secs {
                        Some(secs) => {
                            format!("the link of {addr} to its master is down since {secs} s")
                        }
                        None => {
                            format!("{addr} never finished a sync with its master since its start")
                        }
                    });
                }
            }
            Role::Replica { link: Link::Syncing, .. } => {}
        }
    }
    let attached = match watch.facts().map(|facts| &facts.role) {
        Some(Role::Master { replicas }) => replicas.len(),
        Some(Role::Replica { .. }) | None => 0,
    };
    let young = |watch: &Watch| {
        watch.state() == State::Unknown
            && watch.last_reply().is_none()
            && now.since(watch.since()) < policy.max_down_time
    };
    let unheard =
        picture.others().find(|(_, watch)| young(watch)).map(|(addr, _)| addr.to_string());
    let unheard = unheard.or_else(|| {
        let learning = picture.others().next().is_none() && attached > 0;
        learning.then(|| "its replicas".to_owned())
    });
    if let Some(unheard) = unheard {
        return (
            Diagnosis::NotYetSeen,
            format!("the master {master} answers; {unheard} did not yet"),
        );
    }
    if picture.others().next().is_none() {
        return (
            Diagnosis::NoReplicas,
            format!("the master {master} answers, but has no replica: nobody could replace it"),
        );
    }
    if let Some(broken) = broken {
        return (Diagnosis::ReplicationBroken, broken);
    }
    if let Some(reasons) = picture.no_candidate() {
        return (
            Diagnosis::NoEligibleReplica,
            format!("the master {master} answers, but nobody could replace it: {reasons}"),
        );
    }
    let down: Vec<String> = picture
        .others()
        .filter(|(_, watch)| watch.state() == State::Down)
        .map(|(addr, watch)| format!("{addr} is down since {}", watch.since()))
        .collect();
    let mut reason = format!("the master {master} answers and {up} of its replicas follow it");
    if !down.is_empty() {
        reason = format!("{reason}; {}", down.join(", "));
    }
    if let Some(since) = watch.trouble_since() {
        reason = format!("the master {master} is in doubt since {}", ago(now, since));
    }
    if let Some(until) = picture.flapping {
        let reason = format!(
            "{reason}, but its predecessors died one after the other; it is watched for that until {until}"
        );
        return (Diagnosis::Flapping, reason);
    }
    if let Some(not_durable) = not_durable(entry) {
        return (Diagnosis::FencingNotDurable, format!("{reason}, but {not_durable}"));
    }
    (Diagnosis::Healthy, reason)
}
