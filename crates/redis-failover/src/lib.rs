//! Library.

pub mod cli;
pub mod config;
