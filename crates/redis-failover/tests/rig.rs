//! The rig itself: a measurement is worth no more than what measures it.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::daemon::Launch;
use common::http::Client;
use common::scenario::holds;
use common::{
    Daemon, Group, Network, Options, PATIENCE, Server, ServerKind, Told, Writer, now, wait_until,
};

/// Long enough for a second master to show, had somebody promoted it.
const WATCHED: Duration = Duration::from_millis(300);

#[test]
fn a_group_starts_in_step() {
    for kind in ServerKind::all() {
        let group = Group::start(kind, 2);
        assert_eq!(group.master.role(), "master");
        let info = group.master.info("replication");
        assert_eq!(info["connected_slaves"], "2");
        for replica in &group.replicas {
            assert_eq!(replica.role(), "slave");
            assert_eq!(replica.offset(), group.master.offset());
            assert_eq!(replica.cmd(&["GET", "rig:ready"]), "1");
        }
    }
}

#[test]
fn the_writer_sees_who_is_master_and_measures_a_promotion_by_hand() {
    for kind in ServerKind::all() {
        let mut group = Group::start(kind, 2);
        let old = group.master.addr();
        let new = group.replicas[0].addr();
        let mut writer = Writer::start(&group);

        let fault_at = group.master.kill9();
        std::thread::sleep(WATCHED);
        assert!(writer.gap(fault_at, &old).is_none(), "nobody was promoted yet");
        let refusals = writer.writes(&new);
        let last = refusals.last().expect("it writes each millisecond");
        assert!(format!("{:?}", last.outcome).contains("READONLY"), "{last:?}");

        group.replicas[0].promote_by_hand();
        let gap = writer.wait_for_gap(fault_at, &old, PATIENCE);
        assert_eq!(gap.addr, new);
        assert!(gap.length >= WATCHED, "{gap:?}");
        assert!(gap.length < WATCHED + PATIENCE, "{gap:?}");

        writer.stop();
        assert!(writer.acknowledged_after(&old, fault_at).is_empty());
        assert_eq!(writer.two_masters(&old, &gap), Duration::ZERO);
        // Asynchronous replication may lose what was under way, no more.
        let lost = writer.lost(&old, &group.replicas[0]);
        let total = writer.writes(&old).len();
        assert!(lost <= 20 && total > lost, "lost {lost} of {total}");
    }
}

#[test]
fn the_writer_sees_two_masters() {
    let group = Group::start(ServerKind::Redis, 1);
    let mut writer = Writer::start(&group);
    let fault_at = now();
    group.replicas[0].promote_by_hand();
    let gap = writer.wait_for_gap(fault_at, &group.master.addr(), PATIENCE);
    std::thread::sleep(WATCHED);
    writer.stop();
    assert!(writer.two_masters(&group.master.addr(), &gap) > WATCHED / 2);
    assert!(writer.lost(&group.master.addr(), &group.replicas[0]) > 10);
}

#[test]
fn a_stopped_server_is_silent_and_goes_on() {
    for kind in ServerKind::all() {
        let mut group = Group::start(kind, 1);
        let addr = group.master.addr();
        let writer = Writer::start(&group);
        let stopped_at = group.master.stop();
        std::thread::sleep(Duration::from_millis(600));
        assert!(writer.acknowledged_after(&addr, stopped_at).is_empty());
        group.master.cont();
        writer.wait_for_write(&addr);
    }
}

#[test]
fn a_server_restarts_on_its_port_and_keeps_a_rewritten_config() {
    for kind in ServerKind::all() {
        let mut group = Group::start(kind, 1);
        let port = group.master.port();
        group.master.cmd(&["CONFIG", "SET", "maxclients", "777"]);
        group.master.cmd(&["CONFIG", "REWRITE"]);
        let first_pid = group.master.pid();
        group.master.kill9();
        group.master.restart();
        assert_eq!(group.master.port(), port);
        assert_ne!(group.master.pid(), first_pid);
        assert_eq!(group.master.cmd(&["CONFIG", "GET", "maxclients"]), "maxclients\n777");
        group.replicas[0].wait_for_link(&group.master);

        group.replicas[0].shutdown();
        group.replicas[0].restart();
        group.replicas[0].wait_for_link(&group.master);
    }
}

#[test]
fn config_rewrite_fails_where_the_file_is_read_only_or_absent() {
    for kind in ServerKind::all() {
        let mut server = Server::start(kind, &Options::new().read_only_config());
        let before = server.config_text();
        let error = server.try_cmd(&["CONFIG", "REWRITE"]).expect_err("it cannot write");
        assert!(error.contains("Permission denied"), "{error}");
        assert_eq!(server.config_text(), before);
        server.kill9();
        server.restart();

        let server = Server::start(kind, &Options::new().without_config().set("maxclients", "77"));
        let error = server.try_cmd(&["CONFIG", "REWRITE"]).expect_err("there is no file");
        assert!(error.contains("without a config file"), "{error}");
        assert_eq!(server.cmd(&["CONFIG", "GET", "maxclients"]), "maxclients\n77");
        assert_eq!(server.cmd(&["CONFIG", "GET", "save"]), "save\n");
    }
}

#[test]
fn passwords_and_users_hold_in_the_whole_group() {
    for kind in ServerKind::all() {
        let options = Options::new()
            .requirepass("secret")
            .masterauth("secret")
            .user("failover", "on >other ~* &* +@all");
        let group = Group::start_with(kind, 1, &options);
        let _writer = Writer::start(&group);
        assert_eq!(group.replicas[0].cmd(&["AUTH", "failover", "other"]), "OK");
        let error = group.master.try_cmd(&["AUTH", "failover", "wrong"]).expect_err("it is wrong");
        assert!(error.contains("WRONGPASS"), "{error}");
    }
}

#[test]
fn a_dropped_server_is_gone() {
    let server = Server::start(ServerKind::Redis, &Options::new());
    let (pid, dir) = (server.pid(), server.dir().to_owned());
    drop(server);
    wait_until("the process is gone", PATIENCE, || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert!(!dir.exists());
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let started = std::thread::spawn(|| Server::start(ServerKind::Redis, &Options::new()));
    let server = started.join().expect("it starts");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.cmd(&["PING"]), "PONG");
}

#[test]
fn the_log_of_a_program_leads_to_its_address_and_its_end_is_clean() {
    let script = "echo 'INFO http is listening on 127.0.0.1:4321, raft is off' >&2
        trap 'echo bye >&2; exit 0' TERM
        while :; do sleep 0.02; done";
    let mut daemon = Daemon::start_with(Path::new("sh"), &["-c", script], &[]);
    assert_eq!(daemon.http(), SocketAddr::from(([127, 0, 0, 1], 4321)));
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(daemon.log().ends_with("bye\n"), "{}", daemon.log());
}

#[test]
fn the_http_client_reads_whole_answers_and_told_sees_each_change() {
    // One connection after the other; each answers its requests in this order, then ends.
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na:1",
        "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n\
         8\r\n{\"error\"\r\n13\r\n:{\"code\":\"halted\"}}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nb:1,c:1",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            for answer in answers {
                let mut request = [0; 1024];
                if stream.read(&mut request).expect("a request") == 0 {
                    break;
                }
                stream.write_all(answer.as_bytes()).expect("the client reads");
            }
        }
    });

    let mut client = Client::new(addr);
    assert_eq!(client.request("GET", "/", "").expect("an answer").body, "a:1");
    let refused = client.request("GET", "/", "").expect("an answer");
    assert_eq!((refused.status, refused.error_code()), (400, Some("halted")));
    assert_eq!(client.request("GET", "/", "").expect("an answer").body, "b:1,c:1");
    drop(client);

    let started_at = now();
    let told = Told::start(addr);
    let told_at = told.wait_for("c:1", started_at, PATIENCE);
    assert!(told_at > told.answers()[0].0);
    assert!(told.named("d:1", started_at).is_none());
}

#[test]
fn a_server_with_data_can_be_seen_loading() {
    for kind in ServerKind::all() {
        // Half a millisecond for each key, and a look at its clients after each kilobyte.
        let options = Options::new()
            .set("key-load-delay", "500")
            .set("loading-process-events-interval-bytes", "1024");
        let mut server = Server::start(kind, &options);
        server.cmd(&["DEBUG", "POPULATE", "3000"]);
        server.cmd(&["SAVE"]);
        server.kill9();
        server.restart();
        let error = server.try_cmd(&["GET", "key:1"]).expect_err("it is still loading");
        assert!(error.contains("LOADING") || error.contains("loading"), "{error}");
        wait_until("it has loaded", PATIENCE, || server.try_cmd(&["GET", "key:1"]).ok());
    }
}

/// A master and a replica, each on a host of its own.
fn group_on(network: &Network) -> Group {
    let [master, replica] = [0, 1].map(|number| Options::new().on(network.host(number)));
    Group::start_each(ServerKind::Redis, &master, &[replica])
}

#[test]
fn a_cut_stops_what_passes_between_two_hosts_and_healing_restores_it() {
    let Some(network) = Network::start(3) else { return };
    let group = group_on(&network);
    let [master, replica] = [&group.master, &group.replicas[0]];
    let [one, other, third] = [0, 1, 2].map(|number| network.host(number));
    assert_eq!(master.addr(), format!("{}:{}", one.ip(), master.port()));

    network.cut(one, other);
    master.cmd(&["SET", "during", "1"]);
    // Both are reached from here, and from everybody else; only what passes between them is gone.
    holds("nothing reaches the replica", || replica.cmd(&["GET", "during"]) == "(nil)");
    let port = master.port().to_string();
    let ping = |from: &common::netns::Host| {
        let mut command = from.command("timeout");
        command.args(["0.5", "redis-cli", "-h", &one.ip(), "-p", &port, "PING"]);
        command.output().expect("coreutils and redis-tools are there")
    };
    let answer = ping(third);
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "PONG\n", "{answer:?}");
    // It ran into the time-out: nobody said no.
    assert_eq!(ping(other).status.code(), Some(124));

    network.heal(one, other);
    wait_until("the replica catches up", PATIENCE, || {
        (replica.cmd(&["GET", "during"]) == "1").then_some(())
    });
    let answer = ping(other);
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "PONG\n", "{answer:?}");
    assert_eq!(master.info("stats")["sync_full"], "1", "the connection outlived the cut");
}

#[test]
fn a_cut_of_one_direction_leaves_the_other() {
    let Some(network) = Network::start(2) else { return };
    let group = group_on(&network);
    let [master, replica] = [&group.master, &group.replicas[0]];
    let [one, other] = [0, 1].map(|number| network.host(number));
    let acknowledged = || {
        let replica = &master.info("replication")["slave0"];
        let offset = replica.split(',').find_map(|field| field.strip_prefix("offset="));
        offset.and_then(|offset| offset.parse::<i64>().ok()).expect("a master says it")
    };
    network.cut_one_way(other, one);
    let before = acknowledged();
    master.cmd(&["SET", "during", "1"]);
    wait_until("the write reaches the replica", PATIENCE, || {
        (replica.cmd(&["GET", "during"]) == "1").then_some(())
    });
    // It is told each second how far the replica is.
    let second = Duration::from_millis(1500);
    common::scenario::holds_for(second, "no word comes back", || acknowledged() == before);
    network.heal_one_way(other, one);
    wait_until("the master is told", PATIENCE, || (acknowledged() > before).then_some(()));
}

#[test]
fn two_sides_are_split_and_joined() {
    let Some(network) = Network::start(4) else { return };
    let hosts: Vec<_> = network.hosts().iter().collect();
    let server = Server::start(ServerKind::Redis, &Options::new().on(hosts[0]));
    let port = server.port().to_string();
    let reaches = |from: &common::netns::Host| {
        let mut command = from.command("timeout");
        command.args(["0.5", "redis-cli", "-h", &server.ip(), "-p", &port, "PING"]);
        command.output().expect("coreutils and redis-tools are there").status.success()
    };
    network.split(&hosts[..2], &hosts[2..]);
    assert_eq!([1, 2, 3].map(|number| reaches(hosts[number])), [true, false, false]);
    network.join(&hosts[..2], &hosts[2..]);
    assert_eq!([1, 2, 3].map(|number| reaches(hosts[number])), [true, true, true]);
}

#[test]
fn the_program_runs_on_a_host_and_is_reached_there() {
    let Some(network) = Network::start(2) else { return };
    let mut group = group_on(&network);
    let name = group.master.addr();
    let masters = format!("-masters={name}");
    let addr = format!("-addr={}:11000", network.host(1).ip());
    let args = [&*masters, &*addr, "-check_interval=100", "-max_down_time=1"];
    let launch = Launch { host: Some(network.host(1)), ..Launch::of(&args) };
    let daemon = Daemon::try_start(&launch).expect("its port is free");
    assert_eq!(daemon.http().to_string(), format!("{}:11000", network.host(1).ip()));
    common::scenario::wait_until_guarded(&daemon, &name, &group.addrs());
    group.master.kill9();
    daemon.wait_for_master(&group.replicas[0].addr(), PATIENCE);
}

#[test]
fn what_a_network_was_made_of_is_removed_and_so_is_what_a_killed_test_left() {
    let mut ended = Command::new("true").spawn().expect("coreutils are there");
    let left = format!("rf-{}-999-router", ended.id());
    ended.wait().expect("it is our child");
    let ours = |mark: &str| -> Vec<String> {
        let names = ["/run/netns", "/sys/class/net"].map(|dir| std::fs::read_dir(dir).ok());
        let names = names.into_iter().flatten().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(mark)).collect()
    };
    // Where there can be no network there is nothing to remove, either.
    drop(Network::start(1));
    let Ok(true) = Command::new("ip").args(["netns", "add", &left]).status().map(|s| s.success())
    else {
        return;
    };
    let Some(network) = Network::start(2) else { return };
    assert!(ours(&left).is_empty(), "it is swept");
    let mark = network.mark();
    assert_eq!(ours(&mark).len(), 3, "a router and two hosts");
    let server = Server::start(ServerKind::Redis, &Options::new().on(network.host(0)));
    drop(network);
    assert!(ours(&mark).is_empty());
    drop(server);
}
