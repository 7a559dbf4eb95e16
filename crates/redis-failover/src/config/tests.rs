use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use failover_core::policy::{AcrossLocations, InstancePolicy, OnFailedFailover};
use failover_core::record::{HookEvent, Rule};

use super::*;
use crate::cli::{Parsed, load};

const ORIGINAL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/original-failover.toml");
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../etc/failover.toml");

/// A file that is deleted at the end of its test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let id = format!("redis-failover-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(id);
        std::fs::write(&path, text).expect("the temporary directory is writable");
        Self(path)
    }

    fn flag(&self, name: &str) -> String {
        format!("-{name}={}", self.0.display())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn parse(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let args = std::iter::once("redis-failover").chain(flags.iter().copied());
    let environment = |name: &str| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    match load(args, environment)? {
        Parsed::Run(config) => Ok(*config),
        Parsed::Print(text) => panic!("printed {text}"),
        Parsed::Doctor(_) | Parsed::Migrate(_) => panic!("it is a command"),
    }
}

fn flags(flags: &[&str]) -> Config {
    parse(flags, &[]).unwrap_or_else(|error| panic!("{flags:?}: {error}"))
}

fn flags_error(flags: &[&str]) -> String {
    match parse(flags, &[]) {
        Ok(config) => panic!("{flags:?} gave {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn file(text: &str) -> Result<Config, ConfigError> {
    let mut draft = Draft::default();
    draft.add_file(file::parse(Path::new("f.toml"), text)?)?;
    draft.finish()
}

fn file_ok(text: &str) -> Config {
    file(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn file_error(text: &str) -> String {
    match file(text) {
        Ok(config) => panic!("{text} gave {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn addrs(texts: &[&str]) -> Vec<Addr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn password(credentials: &Credentials) -> Option<&str> {
    credentials.password.as_ref().map(ExposeSecret::expose_secret)
}

fn printed(flags: &[&str]) -> String {
    let args = std::iter::once("redis-failover").chain(flags.iter().copied());
    match load(args, |_: &str| None).expect("nothing is wrong") {
        Parsed::Run(config) => panic!("{flags:?} gave {config:?}"),
        Parsed::Print(text) => text,
        Parsed::Doctor(_) | Parsed::Migrate(_) => panic!("it is a command"),
    }
}

#[test]
fn the_command_of_the_readme_is_understood() {
    let config = flags(&["-addr=127.0.0.1:11000", "-masters=127.0.0.1:6379"]);
    assert_eq!(config.addr.expect("an address").to_string(), "127.0.0.1:11000");
    assert_eq!(config.masters, addrs(&["127.0.0.1:6379"]));
    assert_eq!(config.broker, BrokerKind::None);
}

#[test]
fn every_flag_is_read_in_every_form() {
    let password = TempFile::new("forms", "secret");
    let password = password.0.to_str().expect("a path in UTF-8").to_owned();
    let values = [
        ("addr", "127.0.0.1:1"),
        ("log_level", "debug"),
        ("log_format", "json"),
        ("journal_file", "./journal"),
        ("journal_max_mb", "3"),
        ("masters", "a:1,b:2"),
        ("masters_state", "new"),
        ("redis_user", "monitor"),
        ("redis_password_file", &password),
        ("check_interval", "12.5"),
        ("max_down_time", "0.5"),
        ("crash_down_time", "0.25"),
        ("quorum", "1"),
        ("parallel_syncs", "2"),
        ("max_lag_bytes", "77"),
        ("failover_timeout", "9"),
        ("on_failed_failover", "retry"),
        ("failover_across_locations", "deny"),
        ("fencing", "min-replicas"),
        ("cooldown", "12.5"),
        ("before_failover_timeout_ms", "50"),
        ("before_failover_script", "/bin/true"),
        ("client_reconfig_script", "/bin/true"),
        ("notification_script", "/bin/true"),
        ("script_timeout", "2.5"),
        ("script_retry_delay", "0.5"),
        ("script_env", "AWS_PROFILE,SSH_AUTH_SOCK"),
        ("xcodis_addr", "127.0.0.1:2181,zk2"),
        ("xcodis_product", "shop"),
        ("xcodis_groups", "sessions,carts"),
        ("xcodis_zk_path", "/elsewhere"),
        ("xcodis_session_timeout_ms", "5000"),
        ("xcodis_lock_timeout_ms", "500"),
        ("xcodis_ack_timeout_ms", "700.5"),
        ("codis_dashboard", "127.0.0.1:18080"),
        ("codis_product", "shop"),
        ("codis_groups", "sessions"),
        ("codis_timeout_ms", "250"),
        ("broker", "none"),
        ("node_addr", "127.0.0.1:12000"),
        ("cluster_secret_file", &password),
        ("cluster_open", "true"),
        ("raft_addr", "127.0.0.1:12000"),
        ("raft_data_dir", "./var0"),
        ("raft_log_dir", "./log0"),
        ("raft_cluster", "127.0.0.1:12000,127.0.0.1:12001"),
        ("raft_cluster_state", "new"),
        ("raft_heartbeat_ms", "20"),
        ("raft_election_min_ms", "200.5"),
        ("raft_election_max_ms", "400"),
        ("zk_addr", "127.0.0.1:2181,zk2"),
        ("zk_path", "/zk/redis/failover"),
        ("zk_session_timeout_ms", "5000"),
        ("zk_user", "failover"),
        ("zk_password_file", &password),
        ("etcd_addr", "127.0.0.1:2379"),
        ("etcd_prefix", "/redis/failover"),
        ("etcd_lease_ttl_ms", "5000"),
        ("etcd_user", "failover"),
        ("etcd_password_file", &password),
    ];
    let named: Vec<_> = values.iter().map(|(name, _)| *name).collect();
    let all: Vec<_> =
        Setting::all().filter(|setting| setting.is_flag).map(|setting| setting.key).collect();
    assert_eq!(named, all, "every flag is in this test");

    // What is given by half is refused, so that its other half is here.
    let xcodis = ["-xcodis_addr=zk", "-xcodis_product=test", "-xcodis_groups=all"];
    let codis = ["-codis_dashboard=d:1", "-codis_product=test", "-codis_groups=all"];
    for (name, value) in values {
        let others: &[&str] = match name.split_once('_') {
            Some(("xcodis", _)) => &xcodis,
            Some(("codis", _)) => &codis,
            Some(_) if name == "crash_down_time" => &["-max_down_time=1"],
            Some(_) | None => &[],
        };
        let default = format!("{:?}", flags(others));
        // Broker none keeps the addresses of the others from choosing one of them.
        let forms: [Vec<String>; 4] = [
            vec![format!("-{name}={value}")],
            vec![format!("-{name}"), value.to_owned()],
            vec![format!("--{name}={value}")],
            vec![format!("--{name}"), value.to_owned()],
        ];
        let read = forms.map(|form| {
            let mut args = vec!["-broker", "none"];
            args.extend(others);
            args.extend(form.iter().map(String::as_str));
            format!("{:?}", flags(&args))
        });
        assert!(read.iter().all(|one| *one == read[0]), "{name}: {read:?}");
        let changes = !matches!(name, "broker");
        assert_eq!(read[0] != default, changes, "{name} is stored");
    }
}

#[test]
fn values_and_units() {
    let config = flags(&[
        "-check_interval=12.5",
        "-max_down_time=1.5",
        "-crash_down_time=.25",
        "-failover_timeout=9",
        "-before_failover_timeout_ms=50",
        "-on_failed_failover=retry",
        "-quorum=1",
        "-parallel_syncs=2",
        "-max_lag_bytes=18446744073709551615",
        "-masters= a:1 ,[::1]:2,Redis-3.Example:3,",
    ]);
    let policy = config.policy;
    assert_eq!(policy.check_interval, Duration::from_micros(12_500));
    assert_eq!(policy.max_down_time, Duration::from_millis(1500));
    assert_eq!(policy.max_loading_time, Duration::from_millis(1500));
    assert_eq!(policy.crash_down_time, Duration::from_millis(250));
    assert_eq!(policy.failover_timeout, Duration::from_secs(9));
    assert_eq!(policy.before_failover_timeout, Duration::from_millis(50));
    assert_eq!(policy.on_failed_failover, OnFailedFailover::Retry);
    assert_eq!((policy.quorum, policy.parallel_syncs), (1, 2));
    assert_eq!(policy.max_lag_bytes, u64::MAX);
    assert_eq!(config.masters, addrs(&["a:1", "[::1]:2", "redis-3.example:3"]));
    let policy =
        file_ok("check_interval = 12.5\nmax_down_time = 2\nmax_lag_bytes = 1_000\n").policy;
    assert_eq!(policy.check_interval, Duration::from_micros(12_500));
    assert_eq!(policy.max_down_time, Duration::from_secs(2));
    assert_eq!(policy.max_lag_bytes, 1000);
}

#[test]
fn listen_addresses() {
    let of = |text: &str| flags(&["-addr", text]).addr;
    assert_eq!(of(""), None, "no HTTP");
    let any = of(":11000").expect("an address");
    assert_eq!((any.host(), any.port()), (None, 11000));
    assert_eq!(any.to_bind(), ["[::]:11000", "0.0.0.0:11000"]);
    for text in ["127.0.0.1:0", "[::1]:11000", "localhost:11000", ":0"] {
        assert_eq!(of(text).expect("an address").to_string(), text);
    }
    let v6 = of("[::1]:80").expect("an address");
    assert_eq!((v6.host(), v6.port()), (Some("::1"), 80));
    assert_eq!(v6.to_bind(), ["[::1]:80"]);
    for text in ["11000", "::1:80", "host:", "host:65536", "a/b:1", ":x"] {
        let error = flags_error(&["-addr", text]);
        assert!(error.starts_with(&format!("flag -addr: \"{text}\"")), "{error}");
    }
}

#[test]
fn help_and_version() {
    for form in ["-help", "--help", "-h"] {
        let help = printed(&[form]);
        for setting in Setting::all().filter(|setting| setting.is_flag) {
            assert!(help.contains(&format!("--{} <", setting.key)), "{help}");
        }
        assert!(help.contains("--config <FILE>"), "{help}");
        assert!(!help.contains("--redis_password <"), "{help}");
        assert!(!help.contains("--cluster_secret <"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 130), "{help}");
    }
    for form in ["-version", "--version", "-V"] {
        let expected = format!("redis-failover {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(printed(&[form]), expected);
    }
}

#[test]
fn what_is_no_flag_is_refused() {
    for (args, expected) in [
        (&["-adr=:1"][..], "there is no flag --adr, but there is --addr; "),
        (&["-x"], "there is no flag -x; "),
        (&["--quorums=1"], "there is no flag --quorums, but there is --quorum; "),
        (&["start"], "\"start\" stands alone: "),
        (&["--", "-addr=:1"], "\"-addr=:1\" stands alone: "),
        (&["-masters"], "the flag --masters needs a value; "),
        (&["-masters", "-addr=:1"], "the flag --masters needs a value; "),
        (&["-quorum=two"], "flag -quorum: \"two\" is not a whole number of at least 0"),
        (&["-quorum="], "flag -quorum: \"\" is not a whole number of at least 0"),
        (&["-quorum=-1"], "flag -quorum: \"-1\" is not a whole number of at least 0"),
        (
            &["-crash_down_time", "-1"],
            "flag -crash_down_time: -1 is no time: it must be at least 0",
        ),
        (&["-max_down_time=nan"], "flag -max_down_time: NaN is no time: it must be at least 0"),
        (&["-max_down_time=inf"], "flag -max_down_time: inf is no time"),
        (&["-max_down_time=3s"], "flag -max_down_time: \"3s\" is not a number"),
        (&["-masters=a"], "flag -masters: \"a\" is not an address: expected host:port"),
        (&["-masters=a:1,a:1"], "flag -masters: masters has a:1 twice"),
        (
            &["-masters_state=old"],
            "flag -masters_state: \"old\" is unknown: it must be existing or new",
        ),
        (
            &["-log_level=loud"],
            "flag -log_level: \"loud\" is unknown: it must be error, warn, info, debug or trace",
        ),
        (&["-quorum=2"], "flag -quorum: quorum is 2, but the cluster has 1 voter"),
        (&["-parallel_syncs=0"], "flag -parallel_syncs: parallel_syncs must be at least 1"),
        (
            &["-failover_timeout=86401"],
            "flag -failover_timeout: failover_timeout must be at most one day",
        ),
        (
            &["-config=/nonexistent/f.toml"],
            "/nonexistent/f.toml: the config file cannot be read: No such file",
        ),
        (&["-config=/"], "/: the config file cannot be read: "),
    ] {
        let error = flags_error(args);
        assert!(error.starts_with(expected), "{args:?}: {error}");
        assert!(!error.contains('\n'), "{args:?}: {error}");
    }
}

#[test]
fn the_last_of_several_flags_wins() {
    assert_eq!(flags(&["-quorum=0", "--quorum", "1"]).policy.quorum, 1);
}

#[test]
fn later_sources_win() {
    let text = "addr = ':1'\ncheck_interval = 101\nmax_down_time = 11\nparallel_syncs = 2\n\
                masters = ['file:1']\n";
    let file = TempFile::new("precedence", text);
    let file = file.0.to_str().expect("a path in UTF-8");
    let environment = [
        ("REDIS_FAILOVER_CONFIG", file),
        ("REDIS_FAILOVER_CHECK_INTERVAL", "102"),
        ("REDIS_FAILOVER_MAX_DOWN_TIME", "12"),
        ("REDIS_FAILOVER_ADDR", ""),
        ("REDIS_FAILOVER_MASTERS", ""),
        ("REDIS_FAILOVER_PARALLEL_SYNCS", ""),
    ];
    let config = parse(&["-check_interval=103", "-raft_addr="], &environment).expect("valid");
    assert_eq!(config.policy.failover_timeout, Duration::from_secs(60), "default");
    assert_eq!(config.policy.check_interval, Duration::from_millis(103), "flag");
    assert_eq!(config.policy.max_down_time, Duration::from_secs(12), "environment");
    assert_eq!(config.policy.parallel_syncs, 2, "an empty variable is none");
    assert_eq!(config.masters, addrs(&["file:1"]), "an empty variable is none");
    assert_eq!(config.addr, None, "an empty addr is no HTTP");

    let error = parse(&["-config=/nonexistent"], &environment).expect_err("the flag wins");
    assert!(error.to_string().starts_with("/nonexistent: "), "{error}");
    let error = parse(&[], &[("REDIS_FAILOVER_QUORUM", "2")]).expect_err("too large");
    assert_eq!(
        error.to_string(),
        "environment variable REDIS_FAILOVER_QUORUM: quorum is 2, but the cluster has 1 voter"
    );
}

#[test]
fn every_setting_is_read_from_the_environment() {
    let config = parse(
        &[],
        &[
            ("REDIS_FAILOVER_BROKER", "none"),
            ("REDIS_FAILOVER_RAFT_CLUSTER", "a:1,b:2"),
            ("REDIS_FAILOVER_ZK_PATH", "/zk"),
            ("REDIS_FAILOVER_LOG_FORMAT", "json"),
            ("REDIS_FAILOVER_REDIS_USER", "monitor"),
            ("REDIS_FAILOVER_REDIS_PASSWORD", "s3cret"),
        ],
    )
    .expect("valid");
    assert_eq!(config.raft.cluster, addrs(&["a:1", "b:2"]));
    assert_eq!(config.zk.base_dir.as_deref(), Some("/zk"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.credentials.user.as_deref(), Some("monitor"));
    assert_eq!(password(&config.credentials), Some("s3cret"));
}

#[test]
fn mistakes_in_the_file_have_a_position() {
    for (text, expected) in [
        ("addr = ':1'\n  qourum = 1", "f.toml:2:3: unknown key \"qourum\""),
        ("addr = ", "f.toml:1:"),
        ("addr = ':1'\naddr = ':2'", "f.toml:2:1: duplicate key"),
        ("# é\n[raft]\nadr = ''", "f.toml:3:1: unknown key \"adr\" in [raft]"),
        ("raft_addr = 'a:1'", "f.toml:1:1: unknown key \"raft_addr\"; write it as addr in [raft]"),
        (
            "[zk]\nquorum = 1",
            "f.toml:2:1: unknown key \"quorum\" in [zk]; write it above all tables",
        ),
        ("[consul]\naddr = ''", "f.toml:1:2: unknown key \"consul\""),
        ("fence = 'none'", "f.toml:1:1: unknown key \"fence\""),
        (
            "fencing = 'yes'",
            "f.toml:1:11: fencing: \"yes\" is unknown: it must be none or min-replicas",
        ),
        ("raft = 1", "f.toml:1:1: \"raft\" is a table: write [raft]"),
        (
            "check_interval = '1000'",
            "f.toml:1:18: check_interval: this is a text, but must be a number without quotes",
        ),
        ("quorum = 1.0", "f.toml:1:10: quorum: \"1\" is not a whole number"),
        (
            "quorum = true",
            "f.toml:1:10: quorum: this is true or false, but must be a whole number without quotes",
        ),
        (
            "cluster_open = 'true'",
            "f.toml:1:16: cluster_open: this is a text, but must be true or false, without quotes",
        ),
        (
            "quorum = 99999999999999999999",
            "f.toml:1:10: quorum: this is a number that is too large",
        ),
        ("addr = 11000", "f.toml:1:8: addr: this is a number, but must be a text in quotes"),
        ("masters = [\n  'a:1', 'b'\n]", "f.toml:2:10: masters: \"b\" is not an address"),
        (
            "masters = ['a:1', 2]",
            "f.toml:1:19: masters: this is a number, but must be a text in quotes",
        ),
        ("masters = 'é:1'", "f.toml:1:11: masters: \"é:1\" is not an address"),
        ("masters = ['a:1', 'A:1']", "f.toml:1:11: masters has a:1 twice"),
        (
            "broker = 'consul'",
            "f.toml:1:10: broker: \"consul\" is unknown: it must be none, raft, zk or etcd",
        ),
        ("x = 'é' # \nquorum = 2", "f.toml:1:1: unknown key"),
        ("# é\nquorum = 2", "f.toml:2:10: quorum is 2, but the cluster has 1 voter"),
        (
            "crash_down_time = 4",
            "f.toml:1:19: crash_down_time (4 s) must not be longer than max_down_time (3 s)",
        ),
        ("check_interval = 1", "f.toml:1:18: check_interval is 1 ms, but must be at least 10 ms"),
        ("group = 1", "f.toml:1:1: a group is written [[group]]"),
        ("[group]\nmaster = 'a:1'", "f.toml:1:2: a group is written [[group]]"),
        ("group = ['a:1']", "f.toml:1:10: a group is written [[group]]"),
        ("[[group]]\nname = 'a'", "f.toml:1:1: this group has no master"),
        ("[[group]]\nmaster = 'a'", "f.toml:2:10: master: \"a\" is not an address"),
        (
            "[[group]]\nmaster = 'a:1'\nreplicas = ['b']",
            "f.toml:3:13: replicas: \"b\" is not an address",
        ),
        (
            "[[group]]\nmaster = 'a:1'\ncooldowns = 1",
            "f.toml:3:1: unknown key \"cooldowns\" in [[group]]",
        ),
        (
            "[[group]]\nmaster = 'a:1'\naddr = ':1'",
            "f.toml:3:1: unknown key \"addr\" in [[group]]; it is set for the whole node",
        ),
        (
            "[[group]]\nmaster = 'a:1'\nname = 'b,c'",
            "f.toml:3:8: group \"b,c\": the name has a comma",
        ),
        ("[[group]]\nmaster = 'a:1'\nname = ''", "f.toml:3:8: group \"\": the name is empty"),
        ("[[group]]\nmaster = 'a:1'\nquorum = 2", "f.toml:3:10: group \"a:1\": quorum is 2, but"),
        (
            "[[group]]\nmaster = 'a:1'\nmax_down_time = 1\n[[group]]\nmaster = 'b:1'\ncrash_down_time = 5",
            "f.toml:6:19: group \"b:1\": crash_down_time (5 s)",
        ),
        (
            "crash_down_time = 2\n[[group]]\nmaster = 'a:1'\nmax_down_time = 1",
            "f.toml:4:17: group \"a:1\": crash_down_time (2 s)",
        ),
        (
            "[[group]]\nmaster = 'a:1'\nname = 'x'\n[[group]]\nmaster = 'b:1'\nname = 'x'",
            "f.toml:6:8: group \"x\": there is another group of this name",
        ),
        (
            "[[group]]\nmaster = 'a:1'\n[[group]]\nmaster = 'a:1'",
            "f.toml:4:10: group \"a:1\": there is another group of this name",
        ),
        (
            "[[group]]\nmaster = 'a:1'\nname = 'x'\n[[group]]\nmaster = 'b:1'\nreplicas = ['a:1']",
            "f.toml:6:12: group \"b:1\": a:1 is already an instance of the group \"x\"",
        ),
        (
            "[[group]]\nmaster = 'a:1'\nreplicas = ['a:1']",
            "f.toml:3:12: group \"a:1\": a:1 is written twice",
        ),
        (
            "masters = ['a:1']\n[[group]]\nname = 'x'\nmaster = 'a:1'",
            "f.toml:4:10: group \"x\": a:1 is already an instance of the group \"a:1\"",
        ),
        (
            "masters = ['a:1']\n[[group]]\nname = 'A:1'\nmaster = 'b:1'",
            "f.toml:3:8: group \"A:1\": the name is the address of an instance of the group \"a:1\"",
        ),
    ] {
        let error = file_error(text);
        assert!(error.starts_with(expected), "{text}\n{error}");
        assert!(!error.contains('\n'), "{text}\n{error}");
    }
}

#[test]
fn group_names() {
    let longest = "n".repeat(GROUP_NAME_BYTES_MAX);
    for name in ["a", "cache-1", "größe", "127.0.0.1:6379", &longest] {
        assert_eq!(check_group_name(name), Ok(()), "{name}");
    }
    let too_long = "n".repeat(GROUP_NAME_BYTES_MAX + 1);
    for name in ["", "a,b", "a/b", "a b", "a\tb", "a\u{7f}", "a\u{a0}b", ".", "..", &too_long] {
        assert!(check_group_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn groups_override_what_holds_for_all() {
    let text = "
        masters = 'bare:1, bare:2'
        max_down_time = 5
        quorum = 1
        redis_user = 'all'
        redis_password = 'common'
        [[group]]
        name = 'own'
        master = '[::1]:6379'
        replicas = ['r.example:1', 'r.example:2']
        check_interval = 50
        max_down_time = 0.5
        crash_down_time = 0.1
        quorum = 0
        parallel_syncs = 3
        max_lag_bytes = 4
        failover_timeout = 6
        on_failed_failover = 'retry'
        before_failover_timeout_ms = 7
        redis_password = 'special'
        [[group]]
        master = 'open:1'
        redis_user = ''
        redis_password = ''
    ";
    let file_text = TempFile::new("groups", text);
    let config = flags(&[&file_text.flag("config"), "-max_down_time=4"]);
    let names: Vec<_> = config.all_groups().map(|group| group.name).collect();
    assert_eq!(names, ["bare:1", "bare:2", "own", "open:1"]);
    assert_eq!(config.groups[0].replicas, addrs(&["r.example:1", "r.example:2"]));

    let own = config.policy_of("own");
    let expected = Policy {
        check_interval: Duration::from_millis(50),
        max_down_time: Duration::from_millis(500),
        max_loading_time: Duration::from_millis(500),
        crash_down_time: Duration::from_millis(100),
        quorum: 0,
        parallel_syncs: 3,
        max_lag_bytes: 4,
        failover_timeout: Duration::from_secs(6),
        on_failed_failover: OnFailedFailover::Retry,
        before_failover_timeout: Duration::from_millis(7),
        ..Policy::default()
    };
    assert_eq!(*own, expected);
    for name in ["bare:1", "open:1", "registered later"] {
        let policy = config.policy_of(name);
        assert_eq!(policy.max_down_time, Duration::from_secs(4), "the flag wins");
        assert_eq!(policy.max_loading_time, Duration::from_secs(4));
        assert_eq!(policy.quorum, 1);
    }

    let own = config.credentials_of("own");
    assert_eq!(own.user.as_deref(), Some("all"), "what is not overridden holds");
    assert_eq!(password(own), Some("special"));
    let open = config.credentials_of("open:1");
    assert_eq!((open.user.as_deref(), password(open)), (None, None));
    assert_eq!(password(config.credentials_of("bare:1")), Some("common"));
}

#[test]
fn passwords_come_from_file_environment_or_their_own_file() {
    let of = |config: &Config| password(&config.credentials).map(str::to_owned);
    for (content, expected) in [
        ("s3cret\n", "s3cret"),
        ("s3cret\r\n", "s3cret"),
        ("s3cret\n\n", "s3cret\n"),
        (" s3cret ", " s3cret "),
    ] {
        let file = TempFile::new("password", content);
        let config = flags(&[&file.flag("redis_password_file")]);
        assert_eq!(of(&config).as_deref(), Some(expected));
        let config = parse(
            &[&file.flag("redis_password_file")],
            &[("REDIS_FAILOVER_REDIS_PASSWORD", "other")],
        );
        assert_eq!(of(&config.expect("a later source wins")).as_deref(), Some(expected));
    }
    assert_eq!(of(&file_ok("redis_password = 's3cret'")).as_deref(), Some("s3cret"));
    // The name that a later version of the original gives it.
    assert_eq!(of(&file_ok("password = 's3cret'")).as_deref(), Some("s3cret"));
    assert_eq!(of(&file_ok("password = ''")), None);

    for (text, expected) in [
        (
            "redis_password = 'x'\nredis_password_file = 'y'",
            "f.toml:2:23: redis_password and redis_password_file are both given",
        ),
        (
            "[[group]]\nmaster='a:1'\nredis_password = 'x'\nredis_password_file = 'y'",
            "f.toml:4:23: redis_password and redis_password_file are both given",
        ),
        (
            "redis_password_file = '/nonexistent'",
            "f.toml:1:23: the password file /nonexistent cannot be read: No such file",
        ),
        (
            "[[group]]\nmaster='a:1'\nredis_password_file = '/nonexistent'",
            "f.toml:3:23: the password file /nonexistent cannot be read: No such file",
        ),
        ("redis_password_file = '/dev/null'", "f.toml:1:23: the password file /dev/null is empty"),
        (
            "redis_password_file = '/dev/zero'",
            "f.toml:1:23: the password file /dev/zero is longer than 64 KiB",
        ),
    ] {
        let error = file_error(text);
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn passwords_are_never_shown() {
    let config = file_ok(
        "redis_password = 'hunter2'\n[[group]]\nmaster = 'a:1'\nredis_password = 'hunter2'",
    );
    assert_eq!(password(config.credentials_of("a:1")), Some("hunter2"));
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
    assert!(!format!("{:?}", Parsed::Run(Box::new(config))).contains("hunter2"));

    let mut errors = Vec::new();
    for text in [
        "redis_password = \"hunter2",
        "redis_password = 'hunter2' 'hunter2'",
        "redis_password = hunter2",
        "redis_password = 'hunter2'\nredis_password = 'hunter2'",
        "redis_password = ['hunter2']",
        "redis_password = { hunter2 = 1 }",
        "redis_pasword = 'hunter2'",
        "redis_password = 'hunter2'\nredis_password_file = 'y'",
        "redis_password = 'hunter2'\nquorum = 7",
        "masters = 'redis://:hunter2@a:1'",
        "addr = 'redis://:hunter2@a:1'",
    ] {
        let error = file(text).expect_err(text);
        errors.push(format!("{text}\n{error} {error:?}"));
    }
    let error = file("redis_password = 40440\nquorum = 7").expect_err("a number");
    assert!(!format!("{error} {error:?}").contains("40440"), "{error}");
    for args in [
        &["-redis_password=hunter2"][..],
        &["--redis_password", "hunter2"],
        &["-redis_pasword=hunter2"],
        &["-redis_pasword", "hunter2"],
        &["-masters=redis://u:hunter2@a:1"],
    ] {
        let error = parse(args, &[]).expect_err("refused");
        errors.push(format!("{args:?}\n{error} {error:?}"));
    }
    for error in errors {
        let said = error.rsplit('\n').next().expect("a line");
        assert!(!said.contains("hunter2"), "{error}");
    }
    let error = flags_error(&["-redis_password=hunter2"]);
    assert!(error.starts_with("redis_password is no flag"), "{error}");
}

/// What the broker `raft` needs at least.
const RAFT: [&str; 2] = ["-raft_addr=127.0.0.1:12000", "-raft_data_dir=./var0"];

fn with_raft(more: &[&str]) -> Config {
    flags(&[&RAFT[..], more].concat())
}

fn with_raft_error(more: &[&str]) -> String {
    flags_error(&[&RAFT[..], more].concat())
}

#[test]
fn the_broker_is_inferred_and_never_a_silent_single_node() {
    for (args, kind) in [
        (&["-zk_addr=a:1", "-raft_addr="][..], BrokerKind::Zk),
        (&["-etcd_addr=http://a:1"], BrokerKind::Etcd),
        (&["-etcd_addr=a:1", "-node_addr=a:1"], BrokerKind::Etcd),
        (&["-zk_addr=a:1", "-raft_addr=b:1", "-broker=zk"], BrokerKind::Zk),
    ] {
        assert_eq!(flags(args).broker, kind, "{args:?}");
    }
    for (args, place, what) in [
        (&["-broker=zk"][..], "flag -broker: ", "the broker \"zk\" needs zk_addr"),
        (&["-broker=etcd"], "flag -broker: ", "the broker \"etcd\" needs etcd_addr"),
        (&["-etcd_addr=https://a:1"], "flag -etcd_addr: ", "TLS to etcd is not built"),
        (&["-zk_addr=a", "-zk_path=b"], "flag -zk_path: ", "must begin with /"),
        (&["-zk_addr=a", "-addr="], "", "give it a node_addr"),
    ] {
        let error = flags_error(args);
        assert!(error.starts_with(place) && error.contains(what), "{args:?}: {error}");
    }
    let error = flags_error(&["-raft_addr=a:1", "-zk_addr=b:1"]);
    assert!(error.starts_with("flag -zk_addr: raft_addr and zk_addr are both given"), "{error}");
    let error = flags_error(&["-etcd_addr=a:1", "-zk_addr=b:1"]);
    assert!(error.starts_with("flag -etcd_addr: zk_addr and etcd_addr are both"), "{error}");
    let error =
        parse(&[], &[("REDIS_FAILOVER_ETCD_LEASE_TTL_MS", "5"), ("REDIS_FAILOVER_ETCD_ADDR", "a")]);
    let error = error.expect_err("too short").to_string();
    assert!(error.contains("REDIS_FAILOVER_ETCD_LEASE_TTL_MS: etcd_lease_ttl_ms is 5"), "{error}");
    let error = flags_error(&["-broker=consul"]);
    assert!(error.starts_with("flag -broker: \"consul\" is unknown"), "{error}");

    for more in [&[][..], &["-broker="], &["-broker=raft"], &["-broker=raft", "-zk_addr=b:1"]] {
        assert_eq!(with_raft(more).broker, BrokerKind::Raft, "{more:?}");
    }
    let config = flags(&["-node_addr=127.0.0.1:12000", RAFT[1]]);
    assert_eq!(config.broker, BrokerKind::Raft);

    let both = ["-raft_addr=a:1", "-zk_addr=b:1", "-broker=none"];
    assert_eq!(flags(&both).broker, BrokerKind::None);
    let empty = file_ok("broker = ''\n[raft]\naddr = ''\n[zk]\naddr = []\n");
    assert_eq!(empty.broker, BrokerKind::None);

    let config = Config { broker: BrokerKind::Zk, ..Config::default() };
    let error = config.validate().expect_err("incomplete").to_string();
    assert!(error.starts_with("the broker \"zk\" needs zk_addr"), "{error}");
    let config = Config { broker: BrokerKind::Raft, ..Config::default() };
    let error = config.validate().expect_err("incomplete").to_string();
    assert!(error.starts_with("the broker \"raft\" needs raft_addr"), "{error}");
}

#[test]
fn the_originals_three_node_commands_are_understood() {
    for n in 0..3 {
        let config = flags(&[
            &format!("-addr=127.0.0.1:1100{n}"),
            &format!("-raft_addr=127.0.0.1:1200{n}"),
            &format!("-raft_data_dir=./var{n}"),
            "-raft_cluster=127.0.0.1:12000,127.0.0.1:12001,127.0.0.1:12002",
        ]);
        assert_eq!(config.broker, BrokerKind::Raft);
        assert_eq!(config.node, format!("127.0.0.1:1200{n}"));
        let all = addrs(&["127.0.0.1:12000", "127.0.0.1:12001", "127.0.0.1:12002"]);
        assert_eq!(config.raft.cluster, all);
        let times = (config.raft.heartbeat, config.raft.election_min, config.raft.election_max);
        assert_eq!(times, (ms(50), ms(150), ms(300)));
    }
    // As short as its document writes them.
    let short = "-raft_cluster=127.0.0.1:0001,127.0.0.1:2";
    let config = flags(&["-raft_addr=127.0.0.1:0001", "-raft_data_dir=./var0", short]);
    assert_eq!(config.node, "127.0.0.1:1");
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn raft_is_told_all_it_needs_or_is_not_started() {
    for (args, expected) in [
        (&["-broker=raft"][..], "flag -broker: the broker \"raft\" needs raft_addr"),
        (
            &["-raft_addr=127.0.0.1:1"],
            "flag -raft_addr: the broker \"raft\" needs raft_data_dir, the directory",
        ),
        (
            &["-raft_addr=0.0.0.0:1", RAFT[1], "-cluster_open=true"],
            "flag -raft_addr: raft_addr is 0.0.0.0:1, but it is also told to the other nodes",
        ),
        (&["-node_addr=[::]:1", RAFT[1]], "flag -node_addr: raft_addr is [::]:1, but it is also"),
        (
            &["-raft_addr=:12000", RAFT[1]],
            "flag -raft_addr: \":12000\" is not an address: the host is missing",
        ),
        (
            &["-raft_addr=127.0.0.1:1", "-node_addr=127.0.0.1:2", RAFT[1]],
            "flag -node_addr: node_addr is 127.0.0.1:2 and raft_addr is 127.0.0.1:1, but they",
        ),
        (
            &[RAFT[0], RAFT[1], "-raft_cluster=a:1,b:1,A:1"],
            "flag -raft_cluster: raft_cluster has a:1 twice",
        ),
        (
            &[RAFT[0], RAFT[1], "-raft_cluster=0.0.0.0:1"],
            "flag -raft_cluster: raft_cluster has 0.0.0.0:1, which no node can connect to",
        ),
        (
            &[RAFT[0], RAFT[1], "-raft_heartbeat_ms=9"],
            "flag -raft_heartbeat_ms: raft_heartbeat_ms is 9, but must be between 10 and 10000",
        ),
        (
            &[RAFT[0], RAFT[1], "-raft_heartbeat_ms=76"],
            "flag -raft_heartbeat_ms: raft_election_min_ms (150) must be at least twice",
        ),
        (
            &[RAFT[0], RAFT[1], "-raft_election_min_ms=300"],
            "flag -raft_election_min_ms: raft_election_max_ms (300) must be more than",
        ),
        (
            &[RAFT[0], RAFT[1], "-raft_election_max_ms=60001"],
            "flag -raft_election_max_ms: raft_election_max_ms must be at most 60000",
        ),
        (
            &[RAFT[0], RAFT[1], "-cluster_open=yes"],
            "flag -cluster_open: \"yes\" is neither true nor false",
        ),
    ] {
        let error = flags_error(args);
        assert!(error.starts_with(expected), "{args:?}: {error}");
        assert!(!error.contains('\n'), "{args:?}: {error}");
    }
    let many: Vec<_> = (1..=32).map(|port| format!("a:{port}")).collect();
    let error = with_raft_error(&[&format!("-raft_cluster={}", many.join(","))]);
    assert!(error.ends_with("has 32 addresses, but a cluster has at most 31 nodes"), "{error}");
    // Where no member is started, what only a member needs may be as it is.
    flags(&["-broker=none", "-raft_addr=0.0.0.0:1", "-raft_heartbeat_ms=1"]);
    let fast = ["-raft_heartbeat_ms=10", "-raft_election_min_ms=20", "-raft_election_max_ms=20.5"];
    with_raft(&fast);
}

#[test]
fn a_node_that_others_can_reach_has_a_secret_or_says_that_it_needs_none() {
    let secret = ("REDIS_FAILOVER_CLUSTER_SECRET", "s3cret");
    for (addr, reachable) in [
        ("127.0.0.1:1", false),
        ("127.8.9.10:1", false),
        ("[::1]:1", false),
        ("[::ffff:127.0.0.1]:1", false),
        ("localhost:1", false),
        ("LocalHost:1", false),
        ("10.0.0.1:1", true),
        ("[fe80::1]:1", true),
        ("node-a:1", true),
        ("localhost.example:1", true),
    ] {
        let args = [&format!("-raft_addr={addr}"), RAFT[1]];
        let plain = parse(&args, &[]);
        if reachable {
            let error = plain.expect_err("it needs a secret").to_string();
            let expected = format!("flag -raft_addr: raft_addr is {}, which", addr.to_lowercase());
            assert!(error.starts_with(&expected), "{error}");
            for way_out in ["cluster_secret", "cluster_open = true"] {
                assert!(error.contains(way_out), "{error}");
            }
            let args = [args[0], args[1], "-cluster_open=false"];
            parse(&args, &[]).expect_err("that says nothing");
        } else {
            assert!(plain.is_ok(), "{addr}: {plain:?}");
        }
        parse(&args, &[secret]).expect("it has a secret");
        parse(&[args[0], args[1], "-cluster_open=true"], &[]).expect("it needs none");
    }
    assert!(file_ok("cluster_open = true").cluster_open);
}

#[test]
fn the_secret_of_the_cluster_is_given_like_a_password() {
    let of = |config: &Config| {
        let secret = config.cluster_secret.as_ref();
        secret.map(|secret| secret.expose_secret().to_owned())
    };
    let file = TempFile::new("cluster-secret", "from a file\n");
    let flag = file.flag("cluster_secret_file");
    let environment = [("REDIS_FAILOVER_CLUSTER_SECRET", "from the environment")];
    assert_eq!(of(&flags(&[&flag])).as_deref(), Some("from a file"));
    let by_environment = parse(&[], &environment).expect("valid");
    assert_eq!(of(&by_environment).as_deref(), Some("from the environment"));
    let by_flag = parse(&[&flag], &environment).expect("a later source wins");
    assert_eq!(of(&by_flag).as_deref(), Some("from a file"));
    assert_eq!(of(&file_ok("cluster_secret = 's3cret'")).as_deref(), Some("s3cret"));
    assert_eq!(of(&file_ok("cluster_secret = ''")), None);

    for (text, expected) in [
        (
            "cluster_secret = 'x'\ncluster_secret_file = 'y'",
            "f.toml:2:23: cluster_secret and cluster_secret_file are both given",
        ),
        (
            "cluster_secret_file = '/nonexistent'",
            "f.toml:1:23: the secret file /nonexistent cannot be read: No such file",
        ),
        ("cluster_secret_file = '/dev/null'", "f.toml:1:23: the secret file /dev/null is empty"),
        ("cluster_secret = 40440", "f.toml:1:18: cluster_secret: this is a number, but must be"),
        (
            "[[group]]\nmaster = 'a:1'\ncluster_secret = 'hunter2'",
            "f.toml:3:1: unknown key \"cluster_secret\" in [[group]]; it is set for the whole",
        ),
    ] {
        let error = file_error(text);
        assert!(error.starts_with(expected), "{text}\n{error}");
        assert!(!error.contains("hunter2") && !error.contains("40440"), "{error}");
    }
    let error = flags_error(&["-cluster_secret=hunter2"]);
    assert!(
        error.starts_with("cluster_secret is no flag") && !error.contains("hunter2"),
        "{error}"
    );
    assert!(error.contains("use cluster_secret_file"), "{error}");
    let config = file_ok("cluster_secret = 'hunter2'");
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
}

#[test]
fn what_follows_from_being_a_member() {
    // The own address need not be in the list, and an empty list stays empty: nothing was said about others.
    let others = with_raft(&["-raft_cluster=127.0.0.1:12001,127.0.0.1:12002"]);
    let all = addrs(&["127.0.0.1:12001", "127.0.0.1:12002", "127.0.0.1:12000"]);
    assert_eq!(others.raft.cluster, all);
    assert_eq!(others.node, "127.0.0.1:12000");
    assert_eq!(with_raft(&[]).raft.cluster, []);
    assert_eq!(flags(&["-broker=none", "-raft_addr=a:1"]).node, "local");

    // A quorum is of the list, where one is given.
    let of = |quorum: usize, cluster: &str| {
        let quorum = format!("-quorum={quorum}");
        let cluster = format!("-raft_cluster={cluster}");
        parse(&[RAFT[0], RAFT[1], &quorum, &cluster], &[]).map(|config| config.policy.quorum)
    };
    assert_eq!(of(3, "127.0.0.1:12000,127.0.0.1:12001,127.0.0.1:12002").expect("of three"), 3);
    assert_eq!(of(3, "127.0.0.1:12001,127.0.0.1:12002").expect("of three"), 3);
    assert_eq!(of(9, "").expect("nobody knows yet"), 9);
    let error = of(3, "127.0.0.1:12001").expect_err("of two").to_string();
    assert_eq!(error, "flag -quorum: quorum is 3, but the cluster has 2 voters");
    let group = "raft = { addr = '127.0.0.1:1', data_dir = 'x', cluster = ['127.0.0.1:2'] }\n\
                 [[group]]\nmaster = 'a:1'\nquorum = 3";
    let error = file_error(group);
    assert!(error.starts_with("f.toml:4:10: group \"a:1\": quorum is 3, but"), "{error}");

    // A command is over before its leader can have lost its lease.
    let command = |config: &Config| config.policy.command_timeout;
    assert_eq!(command(&Config::default()), ms(250));
    assert_eq!(command(&with_raft(&[])), ms(225));
    assert_eq!(command(&with_raft(&["-raft_election_max_ms=1000"])), ms(250));
    let file = TempFile::new("settle", "[[group]]\nmaster = 'a:1'\nmax_down_time = 1\n");
    let times = ["-raft_heartbeat_ms=50", "-raft_election_min_ms=100", "-raft_election_max_ms=200"];
    let mut config = with_raft(&[&[&*file.flag("config")][..], &times].concat());
    assert_eq!((command(&config), config.policy_of("a:1").command_timeout), (ms(150), ms(150)));
    let once = format!("{config:?}");
    config.settle();
    assert_eq!(format!("{config:?}"), once);
}

#[test]
fn the_originals_file_is_understood() {
    let config = flags(&["-config", ORIGINAL]);
    assert_eq!(config.broker, BrokerKind::Raft);
    assert_eq!(config.node, "127.0.0.1:12000");
    assert_eq!(config.addr.expect("an address").to_string(), "127.0.0.1:11000");
    assert_eq!(config.masters, addrs(&["127.0.0.1:6379"]));
    assert_eq!(config.masters_state, SavedState::Existing);
    let expected = Policy { command_timeout: ms(225), ..Policy::default() };
    assert_eq!(config.policy, expected);
    assert_eq!(config.raft.addr, Some("127.0.0.1:12000".parse().expect("an address")));
    assert_eq!(config.raft.data_dir.as_deref(), Some(Path::new("./var")));
    assert_eq!(config.raft.log_dir, None);
    assert_eq!(config.raft.cluster, addrs(&["127.0.0.1:12000"]));
    assert_eq!(config.raft.cluster_state, SavedState::Existing);
    assert_eq!(config.zk.addr, ["127.0.0.1:2181"]);
    assert_eq!(config.zk.base_dir.as_deref(), Some("/zk/redis-failover"));
    assert_eq!(flags(&["-config", ORIGINAL, "-broker=none"]).policy, Policy::default());
}

#[test]
fn the_shipped_file_starts_as_it_is_and_has_every_default() {
    let config = flags(&["-config", SHIPPED]);
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    let config = Config::from_file(Path::new(SHIPPED)).expect("valid");
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));

    let shipped = read_file(Path::new(SHIPPED)).expect("readable");
    for setting in Setting::all() {
        let written = shipped.given.iter().any(|given| given.setting.key == setting.key);
        assert!(written, "{} is in etc/failover.toml", setting.key);
    }
}

#[test]
fn a_config_built_in_code_is_checked_the_same() {
    assert!(Config::default().validate().is_ok());
    let mut config = Config {
        masters: addrs(&["a:1"]),
        groups: vec![GroupConfig::new("cache", addrs(&["b:1"]).remove(0))],
        ..Config::default()
    };
    config.validate().expect("valid");
    config.groups[0].policy = Some(Policy { quorum: 3, ..Policy::default() });
    let error = config.validate().expect_err("too large").to_string();
    assert_eq!(error, "group \"cache\": quorum is 3, but the cluster has 1 voter");
    config.groups[0].policy = None;
    config.groups[0].master = config.masters[0].clone();
    let error = config.validate().expect_err("twice").to_string();
    assert_eq!(error, "group \"cache\": a:1 is already an instance of the group \"a:1\"");
}

#[test]
fn the_most_groups_are_read_and_one_more_is_refused() {
    let groups = |count: usize| {
        let group = |n| format!("[[group]]\nname = 'g{n}'\nmaster = 'host-{n}:6379'\nquorum = 1\n");
        (0..count).map(group).collect::<String>()
    };
    assert_eq!(file_ok(&groups(GROUPS_MAX)).groups.len(), GROUPS_MAX);
    let error = file_error(&("masters = 'a:1'\n".to_owned() + &groups(GROUPS_MAX)));
    assert_eq!(
        error,
        "f.toml:1:11: masters and groups are 20001, but one node guards at most 20000"
    );
}

#[test]
fn instances_of_a_group_have_priorities_locations_and_rules() {
    let config = file_ok(
        "[[group]]\nmaster = 'a:1'\nfailover_across_locations = 'last'\n\
         [[group.instance]]\naddr = 'b:1'\npriority = 10\nlocation = 'east'\nrule = 'prefer_not'\n\
         [[group.instance]]\naddr = 'c:1'\nrule = 'never'",
    );
    let policy = config.groups[0].policy.clone().expect("it has its own");
    assert_eq!(policy.across_locations, AcrossLocations::Last);
    let set = |addr: &str| policy.instances[&addr.parse().expect("an address")].clone();
    let expected = InstancePolicy {
        priority: Some(10),
        location: Some("east".to_owned()),
        rule: Some(Rule::PreferNot),
    };
    assert_eq!(set("b:1"), expected);
    assert_eq!(set("c:1"), InstancePolicy { rule: Some(Rule::Never), ..Default::default() });
}

#[test]
fn scripts_are_set_for_all_groups_and_for_one() {
    let config = file_ok(
        "notification_script = '/bin/true'\nclient_reconfig_script = '/bin/true'\n\
         [[group]]\nname = 'quiet'\nmaster = 'a:1'\nnotification_script = ''\n\
         [[group]]\nname = 'usual'\nmaster = 'b:1'",
    );
    let script = Some(Path::new("/bin/true"));
    assert_eq!(config.scripts_of("usual").notification.as_deref(), script);
    assert_eq!(config.scripts_of("quiet").notification, None);
    assert_eq!(config.scripts_of("quiet").client_reconfig.as_deref(), script);
    let error = file_error("notification_script = '/nonexistent/notify'");
    assert!(
        error.starts_with("f.toml:1:23: notification_script /nonexistent/notify cannot be run")
    );
    let error = file_error("[[group]]\nmaster = 'a:1'\nbefore_failover_script = 'Cargo.toml'");
    assert!(error.starts_with("f.toml:3:26: group \"a:1\": "), "{error}");
    assert!(error.ends_with("is not executable; make it so with chmod +x"), "{error}");
    let error = file_error("script_env = ['REDIS_FAILOVER_REDIS_PASSWORD']");
    assert!(error.contains("may be a password"), "{error}");
    assert!(file_error("script_timeout = 0").contains("more than 0"));
    assert!(file_error("script_retry_delay = 9999").contains("at most an hour"));
}

#[test]
fn webhooks_have_tables_of_their_own_and_hide_what_is_secret() {
    let config = file_ok(
        "[[webhook]]\nurl = 'http://pager.example:8080/v2/T0KEN'\nsecret = 's3cret'\n\
         events = ['after_failover', 'halted']\ngroups = ['cache']\ntimeout_ms = 250\n\
         [[webhook]]\nname = 'chat'\nurl = 'http://chat.example'",
    );
    let [pager, chat] = &config.webhooks[..] else { panic!("two: {config:?}") };
    assert_eq!((pager.name.as_str(), chat.name.as_str()), ("pager.example", "chat"));
    assert_eq!(pager.events, [HookEvent::AfterFailover, HookEvent::Halted].into());
    assert_eq!(pager.timeout, ms(250));
    assert!(chat.events.contains(&HookEvent::QuorumLost), "everything is told");
    assert!(!chat.events.contains(&HookEvent::BeforeFailover), "and nothing is asked");
    let shown = format!("{config:?}");
    assert!(!shown.contains("T0KEN") && !shown.contains("s3cret"), "{shown}");

    let wrong = |lines: &str| file_error(&format!("[[webhook]]\n{lines}"));
    assert!(wrong("url = 'ftp://x'").contains("begins neither with http://"));
    assert!(wrong("url = 'http://u:p4ss@x'").contains("has a login in it"));
    assert!(wrong("name = 'x'").contains("is no URL"));
    assert!(wrong("url = 'http://x'\nevents = []").contains("has no events"));
    assert!(wrong("url = 'http://x'\nevents = ['odown']").contains("there is no event \"odown\""));
    assert!(wrong("url = 'http://x'\ncolour = 'red'").contains("unknown key \"colour\""));
    assert!(wrong("url = 'http://x'\nname = 'handler-1'").contains("needs another name"));
    assert!(
        wrong("url = 'http://x'\n[[webhook]]\nurl = 'http://x'").contains("needs another name")
    );
    for line in ["url = 'http://u:p4ss@x'", "url = 'http://x'\nsecret = 5"] {
        assert!(!wrong(line).contains("p4ss"), "{line}");
    }
}

#[test]
fn proxies_are_led_for_the_groups_that_are_named() {
    let config = file_ok(
        "[xcodis]\naddr = ['zk-1', 'zk-2:2182']\nproduct = 'shop'\ngroups = 'all'\nack_timeout_ms = 500\n\
         [codis]\ndashboard = '10.0.0.9:18080'\nproduct = 'shop'\ngroups = ['carts', 'sessions']",
    );
    let group = |name: &str| failover_core::node::GroupName::new(name).expect("a name");
    assert_eq!(config.xcodis.servers(), ["zk-1:2181", "zk-2:2182"]);
    assert_eq!(config.xcodis.base(), "/zk/codis/db_shop");
    assert_eq!(config.xcodis.ack_timeout, ms(500));
    assert!(config.xcodis.groups.contains(&group("whichever")));
    assert!(config.codis.groups.contains(&group("carts")));
    assert!(!config.codis.groups.contains(&group("others")));

    let wrong = [
        ("[xcodis]\nproduct = 'shop'", "f.toml:2:11: xcodis_product is given, but xcodis_groups"),
        ("[xcodis]\ngroups = 'all'", "f.toml:2:10: xcodis_groups is given, but xcodis_addr is"),
        ("[xcodis]\ngroups = ['all', 'x']", "f.toml:2:10: groups: \"all\" stands alone"),
        ("[xcodis]\ngroups = ['a/b']", "f.toml:2:10: groups: \"a/b\": the name has a comma"),
        ("[codis]\ndashboard = 'http://d:1'", "f.toml:2:13: dashboard: "),
        ("[codis]\ntimeout = 5", "f.toml:2:1: unknown key \"timeout\" in [codis]"),
        (
            "[codis]\ndashboard = 'd:1'\nproduct = 'p'\ngroups = 'all'\ntimeout_ms = 0",
            "f.toml:5:14: codis_timeout_ms is 0, but must be more than 0",
        ),
    ];
    for (lines, words) in wrong {
        let error = file_error(lines);
        assert!(error.starts_with(words), "{error}");
    }
}
