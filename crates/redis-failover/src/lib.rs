//! Keeps Redis, Valkey and LedisDB replication groups writable: watches every master and replica, promotes the best
//! replica when a master dies, points the others at it, and tells everyone who asks where the master is.
//!
//! This is the library behind the daemon; [`Guard`] runs the same thing inside another program. The decisions are made
//! by the crate `failover-core`, which has no sockets and no clock; here is everything that touches the world.
//!
//! ```no_run
//! use redis_failover::{Guard, config::Config};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config { masters: vec!["127.0.0.1:6379".parse()?], ..Config::default() };
//! let guard = Guard::builder(config).start().await?;
//! let mut told = guard.subscribe();
//! while let Ok(notice) = told.recv().await {
//!     println!("{}: {}", notice.group, notice.sentence);
//! }
//! # Ok(())
//! # }
//! ```

mod broker;
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
mod http;
mod member;
mod peers;
mod redis;
mod requests;
mod resolve;
mod shown;
mod talk;

pub use failover_core as core;
pub use failover_core::record::HookEvent;
pub use guard::{Builder, Guard, Refused, StartError};
pub use hooks::{FailoverPlan, HandlerError, HookCall, HookView, MasterChange, Verdict};

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
