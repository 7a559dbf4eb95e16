//! The way in for requests of people and programs: HTTP, the command line, embedding hosts.

use std::time::Duration;

use failover_core::event::{Answer, RefusalCode, Request};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Most requests that wait for the loop; one more is answered "busy".
pub(crate) const REQUESTS_WAITING_MAX: usize = 256;

/// A request and the place for its answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// Another node forwarded it here, because it takes this one for the leader; it is not forwarded again.
    pub(crate) forwarded: bool,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Hands requests to the loop.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    sender: mpsc::Sender<Waiting>,
}

impl Requests {
    /// The way in, and its end at the loop.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(REQUESTS_WAITING_MAX);
        (Self { sender }, receiver)
    }

    /// Asks, and waits until it is committed or refused.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        self.answer(request, false).await.unwrap_or_else(stopping)
    }

    /// Asks on behalf of another node, which takes this one for the leader.
    pub(crate) async fn ask_as_leader(&self, request: Request) -> Answer {
        self.answer(request, true).await.unwrap_or_else(stopping)
    }

    /// Asks, and waits at most so long. `None`: it may have been done, or may still be.
    pub(crate) async fn ask_within(&self, request: Request, limit: Duration) -> Option<Answer> {
        timeout(limit, self.answer(request, false)).await.ok().flatten()
    }

    /// `None`: the loop took the request and ended without an answer.
    async fn answer(&self, request: Request, forwarded: bool) -> Option<Answer> {
        let (answer, receiver) = oneshot::channel();
        if self.sender.try_send(Waiting { request, forwarded, answer }).is_err() {
            return Some(Answer::Refused {
                code: RefusalCode::Busy,
                message: "too many requests wait, or the program is stopping; nothing was done"
                    .to_owned(),
            });
        }
        receiver.await.ok()
    }
}

fn stopping() -> Answer {
    Answer::unknown(
        "the program is stopping; whether it was done is to be seen in the groups and the history"
            .to_owned(),
    )
}
