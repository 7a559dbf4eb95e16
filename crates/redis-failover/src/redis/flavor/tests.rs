use proptest::prelude::*;

use super::*;

fn line(words: &[Bytes]) -> String {
    let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
    words.join(" ")
}

#[test]
fn a_version_is_what_its_text_begins_with() {
    for (text, version) in [
        ("7.0.15", Version::new(7, 0, 15)),
        ("8.0.0-rc1", Version::new(8, 0, 0)),
        ("6.2", Version::new(6, 2, 0)),
        ("0.5", Version::new(0, 5, 0)),
        ("255.255.255", Version::new(255, 255, 255)),
        ("7.4.1.2", Version::new(7, 4, 1)),
        ("v7", Version::new(0, 0, 0)),
        ("99999999.1", Version::new(0, 1, 0)),
        ("ß.ß", Version::default()),
        ("", Version::default()),
    ] {
        assert_eq!(Version::parse(text), version, "{text}");
    }
}

#[test]
fn each_server_is_told_in_its_own_words() {
    let master: Addr = "[::1]:6379".parse().expect("address");
    for (flavor, version, promoted, following) in [
        (Flavor::Redis, "7.0.15", "REPLICAOF NO ONE", "REPLICAOF ::1 6379"),
        (Flavor::Redis, "4.0.14", "SLAVEOF NO ONE", "SLAVEOF ::1 6379"),
        (Flavor::Valkey, "8.0.1", "REPLICAOF NO ONE", "REPLICAOF ::1 6379"),
        (Flavor::Ledisdb, "0.5", "SLAVEOF NO ONE", "SLAVEOF ::1 6379"),
    ] {
        let words = Words::of(flavor, Version::parse(version));
        assert_eq!(line(&words.promote()), promoted);
        assert_eq!(line(&words.follow(&master, Keep::Common)), following);
    }
}

#[test]
fn words_come_with_versions() {
    let of = |flavor, version| Words::of(flavor, Version::parse(version));
    assert_eq!(of(Flavor::Redis, "6.2.0"), of(Flavor::Valkey, "7.2.5"));
    assert_eq!(of(Flavor::Redis, "5.0.0").replicaof, "REPLICAOF");
    assert!(of(Flavor::Redis, "2.8.4").client_kill_types.is_empty());
    let ledisdb = of(Flavor::Ledisdb, "0.5");
    assert!(!ledisdb.multi && ledisdb.scattered && ledisdb.client_kill_types.is_empty());
}

#[test]
fn refusals_of_real_servers_have_a_kind() {
    use ErrorKind::{Auth, Busy, Loading, MasterDown, Misconf, Other, TooManyClients};
    for (text, kind) in [
        ("LOADING Redis is loading the dataset in memory", Loading),
        ("LOADING Valkey is loading the dataset in memory", Loading),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            MasterDown,
        ),
        ("MISCONF Redis is configured to save RDB snapshots, but", Misconf),
        (
            "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            Busy,
        ),
        ("BUSYKEY Target key name already exists.", Other),
        ("NOAUTH Authentication required.", Auth),
        ("WRONGPASS invalid username-password pair or user is disabled.", Auth),
        ("NOPERM User u has no permissions to run the 'replicaof' command", Auth),
        ("DENIED Running in protected mode because", Auth),
        (
            "ERR AUTH <password> called without any password configured for the default user. Are you sure",
            Auth,
        ),
        ("ERR Client sent AUTH, but no password is set", Auth),
        ("ERR invalid password", Auth),
        ("ERR operation not permitted", Auth),
        ("not authenticated", Auth),
        ("authentication failure", Auth),
        ("ERR max number of clients reached", TooManyClients),
        ("ERR max number of clients + cluster connections reached", TooManyClients),
        ("READONLY You can't write against a read only replica.", Other),
        ("ERR unknown command 'NOSUCH', with args beginning with: ", Other),
        ("command not found", Other),
        ("", Other),
    ] {
        let error = ServerError::new(text.as_bytes());
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.starts_with(error.sentence()), "{error}");
    }
}

#[test]
fn a_password_is_not_repeated() {
    let error = ServerError::new(
        b"ERR unknown command `AUTH`, with args beginning with: `secret`, `more`, ",
    );
    assert_eq!(error.to_string(), "the server answered \"ERR unknown command `AUTH`\"");
    let long =
        format!("ERR unknown command '{}', with args beginning with: 'secret'", "x".repeat(128));
    assert!(!ServerError::new(long.as_bytes()).sentence().contains("secret"));
}

#[test]
fn a_sentence_is_one_short_line() {
    assert_eq!(ServerError::new(b"ERR a\x1b[31m\r\nb\0 ").sentence(), "ERR a [31m  b");
    assert_eq!(ServerError::new(&[b'x'; 500]).sentence().len(), 200);
    assert_eq!(ServerError::new(&[0xff; 500]).sentence().len(), 198);
}

proptest! {
    #[test]
    fn any_refusal_makes_a_sentence(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let error = ServerError::new(&text);
        prop_assert!(error.sentence().len() <= SENTENCE_BYTES_MAX);
        prop_assert!(!error.sentence().contains(char::is_control));
    }

    #[test]
    fn any_text_makes_a_version(text in "\\PC{0,20}") {
        prop_assert!(Version::parse(&text) >= Version::default());
    }
}

#[test]
fn each_server_is_fenced_in_its_own_words_and_an_order_that_stops_nobody_in_between() {
    let on = MinReplicas { to_write: 1, max_lag_secs: 3 };
    let open = MinReplicas { to_write: 0, max_lag_secs: 3 };
    let told = |flavor, version: &str, set| -> Vec<String> {
        let words = Words::of(flavor, Version::parse(version));
        words.fence(set).iter().map(|command| line(command)).collect()
    };
    assert_eq!(
        told(Flavor::Valkey, "8.0.1", on),
        ["CONFIG SET min-replicas-max-lag 3", "CONFIG SET min-replicas-to-write 1"]
    );
    assert_eq!(
        told(Flavor::Redis, "4.0.14", open),
        ["CONFIG SET min-slaves-to-write 0", "CONFIG SET min-slaves-max-lag 3"]
    );
    assert!(told(Flavor::Ledisdb, "0.5", on).is_empty());
}

#[test]
fn what_a_server_is_set_to_is_read_by_either_name() {
    let read = |words: &[&str]| {
        let pairs: Vec<Frame> =
            words.iter().map(|word| Frame::Bulk(Bytes::copy_from_slice(word.as_bytes()))).collect();
        min_replicas(&pairs)
    };
    let set = |to_write, max_lag_secs| Some(MinReplicas { to_write, max_lag_secs });
    let old = ["min-slaves-max-lag", "10", "min-slaves-to-write", "0"];
    assert_eq!(read(&old), set(0, 10));
    let both =
        ["min-slaves-max-lag", "3", "min-replicas-to-write", "1", "min-replicas-max-lag", "3"];
    assert_eq!(read(&both), set(1, 3));
    assert_eq!(read(&["min-replicas-to-write", "1"]), None);
    assert_eq!(read(&["min-replicas-to-write", "x", "min-replicas-max-lag", "3"]), None);
    assert_eq!(read(&["min-replicas-to-write"]), None);
    assert_eq!(read(&[]), None);
}
