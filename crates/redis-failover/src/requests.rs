//! The way in for requests of people and programs: HTTP, the command line, embedding hosts.

use std::time::Duration;

use failover_core::event::{Answer, RefusalCode, Request};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Most requests that wait for the loop; one more is answered "busy".
pub(crate) const REQUESTS_WAITING_MAX: usize = 256;

/// How long the end of a change of master is waited for: a replica that needs a full copy may take longer, and the
/// history has the end then.
const REPLACEMENT_PATIENCE: Duration = Duration::from_secs(10);

/// How often a request looks for a leader again when there is none, and the pause between: 1.5 s in all. An election with
/// the default times takes 450 to 600 ms, and a second one may be needed.
const LEADER_RETRIES_MAX: u32 = 30;
const LEADER_RETRY: Duration = Duration::from_millis(50);

/// How much longer than a commit a request may take until it is answered: what is answered at its end takes its time.
pub(crate) fn patience(request: &Request) -> Duration {
    match request {
        Request::Add(_)
        | Request::Replace(_)
        | Request::Remove(_)
        | Request::Pause { .. }
        | Request::Resume(_)
        | Request::ResumeAll
        | Request::Forget { .. }
        | Request::Rule { .. } => Duration::ZERO,
        Request::Switchover { timeout, .. } => *timeout + REPLACEMENT_PATIENCE,
        Request::Failover { .. } => REPLACEMENT_PATIENCE,
    }
}

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
        self.answer_of_leader(request).await.unwrap_or_else(stopping)
    }

    /// Asks on behalf of another node, which takes this one for the leader.
    pub(crate) async fn ask_as_leader(&self, request: Request) -> Answer {
        self.answer(request, true).await.unwrap_or_else(stopping)
    }

    /// Asks, and waits at most so long. `None`: it may have been done, or may still be.
    pub(crate) async fn ask_within(&self, request: Request, limit: Duration) -> Option<Answer> {
        timeout(limit, self.answer_of_leader(request)).await.ok().flatten()
    }

    /// While no leader is known nothing is done, so that it can be asked again: an election is no reason to send people
    /// away.
    async fn answer_of_leader(&self, request: Request) -> Option<Answer> {
        let mut retries = 0;
        loop {
            let answer = self.answer(request.clone(), false).await;
            let led = !matches!(answer, Some(Answer::Refused { code: RefusalCode::NoLeader, .. }));
            if led || retries == LEADER_RETRIES_MAX {
                return answer;
            }
            retries += 1;
            sleep(LEADER_RETRY).await;
        }
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
