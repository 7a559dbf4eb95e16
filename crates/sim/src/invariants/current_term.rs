//! No command is decided or written under a leadership that is over.

use super::{Seen, Truth};

pub(crate) fn observe(seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
    let (Seen::Commanded { addr, token, .. } | Seen::Sent { addr, token, .. }) = seen else {
        return Ok(());
    };
    if *token == truth.token {
        return Ok(());
    }
    Err(format!("{addr} was commanded under an old token"))
}
