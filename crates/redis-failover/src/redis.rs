//! How this program talks with Redis, Valkey and LedisDB servers.
//!
//! What is here decides nothing: it turns bytes into facts and decisions into commands. `probe` is the task of one
//! instance, which owns its connections and opens them through `dial`; `connection` is one of them, `command` what is
//! written on it to change the server, and `interview` a connection on which a server is asked at length. `resp` knows
//! frames, `info` knows what servers say of themselves, `flavor` knows which words each kind of server understands.

mod command;
mod connection;
mod dial;
mod flavor;
mod info;
mod interview;
mod probe;
mod resp;
#[cfg(test)]
mod tests;

pub(crate) use connection::Login;
pub(crate) use flavor::{Version, Words, is_from};
#[cfg(test)]
pub(crate) use info::replication;
pub(crate) use info::{ServerInfo, fields};
pub(crate) use interview::{Interview, Mute};
pub(crate) use probe::{Instance, Order, OrderedBy};
pub(crate) use resp::Frame;
