//! Whether this node gets at the servers, what it may do there, and who else watches them.

use std::collections::BTreeMap;

use failover_core::addr::Addr;
use failover_core::event::Health;
use failover_core::instance::Role;

use super::super::answers::{Allowed, Answers, Parameter, Right, Topic, is_from};
use super::super::ask::in_words;
use super::super::finding::{Code, Finding, Severity};
use super::passwords::undecided;
use super::{Case, cli, is_loopback, listed, set};
use crate::redis::{Mute, Version};

/// How a server that is in protected mode turns clients away.
const DENIED: &str = "DENIED";

/// Whether the master says that a replica is attached under this address.
fn is_attached(case: &Case<'_>, addr: &Addr) -> bool {
    let facts = case.master().and_then(|master| master.facts.as_ref());
    match facts.map(|facts| &facts.role) {
        Some(Role::Master { replicas }) => replicas.contains(addr),
        Some(Role::Replica { .. }) | None => false,
    }
}

/// Whether nothing could be reached at an address, as if it led nowhere.
fn leads_nowhere(why: &Mute) -> bool {
    match why {
        Mute::Refused | Mute::Unreachable(_) => true,
        Mute::TurnedAway(_) | Mute::Broken(_) | Mute::Ours(_) => false,
    }
}

/// The address that a replica tells its master is the one under which everybody looks for it.
pub(super) fn announced_address(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for examined in case.examined {
        let Err(why) = &examined.told else { continue };
        let addr = &examined.addr;
        if !leads_nowhere(why) || !is_attached(case, addr) {
            continue;
        }
        let announcer = case.told().find(|(_, told)| {
            told.text(Parameter::AnnounceIp).is_some_and(|ip| ip.eq_ignore_ascii_case(addr.host()))
        });
        let (who, fix) = match announcer {
            Some((real, told)) => (
                format!("{real} announces itself as {addr}"),
                set(real, &told.name(Parameter::AnnounceIp), real.host()),
            ),
            None => (
                format!("a replica of {} announces itself as {addr}", case.group.master),
                "on that replica set replica-announce-ip (and replica-announce-port) to an address that every node and \
                 every instance reaches, or to \"\" for the address it connects from, and CONFIG REWRITE"
                    .to_owned(),
            ),
        };
        findings.push(Finding::error(
            Code::AnnouncedAddressUnreachable,
            addr,
            format!(
                "{who}, and this node cannot reach that ({}), though the master feeds it: it can be neither watched nor \
                 promoted",
                in_words(why)
            ),
            fix,
        ));
    }
    findings
}

/// An instance that told nothing, for another reason than those that have a rule of their own.
pub(super) fn no_answer(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for examined in case.examined {
        let Err(why) = &examined.told else { continue };
        let addr = &examined.addr;
        let denied = matches!(why, Mute::TurnedAway(words) if words.contains(DENIED));
        if denied || (leads_nowhere(why) && is_attached(case, addr)) {
            continue;
        }
        let is_master = case.is_master(addr);
        let (severity, means, fix) = if is_master {
            (
                Severity::Error,
                "nothing is known of the master",
                "look whether it runs, and what GET /v1/groups says of it".to_owned(),
            )
        } else {
            (
                Severity::Warning,
                "it cannot take over, and nothing more is known of it",
                format!(
                    "start it, or when it is gone for good DELETE /v1/groups/{}/replicas/{addr}",
                    case.group.name
                ),
            )
        };
        let message = format!("{addr} told this node nothing: {}; {means}", in_words(why));
        findings.push(Finding::new(severity, Code::NoAnswer, Some(addr), message, fix));
    }
    findings
}

pub(super) fn login(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        let Health::Auth(words) = &answers.health else { return None };
        // Whoever is let in, and may not do this or that, lacks rights.
        if words.contains("NOPERM") {
            return None;
        }
        Some(Finding::error(
            Code::LoginRefused,
            addr,
            format!(
                "{addr} does not let the program in ({words}): it can be neither watched nor promoted"
            ),
            "give the group the redis_user and the password (redis_password_file) that every one of its servers knows, and \
             restart the nodes",
        ))
    })
}

/// A server in protected mode serves its own machine only.
pub(super) fn protected_mode(case: &Case<'_>) -> Vec<Finding> {
    let fix = |addr: &Addr| {
        format!(
            "give every server of the group a password (requirepass and masterauth) and the program too, or where the \
             network is trusted: {}",
            set(addr, "protected-mode", "no")
        )
    };
    let mut findings: Vec<Finding> = Vec::new();
    for examined in case.examined {
        if let Err(Mute::TurnedAway(words)) = &examined.told
            && words.contains(DENIED)
        {
            let addr = &examined.addr;
            findings.push(Finding::error(
                Code::ProtectedMode,
                addr,
                format!(
                    "{addr} is in protected mode and turns this node away: it can be neither watched nor promoted, and no \
                     replica on another machine can follow it"
                ),
                fix(addr),
            ));
        }
    }
    let instances = case.group.instances.iter().map(|instance| instance.addr.host());
    let nodes = case.cluster.members.iter().filter_map(|member| Some(member.addr.as_ref()?.host()));
    let spread = instances.chain(nodes).any(|host| !is_loopback(host));
    findings.extend(case.each(|addr, answers| {
        // Before Redis 7 the mode was off where the addresses to listen on were given.
        let listens_everywhere = || answers.text(Parameter::Bind) == Some("");
        let is_new = answers.server.as_ref().is_some_and(|s| is_from(s, Version::new(7, 0, 0)));
        let protected = answers.is(Parameter::ProtectedMode, "yes")
            && answers.is_open() == Some(true)
            && answers.by_loopback
            && (is_new || listens_everywhere());
        let severity = if spread { Severity::Warning } else { Severity::Info };
        protected.then(|| {
            let message = format!(
                "{addr} is in protected mode and has no password: it serves clients of its own machine only, so that nodes, \
                 replicas and clients elsewhere are turned away"
            );
            Finding::new(severity, Code::ProtectedMode, Some(addr), message, fix(addr))
        })
    }));
    findings
}

/// What fails without a right.
fn loss(right: Right) -> (Severity, &'static str) {
    match right {
        Right::Ping => (Severity::Error, "it cannot be watched"),
        Right::Info => {
            (Severity::Error, "its role and offset are unknown, and it cannot be promoted")
        }
        Right::Follow => (Severity::Error, "it can be neither promoted nor repointed"),
        Right::Rewrite => (Severity::Warning, "it forgets its new role at its next restart"),
        Right::Transaction | Right::Execute => {
            (Severity::Warning, "a demotion and the cutting of its clients are not one step")
        }
        Right::CutClients => {
            (Severity::Warning, "clients stay connected to a demoted master and get errors")
        }
        Right::PauseWrites | Right::ResumeWrites => {
            (Severity::Info, "a switchover demotes it without pausing writes first")
        }
        Right::Configure => (
            Severity::Error,
            "it cannot be fenced, and goes on taking writes after it was replaced",
        ),
    }
}

pub(super) fn missing_rights(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (addr, answers) in case.told() {
        findings.extend(rights_at(addr, answers, case.group.fencing.mode != "none"));
    }
    findings
}

fn rights_at(addr: &Addr, answers: &Answers, fences: bool) -> Vec<Finding> {
    let words = answers.words();
    let lacking = |state: Allowed| -> BTreeMap<Severity, Vec<Right>> {
        let mut by_severity: BTreeMap<Severity, Vec<Right>> = BTreeMap::new();
        for (right, allowed) in &answers.rights {
            if *allowed == state && (fences || *right != Right::Configure) {
                by_severity.entry(loss(*right).0).or_default().push(*right);
            }
        }
        by_severity
    };
    let losses = |rights: &[Right]| {
        let mut losses: Vec<String> =
            rights.iter().map(|right| loss(*right).1.to_owned()).collect();
        losses.dedup();
        listed(&losses)
    };
    let mut findings = Vec::new();
    for (severity, rights) in lacking(Allowed::No) {
        let grants: Vec<String> = rights.iter().map(|right| right.grant(&words)).collect();
        let message = format!(
            "the program's user may not do everything at {addr} ({} missing): {}",
            grants.join(" "),
            losses(&rights)
        );
        let command = format!("ACL SETUSER USER {}", grants.join(" "));
        let fix = format!(
            "{}, with USER as in redis_user, and CONFIG REWRITE or ACL SAVE",
            cli(addr, &command)
        );
        findings.push(Finding::new(severity, Code::MissingRights, Some(addr), message, fix));
    }
    for (severity, rights) in lacking(Allowed::Unknown) {
        let mut names: Vec<String> =
            rights.iter().map(|right| right.command(&words)[0].to_owned()).collect();
        names.dedup();
        let message = format!(
            "{addr} does not know {}, which was renamed or taken away: {}",
            listed(&names),
            losses(&rights)
        );
        let fix = "take its rename-command lines out of the server's configuration file and restart it; ACL rules keep \
                   commands from other users";
        findings.push(Finding::new(severity, Code::MissingCommand, Some(addr), message, fix));
    }
    findings
}

/// A Sentinel, or whatever speaks its protocol, listens on this channel of every server that it watches.
pub(super) fn other_monitor(case: &Case<'_>) -> Vec<Finding> {
    let watched: Vec<(&Addr, u64)> = case
        .told()
        .filter_map(|(addr, answers)| Some((addr, answers.hello_subscribers?)))
        .filter(|(_, subscribers)| *subscribers > 0)
        .collect();
    let first = watched.iter().find(|(addr, _)| case.is_master(addr)).or(watched.first());
    let Some((addr, subscribers)) = first else { return Vec::new() };
    vec![Finding::warning(
        Code::OtherMonitor,
        addr,
        format!(
            "another monitor such as Redis Sentinel watches this group too: {addr} has {subscribers} subscribed to \
             __sentinel__:hello ({} of {} instances have any); two programs that promote undo each other's failovers",
            watched.len(),
            case.group.instances.len()
        ),
        format!(
            "see who it is with {}, and take this master out of it (SENTINEL REMOVE), or let it guard alone",
            cli(addr, "CLIENT LIST TYPE pubsub")
        ),
    )]
}

/// What was not answered, and is therefore not known.
pub(super) fn not_asked(case: &Case<'_>) -> Vec<Finding> {
    let undecided = undecided(case);
    let mut silent: BTreeMap<Topic, Vec<(&Addr, &str)>> = BTreeMap::new();
    let (mut without, mut kind) = (Vec::new(), "");
    for (addr, answers) in case.told() {
        if let Some(server) = answers.server.as_ref().filter(|server| !server.words().tells_setup) {
            kind = server.flavor.title();
            without.push(addr.to_string());
        }
        for (topic, why) in &answers.unanswered {
            let matters = match topic {
                Topic::Info | Topic::Settings | Topic::Rights => true,
                // Without any channel there is no subscriber.
                Topic::Subscribers => answers.info_number("pubsub_channels") != Some(0),
                Topic::Accounts => undecided.contains(addr),
            };
            // Whoever is not let in says so once.
            let let_in =
                !matches!(&answers.health, Health::Auth(words) if !words.contains("NOPERM"));
            if matters && let_in {
                silent.entry(*topic).or_default().push((addr, why));
            }
        }
    }
    let mut findings = Vec::new();
    if !without.is_empty() {
        findings.push(Finding::new(
            Severity::Info,
            Code::NotAsked,
            None,
            format!(
                "{} is {kind}, which does not tell its settings, rights, passwords and subscribers: what is wrong there is \
                 not known",
                listed(&without)
            ),
            "look at its configuration file yourself: a password has to be the same everywhere",
        ));
    }
    if silent.is_empty() {
        return findings;
    }
    let whats: Vec<String> = silent
        .iter()
        .map(|(topic, places)| {
            let addrs: Vec<String> = places.iter().map(|(addr, _)| addr.to_string()).collect();
            format!("{} at {} ({})", topic.words().0, listed(&addrs), places[0].1)
        })
        .collect();
    let grants: Vec<&str> = silent.keys().map(|topic| topic.words().1).collect();
    findings.push(Finding::new(
        Severity::Info,
        Code::NotAsked,
        None,
        format!("not everything could be asked, and what it would tell is missing here: {}", whats.join("; ")),
        format!(
            "where the program's user may not ask: ACL SETUSER USER {}, with USER as in redis_user; a failover does not \
             need it",
            grants.join(" ")
        ),
    ));
    findings
}
