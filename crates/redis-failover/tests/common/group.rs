//! A replication group of real servers.

use super::server::{Options, Server, ServerKind};
use super::{PATIENCE, wait_until};

/// A master and its replicas, in step.
#[derive(Debug)]
pub struct Group {
    pub master: Server,
    pub replicas: Vec<Server>,
}

impl Group {
    /// Returns when every link is up and every offset is equal and above 0. A replica whose link
    /// has just come up can still be at offset 0, and a failover then measures luck.
    pub fn start(kind: ServerKind, replicas: usize) -> Self {
        Self::start_with(kind, replicas, &Options::new())
    }

    /// The same with options that hold for each of the servers.
    pub fn start_with(kind: ServerKind, replicas: usize, options: &Options) -> Self {
        Self::start_each(kind, options, &vec![options.clone(); replicas])
    }

    /// The same with options of its own for each replica.
    pub fn start_each(kind: ServerKind, master: &Options, replicas: &[Options]) -> Self {
        let master = Server::start(kind, master);
        let replica_of = format!("{} {}", master.ip(), master.port());
        let replicas = replicas
            .iter()
            .map(|options| Server::start(kind, &options.clone().set("replicaof", &replica_of)))
            .collect();
        let group = Self { master, replicas };
        for replica in &group.replicas {
            replica.wait_for_link(&group.master);
        }
        group.bring_in_step();
        group
    }

    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.master).chain(&self.replicas)
    }

    pub fn servers_mut(&mut self) -> impl Iterator<Item = &mut Server> {
        std::iter::once(&mut self.master).chain(&mut self.replicas)
    }

    pub fn addrs(&self) -> Vec<String> {
        self.servers().map(Server::addr).collect()
    }

    /// The server with this address.
    #[track_caller]
    pub fn server(&self, addr: &str) -> &Server {
        self.servers().find(|s| s.addr() == addr).expect("the address is of this group")
    }

    #[track_caller]
    pub fn server_mut(&mut self, addr: &str) -> &mut Server {
        self.servers_mut().find(|s| s.addr() == addr).expect("the address is of this group")
    }

    /// Writes something, because a group that starts anew counts from 0, and waits until all have it.
    #[track_caller]
    pub fn bring_in_step(&self) {
        self.master.cmd(&["SET", "rig:ready", "1"]);
        self.wait_in_step();
    }

    /// Waits until each server keeps its data in its append-only file.
    #[track_caller]
    pub fn wait_until_durable(&self) {
        for server in self.servers() {
            server.wait_until_durable();
        }
    }

    /// Waits until the offsets of all servers are equal and above 0; a master alone counts nothing.
    #[track_caller]
    pub fn wait_in_step(&self) {
        if self.replicas.is_empty() {
            return;
        }
        wait_until("all offsets are equal and above 0", PATIENCE, || {
            let first = self.master.offset();
            (first > 0 && self.replicas.iter().all(|r| r.offset() == first)).then_some(())
        });
    }
}
