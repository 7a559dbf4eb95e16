//! Asking before a failover is decided, while the group has no master: within a bound, whatever the hooks do.
//!
//! Only an explicit no counts. A hook that fails, panics or is late is logged and passed over, since a broken hook must not
//! keep a group without master.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use failover_core::node::NodeId;
use failover_core::record::HookEvent;
use failover_core::time::Time;
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::script::{End, Script};
use super::webhook::Said;
use super::{Before, FailoverPlan, Hook, HookCall, Target, Verdict, printable, sentinel};

/// What came of asking one hook.
pub(super) struct Asked {
    pub(super) index: usize,
    /// Why it had no say.
    pub(super) error: Option<String>,
}

/// Asks the host's handlers in order, and everything else at the same time, so that one that hangs silences nobody else.
/// Returns the first no; `note` hears what came of each.
pub(super) async fn ask(
    hooks: &[Arc<Hook>],
    plan: &FailoverPlan,
    (at, deadline): ((Time, &NodeId), Instant),
    note: impl Fn(Asked) + Clone + Send + 'static,
) -> Option<String> {
    let mut lanes = JoinSet::new();
    let handlers: Vec<(usize, Before)> = hooks
        .iter()
        .enumerate()
        .filter_map(|(index, hook)| match &hook.target {
            Target::Before(handler) => Some((index, Arc::clone(handler))),
            Target::Handler(_)
            | Target::Script(_)
            | Target::Webhook(_)
            | Target::Xcodis(_)
            | Target::Codis(_) => None,
        })
        .collect();
    lanes.spawn(ask_handlers(handlers, plan.clone(), deadline, note.clone()));
    for (index, hook) in hooks.iter().enumerate() {
        if !hook.wants(HookEvent::BeforeFailover, Some(&plan.group)) {
            continue;
        }
        let (hook, plan, note) = (Arc::clone(hook), plan.clone(), note.clone());
        let call = HookCall::of_plan(&plan, at);
        lanes.spawn(async move {
            let (veto, error) = match &hook.target {
                // Asked above, or told and never asked.
                Target::Before(_) | Target::Handler(_) | Target::Codis(_) => return None,
                Target::Script(script) => ask_script(script, &plan, &call.json(), deadline).await,
                Target::Webhook(webhook) => match webhook.ask(&call, deadline).await {
                    Ok(Said::Yes) => (None, None),
                    Ok(Said::No(reason)) => (Some(reason), None),
                    Err(why) => (None, Some(why)),
                },
                Target::Xcodis(xcodis) => match xcodis.ask(&plan, deadline).await {
                    Ok(objection) => (objection, None),
                    Err(why) => (None, Some(why)),
                },
            };
            if let Some(why) = &error {
                let name = &hook.name;
                tracing::warn!(group = %plan.group, "{name} was not heard before the failover and is passed over: {why}");
            }
            note(Asked { index, error });
            veto
        });
    }
    while let Some(answer) = lanes.join_next().await {
        if let Ok(Some(reason)) = answer {
            return Some(printable(&reason));
        }
    }
    None
}

async fn ask_handlers(
    handlers: Vec<(usize, Before)>,
    plan: FailoverPlan,
    deadline: Instant,
    note: impl Fn(Asked),
) -> Option<String> {
    for (index, handler) in handlers {
        let plan_of_one = plan.clone();
        // A panic ends here, also one before the first await.
        let asking = AssertUnwindSafe(async move { handler(plan_of_one).await }).catch_unwind();
        let error = match timeout_at(deadline, asking).await {
            Ok(Ok(Ok(Verdict::Allow))) => None,
            Ok(Ok(Ok(Verdict::Veto(reason)))) => {
                note(Asked { index, error: None });
                return Some(reason);
            }
            Ok(Ok(Err(error))) => Some(format!("failed and is passed over: {error}")),
            Ok(Err(_)) => Some("panicked and is passed over".to_owned()),
            Err(_) => Some("took too long and is passed over, with all after it".to_owned()),
        };
        if let Some(why) = &error {
            tracing::warn!(group = %plan.group, "before-failover handler {index} {why}");
        }
        let late = Instant::now() >= deadline;
        note(Asked { index, error });
        if late {
            return None;
        }
    }
    None
}

/// A no, or why it had no say.
async fn ask_script(
    script: &Script,
    plan: &FailoverPlan,
    event: &str,
    deadline: Instant,
) -> (Option<String>, Option<String>) {
    let Some(path) = script.path(Some(&plan.group)) else { return (None, None) };
    let deadline = deadline.min(Instant::now() + script.limits.timeout);
    match script.run(path, &sentinel::before(plan), event, deadline).await {
        End::Exited { code: 0, .. } => (None, None),
        End::Exited { code, stderr } if stderr.is_empty() => {
            (Some(format!("{} exited with {code} and said nothing", path.display())), None)
        }
        End::Exited { stderr, .. } => (Some(stderr), None),
        End::Killed { why } => (None, Some(why)),
        End::NotStarted(error) => (None, Some(format!("it cannot be started: {error}"))),
    }
}
