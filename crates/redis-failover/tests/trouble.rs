//! A master that answers, but not as it should: told apart, shown by name, and replaced only when that helps.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use common::child::memory_kb;
use common::daemon::instance;
use common::scenario::{
    assert_left_alone, assert_no_other_failover, assert_whole, guard, holds, holds_for,
    on_each_kind, wait_for_diagnosis, wait_for_failover, wait_until_follows, wait_until_guarded,
};
use common::{Daemon, Group, Options, PATIENCE, Server, ServerKind, wait_until};

/// Longer than `max_down_time` 1: had it counted as silence, something would have been done.
const LONGER_THAN_DOWN: Duration = Duration::from_millis(1500);

#[test]
fn a_wrong_password_is_shown_and_the_group_is_kept_until_it_fits() {
    on_each_kind(|kind| {
        let options = Options::new().requirepass("secret").masterauth("secret");
        let mut group = Group::start_with(kind, 1, &options);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let masters = format!("-masters={name}");
        let args = [&*masters, "-check_interval=100", "-max_down_time=1"];
        let env = [("REDIS_FAILOVER_REDIS_PASSWORD", "another")];
        let daemon = Daemon::start_with(&Daemon::binary(), &args, &env);
        let view = wait_for_diagnosis(&daemon, &name, "AuthenticationFailed");
        assert_eq!(instance(&view, &name).expect("it is known")["how"], "auth");
        let reason = view["diagnosis"]["reason"].as_str().expect("a sentence");
        assert!(reason.contains("redis_password"), "{reason}");
        assert!(!daemon.log().contains("another"), "a password is never printed");
        holds_for(LONGER_THAN_DOWN, "the group is kept", || daemon.get("/master").body == name);
        assert_left_alone(&daemon, &name);

        group.replicas[0].change_password("another");
        group.master.change_password("another");
        wait_until_guarded(&daemon, &name, &group.addrs());
        wait_for_diagnosis(&daemon, &name, "Healthy");
        group.master.kill9();
        daemon.wait_for_master(&replica, PATIENCE);
        assert_whole(&wait_for_failover(&daemon, &name), (&name, &replica, "MasterCrashed"), 0);
    });
}

#[test]
fn a_user_with_the_rights_that_are_needed_and_no_more_will_do() {
    on_each_kind(|kind| {
        let rights = "on >of-a-file -@all +ping +info +role +multi +exec +replicaof +slaveof \
                      +client|setname +client|kill +config|rewrite";
        let options = Options::new().user("guard", rights).user("default", "on nopass ~* &* +@all");
        let mut group = Group::start_with(kind, 2, &options);
        let name = group.master.addr();
        let secrets = common::temporary_dir();
        let file = secrets.path().join("password");
        std::fs::write(&file, "of-a-file\n").expect("the directory is ours");
        let file = format!("-redis_password_file={}", file.display());
        let daemon = guard(&group, &["-redis_user=guard", &file]);
        group.master.kill9();
        let entry = wait_for_failover(&daemon, &name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_whole(&entry, (&name, &new, "MasterCrashed"), 1);
        group.master.restart();
        wait_until_follows(&daemon, &name, &group.master, group.server(&new));
        assert!(!daemon.log().contains("NOPERM"), "{}", daemon.log());
        assert!(!daemon.log().contains("of-a-file"), "a password is never printed");
    });
}

#[test]
fn a_server_that_cannot_write_its_config_is_promoted_with_a_warning() {
    on_each_kind(|kind| {
        let mut group = Group::start_with(kind, 2, &Options::new().read_only_config());
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        group.master.kill9();
        let entry = wait_for_failover(&daemon, &name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_whole(&entry, (&name, &new, "MasterCrashed"), 1);
        daemon.wait_for_log("CONFIG REWRITE failed", PATIENCE);
        daemon.wait_for_log("CONFIG REWRITE was refused", PATIENCE);
    });
}

#[test]
fn a_master_that_loads_its_data_is_waited_for() {
    on_each_kind(|kind| {
        let (mut group, name) = group_with_much_to_load(kind);
        let daemon = guard(&group, &["-crash_down_time=10", "-max_down_time=10"]);
        group.master.kill9();
        group.master.restart();
        let view = wait_for_diagnosis(&daemon, &name, "MasterLoading");
        assert_eq!(instance(&view, &name).expect("it is known")["how"], "loading");
        assert_left_alone(&daemon, &name);
        load_quickly(&group.master);
        group.replicas[0].wait_for_link(&group.master);
        wait_until_guarded(&daemon, &name, &group.addrs());
        wait_for_diagnosis(&daemon, &name, "Healthy");
        assert_left_alone(&daemon, &name);
    });
}

#[test]
fn a_master_that_loads_for_too_long_is_replaced() {
    on_each_kind(|kind| {
        let (mut group, name) = group_with_much_to_load(kind);
        let replica = group.replicas[0].addr();
        let daemon = guard(&group, &["-crash_down_time=2", "-max_down_time=2"]);
        group.master.kill9();
        group.master.restart();
        wait_for_diagnosis(&daemon, &name, "MasterLoading");
        daemon.wait_for_master(&replica, Duration::from_secs(10));
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["cause"]), (&"done".into(), &"MasterLoading".into()));
        group.replicas[0].wait_for_role("master");
        load_quickly(&group.master);
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
        assert_no_other_failover(&daemon, &name, &replica);
    });
}

/// A master whose file takes more than half a minute to load, at half a millisecond for each key; it looks at its
/// clients after each kilobyte.
fn group_with_much_to_load(kind: ServerKind) -> (Group, String) {
    let options = Options::new()
        .set("key-load-delay", "500")
        .set("loading-process-events-interval-bytes", "1024");
    let group = Group::start_each(kind, &options, &[Options::new()]);
    // It is not replicated, and whoever holds thousands of keys is not told to follow one that has none.
    for server in [&group.master, &group.replicas[0]] {
        server.cmd(&["DEBUG", "POPULATE", "50000"]);
    }
    group.master.cmd(&["SAVE"]);
    let name = group.master.addr();
    (group, name)
}

fn load_quickly(server: &Server) {
    server.cmd(&["CONFIG", "SET", "key-load-delay", "0"]);
    wait_until("it has loaded", PATIENCE, || server.try_cmd(&["GET", "key:1"]).ok());
}

#[test]
fn a_master_that_cannot_save_is_misconfigured_and_not_dead() {
    on_each_kind(|kind| {
        let group = Group::start_with(kind, 1, &Options::new().set("save", "3600 1"));
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        std::fs::remove_dir_all(group.master.dir().join("data")).expect("the directory is ours");
        group.master.cmd(&["BGSAVE"]);
        let view = wait_for_diagnosis(&daemon, &name, "MasterMisconfigured");
        let seen = instance(&view, &name).expect("it is known");
        assert_eq!((&seen["state"], &seen["how"]), (&"up".into(), &"misconf".into()));
        let reason = view["diagnosis"]["reason"].as_str().expect("a sentence");
        assert!(reason.contains("MISCONF"), "{reason}");
        holds_for(LONGER_THAN_DOWN, "it stays up", || {
            wait_for_diagnosis(&daemon, &name, "MasterMisconfigured")["master"] == name
        });
        assert_left_alone(&daemon, &name);
        group.master.cmd(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
        wait_for_diagnosis(&daemon, &name, "Healthy");
    });
}

#[test]
fn a_master_that_executes_an_endless_script_is_busy_and_not_dead() {
    on_each_kind(|kind| {
        let group = Group::start_with(kind, 1, &Options::new().set("lua-time-limit", "50"));
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        std::thread::scope(|scope| {
            // It ends with an error: by our patience, or by SCRIPT KILL.
            scope.spawn(|| group.master.try_cmd(&["EVAL", "while true do end", "0"]));
            let view = wait_for_diagnosis(&daemon, &name, "MasterBusy");
            let seen = instance(&view, &name).expect("it is known");
            assert_eq!((&seen["state"], &seen["how"]), (&"up".into(), &"busy".into()));
            holds_for(LONGER_THAN_DOWN, "it stays up", || {
                wait_for_diagnosis(&daemon, &name, "MasterBusy")["master"] == name
            });
            group.master.cmd(&["SCRIPT", "KILL"]);
        });
        wait_for_diagnosis(&daemon, &name, "Healthy");
        assert_left_alone(&daemon, &name);
    });
}

#[test]
fn a_master_that_turns_clients_away_is_busy_and_not_dead() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 1);
        let name = group.master.addr();
        // One place is the replica's, and the program finds the other one taken, too.
        group.master.cmd(&["CONFIG", "SET", "maxclients", "2"]);
        // The connection that set the limit may not be gone yet, so ours is a place only once it is answered.
        let taken = wait_until("the other place is taken", PATIENCE, || {
            let mut taken = std::net::TcpStream::connect(&*name).ok()?;
            taken.set_read_timeout(Some(PATIENCE)).ok()?;
            taken.write_all(b"PING\r\n").ok()?;
            let mut answer = [0; 7];
            taken.read_exact(&mut answer).ok()?;
            (answer == *b"+PONG\r\n").then_some(taken)
        });
        wait_until("nobody else is let in", PATIENCE, || {
            group.master.try_cmd(&["PING"]).is_err().then_some(())
        });
        let masters = format!("-masters={name}");
        let daemon = Daemon::start(&[&masters, "-check_interval=100", "-max_down_time=1"]);
        wait_for_diagnosis(&daemon, &name, "MasterBusy");
        assert_left_alone(&daemon, &name);
        drop(taken);
        // One place is enough for a guard.
        wait_for_diagnosis(&daemon, &name, "Healthy");
    });
}

#[test]
fn another_program_on_the_port_of_the_master_is_no_master() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let daemon = guard(&group, &["-crash_down_time=1", "-max_down_time=1"]);
        group.master.kill9();
        let stranger = TcpListener::bind(&*name).expect("its port is free");
        answer(stranger, Talk::Once(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &name).is_some_and(|seen| seen["how"] == "garbage")
        });
        daemon.wait_for_master(&replica, Duration::from_secs(10));
        assert_whole(&wait_for_failover(&daemon, &name), (&name, &replica, "MasterHung"), 0);
        group.replicas[0].wait_for_role("master");
    });
}

#[test]
fn no_answer_whatsoever_ends_the_program_or_fills_its_memory() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let talks = [
        Talk::Once(b"SSH-2.0-OpenSSH_9.2\r\n"),
        Talk::Once(b"+PONG\r\n+PONG\r\n+PONG\r\n+PONG\r\n+PONG\r\n"),
        Talk::Once(b"\0\xff\xfe\r\n$-7\r\n*-3\r\n$99999999999999999999\r\n"),
        Talk::Endless(b"+", &[b'a'; 4096]),
        Talk::Endless(b"$1000000000\r\n", &[b'a'; 4096]),
        Talk::Endless(b"*1000000000\r\n", b":1\r\n:2\r\n:3\r\n:4\r\n"),
        Talk::Endless(b"", b"*1\r\n"),
        Talk::Endless(b"", b"+OK\r\n"),
    ];
    let mut masters = vec![name.clone()];
    for talk in talks {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        masters.push(listener.local_addr().expect("it is bound").to_string());
        answer(listener, talk);
    }
    let list = format!("-masters={}", masters.join(","));
    let daemon = Daemon::start(&[&list, "-check_interval=100", "-max_down_time=1"]);
    wait_until_guarded(&daemon, &name, &group.addrs());
    for stranger in &masters[1..] {
        daemon.wait_for(stranger, PATIENCE, |view| {
            let seen = instance(view, stranger).expect("it is known");
            seen["how"] == "garbage" && seen["state"] == "down"
        });
    }
    let (_, highest_kb) = memory_kb(daemon.pid());
    assert!(highest_kb < 100 * 1024, "{highest_kb} kB");
    let view = wait_for_diagnosis(&daemon, &name, "Healthy");
    assert_eq!(view["epoch"], 0);
    group.master.kill9();
    daemon.wait_for_master(&group.replicas[0].addr(), Duration::from_secs(5));
    holds("the program goes on", || daemon.get("/v1/health").status == 200);
}

/// What a stranger says to everyone who connects.
#[derive(Clone, Copy)]
enum Talk {
    /// This, once it is spoken to.
    Once(&'static [u8]),
    /// The first, and then the second for ever.
    Endless(&'static [u8], &'static [u8]),
}

/// Serves until the test process ends.
fn answer(listener: TcpListener, talk: Talk) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 1024];
                if stream.read(&mut request).is_err() {
                    return;
                }
                let (first, then) = match talk {
                    Talk::Once(words) => (words, &b""[..]),
                    Talk::Endless(first, then) => (first, then),
                };
                let mut said = stream.write_all(first);
                while said.is_ok() && !then.is_empty() {
                    said = stream.write_all(then);
                }
                // It is left open: silence after nonsense.
                while stream.read(&mut request).is_ok_and(|n| n > 0) {}
            });
        }
    });
}
