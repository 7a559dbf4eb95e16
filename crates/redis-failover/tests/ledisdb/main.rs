//! LedisDB groups, guarded by the real program. The servers are stand-ins, see `common/ledisdb`.

#[path = "../common/mod.rs"]
mod common;
mod guarded;
mod stand_in;
