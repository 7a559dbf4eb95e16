//! What operators ask of groups: to be left alone for a while, to be acted on again, to forget, and
//! whom to promote.
//!
//! The loop refuses what contradicts what is so; here only what was sent is read. Fields that are not known are left for
//! later versions.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use failover_core::addr::Addr;
use failover_core::event;
use failover_core::node::GroupName;
use failover_core::record::{GivenRule, Rule};

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

/// Forgets a replica that is gone for good.
pub(super) async fn forget(
    State(context): State<Context>,
    which: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let (name, addr) = instance(&context, which)?;
    context.ask(event::Request::Forget { group: name.clone(), addr }).await?;
    changed(&context, &name)
}

/// Sets a rule on the promotion of an instance.
pub(super) async fn set_rule(
    State(context): State<Context>,
    which: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (name, addr) = instance(&context, which)?;
    let object = body::object(request.into_body(), &context.limits).await?;
    let rule = body::text(&object, "rule")?.unwrap_or_default();
    let rule = Rule::by_name(&rule).ok_or_else(|| {
        Problem::bad_request(format!(
            "rule is {rule:?}, and must be never, prefer or prefer_not; nothing was changed"
        ))
    })?;
    let expires_at = body::moment(&object, "expires_at", context.shown.now())?;
    let rule = Some(GivenRule { rule, expires_at });
    context.ask(event::Request::Rule { group: name.clone(), addr, rule }).await?;
    changed(&context, &name)
}

/// Takes such a rule away; that there was none is what was wished.
pub(super) async fn end_rule(
    State(context): State<Context>,
    which: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let (name, addr) = instance(&context, which)?;
    context.ask(event::Request::Rule { group: name.clone(), addr, rule: None }).await?;
    changed(&context, &name)
}

/// The group and the address that a path names.
fn instance(
    context: &Context,
    which: Result<Path<(String, String)>, PathRejection>,
) -> Result<(GroupName, Addr), Problem> {
    let Path((group, addr)) = which.map_err(|error| Problem::bad_request(error.body_text()))?;
    let name = find(context, &group)?.name.clone();
    let addr = addr
        .parse()
        .map_err(|error| Problem::bad_request(format!("{error}; nothing was changed")))?;
    Ok((name, addr))
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
