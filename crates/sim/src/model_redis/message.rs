//! What arrives at a model server, and what it wants sent.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::event::{CommandId, Health, ProbeSeq};
use failover_core::instance::Facts;
use failover_core::time::Time;

use super::{Conn, Disk, Kept, Value};

/// One piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The offset behind it.
    pub(super) end: u64,
    /// The write in it; a keepalive has none.
    pub(super) value: Option<Value>,
}

/// What one write adds to the offset.
const WRITE_BYTES: u64 = 100;
/// What the master's keepalive adds to it.
const PING_BYTES: u64 = 14;

impl Piece {
    /// One that begins at an offset.
    pub(super) fn after(offset: u64, value: Option<Value>) -> Self {
        Self { end: offset + Self::bytes(value), value }
    }

    /// One write of a server that counts writes.
    pub(super) fn logged(offset: u64, value: Value) -> Self {
        Self { end: offset + 1, value: Some(value) }
    }

    pub(super) fn begin(&self) -> u64 {
        self.end - Self::bytes(self.value)
    }

    fn bytes(value: Option<Value>) -> u64 {
        if value.is_some() { WRITE_BYTES } else { PING_BYTES }
    }
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
    /// A replica has what was sent to it.
    Ack { from: usize, link: u64 },
    /// A replica has gone.
    Detach { from: usize, link: u64 },
    /// Its own copy for a replica is complete.
    Copied { to: usize, link: u64 },
    /// It has read its data, in one of its lives.
    Loaded { life: u32, disk: Disk },
    /// It has said what it was slow to say, in one of its lives.
    Quick { life: u32 },
    /// What it was slow to say, in one of its lives.
    Say { life: u32, reply: Reply },
    /// The time is over for which writes were held back, if it is the newest.
    PauseOver,
    /// The master goes on where the replica stopped.
    Continue { link: u64, replid: u64 },
    /// The master sends everything.
    FullSync { link: u64 },
    /// Everything.
    Snapshot { link: u64, replid: u64, offset: u64, data: Vec<Kept> },
    /// The replica wants to go on from a place that its master (LedisDB) is not at.
    Ahead { link: u64 },
    /// Time to ask the same again.
    Again { link: u64 },
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
    /// A copy of all data is made for a replica; it is complete some time later.
    Copy { to: usize, link: u64 },
    /// A message for itself, so much later.
    Remind { after: Duration, message: Message },
    /// A reply for the node.
    Reply(Reply),
    /// The client's write is acknowledged.
    Acknowledge { value: Value },
    /// The client's write is refused.
    Deny { value: Value, why: Denial },
    /// Its process ended by itself.
    Died,
    /// It has read its data, or is as quick again as ever.
    Serves,
    /// It became a master by a command that was decided under this epoch; with the data of its master, or without.
    Promoted { epoch: u64, synced: bool },
}

/// Why a server refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It cannot save (`-MISCONF`).
    Misconfigured,
    /// Too few replicas acknowledge (`-NOREPLICAS`).
    TooFewReplicas,
    /// It is a replica (`-READONLY`).
    ReadOnly,
    /// It reads its data from disk (`-LOADING`).
    Loading,
    /// It executes a script that does not end (`-BUSY`).
    Busy,
}

/// What the node hears of a server.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Refused {
        conn: Conn,
    },
    Accepted {
        conn: Conn,
    },
    Answer {
        conn: Conn,
        seq: ProbeSeq,
        health: Health,
        facts: Box<Facts>,
    },
    /// A command is done, or the server says why it is not.
    Done {
        conn: Conn,
        id: CommandId,
        done: Result<Box<Facts>, &'static str>,
        /// It is done, and could not be written down.
        unwritten: bool,
    },
    Lost {
        conn: Conn,
    },
}

impl Reply {
    /// On which connection.
    pub(crate) fn conn(&self) -> Conn {
        match self {
            Self::Refused { conn }
            | Self::Accepted { conn }
            | Self::Answer { conn, .. }
            | Self::Done { conn, .. }
            | Self::Lost { conn } => *conn,
        }
    }
}
