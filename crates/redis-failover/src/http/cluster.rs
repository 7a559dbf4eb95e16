//! `/v1/cluster`: who the members are, and how one is taken in or out.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use failover_core::addr::Addr;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::reply::{self, Code, Problem};
use super::{Context, body};
use crate::cluster::{MemberView, NotChanged};

#[derive(Serialize)]
struct Members {
    members: Vec<MemberView>,
}

/// A key that is not known is a mistake, which could otherwise take a node in beside the one it was to replace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMember {
    addr: Addr,
    replaces: Option<Addr>,
}

pub(super) async fn show(State(context): State<Context>) -> Response<Body> {
    reply::read(&context.shown, context.cluster.view())
}

pub(super) async fn members(State(context): State<Context>) -> Response<Body> {
    let members = context.cluster.view().members;
    reply::read(&context.shown, Members { members })
}

/// Takes a node in, and shows the members as they are then.
pub(super) async fn add(
    State(context): State<Context>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let body = body::read(request.into_body(), &context.limits).await?;
    let NewMember { addr, replaces } = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be a JSON object with addr, and replaces where it takes a member's place: {error}"
        ))
    })?;
    if addr.socket().is_some_and(|socket| socket.ip().is_unspecified()) {
        return Err(Problem::bad_request(format!(
            "{addr} is no address of one host: give the address that the node has for the others; nothing was changed"
        )));
    }
    let cluster = context.cluster.clone();
    change(&context, async move { cluster.add(addr, replaces).await }).await?;
    Ok(members(State(context)).await)
}

/// Takes a member out, and shows the members as they are then.
pub(super) async fn remove(
    State(context): State<Context>,
    member: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let Path(member) = member.map_err(|error| Problem::bad_request(error.body_text()))?;
    let member: Addr = member
        .parse()
        .map_err(|error| Problem::bad_request(format!("{error}; nothing was changed")))?;
    let cluster = context.cluster.clone();
    change(&context, async move { cluster.remove(member).await }).await?;
    Ok(members(State(context)).await)
}

/// Waits for a change, which goes on when the client does not wait any more: half of it is worse than all or nothing.
async fn change(
    context: &Context,
    work: impl Future<Output = Result<(), NotChanged>> + Send + 'static,
) -> Result<(), Problem> {
    let unknown = |why: &str| {
        let message = format!("{why}; it may still happen: read /v1/cluster");
        Err(Problem::new(Code::UnknownOutcome, message).with_leader(context))
    };
    match timeout(context.limits.answer_timeout, tokio::spawn(work)).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(NotChanged { code, message }))) => {
            Err(Problem::new(code.into(), message).with_leader(context))
        }
        Ok(Err(_)) => unknown("the change broke off"),
        Err(_) => unknown("no answer came in time"),
    }
}
