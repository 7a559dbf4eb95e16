//! What goes wrong with servers, nodes and paths, and how it ends.

use std::time::Duration;

use super::World;
use crate::SERVERS;
use crate::deed::Deed;
use crate::faults::{Clock, Fault};
use crate::model_redis::{Disk, Running};
use crate::network::Place;

impl World {
    /// Makes something go wrong, or right again.
    pub fn inflict(&mut self, fault: Fault) {
        let possible = match fault {
            Fault::Kill(index) => self.servers[index].running() != Running::Dead,
            Fault::Hang(index) => self.servers[index].running() == Running::Up,
            Fault::Wake(index) => self.servers[index].running() == Running::Hung,
            Fault::Return(index) | Fault::ReturnEmpty(index) => {
                self.servers[index].running() == Running::Dead
            }
            Fault::KillNode(node) => self.nodes[node].running != Running::Dead,
            Fault::StopNode(node) => self.nodes[node].running == Running::Up,
            Fault::ResumeNode(node) => self.nodes[node].running == Running::Hung,
            Fault::StartNode(node) | Fault::StartNodeAt(node, _) => {
                self.nodes[node].running == Running::Dead
            }
            Fault::SlowNode(..) => true,
            Fault::Ail(whom, ailment) => self.can_ail(whom, ailment),
            Fault::Cut(from, to) => !self.network.is_cut(from, to),
            Fault::Heal(from, to) => self.network.is_cut(from, to),
        };
        if !possible {
            return;
        }
        self.counts.faults += 1;
        self.note_deed(Deed::Fault(fault));
        self.journal.note(self.now, || format!("!! {fault:?}"));
        match fault {
            Fault::Kill(server) => {
                let mut out = Vec::new();
                self.servers[server].kill(self.now, &mut out);
                self.effects(server, out);
            }
            Fault::Hang(server) => self.servers[server].hang(self.now),
            Fault::Wake(server) => {
                let mut out = Vec::new();
                let rng = &mut self.rng;
                self.servers[server].wake(self.now, || rng.u64(..), &mut out);
                self.effects(server, out);
            }
            Fault::Return(server) => self.start_server(server, Disk::Log, Duration::ZERO),
            Fault::ReturnEmpty(server) => self.start_server(server, Disk::Nothing, Duration::ZERO),
            Fault::KillNode(node) => self.kill_node(node),
            Fault::StopNode(node) => self.nodes[node].running = Running::Hung,
            Fault::ResumeNode(node) => self.resume_node(node),
            Fault::StartNode(node) => self.start_node(node, Clock::default()),
            Fault::StartNodeAt(node, clock) => self.start_node(node, clock),
            Fault::SlowNode(node, micros) => {
                self.nodes[node].pace.slow_down(Duration::from_micros(micros.into()));
            }
            Fault::Ail(whom, ailment) => self.ail(whom, ailment),
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Heal(from, to) => {
                self.network.heal(from, to);
                self.release();
            }
        }
        self.look_around();
    }

    pub(super) fn start_server(&mut self, index: usize, disk: Disk, loads_for: Duration) {
        self.touched[index] = false;
        let read = self.servers[index].read_by_now();
        let mut out = Vec::new();
        let id = self.rng.u64(..);
        self.servers[index].start(self.now, disk, loads_for, id, &mut out);
        if disk != Disk::Log && index == self.recorded() {
            // What it has less than when it was read last shows, and only that.
            self.sight.note_loss(index, self.servers[index].offset() < read);
        }
        self.cron_later(index);
        self.effects(index, out);
    }

    /// What was stuck on paths that are whole again goes on, in its order, and before anything that was sent later.
    fn release(&mut self) {
        for happening in std::mem::take(&mut self.stuck) {
            // Whatever is still cut gets stuck again.
            self.happen(happening);
        }
    }

    /// Who sees whom has changed.
    pub(super) fn look_around(&mut self) {
        let up = |node: usize| self.nodes[node].running == Running::Up;
        self.sight.note_nodes(self.now, self.nodes.iter().map(|node| node.running == Running::Up));
        let joined = |node: usize, server: usize| {
            let (node, server) = (Place::Node(node), Place::Server(server));
            !self.network.is_cut(node, server) && !self.network.is_cut(server, node)
        };
        for server in 0..SERVERS {
            let runs = self.servers[server].serves();
            let seen: Vec<bool> = (0..self.nodes.len())
                .map(|node| runs && up(node) && joined(node, server))
                .collect();
            self.sight.note(server, self.now, &seen);
        }
    }

    /// What puts an end to all that is wrong.
    pub(super) fn remedies(&self) -> Vec<Fault> {
        let mut remedies: Vec<Fault> =
            self.network.cuts().map(|(from, to)| Fault::Heal(from, to)).collect();
        remedies.extend(self.cures());
        for index in 0..SERVERS {
            match self.servers[index].running() {
                Running::Up => {}
                Running::Hung => remedies.push(Fault::Wake(index)),
                Running::Dead => remedies.push(Fault::Return(index)),
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if node.pace.is_slow() {
                remedies.push(Fault::SlowNode(index, 0));
            }
            match node.running {
                Running::Up => {}
                Running::Hung => remedies.push(Fault::ResumeNode(index)),
                Running::Dead => remedies.push(Fault::StartNode(index)),
            }
        }
        remedies
    }
}
