//! The wires of the world: what servers send to each other, to the node and to clients.

use std::time::Duration;

use super::{ForNode, Happening, World};
use crate::invariants::Seen;
use crate::model_redis::{Effect, Message, Reply, Value};
use crate::network::{Place, Way};
use crate::shell::opener;

impl World {
    /// Delivers what a server wants sent.
    pub(super) fn effects(&mut self, server: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send_between(server, to, message),
                Effect::Reply(reply) => {
                    let conn = match &reply {
                        Reply::Refused { conn }
                        | Reply::Accepted { conn }
                        | Reply::Answer { conn, .. }
                        | Reply::Done { conn, .. }
                        | Reply::Lost { conn } => *conn,
                    };
                    let way = Way::Back(conn);
                    let at = self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO);
                    let (node, life) = opener(conn);
                    let what = ForNode::Hear { server, reply };
                    self.at(at, Happening::At { node, life, what });
                }
                Effect::Acknowledge { value } => self.acknowledge(server, value),
                Effect::Promoted { epoch } => {
                    self.counts.promotions += 1;
                    let addr = self.addrs[server].clone();
                    self.trace.push(format!("{addr} becomes a master"));
                    self.journal.note(self.now, || format!("** {addr} becomes a master"));
                    self.observe(&Seen::Promoted { server, epoch });
                }
            }
        }
    }

    pub(super) fn acknowledge(&mut self, server: usize, value: Value) {
        if server == self.recorded() {
            self.clients.acknowledge(value);
            self.counts.acknowledged += 1;
        }
    }

    pub(super) fn send_between(&mut self, from: usize, to: usize, message: Message) {
        let at = match &message {
            // The end of a connection overtakes what was not sent yet: that is the tail that is lost.
            Message::LinkLost { .. } => {
                self.now + Duration::from_micros(self.rng.u64(1_000..5_000))
            }
            Message::Snapshot { .. } => {
                let micros = match self.rng.u8(..20) {
                    0 => self.rng.u64(500_000..5_000_000),
                    1.. => self.rng.u64(3_000..500_000),
                };
                let way = Way::Servers(from, to);
                let extra = Duration::from_micros(micros);
                self.network.arrival(&mut self.rng, self.now, way, extra)
            }
            Message::Ask { .. }
            | Message::Order { .. }
            | Message::Write { .. }
            | Message::Psync { .. }
            | Message::Detach { .. }
            | Message::Continue { .. }
            | Message::FullSync { .. }
            | Message::Rejected { .. }
            | Message::Stream { .. } => {
                let way = Way::Servers(from, to);
                self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO)
            }
        };
        self.at(at, Happening::Reach { from: Place::Server(from), server: to, message });
    }
}
