//! Where instances differ, so that clients meet another server after a failover.

use std::collections::BTreeMap;

use failover_core::addr::Addr;

use super::super::answers::{Answers, Parameter};
use super::super::finding::{Code, Finding, Severity};
use super::{Case, listed, set, size};
use crate::redis::ServerInfo;

/// Settings that clients notice, and that are the same everywhere unless somebody forgot one.
const NOTICED: [Parameter; 3] =
    [Parameter::Databases, Parameter::KeyspaceEvents, Parameter::MaxMemoryPolicy];

pub(super) fn differ(case: &Case<'_>) -> Vec<Finding> {
    let Some(master) = case.master() else { return Vec::new() };
    let mut findings = Vec::new();
    for (addr, answers) in case.told().filter(|(addr, _)| !case.is_master(addr)) {
        findings.extend(memory(addr, answers, master));
        findings.extend(evicts(addr, answers));
        findings.extend(clients(addr, answers, master));
        findings.extend(noticed(addr, answers, master));
    }
    findings
}

fn memory(addr: &Addr, answers: &Answers, master: &Answers) -> Option<Finding> {
    let (own, its) = (answers.number(Parameter::MaxMemory)?, master.number(Parameter::MaxMemory)?);
    if own == 0 || (its != 0 && own >= its) {
        return None;
    }
    let used = master.info_number("used_memory").unwrap_or(0);
    let severity = if used > own { Severity::Error } else { Severity::Warning };
    let its = if its == 0 { "no limit".to_owned() } else { size(its as f64) };
    let means = if used > own {
        format!(
            "the master uses {}, so that right after a failover keys are evicted or writes refused",
            size(used as f64)
        )
    } else {
        "after a failover keys are evicted or writes refused earlier".to_owned()
    };
    let message =
        format!("{addr} has maxmemory {} and the master {its}: {means}", size(own as f64));
    let fix = set(addr, "maxmemory", master.text(Parameter::MaxMemory).unwrap_or("0"));
    Some(Finding::new(severity, Code::LessMemory, Some(addr), message, fix))
}

/// A replica that evicts by itself lacks keys that its master has.
fn evicts(addr: &Addr, answers: &Answers) -> Option<Finding> {
    let evicts = answers.is(Parameter::IgnoreMaxmemory, "no")
        && answers.number(Parameter::MaxMemory)? > 0
        && !answers.is(Parameter::MaxMemoryPolicy, "noeviction");
    let name = answers.name(Parameter::IgnoreMaxmemory);
    evicts.then(|| {
        Finding::warning(
            Code::ReplicaEvicts,
            addr,
            format!(
                "{addr} has {name} no: as a replica it evicts keys by itself, and a failover to it loses them though the \
                 master had them"
            ),
            set(addr, &name, "yes"),
        )
    })
}

fn clients(addr: &Addr, answers: &Answers, master: &Answers) -> Option<Finding> {
    let room = answers.number(Parameter::MaxClients)?;
    let connected = master.info_number("connected_clients")?;
    (room < connected).then(|| {
        Finding::warning(
            Code::FewerClients,
            addr,
            format!(
                "{addr} takes {room} clients (maxclients), and the master has {connected}: after a failover some are turned \
                 away"
            ),
            set(addr, "maxclients", master.text(Parameter::MaxClients).unwrap_or("10000")),
        )
    })
}

fn noticed(addr: &Addr, answers: &Answers, master: &Answers) -> Vec<Finding> {
    let shown = |value: &str| if value.is_empty() { "\"\"".to_owned() } else { value.to_owned() };
    let find = |parameter: Parameter| {
        let (own, its) = (answers.text(parameter)?, master.text(parameter)?);
        let name = answers.name(parameter);
        let fix = if parameter == Parameter::Databases {
            format!("write databases {its} into its configuration file and restart it")
        } else {
            set(addr, &name, &shown(its))
        };
        (own != its).then(|| {
            let (own, its) = (shown(own), shown(its));
            let message = format!(
                "{addr} has {name} {own} and the master {its}: clients meet another server after a failover"
            );
            Finding::warning(Code::SettingsDiffer, addr, message, fix)
        })
    };
    NOTICED.into_iter().filter_map(find).collect()
}

/// A replica that is older than its master may not understand what it is sent.
pub(super) fn versions(case: &Case<'_>) -> Vec<Finding> {
    let name = |server: &ServerInfo| {
        let number = server.number();
        format!("{} {}.{}", server.flavor.name(), number.major, number.minor)
    };
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (addr, answers) in case.told() {
        if let Some(server) = &answers.server {
            versions.entry(name(server)).or_default().push(addr.to_string());
        }
    }
    if versions.len() < 2 {
        return Vec::new();
    }
    let who: Vec<String> =
        versions.iter().map(|(version, addrs)| format!("{version} at {}", listed(addrs))).collect();
    vec![Finding::new(
        Severity::Warning,
        Code::VersionsApart,
        None,
        format!(
            "the versions of the servers are apart ({}): an older one may not understand the copy that a newer one sends, and \
             after a failover to the newer it is lost",
            who.join(", ")
        ),
        "bring all to one version, replicas first and the master last by a switchover; until then let the rule \"never\" keep \
         the newer ones from being promoted where the older are needed",
    )]
}
