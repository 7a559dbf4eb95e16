//! What is wrong, from what is known: one small pure function a rule.
//!
//! A rule that lacks what it needs says nothing; `access` says what could not be asked.

mod access;
mod candidates;
mod data;
mod nodes;
mod passwords;
mod replication;
mod settings;
#[cfg(test)]
mod tests;

use failover_core::addr::Addr;
use failover_core::policy::Policy;
use failover_core::view::{GroupView, InstanceView};

use super::answers::Answers;
use super::ask::Examined;
use super::finding::Finding;
use crate::cluster::ClusterView;

/// Most names of one kind in a sentence; the others are counted.
const NAMED_MAX: usize = 4;

/// Everything that rules look at.
pub(super) struct Case<'a> {
    pub(super) group: &'a GroupView,
    pub(super) policy: &'a Policy,
    pub(super) cluster: &'a ClusterView,
    pub(super) examined: &'a [Examined],
}

type Rule = fn(&Case<'_>) -> Vec<Finding>;

/// All rules. Their order means nothing: findings are sorted.
const RULES: [Rule; 31] = [
    access::announced_address,
    access::login,
    access::missing_rights,
    access::no_answer,
    access::not_asked,
    access::other_monitor,
    access::protected_mode,
    candidates::chained,
    candidates::none_eligible,
    candidates::not_eligible,
    candidates::number,
    candidates::one_host,
    data::config_file,
    data::persistence,
    data::saving,
    nodes::number,
    nodes::one_host,
    nodes::quorum,
    nodes::reachable,
    nodes::state,
    passwords::mismatch,
    replication::backlog,
    replication::buffer,
    replication::flush_before_load,
    replication::min_replicas,
    replication::ping,
    replication::stale_data,
    replication::timeout,
    replication::writable,
    settings::differ,
    settings::versions,
];

pub(super) fn all(case: &Case<'_>) -> Vec<Finding> {
    RULES.iter().flat_map(|rule| rule(case)).collect()
}

impl<'a> Case<'a> {
    /// Every instance that told something, with what it told.
    fn told(&self) -> impl Iterator<Item = (&'a Addr, &'a Answers)> {
        let told = |examined: &'a Examined| {
            examined.told.as_ref().ok().map(|answers| (&examined.addr, answers))
        };
        self.examined.iter().filter_map(told)
    }

    /// One finding for each instance of which a rule says something.
    fn each(&self, rule: impl Fn(&'a Addr, &'a Answers) -> Option<Finding>) -> Vec<Finding> {
        self.told().filter_map(|(addr, answers)| rule(addr, answers)).collect()
    }

    fn is_master(&self, addr: &Addr) -> bool {
        *addr == self.group.master
    }

    /// What the recorded master told.
    fn master(&self) -> Option<&'a Answers> {
        self.told().find(|(addr, _)| self.is_master(addr)).map(|(_, answers)| answers)
    }

    /// The picture of every instance that is not the recorded master.
    fn replicas(&self) -> impl Iterator<Item = &'a InstanceView> {
        let master = &self.group.master;
        self.group.instances.iter().filter(move |instance| instance.addr != *master)
    }
}

/// `a, b and c`, of which at most so many are named.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] if names.len() <= NAMED_MAX => {
            format!("{} and {last}", first.join(", "))
        }
        _ => format!("{} and {} more", names[..NAMED_MAX].join(", "), names.len() - NAMED_MAX),
    }
}

/// A command for a server, to be typed as it is.
fn cli(addr: &Addr, command: &str) -> String {
    format!("redis-cli -h {} -p {} {command}", addr.host(), addr.port())
}

/// A setting, to be changed at once and for good.
fn set(addr: &Addr, name: &str, value: &str) -> String {
    format!("{}, and CONFIG REWRITE", cli(addr, &format!("CONFIG SET {name} {value}")))
}

/// Whether a host is this machine as it names itself: whoever puts everything there tries something out.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The host that all of them have in common, unless it is this machine for a trial.
fn common_host<'a>(addrs: impl Iterator<Item = &'a Addr>) -> Option<&'a str> {
    let mut hosts = addrs.map(Addr::host);
    let first = hosts.next()?;
    let mut others = hosts.peekable();
    others.peek()?;
    (others.all(|host| host == first) && !is_loopback(first)).then_some(first)
}

/// A size as people read it.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut size = bytes;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 100.0);
    format!("{size:.digits$} {}", UNITS[unit])
}
