//! What people want of the promotion of single instances: rules, priorities, locations. Pure functions of the record and the
//! configuration.
//!
//! They refuse candidates, or order those that are equally advanced. None makes one win that is behind another: what the
//! other is ahead would be lost.

use super::Group;
use super::elect::Contest;
use crate::addr::Addr;
use crate::event::RefusalCode;
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::policy::{AcrossLocations, InstancePolicy, Policy};
use crate::record::{GivenRule, GroupEntry, Rule};
use crate::time::Time;

/// What the configuration says of an instance, by whichever of its addresses.
fn configured<'a>(
    policy: &'a Policy,
    entry: &GroupEntry,
    addr: &Addr,
) -> Option<&'a InstancePolicy> {
    let aliases = entry.instances.get(addr).into_iter().flat_map(|known| &known.aliases);
    std::iter::once(addr).chain(aliases).find_map(|addr| policy.instances.get(addr))
}

/// The rule on an instance, and whether it was set on request: then it counts before one of the configuration, until it
/// expires.
fn rule_with_origin(
    policy: &Policy,
    entry: &GroupEntry,
    now: Time,
    addr: &Addr,
) -> Option<(Rule, Option<GivenRule>)> {
    let given = entry.instances.get(addr).and_then(|known| known.rule);
    let given = given.filter(|given| given.expires_at.is_none_or(|at| now < at));
    match given {
        Some(given) => Some((given.rule, Some(given))),
        None => configured(policy, entry, addr).and_then(|set| set.rule).map(|rule| (rule, None)),
    }
}

/// The rule on the promotion of an instance that counts now.
pub(crate) fn rule_on(policy: &Policy, entry: &GroupEntry, now: Time, addr: &Addr) -> Option<Rule> {
    rule_with_origin(policy, entry, now, addr).map(|(rule, _)| rule)
}

/// Where an instance stands.
pub(crate) fn location_of<'a>(
    policy: &'a Policy,
    entry: &GroupEntry,
    addr: &Addr,
) -> Option<&'a str> {
    configured(policy, entry, addr).and_then(|set| set.location.as_deref())
}

/// The priority of an instance that counts: lower is better, 0 is never promoted.
pub(crate) fn priority_of(policy: &Policy, entry: &GroupEntry, addr: &Addr, facts: &Facts) -> u32 {
    configured(policy, entry, addr).and_then(|set| set.priority).unwrap_or(facts.priority)
}

/// Both locations, when the instance stands elsewhere than the recorded master.
fn elsewhere<'a>(contest: &Contest<'a>, addr: &Addr) -> Option<(&'a str, &'a str)> {
    let here = location_of(contest.policy, contest.entry, &contest.entry.master)?;
    let there = location_of(contest.policy, contest.entry, addr)?;
    (here != there).then_some((here, there))
}

/// Whether rules let an instance be promoted, or why not.
pub(crate) fn judge_rules(contest: &Contest<'_>, addr: &Addr, facts: &Facts) -> Result<(), String> {
    let Contest { policy, entry, now, .. } = *contest;
    match rule_with_origin(policy, entry, now, addr) {
        Some((Rule::Never, Some(given))) => {
            let until = given.expires_at.map(|at| format!(" until {at}")).unwrap_or_default();
            return Err(format!("is not to be promoted{until}, by a rule set on request"));
        }
        Some((Rule::Never, None)) => {
            return Err("is not to be promoted, by a rule of the configuration".to_owned());
        }
        Some((Rule::Prefer | Rule::PreferNot, _)) | None => {}
    }
    let ignored = policy.has(Mutation::PriorityIgnored);
    if priority_of(policy, entry, addr, facts) == 0 && !ignored {
        return Err("has priority 0: its owner does not want it promoted".to_owned());
    }
    match (policy.across_locations, elsewhere(contest, addr)) {
        (AcrossLocations::Deny, Some((here, there))) => Err(format!(
            "stands at {there} and the master at {here}, and failover_across_locations is deny"
        )),
        (AcrossLocations::Allow | AcrossLocations::Deny | AcrossLocations::Last, _) => Ok(()),
    }
}

/// The place of an instance among those that are as advanced; lower is better, and counts before the priority.
pub(crate) fn preference(contest: &Contest<'_>, addr: &Addr) -> (bool, u8) {
    let last = match contest.policy.across_locations {
        AcrossLocations::Last => elsewhere(contest, addr).is_some(),
        AcrossLocations::Allow | AcrossLocations::Deny => false,
    };
    let rule = match rule_on(contest.policy, contest.entry, contest.now, addr) {
        Some(Rule::Prefer) => 0,
        None => 1,
        Some(Rule::PreferNot) => 2,
        // It is refused.
        Some(Rule::Never) => 3,
    };
    (last, rule)
}

impl Group {
    /// The entry in which an instance has a rule, or none any more.
    ///
    /// # Errors
    /// When the group has no such instance.
    pub fn ruled_entry(
        &self,
        addr: &Addr,
        rule: Option<GivenRule>,
    ) -> Result<GroupEntry, (RefusalCode, String)> {
        let unknown = || {
            let why = format!("{addr} is no instance of the group {}", self.name);
            (RefusalCode::UnknownInstance, why)
        };
        let addr = self.entry.instance_of(addr).ok_or_else(unknown)?;
        let mut entry = self.entry.clone();
        entry.instances.get_mut(addr).ok_or_else(unknown)?.rule = rule;
        Ok(entry)
    }
}
