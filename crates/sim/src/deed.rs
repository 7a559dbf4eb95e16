//! What was done to the world in a run: enough to do it again without drawing anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::operations::Operation;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Something went wrong, or right again.
    Fault(Fault),
    /// Somebody on call did something.
    Operation(Operation),
    /// Clients wrote, as often.
    Writes(u8),
}

/// A deed, and how long after the beginning of the run it was done.
pub type Timed = (Duration, Deed);
