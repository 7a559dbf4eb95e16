//! The decisions of redis-failover.

pub mod addr;
pub mod instance;
pub mod policy;
pub mod time;
