//! `/master`: the list that plain programs read and write, as comma-separated text.
//!
//! `masters=` stands in the query or in a form body, once or several times, which makes one list; empty items are
//! ignored, as in the configuration. In both at once it is refused: whether the two lists are one, or one of them is a
//! mistake, cannot be known, and a replacement with the wrong list ends the guarding of groups. A change that holds is
//! answered 200 with an empty body.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use failover_core::addr::Addr;
use failover_core::event::{self, GroupSpec};
use failover_core::node::GroupName;

use super::reply::{Code, Problem};
use super::{Context, body};

const FIELD: &str = "masters";

/// The recorded masters of all groups, by the names of the groups; also of those that are down or halted.
pub(super) async fn list(State(context): State<Context>) -> String {
    let masters: Vec<String> =
        context.shown.groups().iter().map(|group| group.master.to_string()).collect();
    masters.join(",")
}

pub(super) async fn add(
    State(context): State<Context>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let specs = specs(&items(&context, request).await?)?;
    fit(&context, &specs).await?;
    context.ask(event::Request::Add(specs)).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn replace(
    State(context): State<Context>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let specs = specs(&items(&context, request).await?)?;
    fit(&context, &specs).await?;
    context.ask(event::Request::Replace(specs)).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn remove(
    State(context): State<Context>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let which = items(&context, request).await?;
    if let Some(item) = which.iter().find(|item| !names_a_group(item)) {
        return Err(Problem::bad_request(format!(
            "{item:?} is neither an address (host:port) nor the name of a group; nothing was changed"
        )));
    }
    context.ask(event::Request::Remove(which)).await?;
    Ok(StatusCode::OK)
}

/// Refuses a new master that could never be followed: at three in the morning nobody would want to learn it.
async fn fit(context: &Context, specs: &[GroupSpec]) -> Result<(), Problem> {
    let groups = context.shown.groups();
    let is_known =
        |addr: &Addr| groups.iter().any(|group| group.instances.iter().any(|i| i.addr == *addr));
    let masters = specs.iter().map(|spec| &spec.master).filter(|addr| !is_known(addr));
    match context.doctor.unfit(masters).await {
        Some(why) => Err(Problem::new(Code::Refused, format!("{why}; nothing was changed"))),
        None => Ok(()),
    }
}

fn names_a_group(item: &str) -> bool {
    GroupName::new(item).is_ok() || item.parse::<Addr>().is_ok()
}

/// What the client lists, at least one item.
async fn items(context: &Context, request: Request) -> Result<Vec<String>, Problem> {
    let (head, body) = request.into_parts();
    let body = body::read(body, &context.limits).await?;
    let in_query = body::values(head.uri.query().unwrap_or_default().as_bytes(), FIELD);
    let in_form = body::form_values(&head.headers, &body, FIELD)?;
    if !in_query.is_empty() && !in_form.is_empty() {
        return Err(Problem::bad_request(format!(
            "{FIELD} is given both in the query and in the body; nothing was changed"
        )));
    }
    let items: Vec<String> = in_query
        .iter()
        .chain(&in_form)
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect();
    if items.is_empty() {
        return Err(Problem::bad_request(format!(
            "{FIELD} is missing or empty: give addresses separated by commas, in the query or in a form; nothing was changed"
        )));
    }
    Ok(items)
}

fn specs(items: &[String]) -> Result<Vec<GroupSpec>, Problem> {
    items
        .iter()
        .map(|item| {
            let master = item
                .parse()
                .map_err(|error| Problem::bad_request(format!("{error}; nothing was changed")))?;
            Ok(GroupSpec { name: None, master, replicas: Vec::new() })
        })
        .collect()
}
