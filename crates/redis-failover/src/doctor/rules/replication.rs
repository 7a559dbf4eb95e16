//! How data gets to replicas, and what they do with it.

use std::time::Duration;

use super::super::answers::{Answers, Parameter, is_from};
use super::super::finding::{Code, Finding, Severity};
use super::{Case, set, size};
use crate::redis::Version;

/// A backlog has to last for the time until a silent master is replaced and for this much more, in which replicas are
/// repointed one after the other, or one of them is restarted.
const AWAY_TIME: Duration = Duration::from_secs(10);
/// What a recommended backlog holds, in times of what it has to.
const ROOM: f64 = 4.0;
const MIB: f64 = 1024.0 * 1024.0;
/// A master that grew less than this between two looks is idle: a `PING` to its replicas is 14 bytes.
const IDLE_BYTES_MAX: u64 = 64;

pub(super) fn backlog(case: &Case<'_>) -> Vec<Finding> {
    let Some(growth) = case.master().and_then(|master| master.growth) else { return Vec::new() };
    let rate = growth.bytes_per_sec();
    if growth.bytes <= IDLE_BYTES_MAX {
        return Vec::new();
    }
    let needed = case.policy.max_down_time + AWAY_TIME;
    case.each(|addr, answers| {
        let bytes = answers.number(Parameter::BacklogSize)? as f64;
        let lasts_secs = bytes / rate;
        if lasts_secs >= needed.as_secs_f64() {
            return None;
        }
        let wanted = (rate * needed.as_secs_f64() * ROOM / MIB).ceil();
        Some(Finding::warning(
            Code::BacklogTooSmall,
            addr,
            format!(
                "the replication backlog of {addr} ({}) holds {lasts_secs:.1} s of what is written now ({} a second): a \
                 replica that is away for longer, as one may be during a failover (max_down_time is {} s), has to copy \
                 everything",
                size(bytes),
                size(rate),
                case.policy.max_down_time.as_secs_f64()
            ),
            set(addr, &answers.name(Parameter::BacklogSize), &format!("{wanted}mb")),
        ))
    })
}

/// The hard limit of the output buffer of a replica, in bytes.
fn buffer_limit(answers: &Answers) -> Option<u64> {
    let words: Vec<&str> = answers.text(Parameter::OutputBufferLimit)?.split(' ').collect();
    let at = words.iter().position(|word| *word == "slave" || *word == "replica")?;
    words.get(at + 1)?.parse().ok()
}

/// From Redis 7 on the limit does not count below the size of the backlog.
pub(super) fn buffer(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        if is_from(answers.server.as_ref()?, Version::new(7, 0, 0)) {
            return None;
        }
        let (limit, backlog) = (buffer_limit(answers)?, answers.number(Parameter::BacklogSize)?);
        if limit == 0 || limit >= backlog {
            return None;
        }
        let name = answers.name(Parameter::OutputBufferLimit);
        Some(Finding::warning(
            Code::BufferBelowBacklog,
            addr,
            format!(
                "the output buffer of a replica at {addr} may have {} and the backlog {}: a replica that is fed from the \
                 backlog is cut off again and never gets in step",
                size(limit as f64),
                size(backlog as f64)
            ),
            set(addr, &name, &format!("\"{} {} 0 0\"", answers.words().replica, backlog.saturating_mul(2))),
        ))
    })
}

pub(super) fn ping(case: &Case<'_>) -> Vec<Finding> {
    let idle = case.master().and_then(|master| master.growth);
    if idle.is_none_or(|growth| growth.bytes > IDLE_BYTES_MAX) {
        return Vec::new();
    }
    let usual = case.policy.ping_period.max(case.policy.max_down_time).as_secs();
    case.each(|addr, answers| {
        let secs = answers.number(Parameter::PingPeriod)?;
        if secs <= usual {
            return None;
        }
        let name = answers.name(Parameter::PingPeriod);
        Some(Finding::warning(
            Code::SlowPing,
            addr,
            format!(
                "nobody writes, and {addr} lets its replicas hear from it only every {secs} s ({name}): when it cannot be \
                 reached any more they say so as much later, and the failover waits for their word"
            ),
            set(addr, &name, "1"),
        ))
    })
}

pub(super) fn timeout(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        let (timeout, period) =
            (answers.number(Parameter::ReplTimeout)?, answers.number(Parameter::PingPeriod)?);
        if timeout > period {
            return None;
        }
        let name = answers.name(Parameter::PingPeriod);
        Some(Finding::warning(
            Code::TimeoutBelowPing,
            addr,
            format!(
                "repl-timeout of {addr} is {timeout} s and {name} {period} s: when nobody writes, replicas lose their link \
                 again and again, and one without a link may be refused in a failover"
            ),
            set(addr, "repl-timeout", &period.saturating_mul(6).max(60).to_string()),
        ))
    })
}

pub(super) fn writable(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        if !answers.is(Parameter::ReadOnly, "no") {
            return None;
        }
        let name = answers.name(Parameter::ReadOnly);
        let lost = if answers.is_replica() {
            "clients can write to it though it is a replica, and what they write is lost with its next full copy"
        } else {
            "when it comes back as a replica after a failover, clients that still know it as the master can write to it, and \
             what they write is lost"
        };
        Some(Finding::warning(
            Code::WritableReplica,
            addr,
            format!("{addr} has {name} no: {lost}"),
            set(addr, &name, "yes"),
        ))
    })
}

pub(super) fn stale_data(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        if !answers.is(Parameter::ServeStaleData, "no") {
            return None;
        }
        let name = answers.name(Parameter::ServeStaleData);
        let message =
            format!("{addr} has {name} no: as a replica it answers no reads while its master is being replaced");
        let fix = format!("when old data is better than none: {}", set(addr, &name, "yes"));
        Some(Finding::new(Severity::Info, Code::StaleDataRefused, Some(addr), message, fix))
    })
}

/// A master that misses replicas refuses writes. After a failover there is one replica less than before.
pub(super) fn min_replicas(case: &Case<'_>) -> Vec<Finding> {
    if case.group.fencing.mode != "none" {
        // The program keeps the number itself then.
        return Vec::new();
    }
    let replicas = u64::try_from(case.replicas().count()).unwrap_or(u64::MAX);
    case.each(|addr, answers| {
        let wanted = answers.number(Parameter::MinReplicas)?;
        if wanted == 0 || answers.number(Parameter::MinReplicasMaxLag) == Some(0) {
            return None;
        }
        let is_master = case.is_master(addr);
        let left = if is_master { replicas } else { replicas.saturating_sub(1) };
        if wanted <= left {
            return None;
        }
        let name = answers.name(Parameter::MinReplicas);
        let when = if is_master {
            "the replicas of the group are".to_owned()
        } else {
            "the replicas that it has after a failover to it, until the old master is back, are"
                .to_owned()
        };
        Some(Finding::error(
            Code::MinReplicasTooHigh,
            addr,
            format!("{name} of {addr} is {wanted}, and {when} {left}: it refuses writes"),
            format!("add replicas, or {}", set(addr, &name, &left.to_string())),
        ))
    })
}

pub(super) fn flush_before_load(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        if !answers.is(Parameter::DisklessLoad, "flush-before-load") {
            return None;
        }
        let name = answers.name(Parameter::DisklessLoad);
        Some(Finding::warning(
            Code::LoadFlushesFirst,
            addr,
            format!(
                "{addr} has {name} flush-before-load: during a full copy it has thrown away its data before the new is \
                 there, so that a master which dies meanwhile leaves it with nothing"
            ),
            set(addr, &name, "disabled"),
        ))
    })
}
