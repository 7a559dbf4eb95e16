//! Answers in the shapes of the interface: JSON, the envelope of reads, and errors.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use failover_core::addr::Addr;
use failover_core::event::RefusalCode;
use failover_core::node::NodeId;
use failover_core::time::{Time, rfc3339};
use serde::Serialize;

use super::Context;
use crate::shown::Shown;

/// What is wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// What was sent is not what is expected here.
    BadRequest,
    /// The body is too long.
    TooLarge,
    /// No such address.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// No such group.
    UnknownGroup,
    /// No such instance in the group.
    UnknownInstance,
    /// The group is halted.
    Halted,
    /// It contradicts what is so.
    Refused,
    /// Something else is being done.
    Busy,
    /// Nobody acts; nothing was done.
    NoLeader,
    /// It was not committed; nothing was done.
    NoQuorum,
    /// It may still happen.
    UnknownOutcome,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownGroup => "unknown_group",
            Self::UnknownInstance => "unknown_instance",
            Self::Halted => "halted",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::NoLeader => "no_leader",
            Self::NoQuorum => "no_quorum",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotFound | Self::UnknownGroup | Self::UnknownInstance => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused | Self::Busy | Self::Halted => StatusCode::CONFLICT,
            Self::NoLeader | Self::NoQuorum => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl From<RefusalCode> for Code {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::UnknownGroup => Self::UnknownGroup,
            RefusalCode::UnknownInstance => Self::UnknownInstance,
            RefusalCode::Halted => Self::Halted,
            RefusalCode::Refused => Self::Refused,
            RefusalCode::Busy => Self::Busy,
            RefusalCode::NoLeader => Self::NoLeader,
            RefusalCode::NoQuorum => Self::NoQuorum,
            RefusalCode::UnknownOutcome => Self::UnknownOutcome,
        }
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    code: Code,
    message: String,
    leader: Option<Addr>,
}

impl Problem {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), leader: None }
    }

    /// Says whom to ask instead, where that is known: it is the leader that carries changes out.
    pub(super) fn with_leader(self, context: &Context) -> Self {
        Self { leader: context.cluster.leader_http(), ..self }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    pub(super) fn unknown_group(which: &str) -> Self {
        Self::new(
            Code::UnknownGroup,
            format!("no group is named {which:?}, and none has it as its master's address"),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct Outer {
            error: Inner,
        }
        #[derive(Serialize)]
        struct Inner {
            code: &'static str,
            message: String,
            /// The HTTP address of the node that acts.
            leader: Option<Addr>,
        }
        let error = Inner { code: self.code.name(), message: self.message, leader: self.leader };
        json(self.code.status(), &Outer { error })
    }
}

/// What every read carries besides its content.
#[derive(Serialize)]
struct Read<'a, T> {
    node: &'a NodeId,
    leader: Option<NodeId>,
    #[serde(serialize_with = "rfc3339::serialize")]
    as_of: Time,
    /// How long ago the leader was last heard of, or a majority by the leader: what was agreed since is not shown.
    stale_ms: Option<u64>,
    #[serde(flatten)]
    content: T,
}

/// A read with its envelope, of content that was fetched just now.
pub(super) fn read(shown: &Shown, content: impl Serialize) -> Response<Body> {
    let (as_of, leader) = (shown.now(), shown.leader());
    let stale_ms = shown.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json(StatusCode::OK, &Read { node: shown.node(), leader, as_of, stale_ms, content })
}

/// Makes an answer that goes over all groups, away from the threads that serve the loop and other clients.
pub(super) async fn list(
    context: Context,
    make: impl FnOnce(&Shown) -> Response<Body> + Send + 'static,
) -> Result<Response<Body>, Problem> {
    let turn = context.lists.acquire_owned().await.expect("the semaphore is never closed");
    // The turn goes along, because the work outlasts a client that has gone away.
    let work = move || {
        let response = make(&context.shown);
        drop(turn);
        response
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::new(Code::Busy, "the program is stopping"))
}

pub(super) fn json(status: StatusCode, content: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(content).expect("views have no keys that are not texts");
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], bytes).into_response()
}
