//! Telling one hook one thing, once: how it is done for each kind, and what is worth another try.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::desk::Surroundings;
use super::line::{Job, Ran};
use super::script::{End, Script, ScriptKind};
use super::{Hook, HookCall, Target, printable, sentinel};
use crate::shown;

/// A handler that takes longer is given up on, and tried again.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(60);

/// Tells one hook.
pub(super) async fn run(hook: &Hook, job: &Job, around: &Surroundings) -> Ran {
    match &hook.target {
        // It is asked, and told nothing.
        Target::Before(_) => Ran::Done,
        Target::Handler(handler) => {
            let call = HookCall::clone(&job.call);
            // A panic ends here, also one before the first await.
            let telling = AssertUnwindSafe(async { handler(call).await }).catch_unwind();
            let why = match timeout(HANDLER_TIMEOUT, telling).await {
                Ok(Ok(Ok(()))) => return Ran::Done,
                Ok(Ok(Err(error))) => printable(&error.to_string()),
                Ok(Err(_)) => "it panicked".to_owned(),
                Err(_) => format!("it took longer than {} s", HANDLER_TIMEOUT.as_secs()),
            };
            Ran::Failed { why, again: true }
        }
        Target::Script(script) => run_script(script, job).await,
        Target::Webhook(webhook) => match webhook.tell(&job.call, job.tries + 1).await {
            Ok(()) => Ran::Done,
            Err(why) => Ran::Failed { why, again: true },
        },
        Target::Xcodis(_) | Target::Codis(_) if is_history(&around.groups, &job.call) => Ran::Done,
        Target::Xcodis(xcodis) => match xcodis.tell(&job.call, around.clock.now()).await {
            Ok(()) => Ran::Done,
            Err(why) => Ran::Failed { why: printable(&why), again: true },
        },
        Target::Codis(codis) => codis.tell(&job.call, &around.groups).await,
    }
}

/// Whether the group has yet another master by now: clients that were led to this one would have to be led on, and those
/// that were led on already would be led back.
fn is_history(groups: &shown::Shown, call: &HookCall) -> bool {
    let Some(change) = call.master_change() else { return false };
    // What is shown may be a moment older than what is told, and never says less of it with a higher epoch.
    groups
        .group(change.group.as_str())
        .is_some_and(|now| now.epoch > change.epoch && now.master != change.new_master)
}

/// With Sentinel's rules: an exit status of 1 and a violent end are worth another try, anything else is not.
async fn run_script(script: &Script, job: &Job) -> Ran {
    let Some(path) = script.path(job.call.group.as_ref()) else { return Ran::Done };
    let args = match script.kind {
        ScriptKind::Notification => {
            let (kind, message) = sentinel::notification(&job.call);
            Some(vec![kind.to_owned(), message])
        }
        ScriptKind::ClientReconfig => sentinel::reconfiguration(&job.call, job.observer),
        // It is asked, and told nothing.
        ScriptKind::BeforeFailover => None,
    };
    let Some(args) = args else { return Ran::Done };
    let deadline = Instant::now() + script.limits.timeout;
    match script.run(path, &args, &job.call.json(), deadline).await {
        End::Exited { code: 0, .. } => Ran::Done,
        End::Exited { code, stderr } => {
            let said = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
            let why = format!("{} exited with {code}{said}", path.display());
            Ran::Failed { why, again: code == 1 }
        }
        End::Killed { why } => Ran::Failed { why, again: true },
        End::NotStarted(error) => {
            let why = format!("{} cannot be started: {error}", path.display());
            Ran::Failed { why, again: false }
        }
    }
}
