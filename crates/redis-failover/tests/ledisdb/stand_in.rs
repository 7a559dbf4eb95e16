//! The stand-in itself, against what was recorded of the stock server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::ledisdb::{full_copies, serve_if_told};
use crate::common::{Group, Options, PATIENCE, Server, ServerKind, now, wait_until};

const KIND: ServerKind = ServerKind::Ledisdb;

/// A client that sees bytes.
struct Client(TcpStream);

impl Client {
    fn of(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket can wait");
        Self(stream)
    }

    fn send(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let mut request = format!("*{}\r\n", words.len());
        for word in &words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.write_all(request.as_bytes()).expect("it takes commands");
    }

    /// Sends a command of words without spaces, and wants exactly these bytes back.
    #[track_caller]
    fn expect(&mut self, line: &str, reply: &str) {
        self.send(line);
        let mut bytes = vec![0; reply.len()];
        self.0.read_exact(&mut bytes).expect("it answers");
        assert_eq!(String::from_utf8_lossy(&bytes), reply, "{line}");
        // Nothing comes behind it.
        self.send("PING");
        let mut pong = [0; 7];
        self.0.read_exact(&mut pong).expect("it answers");
        assert_eq!(&pong, b"+PONG\r\n", "{line} is answered with more than {reply:?}");
    }

    /// Whether the server closed it.
    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

fn role(server: &Server) -> Vec<String> {
    server.cmd(&["ROLE"]).lines().map(str::to_owned).collect()
}

fn wait_for_state(server: &Server, state: &str) {
    wait_until(&format!("its ROLE says {state}"), PATIENCE, || {
        (role(server).get(3).map(String::as_str) == Some(state)).then_some(())
    });
}

/// One entry of the recording, with the ports of these servers.
fn listed(port: u16, acknowledged: u64) -> String {
    format!("*3\r\n$9\r\n127.0.0.1\r\n$5\r\n{port}\r\n$1\r\n{acknowledged}\r\n")
}

#[test]
fn a_process_is_a_stand_in_or_tests_one() {
    serve_if_told();
    let server = Server::start(KIND, &Options::new());
    let mut client = Client::of(&server);
    for (line, reply) in [
        ("PING", "+PONG\r\n"),
        ("PING hello", "+PONG\r\n"),
        ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        ("INFO all", "$7\r\n# all\r\n\r\n"),
        ("INFO nosuch", "$10\r\n# nosuch\r\n\r\n"),
        ("INFO a b", "-invalid command param\r\n"),
        ("SLAVEOF h", "-invalid command param\r\n"),
        ("SLAVEOF h abc", "-strconv.ParseInt: parsing \"abc\": invalid syntax\r\n"),
        ("SLAVEOF h 40000", "-strconv.ParseInt: parsing \"40000\": value out of range\r\n"),
        ("SLAVEOF NO ONE", "+OK\r\n"),
        ("SLAVEOF NO ONE READONLY", "+OK\r\n"),
        ("SET k v", "-write not support in readonly mode\r\n"),
        ("SLAVEOF NO ONE", "+OK\r\n"),
        ("SET k v", "+OK\r\n"),
        ("SET k v EX 10", "-invalid command param\r\n"),
        ("GET nokey", "$-1\r\n"),
        ("GET k", "$1\r\nv\r\n"),
        ("SELECT 16", "-invalid db index 16, must in [0, 15]\r\n"),
        ("CONFIG GET databases", "*2\r\n$9\r\ndatabases\r\n$2\r\n16\r\n"),
        ("CONFIG GET repl-ping-*-period", "*0\r\n"),
        ("CONFIG SET a b", "-invalid command param\r\n"),
        ("CONFIG REWRITE", "-Running without a config file\r\n"),
        ("AUTH foo", "-authentication failure\r\n"),
        ("AUTH user pw", "-invalid command param\r\n"),
        ("SYNC 9999", "-invalid sync logid 9999 > 1 + 1\r\n"),
        ("REPLCONF capa eof", "-syntax error\r\n"),
    ] {
        client.expect(line, reply);
    }
    for unknown in [
        "REPLICAOF NO ONE",
        "CLIENT LIST",
        "HELLO 3",
        "COMMAND",
        "PUBLISH a b",
        "SUBSCRIBE a",
        "PSUBSCRIBE a",
        "MULTI",
        "EXEC",
        "WAIT 1 1",
        "DEBUG SLEEP 1",
        "PSYNC ? -1",
        "SENTINEL masters",
    ] {
        client.expect(unknown, "-command not found\r\n");
    }
    client.0.write_all(b"PING\r\n").expect("it takes bytes");
    assert!(client.is_closed(), "inline commands close the connection");
    let info = server.cmd(&["INFO", "server"]);
    let expected = format!(
        "# Server\r\nos:linux\r\nprocess_id:{}\r\naddr:{}\r\nhttp_addr:\r\nreadonly:false\r\n",
        server.pid(),
        server.addr()
    );
    assert!(info.starts_with(&expected) && info.ends_with("ledisdb_version:0.5\r\n"), "{info}");
}

#[test]
fn a_group_says_what_was_recorded() {
    let mut group = Group::start(KIND, 2);
    let (master, slaves) = (group.master.port(), [0, 1].map(|n| group.replicas[n].port()));
    let mut sorted = slaves;
    sorted.sort_unstable();
    let acknowledged = format!(
        "*3\r\n$6\r\nmaster\r\n:1\r\n*2\r\n{}{}",
        listed(sorted[0], 1),
        listed(sorted[1], 1)
    );
    wait_until("both acknowledged", PATIENCE, || {
        (role(&group.master).iter().filter(|word| *word == "1").count() == 3).then_some(())
    });
    let mut client = Client::of(&group.master);
    client.expect("ROLE", &acknowledged);
    // The recording has ports of four digits.
    client.expect(
        "INFO REPLICATION",
        &format!(
            "$187\r\n# Replication\r\nrole:master\r\npub_log_num:0\r\npub_log_ack_per_time:0\r\nslaveof:\r\n\
             slaves:127.0.0.1:{},127.0.0.1:{}\r\nlast_log_id:1\r\nfirst_log_id:1\r\ncommit_log_id:1\r\n\
             master_last_log_id:0\r\n\r\n",
            sorted[0], sorted[1]
        ),
    );
    let mut client = Client::of(&group.replicas[0]);
    client.expect(
        "ROLE",
        &format!("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:{master}\r\n$9\r\nconnected\r\n:1\r\n"),
    );
    client.expect(
        "INFO REPLICATION",
        &format!(
            "$225\r\n# Replication\r\nrole:slave\r\npub_log_num:0\r\npub_log_ack_per_time:0\r\n\
             slaveof:127.0.0.1:{master}\r\nlast_log_id:1\r\nfirst_log_id:1\r\ncommit_log_id:1\r\nmaster_last_log_id:1\r\n\
             master_link_status:up\r\nslave_priority:100\r\nslave_repl_offset:1\r\n\r\n"
        ),
    );
    client.expect("SET k v", "-write not support in readonly mode\r\n");
    group.master.kill9();
    wait_for_state(&group.replicas[0], "connect");
    client.expect(
        "ROLE",
        &format!("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:{master}\r\n$7\r\nconnect\r\n:1\r\n"),
    );
    client.expect("SLAVEOF NO ONE", "+OK\r\n");
    client.expect("ROLE", "*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n");
    client.expect("SET k v", "+OK\r\n");
    // Roles are those of the flags again, and data stay.
    group.replicas[0].kill9();
    group.replicas[0].restart();
    assert_eq!(group.replicas[0].role(), "slave");
    assert_eq!(
        (group.replicas[0].offset(), group.replicas[0].cmd(&["GET", "k"])),
        (2, "v".to_owned())
    );
}

#[test]
fn a_password_is_wanted_before_anything_else() {
    let server = Server::start(KIND, &Options::new().requirepass("pw"));
    let mut client = Client::of(&server);
    for (line, reply) in [
        ("INFO", "-not authenticated\r\n"),
        ("REPLICAOF NO ONE", "-command not found\r\n"),
        ("AUTH bad", "-authentication failure\r\n"),
    ] {
        client.send(line);
        let mut bytes = vec![0; reply.len()];
        client.0.read_exact(&mut bytes).expect("it answers");
        assert_eq!(String::from_utf8_lossy(&bytes), reply, "{line}");
    }
    client.expect("AUTH pw", "+OK\r\n");
    client.expect("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
}

/// Tells slaves what they do already until their master has forgotten them, which is the case four times out of five.
pub(crate) fn make_forgotten(master: &Server, slaves: &[&Server]) {
    let listed = || master.info("replication").get("slaves").cloned().unwrap_or_default();
    wait_until("the master has forgotten its slaves", PATIENCE, || {
        for slave in slaves.iter().filter(|slave| listed().contains(&slave.addr())) {
            slave.replica_of(master);
        }
        let told_at = now();
        // It notices the end of the old connection within a second.
        while !listed().is_empty() {
            if told_at.elapsed() > Duration::from_millis(1500) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(())
    });
}

#[test]
fn slaves_vanish_when_they_are_told_twice_and_come_back_after_a_pause() {
    let group = Group::start(KIND, 1);
    let slave = &group.replicas[0];
    assert_eq!(role(&group.master).len(), 5);
    make_forgotten(&group.master, &[slave]);
    group.master.cmd(&["SET", "k", "v"]);
    wait_until("it replicates all the same", PATIENCE, || {
        (slave.cmd(&["GET", "k"]) == "v").then_some(())
    });
    slave.cmd(&["SLAVEOF", "NO", "ONE", "READONLY"]);
    let left_at = now();
    wait_until("1.6 s are over", PATIENCE, || {
        (left_at.elapsed() >= Duration::from_millis(1600)).then_some(())
    });
    slave.replica_of(&group.master);
    wait_until("it is back", PATIENCE, || (role(&group.master).len() == 5).then_some(()));
    let since = now();
    while since.elapsed() < Duration::from_millis(1500) {
        assert_eq!(role(&group.master).len(), 5, "and stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nobody_looks_whether_two_have_the_same_beginning() {
    let mut group = Group::start(KIND, 1);
    group.master.kill9();
    let new = &group.replicas[0];
    new.promote_by_hand();
    new.cmd(&["SET", "d", "new"]);
    group.master.restart();
    // As many writes, and others: it goes on from there.
    group.master.cmd(&["SET", "d", "old"]);
    group.master.replica_of(new);
    new.cmd(&["SET", "later", "1"]);
    wait_until("it follows", PATIENCE, || {
        (group.master.cmd(&["GET", "later"]) == "1").then_some(())
    });
    assert_eq!(group.master.cmd(&["GET", "d"]), "old", "silently diverged");
    // One that is ahead never follows, and says so only in passing.
    let ahead = Server::start(KIND, &Options::new());
    for _ in 0..20 {
        ahead.cmd(&["INCR", "n"]);
    }
    ahead.replica_of(new);
    let mut states = std::collections::BTreeSet::new();
    wait_until("its link flickers", PATIENCE, || {
        states.insert(role(&ahead)[3].clone());
        (states.len() == 2).then_some(())
    });
    new.cmd(&["SET", "later", "2"]);
    assert_eq!(ahead.cmd(&["GET", "later"]), "(nil)");
    // A full copy is the cure, and is taken again whenever the link is lost.
    ahead.cmd(&["SLAVEOF", &new.ip(), &new.port().to_string(), "RESTART"]);
    wait_until("it has everything", PATIENCE, || {
        (ahead.cmd(&["GET", "later"]) == "2" && ahead.cmd(&["GET", "n"]) == "(nil)").then_some(())
    });
    assert_eq!(full_copies(new), 1);
    assert_eq!(role(&ahead)[4], "0", "its log is empty, which ROLE takes for its position");
    let info = ahead.info("replication");
    assert_eq!(
        (&*info["last_log_id"], &*info["slave_repl_offset"]),
        ("0", &*info["commit_log_id"])
    );
    let position = info["commit_log_id"].parse::<u64>().expect("a number");
    ahead.promote_by_hand();
    let mut client = Client::of(&ahead);
    let next = position + 1;
    client.expect(&format!("SYNC {next}"), &format!("-invalid sync logid {next} > 0 + 1\r\n"));
    ahead.cmd(&["SET", "first", "1"]);
    client.send(&format!("SYNC {next}"));
    let mut first = [0; 1];
    client.0.read_exact(&mut first).expect("it answers");
    assert_eq!(&first, b"$");
}

#[test]
fn an_order_for_a_full_copy_is_obeyed_again_whenever_the_link_is_lost() {
    let mut group = Group::start(KIND, 1);
    let (ip, port) = (group.master.ip(), group.master.port().to_string());
    group.replicas[0].cmd(&["SLAVEOF", &ip, &port, "RESTART"]);
    wait_until("it copies", PATIENCE, || (full_copies(&group.master) == 1).then_some(()));
    group.master.kill9();
    group.master.restart();
    wait_until("it copies again", PATIENCE, || (full_copies(&group.master) == 2).then_some(()));
}

#[test]
fn a_promotion_that_waits_for_a_hung_master_happens_when_that_wakes() {
    let mut group = Group::start(KIND, 1);
    group.replicas[0].kill9();
    group.master.stop();
    // It connects to a master that accepts and says nothing.
    let restarted = std::thread::scope(|scope| {
        let replica = &mut group.replicas[0];
        scope.spawn(|| replica.restart()).join()
    });
    restarted.expect("INFO server is answered");
    let slave = &group.replicas[0];
    assert_eq!(slave.cmd(&["PING"]), "PONG");
    for blocked in [&["SLAVEOF", "NO", "ONE"][..], &["ROLE"], &["INFO", "replication"]] {
        assert!(slave.try_cmd(blocked).is_err(), "{blocked:?}");
    }
    group.master.cont();
    slave.wait_for_role("master");
    assert_eq!(slave.cmd(&["SET", "k", "v"]), "OK");
}

#[test]
fn a_full_copy_takes_its_time_and_shows_nothing_meanwhile() {
    let options = Options::new().set("-full_copy_ms", "1500");
    let group = Group::start_each(KIND, &options, &[Options::new()]);
    let slave = &group.replicas[0];
    slave.cmd(&["SLAVEOF", &group.master.ip(), &group.master.port().to_string(), "RESTART"]);
    wait_for_state(slave, "sync");
    let info = slave.info("replication");
    for (name, value) in [
        ("master_link_status", "up"),
        ("last_log_id", "0"),
        ("commit_log_id", "0"),
        ("slave_repl_offset", "0"),
    ] {
        assert_eq!(info[name], value, "{name}");
    }
    wait_for_state(slave, "connected");
    assert_eq!(slave.cmd(&["GET", "rig:ready"]), "1");
}

#[test]
fn high_ports_are_shown_by_info_alone() {
    let master = Server::start(KIND, &Options::new());
    let of = format!("{} {}", master.ip(), master.port());
    let slave = Server::start(KIND, &Options::new().high_port().set("replicaof", &of));
    assert!(slave.port() > 32_767);
    slave.wait_for_link(&master);
    Client::of(&master)
        .expect("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*1\r\n*3\r\n$0\r\n\r\n$1\r\n0\r\n$1\r\n0\r\n");
    assert_eq!(master.info("replication")["slaves"], slave.addr());
}
