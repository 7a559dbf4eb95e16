//! What the program changes of a model server, and when the server refuses.

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::time::Time;

use super::{Conn, Effect, Part, Reply, Server};

const LOADING: &str = "the server answered \"LOADING Redis is loading the dataset in memory\"";
const NOT_REDIS: &str = "redis has no such state";
const ITSELF: &str =
    "it is the master itself under another address; it was not told to follow itself";

impl Server {
    /// Does what it is told, on a connection, under an epoch, with an id in case that it needs one.
    pub(super) fn obey(
        &mut self,
        now: Time,
        command: &Command,
        (conn, epoch, fresh_id): (Conn, u64, u64),
        out: &mut Vec<Effect>,
    ) -> Result<(), &'static str> {
        match command {
            Command::Promote { fence, .. } => {
                if let Some(set) = fence {
                    self.settings.min_replicas = *set;
                    self.count_good_replicas(now);
                }
                if self.loading {
                    return Err(LOADING);
                }
                if self.part != Part::Master {
                    let synced = self.synced;
                    self.promote(now, fresh_id, out);
                    out.push(Effect::Promoted { epoch, synced });
                }
                self.rewrite();
            }
            Command::Pause { ms } => self.pause(now, *ms, out),
            Command::Unpause => self.unpause(now, out),
            Command::Fence { set } => {
                self.settings.min_replicas = *set;
                self.count_good_replicas(now);
                self.rewrite();
            }
            Command::Demote { master, master_run_id } => {
                self.follow(now, master, master_run_id.as_deref(), out)?;
            }
            Command::Part => return Err(NOT_REDIS),
            Command::Follow { master, master_run_id, keep: _ } => {
                self.follow(now, master, master_run_id.as_deref(), out)?;
                self.rewrite();
                self.cut_clients(conn, out);
            }
        }
        Ok(())
    }

    /// Whether what it was told stands in no file.
    pub(super) fn leaves_unwritten(&self, command: &Command) -> bool {
        let writes = matches!(
            command,
            Command::Promote { .. } | Command::Fence { .. } | Command::Follow { .. }
        );
        writes && !self.settings.rewrites
    }

    /// Somebody types a change of its role, and forgets to have it written down.
    pub(crate) fn by_hand(
        &mut self,
        now: Time,
        command: &Command,
        fresh_id: u64,
        out: &mut Vec<Effect>,
    ) {
        if self.is_ledisdb() {
            self.slaveof_by_hand(now, command, out);
            return;
        }
        match command {
            Command::Promote { .. } if self.part != Part::Master && !self.loading => {
                self.promote(now, fresh_id, out);
            }
            Command::Follow { master, .. } => {
                // A refusal is the answer to whoever typed it.
                let _ = self.follow(now, master, None, out);
            }
            Command::Promote { .. }
            | Command::Demote { .. }
            | Command::Part
            | Command::Pause { .. }
            | Command::Unpause
            | Command::Fence { .. } => {}
        }
    }

    fn follow(
        &mut self,
        now: Time,
        master: &Addr,
        run_id: Option<&str>,
        out: &mut Vec<Effect>,
    ) -> Result<(), &'static str> {
        if self.loading {
            return Err(LOADING);
        }
        let Some(of) = self.addrs.iter().position(|addr| addr == master) else { return Ok(()) };
        if of == self.index || run_id == Some(&*self.run_id_text()) {
            return Err(ITSELF);
        }
        self.follow_server(now, of, out);
        Ok(())
    }

    /// Whoever believes in its old role is made to look again; but for whoever said so.
    fn cut_clients(&mut self, by: Conn, out: &mut Vec<Effect>) {
        self.held.clear();
        self.conns.retain(|conn, _| {
            if *conn != by {
                out.push(Effect::Reply(Reply::Lost { conn: *conn }));
            }
            *conn == by
        });
    }
}
