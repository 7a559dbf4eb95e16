//! The way in for requests of people and programs: HTTP, the command line, embedding hosts.

use failover_core::event::{Answer, RefusalCode, Request};
use tokio::sync::{mpsc, oneshot};

/// Most requests that wait for the loop; one more is answered "busy".
pub(crate) const REQUESTS_WAITING_MAX: usize = 256;

/// A request and the place for its answer.
pub(crate) type Waiting = (Request, oneshot::Sender<Answer>);

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
        let (sender, receiver) = oneshot::channel();
        if self.sender.try_send((request, sender)).is_err() {
            return Answer::Refused {
                code: RefusalCode::Busy,
                message: "too many requests wait, or the program is stopping; nothing was done"
                    .to_owned(),
            };
        }
        receiver.await.unwrap_or_else(|_| Answer::Refused {
            code: RefusalCode::Busy,
            message: "the program is stopping; whether it was done is in the history".to_owned(),
        })
    }
}
