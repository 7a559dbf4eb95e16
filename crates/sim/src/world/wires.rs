//! The wires of the world: what servers send to each other, to the node and to clients.

use std::time::Duration;

use super::{ForNode, Happening, World};
use crate::invariants::Seen;
use crate::model_redis::{Effect, Message, Value};
use crate::network::{Place, Way};
use crate::shell::opener;

impl World {
    /// Delivers what a server wants sent.
    pub(super) fn effects(&mut self, server: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send_between(server, to, message),
                Effect::Reply(reply) => {
                    let conn = reply.conn();
                    let way = Way::Back(conn);
                    let at = self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO);
                    let (node, life) = opener(conn);
                    let what = ForNode::Hear { server, reply };
                    self.at(at, Happening::At { node, life, what });
                }
                Effect::Copy { to, link } => {
                    let micros = match self.rng.u8(..20) {
                        0 => self.rng.u64(500_000..5_000_000),
                        1.. => self.rng.u64(3_000..500_000),
                    };
                    let message = Message::Copied { to, link };
                    self.remind(server, Duration::from_micros(micros), message);
                }
                Effect::Remind { after, message } => self.remind(server, after, message),
                Effect::Acknowledge { value } => self.acknowledge(server, value),
                Effect::Deny { value, .. } => {
                    self.clients.refuse(self.now, value);
                }
                Effect::Died => {
                    let addr = &self.addrs[server];
                    self.journal.note(self.now, || format!("** {addr} gives itself up"));
                    self.look_around();
                    self.supervise(server);
                }
                Effect::Serves => {
                    let addr = &self.addrs[server];
                    self.journal.note(self.now, || format!("** {addr} serves"));
                    self.look_around();
                }
                Effect::Promoted { epoch, synced } => {
                    self.counts.promotions += 1;
                    let addr = self.addrs[server].clone();
                    self.trace.push(format!("{addr} becomes a master"));
                    self.journal.note(self.now, || format!("** {addr} becomes a master"));
                    self.observe(&Seen::Promoted { server, epoch, synced });
                }
            }
        }
    }

    pub(super) fn acknowledge(&mut self, server: usize, value: Value) {
        self.observe(&Seen::Took { server });
        if server == self.recorded() && self.clients.acknowledge(self.now, value) {
            self.counts.acknowledged += 1;
        }
    }

    pub(super) fn send_between(&mut self, from: usize, to: usize, message: Message) {
        let at = match &message {
            // The end of a connection overtakes what was not sent yet: that is the tail that is lost.
            Message::LinkLost { .. } => {
                self.now + Duration::from_micros(self.rng.u64(1_000..5_000))
            }
            Message::Ask { .. }
            | Message::Order { .. }
            | Message::Write { .. }
            | Message::Psync { .. }
            | Message::Ack { .. }
            | Message::Detach { .. }
            | Message::Copied { .. }
            | Message::Loaded { .. }
            | Message::Quick { .. }
            | Message::Say { .. }
            | Message::PauseOver
            | Message::Snapshot { .. }
            | Message::Continue { .. }
            | Message::FullSync { .. }
            | Message::Ahead { .. }
            | Message::Again { .. }
            | Message::Rejected { .. }
            | Message::Stream { .. } => {
                let way = Way::Servers(from, to);
                self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO)
            }
        };
        self.at(at, Happening::Reach { from: Place::Server(from), server: to, message });
    }

    /// A server hears something from itself; no path can be cut there.
    fn remind(&mut self, server: usize, after: Duration, message: Message) {
        self.after(after, Happening::Reach { from: Place::Server(server), server, message });
    }
}
