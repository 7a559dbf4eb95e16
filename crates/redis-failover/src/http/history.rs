//! `/v1/history`: what was done, newest first, with every step and the whole ranking.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use failover_core::addr::Addr;
use failover_core::node::{GroupName, NodeId};
use failover_core::record::{HistoryEntry, Kind, Outcome, RankedCandidate, Step};
use failover_core::time::{Time, rfc3339};
use failover_core::view::GroupView;
use serde::Serialize;

use super::reply::{self, Problem};
use super::{Context, HISTORY_LIMIT, HISTORY_LIMIT_MAX, body};

/// One entry as programs read it. The record's own form has moments as numbers and does not name the group.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    group: &'a GroupName,
    kind: Kind,
    epoch: u64,
    old_master: &'a Addr,
    new_master: &'a Option<Addr>,
    cause: &'a str,
    reason: &'a str,
    outcome: Outcome,
    #[serde(serialize_with = "rfc3339::serialize")]
    started_at: Time,
    #[serde(serialize_with = "rfc3339::option::serialize")]
    finished_at: Option<Time>,
    leader: &'a NodeId,
    write_gap_ms: Option<f64>,
    bytes_possibly_lost: Option<u64>,
    steps: &'a [Step],
    ranking: &'a [RankedCandidate],
}

#[derive(Serialize)]
struct History<'a> {
    history: Vec<Entry<'a>>,
}

/// Of one group, or of all when none is named (an empty `group=` names none).
pub(super) async fn list(
    State(context): State<Context>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let group = body::value(uri.query(), "group")?.filter(|group| !group.is_empty());
    let limit = limit(body::value(uri.query(), "limit")?)?;
    let Some(which) = group else {
        return reply::list(context, move |shown| {
            reply::read(shown, newest(&shown.groups(), limit))
        })
        .await;
    };
    let group = context.shown.group(&which).ok_or_else(|| Problem::unknown_group(&which))?;
    Ok(reply::read(&context.shown, newest(std::slice::from_ref(&group), limit)))
}

fn limit(given: Option<String>) -> Result<usize, Problem> {
    let Some(given) = given else { return Ok(HISTORY_LIMIT) };
    given.parse().ok().filter(|limit| (1..=HISTORY_LIMIT_MAX).contains(limit)).ok_or_else(|| {
        Problem::bad_request(format!(
            "limit is {given:?}, but must be a number between 1 and {HISTORY_LIMIT_MAX}"
        ))
    })
}

fn newest(groups: &[Arc<GroupView>], limit: usize) -> History<'_> {
    let mut entries: Vec<(&GroupName, &HistoryEntry)> = groups
        .iter()
        .flat_map(|group| group.history.iter().map(|entry| (&group.name, entry)))
        .collect();
    // The sort is stable: entries of one group that began in the same moment stay as the group has them.
    entries.sort_by_key(|(_, entry)| Reverse(entry.started_at));
    entries.truncate(limit);
    History { history: entries.into_iter().map(shape).collect() }
}

fn shape<'a>((group, entry): (&'a GroupName, &'a HistoryEntry)) -> Entry<'a> {
    Entry {
        id: &entry.id,
        group,
        kind: entry.kind,
        epoch: entry.epoch,
        old_master: &entry.old_master,
        new_master: &entry.new_master,
        cause: &entry.cause,
        reason: &entry.reason,
        outcome: entry.outcome,
        started_at: entry.started_at,
        finished_at: entry.finished_at,
        leader: &entry.leader,
        write_gap_ms: entry.write_gap_ms,
        bytes_possibly_lost: entry.bytes_possibly_lost,
        steps: &entry.steps,
        ranking: &entry.ranking,
    }
}
