//! The decisions of redis-failover, and nothing else.
//!
//! This crate has no sockets, no async, no clock and no randomness. It is a state machine, [`fleet::Fleet`], that is told
//! what happened and what time it is, and answers with what is to be done. The daemon drives it under tokio, the
//! simulator under a heap of virtual events; both keep the same contract:
//!
//! 1. hand in an event (`handle`) or the passing of time (`handle_timeout`);
//! 2. take every action (`poll`) until there is none: each is carried out outside and ends as an event again;
//! 3. publish the groups that changed (`take_changed`, `view`);
//! 4. sleep until `poll_timeout` or the next event, and begin again. Spurious calls are no-ops.
//!
//! ```
//! use failover_core::action::Action;
//! use failover_core::event::{Event, GroupSpec, Request};
//! use failover_core::fleet::{Fleet, Policies};
//! use failover_core::node::{Leadership, NodeId, Token};
//! use failover_core::time::Time;
//!
//! let me = NodeId::new("a");
//! let mut fleet = Fleet::new(me.clone(), Policies::default());
//! let mut now = Time::from_millis(1_000);
//! let master = "127.0.0.1:6379".parse().expect("an address");
//! let spec = GroupSpec { name: None, master, replicas: Vec::new() };
//! let mut events = vec![
//!     Event::Request { id: 1, request: Request::Add(vec![spec]) },
//!     Event::Leadership(Leadership::Leader(Token(1))),
//!     Event::Voters(vec![me]),
//! ];
//! let mut asked = false;
//! while let Some(event) = events.pop() {
//!     fleet.handle(now, event);
//!     while let Some(action) = fleet.poll() {
//!         match action {
//!             // A single node has nobody to agree with: what it proposes is committed.
//!             Action::Propose { id, changes, .. } => {
//!                 events.push(Event::Committed { id: Some(id), changes });
//!             }
//!             Action::Probe { addr, .. } => asked |= addr.port() == 6379,
//!             _ => {}
//!         }
//!     }
//! }
//! assert!(asked, "a new group is looked at at once");
//! now = fleet.poll_timeout().expect("there is always a next probe");
//! fleet.handle_timeout(now);
//! ```
//!
//! Reading order: [`event`], [`action`], [`fleet`], then `group.rs` with its one decision table `step`, and its phases in
//! `group/`. [`watch`] turns probes into *up* and *down* for one instance; [`record`] is what nodes agree on; [`policy`]
//! has every number.

pub mod action;
pub mod addr;
pub mod event;
pub mod flavor;
pub mod fleet;
pub mod group;
pub mod instance;
pub mod journal;
pub mod mutation;
pub mod node;
pub mod notice;
pub mod policy;
pub mod record;
#[cfg(test)]
mod sample;
mod text;
pub mod time;
pub mod view;
pub mod watch;
