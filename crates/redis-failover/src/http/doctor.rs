//! `/v1/groups/{group}/doctor`: what would make a failover of the group fail, lose data or surprise.
//!
//! Any node answers, for what it sees itself.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Response;
use failover_core::addr::Addr;
use failover_core::node::GroupName;
use serde::Serialize;

use super::Context;
use super::groups::{find, named};
use super::reply::{self, Code, Problem};
use crate::doctor::Finding;

#[derive(Serialize)]
struct Findings<'a> {
    group: &'a GroupName,
    master: &'a Addr,
    findings: Vec<Finding>,
}

pub(super) async fn show(
    State(context): State<Context>,
    which: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let group = find(&context, &named(which)?)?;
    let findings = context.doctor.examine(&group, &context.cluster.view()).await;
    let findings = findings.ok_or_else(|| {
        let why = "too many groups are being examined here; ask again in a moment, or another node";
        Problem::new(Code::Busy, why)
    })?;
    let (group, master) = (&group.name, &group.master);
    Ok(reply::read(&context.shown, Findings { group, master, findings }))
}
