//! Library.

pub mod cli;
mod clock;
pub mod config;
mod http;
mod requests;
mod shown;

pub use shown::Shown;
