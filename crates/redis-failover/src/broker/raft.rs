//! Raft, built in.

mod lease;
mod machine;
mod store;
mod types;
