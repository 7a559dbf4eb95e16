//! The examples are programs that work: each is built and run on real servers.

mod common;

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use common::child::{Owned, command};
use common::{Group, Options, PATIENCE, Server, ServerKind, wait_until};
use rustix::process::Signal;

/// An example, built as this test was.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let profile = PathBuf::from(env!("CARGO_BIN_EXE_redis-failover"));
        let profile = profile.parent().expect("it is in a directory").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--examples", "--target-dir"]);
        cargo.arg(profile.parent().expect("a profile is in the target directory"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells its tests of this package would have build scripts of others run again.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
        for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "LD_LIBRARY_PATH"] {
            cargo.env_remove(name);
        }
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs this test").success());
        profile.join("examples")
    });
    dir.join(name)
}

/// An example that runs, and what it prints.
struct Running {
    process: Owned,
    dir: tempfile::TempDir,
}

impl Running {
    #[track_caller]
    fn start(name: &str, args: &[&str]) -> Self {
        let dir = common::temporary_dir();
        let mut command = command(example(name));
        let printed = File::create(dir.path().join("stdout")).expect("the directory is ours");
        command.args(args).stdout(printed);
        let process = Owned::start(command).expect("the example can be started");
        Self { process, dir }
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stdout")).expect("the file is ours")
    }

    #[track_caller]
    fn wait_for(&self, words: &str) -> String {
        wait_until(&format!("the example prints {words:?}"), PATIENCE, || {
            self.printed().lines().find(|line| line.contains(words)).map(str::to_owned)
        })
    }

    /// Ctrl-C ends it well.
    #[track_caller]
    fn stop(mut self) {
        self.process.signal(Signal::INT);
        assert_eq!(self.process.wait(PATIENCE).code(), Some(0));
    }
}

#[test]
fn the_minimal_guard_replaces_a_master_and_prints_it() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let example = Running::start("embed", &[&group.master.addr()]);
    example.wait_for("Healthy");
    group.master.kill9();
    example.wait_for(&format!("{} is the master now", group.replicas[0].addr()));
    example.stop();
}

#[test]
fn the_proxy_leads_to_the_master_before_and_after_a_failover() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let proxy = Running::start("tcp_proxy", &["127.0.0.1:0", &old]);
    let listening = proxy.wait_for("listening on ");
    let listening = listening.split([' ', ',']).nth(2).expect("an address").to_owned();
    let client = redis::Client::open(format!("redis://{listening}/")).expect("a URL");
    let set = |connection: &mut redis::Connection, value: &str| {
        redis::cmd("SET").arg("key").arg(value).query::<String>(connection)
    };
    let mut connection = client.get_connection().expect("it is carried");
    assert_eq!(set(&mut connection, "before").expect("the master takes it"), "OK");
    assert_eq!(group.master.cmd(&["GET", "key"]), "before");
    group.wait_in_step();
    group.master.kill9();
    assert!(set(&mut connection, "lost").is_err(), "nobody is left behind the connection");
    // The same address leads to the new master.
    wait_until("the proxy leads to the new master", PATIENCE, || {
        let mut connection = client.get_connection().ok()?;
        set(&mut connection, "after").ok()
    });
    assert_eq!(group.server(&new).cmd(&["GET", "key"]), "after");
    proxy.wait_for(&format!("leading to Some({new})"));
    proxy.stop();
}

#[test]
fn the_external_store_learns_of_the_new_master_once_it_answers() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let mut store = Server::start(ServerKind::Redis, &Options::new());
    let stored = |store: &Server| store.cmd(&["HGET", "redis:masters", &old]);
    let example = Running::start("external_store", &[&store.addr(), &old]);
    example.wait_for("stored in");
    assert_eq!(stored(&store), old);
    // The store is away just then: the handler is told again.
    store.kill9();
    group.master.kill9();
    group.replicas[0].wait_for_role("master");
    store.restart();
    wait_until("the store has the new master", PATIENCE, || (stored(&store) == new).then_some(()));
    assert_eq!(store.cmd(&["HGET", "redis:epochs", &old]), "1");
    example.stop();
}
