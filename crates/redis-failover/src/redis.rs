//! How this program talks with Redis, Valkey and LedisDB servers.
//!
//! What is here decides nothing: it turns bytes into facts and decisions into commands. `resp` knows frames, `info`
//! knows what servers say of themselves, `flavor` knows which words each kind of server understands.

pub mod flavor;
pub mod info;
pub mod resp;
