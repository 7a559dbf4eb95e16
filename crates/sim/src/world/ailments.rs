//! What servers suffer from while they live.

use std::time::Duration;

use super::{Happening, World};
use crate::SERVERS;
use crate::deed::Deed;
use crate::faults::{Ailment, Fault};
use crate::model_redis::{Disk, Running, Wordless};

/// What a supervisor takes to start a server again.
const SUPERVISOR: Duration = Duration::from_secs(1);

impl World {
    /// Whether a server can begin, or cease, to suffer from something.
    pub(super) fn can_ail(&self, whom: usize, ailment: Ailment) -> bool {
        let server = &self.servers[whom];
        let runs = server.running() != Running::Dead;
        match ailment {
            Ailment::Load { .. } | Ailment::ReturnSaved => !runs,
            Ailment::Save => server.running() == Running::Up && !server.loading(),
            Ailment::Refuse => runs && !server.refusing(),
            Ailment::Listen => runs && server.refusing(),
            // One that reads its data has not tried to save anything yet.
            Ailment::BreakDisk => {
                runs && !server.misconfigured() && !server.loading() && !server.is_ledisdb()
            }
            Ailment::MendDisk => runs && server.misconfigured(),
            Ailment::Slow { ms } => runs && server.slow_by() != Duration::from_millis(ms),
            Ailment::Script => {
                let serves = server.running() == Running::Up && !server.loading();
                serves && server.wordless().is_none() && !server.is_ledisdb()
            }
            Ailment::ShutOut => runs && server.wordless().is_none(),
            Ailment::LetIn => server.wordless() == Some(Wordless::Stranger),
            Ailment::Prioritise { priority } => {
                server.priority() != priority && !server.is_ledisdb()
            }
            Ailment::Lag { to, ms } => {
                self.network.extra(whom, to) != Duration::from_millis(ms) && to != whom
            }
        }
    }

    pub(super) fn ail(&mut self, whom: usize, ailment: Ailment) {
        let server = &mut self.servers[whom];
        match ailment {
            Ailment::Load { ms } => {
                self.start_server(whom, Disk::Log, Duration::from_millis(ms));
            }
            Ailment::ReturnSaved => self.start_server(whom, Disk::Saved, Duration::ZERO),
            Ailment::Save => server.save(),
            Ailment::Refuse => server.set_refusing(true),
            Ailment::Listen => server.set_refusing(false),
            Ailment::BreakDisk => server.set_misconfigured(true),
            Ailment::MendDisk => server.set_misconfigured(false),
            Ailment::Slow { ms } => {
                let mut out = Vec::new();
                server.set_slow_by(Duration::from_millis(ms), &mut out);
                self.effects(whom, out);
            }
            Ailment::Script => server.run_script(self.now),
            Ailment::ShutOut => {
                let mut out = Vec::new();
                server.shut_out(&mut out);
                self.effects(whom, out);
            }
            Ailment::LetIn => server.let_in(),
            Ailment::Prioritise { priority } => server.set_priority(self.now, priority),
            Ailment::Lag { to, ms } => {
                self.network.set_extra(whom, to, Duration::from_millis(ms));
            }
        }
    }

    /// A server gave itself up: its supervisor starts it again.
    pub(super) fn supervise(&mut self, whom: usize) {
        let deed = Deed::Fault(Fault::Return(whom));
        self.after(SUPERVISOR, Happening::Due { deed, round: self.round, drawn: false });
    }

    /// What puts an end to it. One that is not promoted by its owner's wish leaves nobody to be promoted, when it is not alone
    /// in that.
    pub(super) fn cures(&self) -> Vec<Fault> {
        let mut cures = Vec::new();
        for (whom, server) in self.servers.iter().enumerate() {
            let lags = (0..SERVERS).map(|to| Ailment::Lag { to, ms: 0 });
            let usual = (server.priority() == 0).then_some(Ailment::Prioritise { priority: 100 });
            let all = [Ailment::Listen, Ailment::MendDisk, Ailment::LetIn, Ailment::Slow { ms: 0 }];
            let all = all.into_iter().chain(usual).chain(lags);
            let needed = all.filter(|ailment| self.can_ail(whom, *ailment));
            cures.extend(needed.map(|ailment| Fault::Ail(whom, ailment)));
        }
        cures
    }
}
