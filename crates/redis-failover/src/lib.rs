//! Library.

pub mod cli;
mod clock;
pub mod config;
mod requests;
mod shown;

pub use shown::Shown;
