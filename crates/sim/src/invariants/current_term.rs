//! No command is decided or written under a leadership that is over.

use super::{Seen, Truth};

pub(crate) fn observe(seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
    match seen {
        Seen::Commanded { addr, token, .. } if *token != truth.token => {
            Err(format!("{addr} was commanded under an old token"))
        }
        Seen::Sent { addr, token, .. } if *token != truth.token => {
            Err(format!("{addr} was sent a command under an old token"))
        }
        Seen::Asked { .. }
        | Seen::Testified { .. }
        | Seen::Vetted { .. }
        | Seen::Proposed { .. }
        | Seen::Committed { .. }
        | Seen::Commanded { .. }
        | Seen::Sent { .. }
        | Seen::Promoted { .. }
        | Seen::Did { .. } => Ok(()),
    }
}
