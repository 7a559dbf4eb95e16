//! What arrives at a model server, and what it wants sent.

use failover_core::action::Command;
use failover_core::event::{CommandId, ProbeSeq};
use failover_core::instance::Facts;
use failover_core::time::Time;

use super::{Conn, Kept, Value};

/// One piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The offset behind it.
    pub(super) end: u64,
    /// The write in it; a keepalive has none.
    pub(super) value: Option<Value>,
}

/// Something that arrives at a server.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A node asks how it is.
    Ask { conn: Conn, connect: bool, seq: ProbeSeq, asked_at: Time },
    /// The node wants it changed.
    Order { conn: Conn, id: CommandId, command: Command, epoch: u64 },
    /// A client writes.
    Write { value: Value },
    /// A replica wants the stream.
    Psync { from: usize, link: u64, replid: u64, offset: u64, cached: bool },
    /// A replica has gone.
    Detach { from: usize, link: u64 },
    /// The master goes on where the replica stopped.
    Continue { link: u64, replid: u64 },
    /// The master sends everything.
    FullSync { link: u64 },
    /// Everything.
    Snapshot { link: u64, replid: u64, offset: u64, data: Vec<Kept> },
    /// The master does not serve replicas now, or is dead.
    Rejected { link: u64 },
    /// The stream.
    Stream { link: u64, piece: Piece },
    /// The connection to the master ended.
    LinkLost { link: u64 },
}

/// Something that a server wants to happen.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A message for another server.
    Send { to: usize, message: Message },
    /// A reply for the node.
    Reply(Reply),
    /// The client's write is acknowledged.
    Acknowledge { value: Value },
    /// It became a master by a command that was decided under this epoch.
    Promoted { epoch: u64 },
}

/// What the node hears of a server.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Refused { conn: Conn },
    Accepted { conn: Conn },
    Answer { conn: Conn, seq: ProbeSeq, facts: Box<Facts> },
    Done { conn: Conn, id: CommandId, facts: Box<Facts> },
    Lost { conn: Conn },
}
