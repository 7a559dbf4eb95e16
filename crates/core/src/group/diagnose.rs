//! The named conclusion about a group, with a one-sentence reason. A pure function of what is known.

use crate::addr::Addr;
use crate::group::Watches;
use crate::group::elect::{Contest, ago, judge};
use crate::group::fencing::not_durable;
use crate::group::identity::{follows_recorded, same_process};
use crate::group::quorum::Peers;
use crate::group::restart::{Restarted, keys_in_words};
use crate::group::{Diagnosis, Veto};
use crate::instance::{Link, Role};
use crate::policy::Policy;
use crate::record::{GroupEntry, Phase};
use crate::time::Time;
use crate::view::{How, State};
use crate::watch::{Death, Watch};

mod misfit;

use misfit::misconfigured;
/// What a diagnosis is made from.
#[derive(Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) entry: &'a GroupEntry,
    pub(crate) watches: &'a Watches,
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
                .and_then(Watch::lost_since)
                .unwrap_or(self.now),
            read_after: None,
            emptied: self.restarted == Some(&Restarted::Emptied),
            now: self.now,
        }
    }

    /// Whether somebody could be promoted.
    fn candidate(&self) -> bool {
        let contest = self.contest();
        self.others().any(|(addr, _)| judge(&contest, addr).is_ok())
    }

    /// Why each instance but the master could not be promoted, as one list.
    fn not_eligible(&self) -> String {
        let contest = self.contest();
        let reasons = self.others().filter_map(|(addr, _)| {
            let why = judge(&contest, addr).err()?;
            Some(format!("{addr} {why}"))
        });
        reasons.collect::<Vec<String>>().join("; ")
    }
}

/// What was concluded. Whoever wants to read why has the sentence made.
pub(crate) struct Finding<'a> {
    pub(crate) diagnosis: Diagnosis,
    words: Box<dyn FnOnce() -> String + 'a>,
}

impl<'a> Finding<'a> {
    fn new(diagnosis: Diagnosis, words: impl FnOnce() -> String + 'a) -> Self {
        Self { diagnosis, words: Box::new(words) }
    }

    /// The reason in one sentence.
    pub(crate) fn reason(self) -> String {
        (self.words)()
    }
}

/// Concludes, with the reason.
pub(crate) fn diagnose<'a>(picture: &'a Picture<'a>) -> Finding<'a> {
    let Picture { entry, now, .. } = *picture;
    let master = &entry.master;
    let Some(watch) = picture.watch(master) else {
        return Finding::new(Diagnosis::NotYetSeen, move || format!("{master} is not watched yet"));
    };
    if !picture.led {
        return Finding::new(Diagnosis::QuorumLost, || {
            "no leader is known, so nobody acts on any group; this node goes on watching".to_owned()
        });
    }
    match watch.state() {
        State::Down => dead(picture, watch),
        State::Unknown if watch.how() == How::Auth => auth(master, watch),
        State::Unknown => Finding::new(Diagnosis::NotYetSeen, move || {
            format!("{master} has not answered yet{}", said(watch))
        }),
        State::Up => match watch.how() {
            How::Auth => auth(master, watch),
            How::Busy => Finding::new(Diagnosis::MasterBusy, move || {
                format!("the master {master} answers, but serves nobody{}", said(watch))
            }),
            How::Misconf => Finding::new(Diagnosis::MasterMisconfigured, move || {
                format!("the master {master} refuses writes{}", said(watch))
            }),
            How::Loading => Finding::new(Diagnosis::MasterLoading, move || {
                let since = ago(now, watch.since());
                format!("the master {master} is loading its data since {since}")
            }),
            How::Replied | How::Refusing | How::Silent | How::Garbage | How::Unresolved => {
                alive(picture, watch)
            }
        },
    }
}

fn auth<'a>(master: &'a Addr, watch: &'a Watch) -> Finding<'a> {
    Finding::new(Diagnosis::AuthenticationFailed, move || {
        format!(
            "the master {master} does not let us in{}; check redis_user, redis_password and the permissions of the user",
            said(watch)
        )
    })
}

/// What the server or the system said, to be put behind a sentence.
pub(crate) fn said(watch: &Watch) -> String {
    watch.detail().map(|detail| format!(" ({detail})")).unwrap_or_default()
}

/// How a master is dead, in words.
pub(crate) fn death_in_words(master: &Addr, death: Death, watch: &Watch, now: Time) -> String {
    let since = watch.lost_since().unwrap_or(now);
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

fn dead<'a>(picture: &'a Picture<'a>, watch: &'a Watch) -> Finding<'a> {
    let Picture { entry, peers, now, policy, veto, .. } = *picture;
    let master = &entry.master;
    let Some(death) = watch.death() else {
        return Finding::new(Diagnosis::NotYetSeen, move || format!("{master} is not judged yet"));
    };
    let words = move || death_in_words(master, death, watch, now);
    let answering = picture.others().any(|(addr, watch)| {
        watch.state() == State::Up || peers.facts(now, policy, addr).is_some()
    });
    // Whoever contradicts may see the group where this node is the one that is cut off.
    let contradicted = veto.is_some_and(|veto| !veto.quorum_lost);
    if !answering && !contradicted {
        return Finding::new(Diagnosis::WholeGroupUnreachable, move || {
            match picture.others().count() {
                0 => format!("{}; no other instance of the group is known", words()),
                others => format!(
                    "{}; none of the other {others} instances of the group answers either",
                    words()
                ),
            }
        });
    }
    if let Some(veto) = veto {
        let diagnosis = if veto.quorum_lost {
            Diagnosis::QuorumLost
        } else {
            Diagnosis::MasterUnreachableFromHere
        };
        return Finding::new(diagnosis, move || format!("{}, but {}", words(), veto.why));
    }
    if !picture.candidate() {
        return Finding::new(Diagnosis::NoEligibleReplica, move || {
            let reasons = picture.not_eligible();
            format!("{}, and no replica can take over: {reasons}", words())
        });
    }
    let sign = watch.trouble_since().unwrap_or(watch.since());
    if let Some(until) = picture.flapping
        && now < sign + policy.max_down_time
    {
        return Finding::new(Diagnosis::Flapping, move || {
            format!(
                "{}; the master was replaced too often, and until {until} a dead one is waited for",
                words()
            )
        });
    }
    Finding::new(Diagnosis::of_death(death), words)
}

fn alive<'a>(picture: &'a Picture<'a>, watch: &'a Watch) -> Finding<'a> {
    let Picture { entry, now, .. } = *picture;
    let master = &entry.master;
    match picture.restarted {
        Some(Restarted::Emptied) => {
            return Finding::new(Diagnosis::MasterRestartedEmpty, move || {
                let words = death_in_words(master, Death::Emptied, watch, now);
                match picture.veto {
                    Some(veto) => format!("{words}, but {}", veto.why),
                    None => words,
                }
            });
        }
        Some(Restarted::Waiting { why, .. } | Restarted::Held(why)) => {
            return Finding::new(Diagnosis::MasterRestartedEmpty, || why.clone());
        }
        Some(Restarted::Asking { .. } | Restarted::Kept) | None => {}
    }
    let follows = watch.facts().and_then(|facts| Some((facts.asked_at, facts.follows()?)));
    if let Some((_, of)) = follows.filter(|(asked_at, _)| *asked_at >= picture.master_since) {
        return Finding::new(Diagnosis::MasterBecameReplica, move || {
            format!("the recorded master {master} reports to be a replica of {of}")
        });
    }
    if let Some(saga) = entry.saga.as_ref().filter(|saga| saga.phase == Phase::Promoted) {
        return Finding::new(Diagnosis::Healthy, move || {
            let epoch = saga.history.epoch;
            format!(
                "{master} is the master since epoch {epoch}, the other replicas are being pointed at it"
            )
        });
    }
    if let Some(why) = misconfigured(entry, watch) {
        return Finding::new(Diagnosis::MasterMisconfigured, move || why.clone());
    }
    if follows.is_some() {
        return Finding::new(Diagnosis::NotYetSeen, move || {
            format!("{master} was promoted, and has not been heard since")
        });
    }
    let Following { up, broken } = match following(picture, watch) {
        Ok(following) => following,
        Err(wrong) => return wrong,
    };
    if let Some(unheard) = unheard(picture, watch) {
        return Finding::new(Diagnosis::NotYetSeen, move || {
            let who = unheard.map_or("its replicas".to_owned(), Addr::to_string);
            format!("the master {master} answers; {who} did not yet")
        });
    }
    if picture.others().next().is_none() {
        return Finding::new(Diagnosis::NoReplicas, move || {
            format!("the master {master} answers, but has no replica: nobody could replace it")
        });
    }
    if let Some((addr, since_secs)) = broken {
        return Finding::new(Diagnosis::ReplicationBroken, move || match since_secs {
            Some(secs) => format!("the link of {addr} to its master is down since {secs} s"),
            None => format!("{addr} never finished a sync with its master since its start"),
        });
    }
    if !picture.candidate() {
        return Finding::new(Diagnosis::NoEligibleReplica, move || {
            let reasons = picture.not_eligible();
            format!("the master {master} answers, but nobody could replace it: {reasons}")
        });
    }
    let reason = move || well(picture, watch, up);
    if let Some(until) = picture.flapping {
        return Finding::new(Diagnosis::Flapping, move || {
            format!(
                "{}, but its predecessors died one after the other; it is watched for that until {until}",
                reason()
            )
        });
    }
    if let Some(not_durable) = not_durable(entry) {
        return Finding::new(Diagnosis::FencingNotDurable, move || {
            format!("{}, but {not_durable}", reason())
        });
    }
    Finding::new(Diagnosis::Healthy, reason)
}

/// What replicas do that are where they belong.
#[derive(Default)]
struct Following<'a> {
    /// How many follow.
    up: usize,
    /// One whose link is down, and for how many seconds it says so.
    broken: Option<(&'a Addr, Option<u64>)>,
}

/// Who follows; or what is wrong with where somebody is.
fn following<'a>(picture: &'a Picture<'a>, watch: &'a Watch) -> Result<Following<'a>, Finding<'a>> {
    let Picture { entry, policy, now, watches, .. } = *picture;
    let master = &entry.master;
    let others =
        || picture.others().filter_map(|(addr, watch)| Some((addr, watch, watch.facts()?)));
    let second = others().find(|(_, other, facts)| {
        let itself = watch.facts().is_some_and(|master| same_process(master, facts));
        other.serves() && facts.takes_writes() && !itself
    });
    if let Some((addr, ..)) = second {
        return Err(Finding::new(Diagnosis::TwoMasters, move || {
            format!("{addr} reports to be a master too, beside the recorded master {master}")
        }));
    }
    let mut following = Following::default();
    for (addr, watch, facts) in others().filter(|(_, watch, _)| watch.serves()) {
        match &facts.role {
            Role::Master { .. } => {}
            Role::Replica { master: of, .. } if !follows_recorded(entry, watches, addr, facts) => {
                return Err(Finding::new(Diagnosis::ReplicaOfWrongMaster, move || {
                    format!("{addr} follows {of} and not the recorded master {master}")
                }));
            }
            Role::Replica { link: Link::Up { .. }, .. } => following.up += 1,
            Role::Replica { link: Link::Down { since_secs }, .. } => {
                // A link that was lost a moment ago is on its way back on an ordinary day.
                if now.since(watch.standing_since()) >= policy.max_down_time {
                    following.broken = Some((addr, *since_secs));
                }
            }
            Role::Replica { link: Link::Syncing, .. } => {}
        }
    }
    Ok(following)
}

/// Who was not heard yet, and is new enough to be waited for; without a name, replicas that the master has and nobody knows.
fn unheard<'a>(picture: &'a Picture<'a>, watch: &'a Watch) -> Option<Option<&'a Addr>> {
    let attached = match watch.facts().map(|facts| &facts.role) {
        Some(Role::Master { replicas }) => replicas.len(),
        Some(Role::Replica { .. }) | None => 0,
    };
    let young = |watch: &Watch| {
        watch.state() == State::Unknown
            && watch.last_reply().is_none()
            && picture.now.since(watch.since()) < picture.policy.max_down_time
    };
    let named = picture.others().find(|(_, watch)| young(watch)).map(|(addr, _)| Some(addr));
    named.or_else(|| (picture.others().next().is_none() && attached > 0).then_some(None))
}

/// What there is to say of a group that can be failed over.
fn well(picture: &Picture<'_>, watch: &Watch, up: usize) -> String {
    let master = &picture.entry.master;
    if let Some(since) = watch.trouble_since() {
        return format!("the master {master} is in doubt since {}", ago(picture.now, since));
    }
    let down: Vec<String> = picture
        .others()
        .filter(|(_, watch)| watch.state() == State::Down)
        .map(|(addr, watch)| format!("{addr} is down since {}", watch.since()))
        .collect();
    let reason = format!("the master {master} answers and {up} of its replicas follow it");
    if down.is_empty() { reason } else { format!("{reason}; {}", down.join(", ")) }
}
