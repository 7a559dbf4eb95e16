//! What becomes of a client's write at a model server.

use std::time::Duration;

use failover_core::time::Time;

use super::{Denial, Effect, Message, Part, Piece, Server, Value};

impl Server {
    /// A client writes.
    pub(super) fn write(&mut self, now: Time, value: Value, out: &mut Vec<Effect>) {
        if let Some(why) = self.denial() {
            out.push(Effect::Deny { value, why });
        } else if self.paused_until.is_some_and(|until| now < until) {
            self.held.push(value);
        } else {
            match self.is_ledisdb() {
                true => self.log(now, Piece::logged(self.offset, value), out),
                false => self.append(now, Piece::after(self.offset, Some(value)), out),
            }
            out.push(Effect::Acknowledge { value });
        }
    }

    /// Why it takes no write, in the order in which servers ask themselves.
    pub(super) fn denial(&self) -> Option<Denial> {
        let fence = self.settings.min_replicas;
        if self.misconfigured {
            Some(Denial::Misconfigured)
        } else if self.part == Part::Master && fence.is_on() && self.good_replicas < fence.to_write
        {
            Some(Denial::TooFewReplicas)
        } else if !self.takes_writes() {
            Some(Denial::ReadOnly)
        } else if self.loading {
            Some(Denial::Loading)
        } else {
            None
        }
    }

    /// Holds back writes; a pause that ends later than this one is not shortened.
    pub(super) fn pause(&mut self, now: Time, ms: u64, out: &mut Vec<Effect>) {
        let until = now + Duration::from_millis(ms);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
        let after = Duration::from_millis(ms);
        out.push(Effect::Remind { after, message: Message::PauseOver });
    }

    /// Lets writes go on at once.
    pub(super) fn unpause(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.paused_until = None;
        self.end_pause(now, out);
    }

    /// Takes the writes that were held back, unless it is not time yet.
    pub(super) fn end_pause(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        for value in std::mem::take(&mut self.held) {
            self.write(now, value, out);
        }
    }
}
