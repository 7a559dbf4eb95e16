//! Asking a server at length, on a connection of its own: nothing that is said here keeps the probes of the instance waiting.
//!
//! Only questions are written. The caller bounds the time.

use std::net::SocketAddr;

use bytes::Bytes;
use failover_core::addr::Addr;
use failover_core::event::{Health, Probed};
use failover_core::instance::Facts;

use super::connection::{Broken, Connection, Login, Taken};
use super::dial::{ConnectError, connect};
use super::info::ServerInfo;
use super::resp::Frame;
use crate::clock::Clock;
use crate::resolve::Resolver;

/// Why an instance told nothing, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mute {
    /// Its host says that no process listens.
    Refused,
    /// Its host does not answer, or its name leads nowhere: a sentence.
    Unreachable(String),
    /// It says that it lets nobody in like this: its own words.
    TurnedAway(String),
    /// It ended the connection, or does not speak its protocol, or is silent: a sentence.
    Broken(String),
    /// This node could not even ask: a sentence.
    Ours(String),
}

/// A server that greeted us.
#[derive(Debug)]
pub(crate) struct Interview {
    connection: Box<Connection>,
    clock: Clock,
    pub(crate) health: Health,
    pub(crate) facts: Option<Facts>,
}

impl Interview {
    /// Connects, logs in, and hears who the server is.
    pub(crate) async fn begin(
        addr: &Addr,
        login: &Login,
        resolver: &Resolver,
        clock: Clock,
    ) -> Result<Self, Mute> {
        let mut connection = connect(addr.clone(), resolver.clone()).await?;
        connection.greet(login, 0, clock.now()).await?;
        loop {
            let frame = connection.receive().await?;
            if let Taken::Probe(_, Probed::Replied { health, facts, .. }) =
                connection.take(frame, clock.now())?
            {
                let facts = facts.map(|facts| *facts);
                return Ok(Self { connection, clock, health, facts });
            }
        }
    }

    /// Whom the connection leads to.
    pub(crate) fn socket(&self) -> SocketAddr {
        self.connection.socket()
    }

    /// Who the server is, when it says so.
    pub(crate) fn server(&self) -> Option<&ServerInfo> {
        self.connection.server()
    }

    /// Writes all questions at once, and gives an answer for each, in order.
    pub(crate) async fn ask(&mut self, questions: &[Vec<String>]) -> Result<Vec<Frame>, Mute> {
        let commands: Vec<Vec<Bytes>> = questions
            .iter()
            .map(|words| words.iter().map(|word| Bytes::from(word.clone())).collect())
            .collect();
        self.connection.command(&commands).await?;
        let mut answers = Vec::with_capacity(commands.len());
        while answers.len() < commands.len() {
            let frame = self.connection.receive().await?;
            if let Taken::Command(answer) = self.connection.take(frame, self.clock.now())? {
                answers.push(answer);
            }
        }
        Ok(answers)
    }
}

impl From<ConnectError> for Mute {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::Refused,
            ConnectError::Ours(why) => Self::Ours(why),
            ConnectError::Unreachable(why) | ConnectError::Unresolved(why) => {
                Self::Unreachable(why)
            }
        }
    }
}

impl From<Broken> for Mute {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Ended => Self::Broken("the connection ended".to_owned()),
            Broken::Garbage(what) => Self::Broken(what),
            Broken::TurnedAway(health) => match health {
                Health::Auth(words) | Health::Busy(words) | Health::Misconfigured(words) => {
                    Self::TurnedAway(words)
                }
                Health::Fine | Health::Loading => Self::TurnedAway("it lets nobody in".to_owned()),
            },
        }
    }
}
