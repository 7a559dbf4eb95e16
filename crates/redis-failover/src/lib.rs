//! Keeps Redis, Valkey and LedisDB replication groups writable: watches every master and replica, promotes the best
//! replica when a master dies, points the others at it, and tells everyone who asks where the master is.
//!
//! This is the library behind the program of the same name; a [`Guard`] runs the same thing inside another one. The
//! decisions are made by the crate `failover-core`, which has no sockets and no clock; here is everything that touches the
//! world.
//!
//! ```no_run
//! use redis_failover::{Guard, config::Config};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let masters = vec!["127.0.0.1:6379".parse()?];
//! let guard = Guard::builder(Config { addr: None, masters, ..Config::default() }).start().await?;
//! let mut told = guard.subscribe();
//! while let Ok(notice) = told.recv().await {
//!     println!("{}: {}", notice.group, notice.sentence);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What a host gets, and what stays its own
//!
//! - A [`Guard`] lives in the tokio runtime in which it is started (with time and I/O enabled), and ends with
//!   [`Guard::stop`]. Several live beside each other.
//! - [`Guard::group`], [`Guard::groups`] and [`Guard::masters`] are snapshots that cost no lock and ask nobody.
//! - [`Guard::subscribe`] is everything that is seen and done, on every node, as typed [`Notice`]s.
//! - [`Builder::before_failover`] may veto; [`Builder::after_failover`] and [`Builder::on`] are told on the leader, at least
//!   once.
//! - Nothing global is touched. It logs through [`tracing`](https://docs.rs/tracing), and where that goes is the host's
//!   affair; signals, the panic hook, a metrics registry and the process-wide TLS provider are never set or used.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `http` | The HTTP API, at [`config::Config::addr`] or mounted with `Guard::router`. |
//! | `https` | Webhooks over TLS, by rustls with `ring` and the certificates that the system trusts. |
//! | `cli` | What the program needs: flags, environment and log. Hosts leave it out. |
//!
//! All are on by default; the library does without any.
//!
//! # Promises
//!
//! Structs of settings have public fields and may get more: build them with `..Default::default()`. What is marked as
//! non-exhaustive may get more variants or fields, too. Times are [`Time`] in microseconds since 1970 by the node's clock,
//! or [`std::time::Duration`]; everything else has its unit in its name.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "cli"),
    allow(
        dead_code,
        unused_imports,
        reason = "what only the program or its HTTP API shows is kept, and used by nobody"
    )
)]

mod broker;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod clock;
mod cluster;
pub mod config;
mod doctor;
mod driver;
mod events;
#[doc(hidden)]
pub mod fault;
mod guard;
mod hooks;
#[cfg(feature = "http")]
mod http;
mod journal;
mod logged;
mod member;
mod peers;
mod redis;
mod requests;
mod resolve;
mod room;
mod shown;
mod talk;

pub use failover_core::addr::Addr;
pub use failover_core::event::{RefusalCode, Replacement};
pub use failover_core::node::{GroupName, NodeId};
pub use failover_core::notice::{Notice, Weight, What};
pub use failover_core::record::HookEvent;
pub use failover_core::time::Time;
pub use guard::{Builder, Guard, Refused, StartError};
pub use hooks::{FailoverPlan, HandlerError, HookCall, HookView, MasterChange, Verdict};

/// The rules by which a group is guarded.
pub mod policy {
    pub use failover_core::policy::{
        AcrossLocations, Fencing, InstancePolicy, OnFailedFailover, Policy,
    };
    pub use failover_core::record::{GivenRule, Rule};
}

/// What is shown of a group: its instances, what is concluded of it, and its history.
pub mod view {
    pub use failover_core::instance::Flavor;
    pub use failover_core::record::{HistoryEntry, Kind, Outcome, RankedCandidate, Step};
    pub use failover_core::view::{
        DiagnosisView, FencingView, GroupView, How, InstanceView, NodeView, State, StatusView,
    };
}

/// Compiles what the README shows.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
