//! LedisDB groups, guarded by the real program. The servers are stand-ins, see `common/ledisdb`.

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod edges;
mod guarded;
mod model;
mod proxies;
mod stand_in;
