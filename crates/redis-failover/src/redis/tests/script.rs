//! What is done to the servers, step by step.

use failover_core::action::{Command, Keep};
use failover_core::addr::Addr;
use failover_core::instance::MinReplicas;

/// What a server finds on its disk when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Every write, in an append-only file.
    Log,
    /// What was saved last.
    Saves,
}

/// A script.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) servers: usize,
    pub(super) keeps: Keeps,
    pub(super) steps: &'static [Step],
}

/// One thing that is done to one server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// It follows another, and its clients are cut off.
    Follow(usize, usize),
    /// It follows another, and nothing else.
    Demote(usize, usize),
    /// It becomes a master; one that is stopped will, when it goes on.
    Promote(usize),
    /// A client writes so often.
    Write(usize, usize),
    Kill(usize),
    Start(usize),
    StartEmpty(usize),
    /// It starts, and reads its data until it is `Loaded`.
    StartLoading(usize),
    Loaded(usize),
    Save(usize),
    /// SIGSTOP.
    Hang(usize),
    /// SIGCONT.
    Wake(usize),
    /// So many replicas have to have acknowledged within so many seconds.
    Fence(usize, u32, u32),
    /// Writes are held back for so many milliseconds.
    Pause(usize, u64),
    /// The same, and a client writes in that time.
    PauseAndWrite(usize, u64),
    Unpause(usize),
    Priority(usize, u32),
    /// Saving fails from now on.
    BreakDisk(usize),
    MendDisk(usize),
    /// A copy for a replica takes longer than anybody waits.
    SlowCopies(usize),
    /// It answers nothing with old data (`replica-serve-stale-data no`), which does not concern us.
    HideStaleData(usize),
}

impl Step {
    /// The server and the command, for a step that the program itself would do.
    pub(super) fn command(self, addrs: &[Addr]) -> Option<(usize, Command)> {
        let command = match self {
            Self::Follow(who, of) => (
                who,
                Command::Follow {
                    master: addrs[of].clone(),
                    master_run_id: None,
                    keep: Keep::Common,
                },
            ),
            Self::Demote(who, of) => {
                (who, Command::Demote { master: addrs[of].clone(), master_run_id: None })
            }
            Self::Promote(who) => {
                (who, Command::Promote { run_id: None, at_least: None, fence: None })
            }
            Self::Fence(who, to_write, max_lag_secs) => {
                (who, Command::Fence { set: MinReplicas { to_write, max_lag_secs } })
            }
            Self::Pause(who, ms) | Self::PauseAndWrite(who, ms) => (who, Command::Pause { ms }),
            Self::Unpause(who) => (who, Command::Unpause),
            Self::Write(..)
            | Self::Kill(_)
            | Self::Start(_)
            | Self::StartEmpty(_)
            | Self::StartLoading(_)
            | Self::Loaded(_)
            | Self::Save(_)
            | Self::Hang(_)
            | Self::Wake(_)
            | Self::Priority(..)
            | Self::BreakDisk(_)
            | Self::MendDisk(_)
            | Self::SlowCopies(_)
            | Self::HideStaleData(_) => return None,
        };
        Some(command)
    }
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

use Step::{
    BreakDisk, Demote, Fence, Follow, Hang, HideStaleData, Kill, Loaded, MendDisk, Pause,
    PauseAndWrite, Priority, Promote, Save, SlowCopies, Start, StartEmpty, StartLoading, Unpause,
    Wake, Write,
};

/// What is played.
pub(super) const SCRIPTS: &[Script] = &[
    Script {
        name: "promotions",
        servers: 3,
        keeps: Keeps::Saves,
        steps: &[
            // A master that nobody ever followed counts nothing.
            Write(A, 5),
            Follow(B, A),
            Write(A, 5),
            Follow(C, A),
            Write(A, 5),
            // Nothing changes.
            Follow(C, A),
            Promote(A),
            Kill(A),
            Promote(B),
            Write(B, 5),
            // It goes on with the second history of its new master.
            Follow(C, B),
            Write(B, 5),
            Promote(C),
            Write(C, 6),
            // Two masters: what B has more than their common history is lost with it.
            Write(B, 3),
            Follow(B, C),
            Write(C, 3),
            // A switchover: no history is cut.
            Demote(C, B),
            Promote(B),
            Write(B, 3),
            // Far more than a backlog holds.
            Kill(C),
            Promote(B),
            Write(B, 400),
            StartEmpty(C),
            Write(B, 3),
            Follow(C, B),
            StartEmpty(A),
            Follow(A, B),
            Promote(A),
            Write(A, 400),
            Follow(B, A),
            Follow(C, A),
        ],
    },
    Script {
        name: "restarts with a log",
        servers: 3,
        keeps: Keeps::Log,
        steps: &[
            Follow(B, A),
            Write(A, 20),
            Kill(B),
            Write(A, 10),
            // It has its data and no history: everything is copied.
            Start(B),
            Follow(C, B),
            Kill(A),
            // It has its data, a new history, and counts from 0; its replica is told so.
            Start(A),
            Write(A, 5),
            Kill(A),
            StartEmpty(A),
            Write(A, 5),
            Promote(B),
            Kill(B),
            Start(B),
        ],
    },
    Script {
        name: "restarts with what was saved",
        servers: 2,
        keeps: Keeps::Saves,
        steps: &[
            Follow(B, A),
            Write(A, 20),
            // A replica that keeps nothing has what it got with its last full copy.
            Kill(B),
            Start(B),
            Write(A, 5),
            Save(B),
            Write(A, 5),
            Kill(B),
            Write(A, 5),
            // It goes on where it saved.
            Start(B),
            Save(A),
            Write(A, 10),
            Kill(A),
            // It lost its tail, which its replica loses as well.
            Start(A),
            Write(A, 5),
            Save(A),
            Kill(A),
            // It lost nothing, and its replica goes on.
            Start(A),
            Write(A, 5),
            Kill(A),
            Promote(B),
            Start(A),
            Follow(A, B),
            Write(B, 5),
            Kill(B),
            Kill(A),
            StartEmpty(B),
            Start(A),
        ],
    },
    Script {
        name: "hangs",
        servers: 3,
        keeps: Keeps::Saves,
        steps: &[
            Follow(B, A),
            Follow(C, A),
            Write(A, 10),
            Hang(B),
            // It is attached as before, and gets everything when it goes on.
            Write(A, 10),
            Wake(B),
            Hang(A),
            // It lies in its socket.
            Write(A, 1),
            Promote(B),
            Follow(C, B),
            Write(B, 5),
            Wake(A),
            Write(A, 5),
            Follow(A, B),
            Hang(C),
            // It is executed when it goes on.
            Promote(C),
            Wake(C),
            Write(C, 1),
            Hang(B),
            Kill(B),
            Follow(A, C),
        ],
    },
    Script {
        name: "unfinished copies",
        servers: 3,
        keeps: Keeps::Saves,
        steps: &[
            Write(A, 30),
            Follow(C, A),
            SlowCopies(A),
            // It has nothing yet.
            Follow(B, A),
            Write(A, 5),
            Write(B, 1),
            Kill(A),
            // A replica that never had a master's data becomes a master all the same.
            Promote(B),
            Promote(C),
            Follow(B, C),
            SlowCopies(C),
            StartEmpty(A),
            Follow(A, C),
            Write(C, 5),
            // A copy that is cut off does not cost it what it has.
            Kill(C),
            Promote(B),
            Follow(A, B),
        ],
    },
    Script {
        name: "writes",
        servers: 2,
        keeps: Keeps::Saves,
        steps: &[
            Follow(B, A),
            Write(A, 3),
            Write(B, 3),
            Priority(B, 0),
            Priority(B, 7),
            Fence(A, 1, 2),
            Write(A, 3),
            Fence(B, 1, 2),
            Hang(B),
            Write(A, 3),
            Wake(B),
            Write(A, 3),
            Fence(A, 2, 2),
            Write(A, 3),
            Fence(A, 1, 0),
            Write(A, 3),
            Fence(A, 0, 10),
            PauseAndWrite(A, 1_000),
            PauseAndWrite(A, 60_000),
            Unpause(A),
            Pause(A, 60_000),
            Pause(A, 10),
            Write(A, 2),
            // What was held back finds a replica.
            Demote(A, B),
            Unpause(A),
            // As a master it heeds what it was told as a replica.
            Promote(B),
            Write(B, 3),
            Fence(B, 0, 10),
            PauseAndWrite(B, 60_000),
            // Whoever waits is cut off.
            Follow(B, A),
            Unpause(B),
            Promote(A),
            Write(A, 1),
            BreakDisk(A),
            Write(A, 3),
            BreakDisk(B),
            Write(B, 1),
            MendDisk(A),
            Write(A, 3),
            Kill(B),
            Start(B),
            Kill(A),
            HideStaleData(B),
            Write(B, 1),
        ],
    },
    Script {
        name: "loading",
        servers: 2,
        keeps: Keeps::Saves,
        steps: &[
            Follow(B, A),
            Write(A, 2_000),
            Save(A),
            Save(B),
            Kill(B),
            StartLoading(B),
            Write(A, 5),
            Promote(B),
            Follow(B, A),
            Loaded(B),
            Kill(A),
            StartLoading(A),
            Write(A, 1),
            Fence(A, 0, 5),
            Loaded(A),
            Write(A, 1),
        ],
    },
    Script {
        name: "chains",
        servers: 3,
        keeps: Keeps::Saves,
        steps: &[
            Follow(B, A),
            Follow(C, B),
            Write(A, 10),
            // The link of the last one is not concerned.
            Kill(A),
            Start(A),
            Write(A, 3),
            Demote(A, C),
            Promote(B),
            Write(B, 3),
            Promote(C),
            Demote(B, A),
            Write(C, 3),
            Kill(C),
            Write(C, 0),
            Follow(B, C),
            StartEmpty(C),
        ],
    },
];
