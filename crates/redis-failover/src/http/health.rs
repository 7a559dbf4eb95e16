//! `/v1/health`: whether this node can do its work, and what people should look at.
//!
//! `ok` and the status speak of the program alone: false and 503 when nobody is known to act, or its loop stands still. A group that is halted or
//! not healthy is listed as a problem and changes neither, because whatever restarts a program that is not `ok` cannot
//! repair a Redis server that way.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use failover_core::group::Diagnosis;
use failover_core::node::NodeId;
use failover_core::view::{GroupView, StatusView};
use serde::Serialize;

use super::{Context, HEALTH_PROBLEMS_MAX, reply};
use crate::room::room;

/// The loop goes round ten times a second; when it has not for this long, it is broken or starved.
const STANDING_STILL_MAX: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Health<'a> {
    ok: bool,
    version: &'static str,
    node: &'a NodeId,
    leader: Option<NodeId>,
    broker: &'static str,
    groups: usize,
    problems: Vec<String>,
}

pub(super) async fn show(State(context): State<Context>) -> Response<Body> {
    let shown = &context.shown;
    let leader = shown.leader();
    let groups = shown.groups();
    let still = shown.standing_still();
    let ok = leader.is_some() && still < STANDING_STILL_MAX;
    let mut problems = Vec::new();
    if leader.is_none() {
        problems.push("no leader is known: nobody acts".to_owned());
    }
    problems.extend(shown.problem());
    if still >= STANDING_STILL_MAX {
        problems.push(format!(
            "this node has decided nothing for {} ms and shows what it knew then; restart it",
            still.as_millis()
        ));
    }
    problems.extend(crowded(&groups));
    problems.extend(groups.iter().filter_map(|group| halt(group)));
    let mut unhealthy = groups.iter().filter(|group| !is_healthy(group));
    while problems.len() < HEALTH_PROBLEMS_MAX
        && let Some(group) = unhealthy.next()
    {
        problems.push(diagnosis(group));
    }
    cut(&mut problems, unhealthy.count());
    let health = Health {
        ok,
        version: env!("CARGO_PKG_VERSION"),
        node: shown.node(),
        leader,
        broker: shown.broker(),
        groups: groups.len(),
        problems,
    };
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &health)
}

/// Instances that cannot all be connected to: they were found, or decided by a node that has room for more.
fn crowded(groups: &[Arc<GroupView>]) -> Option<String> {
    let room = room()?;
    let instances: usize = groups.iter().map(|group| group.instances.len()).sum();
    (instances > room.instances_max).then(|| {
        format!(
            "this node cannot watch all of the {instances} instances, because it can hold {}: {}",
            room.instances_max, room.why
        )
    })
}

fn is_healthy(group: &GroupView) -> bool {
    group.diagnosis.name == Diagnosis::Healthy.name()
}

fn halt(group: &GroupView) -> Option<String> {
    match group.status {
        StatusView::Halted => Some(format!(
            "the group {} is halted until it is resumed: {}",
            group.name,
            group.status_reason.as_deref().unwrap_or("the reason is not known")
        )),
        StatusView::Paused => Some(format!(
            "nothing is done to the group {}: {}",
            group.name,
            group.status_reason.as_deref().unwrap_or("it was paused")
        )),
        StatusView::Active | StatusView::FailingOver | StatusView::SwitchingOver => None,
    }
}

fn diagnosis(group: &GroupView) -> String {
    let mut sentence =
        format!("the group {} is {}: {}", group.name, group.diagnosis.name, group.diagnosis.reason);
    // That nothing is done to a halted or paused group is said by the sentence on that.
    if halt(group).is_none()
        && let Some(why) = &group.diagnosis.not_acting_because
    {
        sentence.push_str("; nothing is done: ");
        sentence.push_str(why);
    }
    sentence
}

/// Keeps the list short enough to be read; `more` problems were not even put into it.
fn cut(problems: &mut Vec<String>, more: usize) {
    let left_out = problems.len().saturating_sub(HEALTH_PROBLEMS_MAX) + more;
    problems.truncate(HEALTH_PROBLEMS_MAX);
    if left_out > 0 {
        problems.push(format!("{left_out} more problems are not listed; see /v1/groups"));
    }
}
