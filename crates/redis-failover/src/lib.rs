//! Library.

pub mod redis;
