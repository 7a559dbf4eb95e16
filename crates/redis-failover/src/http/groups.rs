//! `/v1/groups`: what is known of each group, and the end of a halt.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use failover_core::event;
use failover_core::node::GroupName;
use failover_core::view::GroupView;
use serde::Serialize;

use super::reply::{self, Problem};
use super::{Context, body};

#[derive(Serialize)]
struct Groups {
    groups: Vec<Arc<GroupView>>,
}

#[derive(Serialize)]
struct Group {
    group: Arc<GroupView>,
}

pub(super) async fn list(State(context): State<Context>) -> Result<Response<Body>, Problem> {
    reply::list(context, |shown| reply::read(shown, Groups { groups: shown.groups() })).await
}

/// The answer to a change of a group: the group as it is then.
pub(super) fn changed(context: &Context, name: &GroupName) -> Result<Response<Body>, Problem> {
    let group = find(context, name.as_str())?;
    Ok(reply::read(&context.shown, Group { group }))
}

pub(super) async fn one(
    State(context): State<Context>,
    which: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let group = find(&context, &named(which)?)?;
    Ok(reply::read(&context.shown, Group { group }))
}

/// Ends the halt of a group, and shows the group as it is then. A body is not needed; what an object in it says is left
/// for later versions.
pub(super) async fn resume(
    State(context): State<Context>,
    which: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let which = named(which)?;
    body::object(request.into_body(), &context.limits).await?;
    let name = find(&context, &which)?.name.clone();
    context.ask(event::Request::Resume(name.clone())).await?;
    changed(&context, &name)
}

pub(super) fn named(which: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    which.map(|Path(which)| which).map_err(|error| Problem::bad_request(error.body_text()))
}

pub(super) fn find(context: &Context, which: &str) -> Result<Arc<GroupView>, Problem> {
    context.shown.group(which).ok_or_else(|| Problem::unknown_group(which))
}
