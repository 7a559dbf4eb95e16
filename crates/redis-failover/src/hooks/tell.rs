//! Telling one hook one thing, once: how it is done for each kind, and what is worth another try.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use failover_core::time::Time;
use failover_core::view::GroupView;
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
        Target::Xcodis(xcodis) => match xcodis.tell(&Licence { job, around }).await {
            Ok(()) => Ran::Done,
            Err(why) => Ran::Failed { why: printable(&why), again: true },
        },
        Target::Codis(codis) => codis.tell(&Licence { job, around }).await,
    }
}

/// What leading clients to a new master needs, at every moment of it.
pub(super) struct Licence<'a> {
    job: &'a Job,
    around: &'a Surroundings,
}

impl Licence<'_> {
    /// What is told.
    pub(super) fn call(&self) -> &HookCall {
        &self.job.call
    }

    /// The group that it is about, as it is by now.
    pub(super) fn group(&self) -> Option<Arc<GroupView>> {
        self.around.groups.group(self.job.call.group.as_ref()?.as_str())
    }

    pub(super) fn now(&self) -> Time {
        self.around.clock.now()
    }

    /// Right before each write: what was begun may have waited for others for a while, and somebody else may lead by now
    /// and have led clients on already.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.job.token.is_none_or(|token| self.around.broker.allows(token)) {
            return Err(
                "this node does not lead any more, and leaves it to the one that does".to_owned()
            );
        }
        if is_history(&self.around.groups, &self.job.call) {
            return Err("the group has yet another master by now".to_owned());
        }
        Ok(())
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
