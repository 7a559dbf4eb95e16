//! The simulator's model of LedisDB, compared with the stand-in: the same is done to both, and after each step, when it has
//! settled, both say the same of themselves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use failover_core::action::{Command, Keep};
use failover_core::addr::Addr;
use failover_core::instance::{Facts, Flavor, Link, Role};
use failover_sim::model_redis::{Disk, Settings};
use failover_sim::stage::{Fate, Stage};

use crate::common::{Options, PATIENCE, Server, ServerKind, now};

/// What the model needs to settle: one attempt to find a master that could not be reached, and what it leads to.
const SETTLES_IN: Duration = Duration::from_millis(4_500);
const PAUSE: Duration = Duration::from_millis(5);

/// Servers, and a model of each.
struct Both {
    real: Vec<Server>,
    model: Stage,
    addrs: Vec<Addr>,
}

impl Both {
    fn start(servers: usize) -> Self {
        let start = |_| Server::start(ServerKind::Ledisdb, &Options::new());
        let real: Vec<Server> = (0..servers).map(start).collect();
        let addr = |server: &Server| -> Addr { server.addr().parse().expect("an address") };
        let addrs: Vec<Addr> = real.iter().map(addr).collect();
        let settings = Settings { flavor: Flavor::Ledisdb, ..Settings::default() };
        Self { real, model: Stage::new(&addrs, settings), addrs }
    }

    fn follow(&mut self, who: usize, of: usize, keep: Keep) {
        let port = self.real[of].port().to_string();
        let mut words = vec!["SLAVEOF", "127.0.0.1", &port];
        words.extend((keep == Keep::Nothing).then_some("RESTART"));
        assert_eq!(self.real[who].cmd(&words), "OK");
        let master = self.addrs[of].clone();
        self.model.order(who, &Command::Follow { master, master_run_id: None, keep });
    }

    fn promote(&mut self, who: usize) {
        assert_eq!(self.real[who].cmd(&["SLAVEOF", "NO", "ONE"]), "OK");
        let promote = Command::Promote { run_id: None, at_least: None, fence: None };
        assert_eq!(self.model.order(who, &promote), Some(Ok(())));
    }

    fn part(&mut self, who: usize) {
        assert_eq!(self.real[who].cmd(&["SLAVEOF", "NO", "ONE", "READONLY"]), "OK");
        assert_eq!(self.model.order(who, &Command::Part), Some(Ok(())));
    }

    /// Writes so often, and wants both to take it, or to refuse it.
    #[track_caller]
    fn write(&mut self, who: usize, times: usize) {
        for _ in 0..times {
            let taken = self.real[who].try_cmd(&["INCR", "written"]).is_ok();
            self.model.write(who);
            let fate = self.model.fates().last().copied();
            assert_eq!(fate == Some(Fate::Acknowledged), taken, "{fate:?}");
        }
    }

    fn kill(&mut self, who: usize) {
        self.real[who].kill9();
        self.model.kill(who);
    }

    fn start_again(&mut self, who: usize) {
        self.real[who].restart();
        self.model.start(who, Disk::Log, Duration::ZERO);
    }

    /// Waits until the servers say what the models do.
    #[track_caller]
    fn agree(&mut self, after: &str) {
        self.model.pass(SETTLES_IN);
        let mut expected = String::new();
        for index in 0..self.real.len() {
            let reading = self.model.reading(index).map(|(_, facts)| facts);
            let _ = writeln!(expected, "{index}: {}", self.words(reading.as_ref()));
        }
        let started = now();
        loop {
            let mut found = String::new();
            for (index, server) in self.real.iter().enumerate() {
                let _ = writeln!(found, "{index}: {}", self.said(server));
            }
            if found == expected {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{after}:\nmodel\n{expected}real\n{found}");
            std::thread::sleep(PAUSE);
        }
    }

    fn words(&self, facts: Option<&Facts>) -> String {
        let Some(facts) = facts else { return "does not answer".to_owned() };
        let log = if facts.log_is_empty { ", without a log" } else { "" };
        match &facts.role {
            Role::Master { .. } => {
                let refuses = if facts.read_only { " that refuses writes" } else { "" };
                format!("master{refuses} at {}{log}", facts.offset)
            }
            Role::Replica { master, link } => {
                let link = match link {
                    Link::Up { .. } => "connected",
                    Link::Syncing => "sync",
                    Link::Down { .. } => "connect",
                };
                format!("slave of {master}, {link}, at {}{log}", facts.offset)
            }
        }
    }

    fn said(&self, server: &Server) -> String {
        if server.try_cmd(&["PING"]).is_err() {
            return "does not answer".to_owned();
        }
        let info = server.info("replication");
        let role = server.cmd(&["ROLE"]);
        let state = role.lines().nth(3).unwrap_or_default().to_owned();
        let number = |name: &str| info[name].parse::<u64>().expect("a number");
        let at = number("last_log_id").max(number("commit_log_id"));
        let log = if number("last_log_id") == 0 && at > 0 { ", without a log" } else { "" };
        if info["role"] == "master" {
            let is_read_only = server.info("server")["readonly"] == "true";
            let refuses = if is_read_only { " that refuses writes" } else { "" };
            format!("master{refuses} at {at}{log}")
        } else {
            format!("slave of {}, {state}, at {at}{log}", info["slaveof"])
        }
    }
}

#[test]
fn a_replica_goes_on_from_its_own_place_and_a_copy_is_repeated_until_it_is_parted() {
    let mut both = Both::start(3);
    both.write(0, 3);
    both.follow(1, 0, Keep::Common);
    both.follow(2, 0, Keep::Nothing);
    both.agree("two replicas of a master with three writes");
    both.write(1, 1);
    both.write(0, 2);
    both.agree("two more writes");
    both.kill(0);
    both.agree("their master died");
    both.promote(1);
    both.write(1, 1);
    both.follow(2, 1, Keep::UpTo(5));
    both.agree("the next master");
    both.start_again(0);
    both.write(0, 3);
    both.agree("the old master came back and took writes");
    both.follow(0, 1, Keep::Common);
    both.agree("it is further than its new master");
    both.write(1, 4);
    both.agree("its new master is further than it was");
    both.follow(0, 1, Keep::Nothing);
    both.agree("it has a full copy");
    both.part(0);
    both.write(0, 1);
    both.agree("it is parted");
    both.promote(0);
    both.follow(2, 0, Keep::Common);
    both.agree("a master without a log has a replica with the same");
    both.write(0, 2);
    both.agree("it has a log");
    both.follow(1, 0, Keep::Nothing);
    both.agree("the last one takes a copy");
}

#[test]
fn whoever_connects_to_a_master_that_hangs_is_told_something_in_vain_until_it_wakes() {
    let mut both = Both::start(2);
    both.write(0, 2);
    both.real[0].stop();
    both.model.hang(0);
    both.follow(1, 0, Keep::Common);
    let mut client = TcpStream::connect(both.real[1].addr()).expect("it listens");
    client
        .write_all(b"*3\r\n$7\r\nSLAVEOF\r\n$2\r\nNO\r\n$3\r\nONE\r\n")
        .expect("it takes commands");
    let promote = Command::Promote { run_id: None, at_least: None, fence: None };
    assert_eq!(both.model.order(1, &promote), None, "nothing comes back");
    both.model.pass(SETTLES_IN);
    both.real[0].cont();
    both.model.wake(0);
    both.agree("its promotion came late");
}
