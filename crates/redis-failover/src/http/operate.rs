//! What operators ask of groups: to be left alone for a while, and to be acted on again.
//!
//! The loop refuses what contradicts what is so; here only what was sent is read. Fields that are not known are left for
//! later versions.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use failover_core::event;
use failover_core::node::GroupName;

use super::groups::{changed, find, list, named};
use super::reply::Problem;
use super::{Context, body};

/// Longest reason of a pause, in bytes: it is shown in one line, and stored by every node.
const REASON_BYTES_MAX: usize = 1024;

pub(super) async fn pause(
    State(context): State<Context>,
    which: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let name = find(&context, &named(which)?)?.name.clone();
    let asked = asked(&context, Some(name.clone()), request).await?;
    context.ask(asked).await?;
    changed(&context, &name)
}

pub(super) async fn pause_all(
    State(context): State<Context>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let asked = asked(&context, None, request).await?;
    context.ask(asked).await?;
    list(State(context)).await
}

pub(super) async fn resume_all(
    State(context): State<Context>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    body::object(request.into_body(), &context.limits).await?;
    context.ask(event::Request::ResumeAll).await?;
    list(State(context)).await
}

async fn asked(
    context: &Context,
    group: Option<GroupName>,
    request: Request,
) -> Result<event::Request, Problem> {
    let object = body::object(request.into_body(), &context.limits).await?;
    let reason = body::text(&object, "reason")?;
    let until = body::moment(&object, "until_at", context.shown.now())?;
    if reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(Problem::bad_request(format!(
            "reason is longer than {REASON_BYTES_MAX} bytes; nothing was changed"
        )));
    }
    Ok(event::Request::Pause { group, reason, until })
}
