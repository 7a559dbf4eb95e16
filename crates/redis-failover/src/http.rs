//! What the program answers over HTTP: the list of masters that plain programs use, and the JSON API.
//!
//! Reads are served from [`Shown`] and never ask the loop; the doctor's asks the servers as well. Writes go to the loop through [`Requests`] and are answered
//! after their commit. The loop publishes what changed before it answers, so whoever was answered reads its own change.
//!
//! `masters` is `/master`; `groups`, `replace`, `history`, `doctor`, `cluster` and `health` serve `/v1`, `operate` what
//! operators ask of a group; `body` reads what clients send; `reply` writes what they get, errors too; `server` holds the
//! connections. Every limit is in [`Limits`] or beside it.
//!
//! Not here: TLS, logins, and any decision. A listener that is reachable from outside is to be guarded from outside.

mod body;
mod cluster;
mod doctor;
mod groups;
mod health;
mod history;
mod masters;
mod operate;
mod replace;
mod reply;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::routing::{delete, get, post, put};
use failover_core::event;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::doctor::Doctor;
use crate::hooks;
use crate::requests::{Requests, patience};
use crate::shown::Shown;
use reply::{Code, Problem};
pub(crate) use server::serve;

/// Longest request body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Of a body that is too long, this much more is read and thrown away: a connection that is closed with unread bytes is
/// reset, and the client might never read why.
const BODY_BYTES_THROWN_AWAY_MAX: usize = 1024 * 1024;
/// Longest request line with all headers. A list of masters may stand in the query.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most entries of one answer of history.
const HISTORY_LIMIT_MAX: usize = 1000;
/// Entries of one answer of history when nothing else is asked for.
const HISTORY_LIMIT: usize = 100;
/// Most sentences of one answer of health; what is left out is counted.
const HEALTH_PROBLEMS_MAX: usize = 100;
/// How many answers that go over all groups are made at the same time. One, because they are the only long work here,
/// and must not take the processor away from the loop.
const LISTS_AT_ONCE_MAX: usize = 1;

/// How long and how many connections may be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at the same time; more wait in the system's queue.
    pub(crate) connections_max: usize,
    /// How long the head of a request may take, from the opening of the connection or the end of the request before.
    pub(crate) head_timeout: Duration,
    /// How long the body of a request may take.
    pub(crate) body_timeout: Duration,
    /// How long a client may leave what it is sent unread.
    pub(crate) write_timeout: Duration,
    /// How long a change is waited for; after that its outcome is unknown.
    pub(crate) answer_timeout: Duration,
    /// How long requests that are on their way may take when the program stops.
    pub(crate) stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(2),
        }
    }
}

/// What the routes need.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    shown: Arc<Shown>,
    requests: Requests,
    cluster: Cluster,
    doctor: Doctor,
    limits: Limits,
    lists: Arc<Semaphore>,
    hooks: hooks::Shown,
}

impl Context {
    /// Reads from `shown`, writes through `requests`; members are shown and changed by `cluster`, and `doctor` examines.
    pub(crate) fn new(
        shown: Arc<Shown>,
        requests: Requests,
        cluster: Cluster,
        doctor: Doctor,
    ) -> Self {
        Self {
            shown,
            requests,
            cluster,
            doctor,
            limits: Limits::default(),
            lists: Arc::new(Semaphore::new(LISTS_AT_ONCE_MAX)),
            hooks: hooks::Shown::default(),
        }
    }

    /// The same with hooks to show.
    pub(crate) fn with_hooks(self, hooks: hooks::Shown) -> Self {
        Self { hooks, ..self }
    }

    /// Asks the loop and waits for the commit.
    async fn ask(&self, request: event::Request) -> Result<(), Problem> {
        self.ask_for(request).await.map(|_| ())
    }

    /// The same, with what is told at the end of a change of master.
    async fn ask_for(
        &self,
        request: event::Request,
    ) -> Result<Option<Box<event::Replacement>>, Problem> {
        let limit = self.limits.answer_timeout + patience(&request);
        match self.requests.ask_within(request, limit).await {
            Some(event::Answer::Done) => Ok(None),
            Some(event::Answer::Replaced(replaced)) => Ok(Some(replaced)),
            Some(event::Answer::Refused { code, message }) => {
                Err(Problem::new(code.into(), message).with_leader(self))
            }
            None => Err(Problem::new(
                Code::UnknownOutcome,
                "no answer came in time; it may still happen: read the history",
            )
            .with_leader(self)),
        }
    }
}

/// All addresses that are served.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route(
            "/master",
            get(masters::list).post(masters::add).put(masters::replace).delete(masters::remove),
        )
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{group}", get(groups::one))
        .route("/v1/groups/{group}/doctor", get(doctor::show))
        .route("/v1/groups/{group}/pause", post(operate::pause))
        .route("/v1/groups/{group}/resume", post(groups::resume))
        .route("/v1/groups/{group}/replicas/{addr}", delete(operate::forget))
        .route("/v1/groups/{group}/rules/{addr}", put(operate::set_rule).delete(operate::end_rule))
        .route("/v1/pause", post(operate::pause_all))
        .route("/v1/resume", post(operate::resume_all))
        .route("/v1/groups/{group}/switchover", post(replace::switchover))
        .route("/v1/groups/{group}/failover", post(replace::failover))
        .route("/v1/history", get(history::list))
        .route("/v1/cluster", get(cluster::show))
        .route("/v1/cluster/members", get(cluster::members).post(cluster::add))
        .route("/v1/cluster/members/{member}", delete(cluster::remove))
        .route("/v1/hooks", get(list_hooks))
        .route("/v1/health", get(health::show))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(context)
}

/// `/v1/hooks`: the hooks of this node, and how they fare here.
async fn list_hooks(State(context): State<Context>) -> Response<Body> {
    #[derive(Serialize)]
    struct Hooks {
        hooks: Vec<hooks::HookView>,
    }
    reply::read(&context.shown, Hooks { hooks: context.hooks.views() })
}

async fn unknown_path(request: Request) -> Problem {
    Problem::new(Code::NotFound, format!("nothing is served at {}", request.uri().path()))
}

/// The header `Allow` is set by the router.
async fn wrong_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(
        Code::MethodNotAllowed,
        format!("{method} is not possible at {path}; the header Allow says what is"),
    )
}
