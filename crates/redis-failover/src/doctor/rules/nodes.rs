//! The nodes of the program, and the state in which the group is.

use failover_core::addr::Addr;
use failover_core::view::StatusView;

use super::super::finding::{Code, Finding, Severity};
use super::{Case, common_host, listed};
use crate::cluster::{MemberView, Role};

fn voters<'a>(case: &Case<'a>) -> Vec<&'a MemberView> {
    case.cluster.members.iter().filter(|member| member.role != Role::Learner).collect()
}

const MORE_NODES: &str =
    "run three nodes that agree through Raft, on three machines (README, \"Several nodes\")";

pub(super) fn number(case: &Case<'_>) -> Vec<Finding> {
    let one = |severity, code, message: &str| {
        vec![Finding::new(severity, code, None, message, MORE_NODES)]
    };
    match voters(case).len() {
        1 => one(
            Severity::Info,
            Code::SingleNode,
            "one node alone guards this group: while it is down nobody replaces a dead master, and nobody contradicts it",
        ),
        2 => one(
            Severity::Warning,
            Code::TwoNodes,
            "two nodes guard this group, and both are needed to decide: when either is down, no dead master is replaced",
        ),
        _ => Vec::new(),
    }
}

pub(super) fn quorum(case: &Case<'_>) -> Vec<Finding> {
    let (voters, quorum) = (voters(case).len(), case.group.quorum);
    let majority = voters / 2 + 1;
    if voters > 2 && quorum >= voters {
        return vec![Finding::new(
            Severity::Warning,
            Code::QuorumOfAll,
            None,
            format!(
                "quorum is {quorum} of {voters} nodes: when any one of them is down, no dead master is replaced"
            ),
            "set quorum = 0, which is a majority, on every node and restart them one by one",
        )];
    }
    if voters > 2 && quorum < majority {
        return vec![Finding::new(
            Severity::Info,
            Code::QuorumBelowMajority,
            None,
            format!(
                "quorum is {quorum} of {voters} nodes: fewer than a majority may take a master for dead that the others reach"
            ),
            "set quorum = 0, which is a majority, on every node and restart them one by one",
        )];
    }
    Vec::new()
}

pub(super) fn reachable(case: &Case<'_>) -> Vec<Finding> {
    let voters = voters(case);
    let away: Vec<String> = voters
        .iter()
        .filter(|member| !member.reachable)
        .map(|member| member.id.to_string())
        .collect();
    if away.is_empty() {
        return Vec::new();
    }
    let left = voters.len() - away.len();
    let majority = voters.len() / 2 + 1;
    let (severity, means) = if left < majority {
        (
            Severity::Error,
            "too few are left to decide anything: no dead master is replaced".to_owned(),
        )
    } else if left == majority {
        (Severity::Warning, "when one more is down, no dead master is replaced".to_owned())
    } else {
        (Severity::Warning, format!("{} more may go down", left - majority))
    };
    let message = format!(
        "{} of {} nodes cannot be reached from here ({}): {means}",
        away.len(),
        voters.len(),
        listed(&away)
    );
    let fix = "start it and look at its log; one that is gone for good is taken out with DELETE /v1/cluster/members/{addr}";
    vec![Finding::new(severity, Code::NodeUnreachable, None, message, fix)]
}

pub(super) fn one_host(case: &Case<'_>) -> Vec<Finding> {
    let addrs: Vec<&Addr> =
        voters(case).into_iter().filter_map(|member| member.addr.as_ref()).collect();
    let Some(host) = common_host(addrs.into_iter()) else { return Vec::new() };
    vec![Finding::new(
        Severity::Warning,
        Code::NodesOnOneHost,
        None,
        format!("all nodes run on {host}: when that machine goes, nobody replaces a dead master"),
        "run the nodes on three machines, best not on those of the master",
    )]
}

/// What the program itself says of the group: what it does not act on now, it does not act on in an hour either.
pub(super) fn state(case: &Case<'_>) -> Vec<Finding> {
    let group = case.group;
    let resume = format!("when you know why, POST /v1/groups/{}/resume", group.name);
    let why = group.status_reason.as_deref().unwrap_or("no reason is recorded");
    let mut findings = Vec::new();
    let mut find = |severity, code, message: String, fix: String| {
        findings.push(Finding::new(severity, code, None, message, fix));
    };
    match group.status {
        StatusView::Halted => find(
            Severity::Error,
            Code::Halted,
            format!("the group is halted, and nothing is done to it: {why}"),
            resume,
        ),
        StatusView::Paused => find(
            Severity::Warning,
            Code::Paused,
            format!("the group is paused, and no dead master is replaced: {why}"),
            resume,
        ),
        StatusView::Active | StatusView::FailingOver | StatusView::SwitchingOver => {}
    }
    // What these two say has rules of its own.
    if !["Healthy", "NoReplicas", "NoEligibleReplica"].contains(&group.diagnosis.name) {
        let diagnosis = &group.diagnosis;
        let idle = diagnosis.not_acting_because.as_deref();
        let idle = idle.map(|why| format!("; nothing is done about it: {why}")).unwrap_or_default();
        find(
            Severity::Warning,
            Code::Diagnosis,
            format!("the diagnosis is {}: {}{idle}", diagnosis.name, diagnosis.reason),
            format!(
                "look at GET /v1/groups/{}, which has every instance as it is seen",
                group.name
            ),
        );
    }
    findings
}
