//! Who could take over, and who could not.

use failover_core::policy::AcrossLocations;
use failover_core::record::Rule;
use failover_core::view::InstanceView;

use super::super::finding::{Code, Finding, Severity};
use super::{Case, cli, common_host, listed};

const ADD_REPLICA: &str =
    "start another server with replicaof set to the master; it is found by itself";

pub(super) fn number(case: &Case<'_>) -> Vec<Finding> {
    match case.replicas().count() {
        0 => vec![Finding::new(
            Severity::Error,
            Code::NoReplica,
            None,
            format!("{} has no replica: when it dies, nothing can take over", case.group.master),
            ADD_REPLICA,
        )],
        1 => vec![Finding::new(
            Severity::Warning,
            Code::OneReplica,
            None,
            format!(
                "{} has one replica only: after a failover there is none until the old master is back, and while the \
                 replica is away there is no failover",
                case.group.master
            ),
            ADD_REPLICA,
        )],
        _ => Vec::new(),
    }
}

fn is_barred(instance: &InstanceView) -> bool {
    instance.rule == Some(Rule::Never.name())
}

/// Whether it stands elsewhere than the master and may not be promoted for that.
fn is_too_far(case: &Case<'_>, instance: &InstanceView) -> bool {
    let of_master = case.group.instances.iter().find(|known| case.is_master(&known.addr));
    let here = of_master.and_then(|master| master.location.as_deref());
    let denied = match case.policy.across_locations {
        AcrossLocations::Deny => true,
        AcrossLocations::Allow | AcrossLocations::Last => false,
    };
    denied && here.is_some() && instance.location.is_some() && instance.location.as_deref() != here
}

pub(super) fn none_eligible(case: &Case<'_>) -> Vec<Finding> {
    let replicas: Vec<&InstanceView> = case.replicas().collect();
    if replicas.is_empty() || replicas.iter().any(|replica| replica.eligible) {
        return Vec::new();
    }
    let first = case.told().find(|(addr, _)| **addr == replicas[0].addr);
    let word = first.map_or("replica", |(_, answers)| answers.words().replica);
    let (code, message, fix) = if replicas.iter().all(|replica| replica.priority == Some(0)) {
        (
            Code::AllPrioritiesZero,
            "every replica has priority 0, which is never promoted: when the master dies, nothing can take over".to_owned(),
            format!(
                "{}, and CONFIG REWRITE, or write another priority in [[group.instance]]",
                cli(&replicas[0].addr, &format!("CONFIG SET {word}-priority 100"))
            ),
        )
    } else if replicas.iter().all(|replica| is_barred(replica)) {
        (
            Code::RulesExcludeAll,
            "the rule \"never\" is set on every replica: when the master dies, nothing can take over".to_owned(),
            format!(
                "DELETE /v1/groups/{}/rules/{}, or take the rule out of [[group.instance]]",
                case.group.name, replicas[0].addr
            ),
        )
    } else if replicas.iter().all(|replica| is_too_far(case, replica)) {
        (
            Code::LocationsExcludeAll,
            "every replica stands elsewhere than the master, and failover_across_locations is deny: when the master dies, \
             nothing can take over"
                .to_owned(),
            "add a replica where the master stands, or set failover_across_locations = \"last\"".to_owned(),
        )
    } else {
        let why = |replica: &&InstanceView| {
            let why = replica.not_eligible_because.as_deref().unwrap_or("cannot be promoted");
            format!("{} {why}", replica.addr)
        };
        let whys: Vec<String> = replicas.iter().map(why).collect();
        (
            Code::NoCandidate,
            format!("when the master dies now, nothing can take over: {}", listed(&whys)),
            "bring at least one of them back in step with the master".to_owned(),
        )
    };
    vec![Finding::new(Severity::Error, code, None, message, fix)]
}

/// One that could not be promoted although nobody wants that. Where nobody could be, or it is not reached at all, other
/// rules speak.
pub(super) fn not_eligible(case: &Case<'_>) -> Vec<Finding> {
    if !case.replicas().any(|replica| replica.eligible) {
        return Vec::new();
    }
    let told = |replica: &&InstanceView| case.told().any(|(addr, _)| *addr == replica.addr);
    let meant = |replica: &&InstanceView| {
        replica.priority == Some(0) || is_barred(replica) || is_too_far(case, replica)
    };
    let find = |replica: &InstanceView| {
        let why = replica.not_eligible_because.as_deref()?;
        Some(Finding::warning(
            Code::NotEligible,
            &replica.addr,
            format!("{} could not take over now: it {why}", replica.addr),
            "look at its log, and at its link in GET /v1/groups; until then there is a candidate less",
        ))
    };
    case.replicas()
        .filter(|replica| !replica.eligible)
        .filter(told)
        .filter(|replica| !meant(replica))
        .filter_map(find)
        .collect()
}

pub(super) fn one_host(case: &Case<'_>) -> Vec<Finding> {
    let addrs = case.group.instances.iter().map(|instance| &instance.addr);
    let Some(host) = common_host(addrs) else { return Vec::new() };
    vec![Finding::new(
        Severity::Warning,
        Code::InstancesOnOneHost,
        None,
        format!(
            "every instance runs on {host}: when that machine goes, the whole group goes with it"
        ),
        "put a replica on another machine",
    )]
}

/// A replica of a replica: it loses its data's source with a server that is no master.
pub(super) fn chained(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        let source = answers.facts.as_ref()?.follows()?;
        let follows_replica = case.told().any(|(other, told)| other == source && told.is_replica());
        if !follows_replica || case.is_master(source) || case.is_master(addr) {
            return None;
        }
        let master = &case.group.master;
        let follow = format!("{} {} {}", answers.words().replicaof, master.host(), master.port());
        Some(Finding::warning(
            Code::ChainedReplica,
            addr,
            format!(
                "{addr} follows {source}, which is a replica itself: it has what {source} has, only later, and stands still \
                 when {source} is down"
            ),
            format!("{}, and CONFIG REWRITE", cli(addr, &follow)),
        ))
    })
}
