//! A server that answers, and says nothing of itself.

use failover_core::event::Health;
use failover_core::time::Time;

use super::{Denial, Effect, Message, Reply, Running, Server};

/// Why a server says nothing of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wordless {
    /// It executes a script that does not end: it answers `-BUSY` to everything, and does nothing else.
    Busy,
    /// The program's user is unknown to it. It serves everybody else.
    Stranger,
}

const BUSY: &str = "the server answered \"BUSY Redis is busy running a script\"";
const STRANGER: &str = "the server answered \"NOAUTH Authentication required\"";

impl Server {
    /// A script begins that ends when the server is woken up.
    pub(crate) fn run_script(&mut self, now: Time) {
        self.hang(now);
        self.wordless = Some(Wordless::Busy);
    }

    /// The user of the program is deleted, and with it its connections.
    pub(crate) fn shut_out(&mut self, out: &mut Vec<Effect>) {
        self.wordless = Some(Wordless::Stranger);
        for conn in std::mem::take(&mut self.conns).into_keys() {
            out.push(Effect::Reply(Reply::Lost { conn }));
        }
    }

    /// The user is there again.
    pub(crate) fn let_in(&mut self) {
        self.wordless.take_if(|wordless| *wordless == Wordless::Stranger);
    }

    /// Why it says nothing of itself, if it does not.
    pub(crate) fn wordless(&self) -> Option<Wordless> {
        self.wordless
    }

    /// Answers what it does not do. Returns whether there was an answer.
    pub(super) fn excuse(
        &mut self,
        now: Time,
        wordless: Wordless,
        message: &Message,
        out: &mut Vec<Effect>,
    ) -> bool {
        let awake = wordless == Wordless::Busy || self.running == Running::Up;
        if let Message::Write { value } = *message
            && wordless == Wordless::Busy
        {
            out.push(Effect::Deny { value, why: Denial::Busy });
            return true;
        }
        if let Message::Ask { conn, seq, asked_at, .. } = *message
            && awake
            && self.conns.contains_key(&conn)
        {
            let health = match wordless {
                Wordless::Busy => Health::Busy(BUSY.to_owned()),
                Wordless::Stranger => Health::Auth(STRANGER.to_owned()),
            };
            let facts = Box::new(self.facts(now, asked_at));
            self.say(now, Reply::Answer { conn, seq, health, facts }, out);
            return true;
        }
        if let Message::Order { conn, id, .. } = *message
            && awake
            && self.conns.contains_key(&conn)
        {
            let why = if wordless == Wordless::Busy { BUSY } else { STRANGER };
            self.say(now, Reply::Done { conn, id, done: Err(why), unwritten: false }, out);
            return true;
        }
        false
    }
}
