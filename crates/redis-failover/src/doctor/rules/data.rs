//! What outlasts a restart: data and roles.

use failover_core::addr::Addr;

use super::super::answers::{Answers, Parameter};
use super::super::finding::{Code, Finding};
use super::{Case, set};

/// Who starts it again, as far as it says so itself.
fn supervisor(answers: &Answers) -> &'static str {
    match (answers.info_text("process_supervised"), answers.info_text("process_id")) {
        (Some("systemd"), _) => "systemd starts it again",
        (Some("upstart"), _) => "upstart starts it again",
        (_, Some("1")) => "its container is started again",
        _ => "a supervisor starts it again",
    }
}

pub(super) fn persistence(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        let keeps_nothing = answers.text(Parameter::Save)?.is_empty()
            && answers.is(Parameter::AppendOnly, "no");
        if !keeps_nothing {
            return None;
        }
        let when = if case.is_master(addr) { "when" } else { "once it is the master and" };
        Some(Finding::warning(
            Code::NothingOnDisk,
            addr,
            format!(
                "{addr} keeps nothing on disk: {when} it ends and {} within a moment, it comes back empty and its replicas \
                 copy that; promoting one of them saves the data only if it happens before they have",
                supervisor(answers)
            ),
            format!(
                "{}; or have no supervisor start it again by itself, since it is replaced and made a replica anyway",
                set(addr, "appendonly", "yes")
            ),
        ))
    })
}

/// A server that could not save refuses writes, as a master right after its promotion too.
pub(super) fn saving(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr, answers| {
        let failed = |field| answers.info_text(field) == Some("err");
        let saves = answers.text(Parameter::Save).is_some_and(|points| !points.is_empty());
        let (what, log) = if failed("aof_last_write_status") {
            ("write its AOF", true)
        } else if failed("rdb_last_bgsave_status") && saves {
            ("save to disk", answers.is(Parameter::StopWritesOnError, "yes"))
        } else {
            return None;
        };
        let fix = "make room on its disk or set right who may write to its directory (its log says which), then BGSAVE";
        let role = if case.is_master(addr) { "" } else { ", which it would do as a master too" };
        if log {
            let message = format!("{addr} could not {what} and refuses writes{role}");
            return Some(Finding::error(Code::CannotSave, addr, message, fix));
        }
        let message = format!("{addr} could not {what}: after a restart it has old data");
        Some(Finding::warning(Code::CannotSave, addr, message, fix))
    })
}

pub(super) fn config_file(case: &Case<'_>) -> Vec<Finding> {
    case.each(|addr: &Addr, answers| {
        if !answers.info_text("config_file")?.is_empty() {
            return None;
        }
        Some(Finding::warning(
            Code::NoConfigFile,
            addr,
            format!(
                "{addr} runs without a configuration file, so that CONFIG REWRITE fails: after a failover and a restart it is \
                 what its command line says again, a second master or a replica of a dead one until it is set right"
            ),
            "start it with a configuration file that it may write, with its settings in it",
        ))
    })
}
