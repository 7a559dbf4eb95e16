//! `/v1/groups/{group}/switchover` and `…/failover`: a change of master on request, answered when it has ended.
//!
//! What a body says beside the fields that are known is refused: a misspelt `dry_run` must not be a real one.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use failover_core::addr::Addr;
use failover_core::event::{self, SWITCHOVER_TIMEOUT, SWITCHOVER_TIMEOUTS};
use serde::de::DeserializeOwned;

use super::groups::{find, named};
use super::reply::{self, Problem};
use super::{Context, body};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Switchover {
    to: Option<Addr>,
    timeout_ms: Option<u64>,
    dry_run: bool,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Failover {
    to: Option<Addr>,
    force: bool,
    dry_run: bool,
}

pub(super) async fn switchover(
    State(context): State<Context>,
    which: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let which = named(which)?;
    let Switchover { to, timeout_ms, dry_run } = wish(&context, request).await?;
    let timeout = timeout_ms.map_or(SWITCHOVER_TIMEOUT, Duration::from_millis);
    if !SWITCHOVER_TIMEOUTS.contains(&timeout) {
        return Err(Problem::bad_request(format!(
            "timeout_ms must be between {} and {}: writes may wait as long",
            SWITCHOVER_TIMEOUTS.start().as_millis(),
            SWITCHOVER_TIMEOUTS.end().as_millis()
        )));
    }
    let group = find(&context, &which)?.name.clone();
    answer(&context, event::Request::Switchover { group, to, timeout, dry_run }).await
}

pub(super) async fn failover(
    State(context): State<Context>,
    which: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let which = named(which)?;
    let Failover { to, force, dry_run } = wish(&context, request).await?;
    let group = find(&context, &which)?.name.clone();
    answer(&context, event::Request::Failover { group, to, force, dry_run }).await
}

/// What the body wants; nothing in particular when there is none.
async fn wish<T: DeserializeOwned + Default>(
    context: &Context,
    request: Request,
) -> Result<T, Problem> {
    let body = body::read(request.into_body(), &context.limits).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body must be a JSON object: {error}")))
}

async fn answer(context: &Context, request: event::Request) -> Result<Response<Body>, Problem> {
    match context.ask_for(request).await? {
        Some(replaced) => Ok(reply::json(StatusCode::OK, &replaced)),
        None => Err(Problem::new(
            reply::Code::UnknownOutcome,
            "the answer says nothing of its end: read the history",
        )),
    }
}
