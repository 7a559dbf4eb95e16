use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const ASKED_AT: Time = Time::from_millis(1);

macro_rules! fixture {
    ($name:expr) => {
        &include_bytes!(concat!("../../../tests/fixtures/info/", $name, ".txt"))[..]
    };
}

fn dependence(text: &[u8]) -> Dependence {
    Fields::parse(text).dependence()
}

fn server(flavor: Flavor, version: &str) -> ServerInfo {
    ServerInfo { flavor, version: version.into(), run_id: None, read_only: false }
}

fn redis(text: impl AsRef<[u8]>) -> Result<Facts, InfoError> {
    replication(text.as_ref(), &server(Flavor::Redis, "7.0.15"), ASKED_AT).map(|(facts, _)| facts)
}

fn ledisdb(text: impl AsRef<[u8]>) -> Result<Facts, InfoError> {
    replication(text.as_ref(), &server(Flavor::Ledisdb, "0.5"), ASKED_AT).map(|(facts, _)| facts)
}

fn address(text: &str) -> Addr {
    text.parse().expect("address")
}

fn id(text: &str) -> Option<ReplicationId> {
    Some(ReplicationId(text.into()))
}

fn link(facts: &Facts) -> &Link {
    match &facts.role {
        Role::Replica { link, .. } => link,
        Role::Master { .. } => panic!("a replica"),
    }
}

fn replicas(facts: &Facts) -> Vec<String> {
    match &facts.role {
        Role::Master { replicas } => replicas.iter().map(ToString::to_string).collect(),
        Role::Replica { .. } => panic!("a master"),
    }
}

#[test]
fn a_server_is_what_it_answers() {
    let redis = ServerInfo::parse(fixture!("redis-7.0-server")).expect("redis");
    assert_eq!(
        redis,
        ServerInfo {
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some("a5ccf3fbbcfcb1a2bd37c7d72e60621f51c53186".into()),
            read_only: false,
        }
    );
    assert_eq!(redis.number(), Version::new(7, 0, 15));
    let valkey = ServerInfo::parse(fixture!("valkey-8.0-server")).expect("valkey");
    assert_eq!(
        valkey,
        ServerInfo {
            flavor: Flavor::Valkey,
            version: "8.0.1".into(),
            run_id: Some("0263aaed879f205a90fe35d3026d9bd177db1c83".into()),
            read_only: false,
        }
    );
    // With `extended-redis-compatibility yes` Valkey calls itself redis everywhere except in this field.
    let disguised =
        b"# Server\r\nredis_version:7.2.4\r\nserver_name:redis\r\nvalkey_version:8.0.1\r\n";
    assert_eq!(ServerInfo::parse(disguised).map(|server| server.flavor), Ok(Flavor::Valkey));
    let ledisdb = ServerInfo::parse(
        b"# Server\r\nos:linux\r\nprocess_id:7\r\naddr:127.0.0.1:6381\r\nhttp_addr:\r\nreadonly:false\r\n\
          goroutine_num:18\r\ncgo_call_num:1\r\nresp_client_num:3\r\nledisdb_version:0.5\r\n",
    );
    assert_eq!(ledisdb, Ok(server(Flavor::Ledisdb, "0.5")));
}

#[test]
fn a_server_of_another_name_is_told_what_the_oldest_understands() {
    let other =
        ServerInfo::parse(b"# Server\r\nhydra_version:1.2\r\nrun_id:abc\r\n").expect("facts");
    assert_eq!(
        (other.flavor, &*other.version, other.run_id.as_deref()),
        (Flavor::Redis, "unknown", Some("abc"))
    );
    let words = other.words();
    assert_eq!((words.replicaof, words.client_kill_types.len()), ("SLAVEOF", 0));
    assert_eq!(words.pause_writes(1), None);
}

/// Valkey writes the old words, and may write new ones some day.
#[test]
fn primaries_and_replicas_are_masters_and_slaves() {
    let renamed = |text: &[u8]| {
        let text = str::from_utf8(text).expect("a text");
        let words = [
            ("role:master", "role:primary"),
            ("role:slave", "role:replica"),
            ("master_", "primary_"),
        ];
        words
            .into_iter()
            .chain([("slave", "replica")])
            .fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    };
    for text in [
        fixture!("valkey-8.0-master"),
        fixture!("valkey-8.0-master-feeding"),
        fixture!("valkey-8.0-replica"),
    ] {
        let new = renamed(text);
        assert!(!new.contains("slave") && !new.contains("master_"), "{new}");
        assert_eq!(redis(&new), redis(text));
        assert_eq!(dependence(new.as_bytes()), dependence(text));
    }
}

#[test]
fn what_keeps_no_data_is_no_server() {
    for (text, error) in [
        (&b""[..], InfoError::NoVersion),
        (b"# Server\r\nredis_version:\r\n", InfoError::NoVersion),
        (b"redis_version:7 0\r\n", InfoError::NoVersion),
        (b"redis_version:7.0.15\r\nredis_mode:sentinel\r\n", InfoError::Sentinel),
    ] {
        assert_eq!(ServerInfo::parse(text), Err(error));
    }
    let endless = format!("redis_version:{}\r\n", "7".repeat(65));
    assert_eq!(ServerInfo::parse(endless.as_bytes()), Err(InfoError::NoVersion));
}

#[test]
fn a_master_names_its_replicas() {
    let server = ServerInfo::parse(fixture!("redis-7.0-server")).expect("redis");
    let facts =
        replication(fixture!("redis-7.0-master"), &server, ASKED_AT).map(|(facts, _)| facts);
    assert_eq!(
        facts,
        Ok(Facts {
            ping_period_secs: None,
            can_pause_writes: true,
            keys: None,
            fence: None,
            read_only: false,
            log_is_empty: false,
            asked_at: ASKED_AT,
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some("a5ccf3fbbcfcb1a2bd37c7d72e60621f51c53186".into()),
            role: Role::Master {
                replicas: vec![address("127.0.0.1:23102"), address("127.0.0.1:23103")],
            },
            replication_id: id("80a45a0dd24f3eaffc6191576893bb39e6262bfa"),
            second_replication_id: None,
            second_offset: None,
            offset: 106,
            priority: 100,
        })
    );
    let valkey = redis(fixture!("valkey-8.0-master")).expect("facts");
    assert_eq!(replicas(&valkey), ["127.0.0.1:23112", "127.0.0.1:23113"]);
    assert_eq!(valkey.offset, 106);
}

#[test]
fn the_keys_of_all_databases_are_counted() {
    let text =
        b"# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=5\r\ndb12:keys=40,expires=0,avg_ttl=0\r\n";
    assert_eq!(keys(text), Some(43));
    assert_eq!(keys(b"# Keyspace\r\n"), Some(0));
    for other in [&b"# Replication\r\nrole:master\r\n"[..], b"# Keyspace\r\ndb0:keys=many\r\n", b""]
    {
        assert_eq!(keys(other), None);
    }
}

#[test]
fn replicas_are_named_as_they_announce_themselves() {
    for (text, first) in [
        (fixture!("redis-7.0-master-ipv6-and-names"), "[::1]:23122"),
        (fixture!("valkey-8.0-master-ipv6-and-names"), "[::1]:23132"),
    ] {
        let facts = redis(text).expect("facts");
        assert_eq!(replicas(&facts), [first, "replica-3.example.org:7003"]);
    }
}

#[test]
fn a_replica_that_is_being_fed_is_attached() {
    for (text, replica) in [
        (fixture!("redis-7.0-master-feeding"), "127.0.0.1:23106"),
        (fixture!("valkey-8.0-master-feeding"), "127.0.0.1:23116"),
    ] {
        assert_eq!(replicas(&redis(text).expect("facts")), [replica]);
    }
}

#[test]
fn a_promoted_master_remembers_its_former_history() {
    let facts = redis(fixture!("redis-7.0-master-promoted")).expect("facts");
    assert_eq!(facts.replication_id, id("9d53eea9a409263a52bc76cfada493abd481d440"));
    assert_eq!(facts.second_replication_id, id("80a45a0dd24f3eaffc6191576893bb39e6262bfa"));
    assert!(replicas(&facts).is_empty());
    assert_eq!(redis(fixture!("redis-7.0-master")).expect("facts").second_offset, None);
    for text in [
        fixture!("redis-7.0-replica-second-history"),
        fixture!("valkey-8.0-replica-second-history"),
        fixture!("valkey-8.0-master-promoted"),
    ] {
        let facts = redis(text).expect("facts");
        assert!(facts.second_replication_id.is_some());
        assert!(facts.second_offset.is_some_and(|left_at| left_at <= facts.offset));
    }
}

#[test]
fn links_of_real_replicas() {
    let cases = [
        (fixture!("redis-7.0-replica"), "127.0.0.1:23101", 106, 100),
        (fixture!("valkey-8.0-replica"), "127.0.0.1:23111", 106, 100),
        (fixture!("redis-7.0-replica-ipv6"), "[::1]:23121", 0, 100),
        (fixture!("valkey-8.0-replica-ipv6"), "[::1]:23131", 14, 100),
        (fixture!("redis-7.0-replica-announced"), "localhost:23121", 0, 0),
        (fixture!("valkey-8.0-replica-announced"), "localhost:23131", 14, 0),
    ];
    for (text, master, offset, priority) in cases {
        let facts = redis(text).expect("facts");
        assert_eq!(facts.follows(), Some(&address(master)));
        assert!(facts.link_up(), "{facts:?}");
        assert_eq!((facts.offset, facts.priority), (offset, priority));
    }
    for (text, expected, offset) in [
        (fixture!("redis-7.0-replica-syncing"), Link::Syncing, 0),
        (fixture!("valkey-8.0-replica-syncing"), Link::Syncing, 0),
        (fixture!("redis-7.0-replica-link-down"), Link::Down { since_secs: Some(3) }, 106),
        (fixture!("valkey-8.0-replica-link-down"), Link::Down { since_secs: Some(3) }, 120),
        (fixture!("redis-7.0-replica-never-synced"), Link::Down { since_secs: None }, 0),
        (fixture!("valkey-8.0-replica-never-synced"), Link::Down { since_secs: None }, 0),
    ] {
        let facts = redis(text).expect("facts");
        assert_eq!((link(&facts), facts.offset), (&expected, offset));
    }
}

const REPLICA: &str = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n";

#[test]
fn old_servers_are_read_in_their_own_way() {
    // Before Redis 4 a replica has no replication id, and its own position is slave_repl_offset.
    let old = redis(format!(
        "{REPLICA}master_link_status:up\r\nmaster_last_io_seconds_ago:2\r\nmaster_sync_in_progress:0\r\n\
         slave_repl_offset:900\r\nslave_priority:90\r\nslave_read_only:1\r\nconnected_slaves:0\r\n\
         master_repl_offset:0\r\nrepl_backlog_active:0\r\n"
    ))
    .expect("facts");
    assert_eq!((old.offset, old.priority), (900, 90));
    assert_eq!(link(&old), &Link::Up { last_io_secs: 2 });
    assert_eq!(old.replication_id, None);

    let down = |since: &str| {
        let facts =
            redis(format!("{REPLICA}master_link_status:down\r\nmaster_repl_offset:-1\r\n{since}"));
        link(&facts.expect("facts")).clone()
    };
    let never = Link::Down { since_secs: None };
    assert_eq!(down(""), never);
    assert_eq!(down("master_link_down_since_seconds:-1\r\n"), never);
    assert_eq!(
        down("master_link_down_since_seconds:1795385960\r\n"),
        never,
        "a link that was never up is down since the epoch"
    );
    assert_eq!(down("master_link_down_since_seconds:0\r\n"), Link::Down { since_secs: Some(0) });

    let master = redis(
        "role:master\r\nconnected_slaves:2\r\nslave0:10.0.0.2,6379,online\r\nslave1:::1,6380,online\r\n\
         master_repl_offset:7\r\n",
    );
    assert_eq!(replicas(&master.expect("facts")), ["10.0.0.2:6379", "[::1]:6380"]);
}

#[test]
fn a_link_that_is_fresh_was_heard_of_now() {
    let facts = redis(format!(
        "{REPLICA}master_link_status:up\r\nmaster_last_io_seconds_ago:-1\r\nmaster_repl_offset:1\r\n"
    ));
    assert_eq!(link(&facts.expect("facts")), &Link::Up { last_io_secs: 0 });
}

#[test]
fn replicas_that_cannot_be_read_are_skipped() {
    let facts = redis(
        b"role:master\r\nmaster_repl_offset:1\r\n\
         slave0:ip=10.0.0.2,port=0,state=online\r\n\
         slave1:ip=,port=6379,state=online\r\n\
         slave2:ip=10.0.0.2,port=six,state=online\r\n\
         slave3:port=6379\r\n\
         slave4:\r\n\
         slave5:10.0.0.2\r\n\
         slavex:ip=10.0.0.9,port=6379\r\n\
         slave6:ip=10.0.0.3,port=6379,state=send_bulk,offset=0,lag=0,type=rdb-channel\r\n\
         slave7:ip=10.0.0.3,port=6379,state=bg_transfer,offset=0,lag=0,type=main-channel\r\n\
         slave8:\xff\r\n",
    );
    assert_eq!(replicas(&facts.expect("facts")), ["10.0.0.3:6379"]);
}

#[test]
fn what_cannot_be_acted_on_is_an_error() {
    for (text, sentence) in [
        ("".to_owned(), "INFO names no role"),
        ("role:\r\n".to_owned(), "which is neither master nor slave"),
        ("role:sentinel\r\n".to_owned(), "\"sentinel\""),
        ("role:master\r\n".to_owned(), "names no replication offset"),
        (
            "role:master\r\nmaster_repl_offset:many\r\n".to_owned(),
            "\"many\", which is not a number",
        ),
        ("role:slave\r\nmaster_host:a\r\n".to_owned(), "names no master"),
        (REPLICA.replace("6379", "0"), "\"10.0.0.1:0\""),
        (REPLICA.replace("10.0.0.1", "a b"), "\"a b:6379\""),
        (REPLICA.replace("6379", "x\u{7}"), "\"10.0.0.1:x \""),
        (REPLICA.to_owned(), "names no replication offset"),
    ] {
        let error = redis(&text).expect_err(&text).to_string();
        assert!(error.contains(sentence), "{error}");
    }
    let long = redis(format!("role:{}\r\n", "x".repeat(100_000))).expect_err("no role");
    assert!(long.to_string().len() < 200);
}

#[test]
fn attached_replicas_are_bounded() {
    let lines: String = (0..5000)
        .map(|n| format!("slave{n}:ip=10.0.{}.{},port=6379\r\n", n / 256, n % 256))
        .collect();
    let facts = redis(format!("role:master\r\nmaster_repl_offset:1\r\n{lines}"));
    assert_eq!(replicas(&facts.expect("facts")).len(), REPLICAS_MAX);
}

const LEDISDB_MASTER: &str = "# Replication\r\nrole:master\r\npub_log_num:0\r\npub_log_ack_per_time:0\r\nslaveof:\r\n\
    slaves:127.0.0.1:6382,127.0.0.1:6383\r\nlast_log_id:1\r\nfirst_log_id:1\r\ncommit_log_id:1\r\n\
    master_last_log_id:0\r\n\r\n";
const LEDISDB_SLAVE: &str = "# Replication\r\nrole:slave\r\npub_log_num:0\r\npub_log_ack_per_time:0\r\n\
    slaveof:127.0.0.1:6381\r\nlast_log_id:1\r\nfirst_log_id:1\r\ncommit_log_id:1\r\nmaster_last_log_id:1\r\n\
    master_link_status:up\r\nslave_priority:100\r\nslave_repl_offset:1\r\n\r\n";

/// A slave of LedisDB with this state of its link, last log id and commit log id.
fn ledisdb_slave(status: &str, last: u64, commit: u64) -> Facts {
    let position = if last > 0 { last } else { commit };
    let text = LEDISDB_SLAVE
        .replace("\r\nlast_log_id:1", &format!("\r\nlast_log_id:{last}"))
        .replace("commit_log_id:1", &format!("commit_log_id:{commit}"))
        .replace("repl_offset:1", &format!("repl_offset:{position}"))
        .replace("status:up", &format!("status:{status}"));
    ledisdb(text).expect("facts")
}

#[test]
fn ledisdb_names_addresses_in_one_piece() {
    let master = ledisdb(LEDISDB_MASTER).expect("facts");
    assert_eq!(replicas(&master), ["127.0.0.1:6382", "127.0.0.1:6383"]);
    assert_eq!(master.offset, 1);
    assert_eq!((master.run_id, master.replication_id), (None, None));

    let alone = LEDISDB_MASTER.replace("slaves:127.0.0.1:6382,127.0.0.1:6383\r\n", "");
    assert!(replicas(&ledisdb(alone).expect("facts")).is_empty());
    let odd = LEDISDB_MASTER.replace("127.0.0.1:6382", "[::1]:1,::1:2,x,:3");
    assert_eq!(replicas(&ledisdb(odd).expect("facts")), ["[::1]:1", "[::1]:2", "127.0.0.1:6383"]);

    let slave = ledisdb(LEDISDB_SLAVE).expect("facts");
    assert_eq!(slave.follows(), Some(&address("127.0.0.1:6381")));
    assert_eq!(link(&slave), &Link::Up { last_io_secs: 0 });
    assert_eq!((slave.offset, slave.priority), (1, 100));
    assert_eq!(ledisdb("role:slave\r\nslaveof:\r\nlast_log_id:1\r\n"), Err(InfoError::NoMaster));
    assert_eq!(
        ledisdb("role:slave\r\nslaveof:x\r\nlast_log_id:1\r\n"),
        Err(InfoError::BadMaster("x".into()))
    );
    assert_eq!(ledisdb("role:master\r\n"), Err(InfoError::NoOffset));
}

#[test]
fn ledisdb_is_as_far_as_its_largest_id() {
    let copied = ledisdb_slave("up", 0, 7);
    assert_eq!(copied.offset, 7, "after a full copy only the commit id tells");
    assert_eq!(link(&copied), &Link::Up { last_io_secs: 0 });
    assert_eq!(ledisdb_slave("up", 9, 7).offset, 9);
    assert_eq!(link(&ledisdb_slave("up", 0, 0)), &Link::Syncing);
    assert_eq!(link(&ledisdb_slave("down", 3, 3)), &Link::Down { since_secs: Some(0) });
    assert_eq!(link(&ledisdb_slave("down", 0, 0)), &Link::Down { since_secs: None });
}

#[test]
fn role_settles_what_info_leaves_open() {
    let role = |state: &'static str| {
        Frame::Array(vec![
            Frame::Bulk(Bytes::from_static(b"slave")),
            Frame::Bulk(Bytes::from_static(b"127.0.0.1")),
            Frame::Integer(6381),
            Frame::Bulk(Bytes::from_static(state.as_bytes())),
            Frame::Integer(0),
        ])
    };
    let settled = |mut facts: Facts, state| {
        settle(&mut facts, &role(state));
        link(&facts).clone()
    };
    let empty = ledisdb_slave("up", 0, 0);
    assert_eq!(settled(empty.clone(), "sync"), Link::Syncing);
    assert_eq!(settled(empty.clone(), "connected"), Link::Up { last_io_secs: 0 });
    assert_eq!(
        settled(ledisdb_slave("up", 5, 5), "sync"),
        Link::Syncing,
        "also a slave that had data is partial while it is copied anew"
    );
    let down = ledisdb_slave("down", 1, 1);
    assert_eq!(settled(down, "connect"), Link::Down { since_secs: Some(0) });
    let mut unchanged = empty.clone();
    settle(&mut unchanged, &Frame::Null);
    assert_eq!(unchanged, empty);
    let mut other = redis(fixture!("redis-7.0-replica-syncing")).expect("facts");
    settle(&mut other, &role("connected"));
    assert_eq!(link(&other), &Link::Syncing, "Redis says it itself");
}

/// Lines that are often nearly right.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec![
        "role",
        "master_host",
        "master_port",
        "master_link_status",
        "master_sync_in_progress",
        "master_link_down_since_seconds",
        "master_repl_offset",
        "slave_repl_offset",
        "master_replid",
        "slave0",
        "slave1",
        "slaveof",
        "slaves",
        "last_log_id",
        "redis_version",
        "valkey_version",
        "ledisdb_version",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "master",
            "slave",
            "up",
            "10.0.0.1",
            "6379",
            "10.0.0.1:6379",
            "ip=::1,port=1,state=online",
            "1,2,,=,:",
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,12}",
    ];
    let line = prop_oneof![
        6 => (key, value).prop_map(|(key, value)| format!("{key}:{value}\r\n").into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(line, 0..16).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn no_text_is_too_odd_to_be_read(text in soup()) {
        let _ = ServerInfo::parse(&text);
        for flavor in [Flavor::Redis, Flavor::Valkey, Flavor::Ledisdb] {
            if let Err(error) = replication(&text, &server(flavor, "1"), ASKED_AT) {
                prop_assert!(error.to_string().len() < 200);
                prop_assert!(!error.to_string().contains(char::is_control));
            }
        }
    }
}

#[test]
fn a_replica_counts_while_it_is_online_and_acknowledges() {
    let of = |text: &str| dependence(text.as_bytes());
    let slave = |state: &str, lag: &str| {
        format!("role:master\r\nslave0:ip=10.0.0.1,port=6379,state={state},offset=1,lag={lag}\r\n")
    };
    for (state, lag, online) in [
        ("online", "0", 1),
        ("online", "1", 1),
        ("online", "2", 0),
        ("online", "-1", 0),
        ("wait_bgsave", "0", 0),
        ("send_bulk", "0", 0),
    ] {
        assert_eq!(of(&slave(state, lag)), Dependence { is_on: false, online }, "{state} {lag}");
    }
    let on = "role:master\r\nmin_slaves_good_slaves:0\r\nconnected_slaves:0\r\n";
    assert_eq!(of(on), Dependence { is_on: true, online: 0 });
    assert_eq!(
        of("slave0:10.0.0.1,6379,online\r\nslave1:10.0.0.2,6379,send_bulk"),
        Dependence { is_on: false, online: 1 }
    );
    assert_eq!(dependence(b"\xff\xfe:1\r\nslave0:,=\r\nslavex:1"), Dependence::default());
    assert_eq!(dependence(fixture!("redis-7.0-master")).online, 2);
    assert_eq!(dependence(fixture!("redis-7.0-replica")), Dependence::default());
}
