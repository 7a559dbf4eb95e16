//! How this program talks with Redis, Valkey and LedisDB servers.
//!
//! What is here decides nothing: it turns bytes into facts and decisions into commands. `probe` is the task of one
//! instance, which owns its connections and opens them through `dial`; `connection` is one of them, `command` what is
//! written on it to change the server. `resp` knows frames, `info` knows what servers say of themselves, `flavor` knows
//! which words each kind of server understands.

mod command;
mod connection;
mod dial;
mod flavor;
mod info;
mod probe;
mod resp;

pub(crate) use connection::Login;
pub(crate) use probe::{Instance, Order, OrderedBy};
