//! A stand-in for LedisDB, which no package registry has: a process of its own that gives the replies of the stock server
//! (d35789e of 2020), byte for byte, and behaves as it was measured to, also where that is a nuisance.
//!
//! - what it holds, and its log: [`store`]; what it answers: [`answer`] and [`info`]; how it follows: [`follow`].
//! - Its process is the test program itself, started again with [`PROCESS`] set, so that `kill -9` and SIGSTOP are real. A
//!   test program that uses it has a test [`ENTRY`], which begins with [`serve_if_told`].
//! - It is a model of replication and nothing else: strings only, no expiry, no transactions, no semi-synchronous writes.
//!   What is not on record and had to be guessed: the words for a log that is gone, and that a full copy empties the slave
//!   before the first byte comes.

mod answer;
mod connection;
mod follow;
mod info;
mod store;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use follow::Following;
use store::Store;

/// Has the settings of a process that is to be a stand-in, a line each.
pub const PROCESS: &str = "LEDISDB_STAND_IN";
/// The test of each test program in which the process begins.
pub const ENTRY: &str = "stand_in::a_process_is_a_stand_in_or_tests_one";

/// How many full copies a stand-in was asked for, by its log, over all its runs.
pub fn full_copies(server: &super::Server) -> usize {
    server.log().matches(answer::FULL_COPY).count()
}

/// The flags of `ledis-server` that matter, by their names, and two switches of this model.
#[derive(Debug, Default)]
struct Settings {
    addr: String,
    data_dir: PathBuf,
    rpl: bool,
    slaveof: String,
    readonly: bool,
    auth_password: String,
    /// How long a full copy takes at least.
    full_copy: Duration,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            match name {
                "-addr" => settings.addr = value.to_owned(),
                "-data_dir" => settings.data_dir = value.into(),
                "-rpl" => settings.rpl = true,
                "-slaveof" => settings.slaveof = value.to_owned(),
                "-readonly" => settings.readonly = true,
                "-auth_password" => settings.auth_password = value.to_owned(),
                "-full_copy_ms" => {
                    settings.full_copy = Duration::from_millis(value.parse().expect("a number"));
                }
                _ => panic!("{line} is no flag"),
            }
        }
        settings
    }

    fn port(&self) -> &str {
        self.addr.rsplit_once(':').map_or("", |(_, port)| port)
    }
}

/// One server.
#[derive(Debug)]
struct App {
    settings: Settings,
    store: Mutex<Store>,
    /// Something was logged.
    logged: Condvar,
    /// What it follows. The lock is held while a slave connects and waits for its first `PONG`, and everybody who wants to
    /// know or change the role waits with it.
    following: Mutex<Option<Following>>,
    /// Changed with the store locked, so that no write is under way.
    readonly: AtomicBool,
    /// Slaves by the address they registered, with the log id that they acknowledged.
    slaves: Mutex<BTreeMap<String, u64>>,
    /// The last log id that the master told.
    master_last_log_id: Mutex<u64>,
    clients: AtomicUsize,
}

impl App {
    fn is_readonly(&self) -> bool {
        self.readonly.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is a server until it is killed, when this process was started for that.
pub fn serve_if_told() {
    let Ok(settings) = std::env::var(PROCESS) else { return };
    let settings = Settings::parse(&settings);
    let listener = match TcpListener::bind(&settings.addr) {
        Ok(listener) => listener,
        Err(error) => {
            // The rig looks for these words.
            eprintln!("Address already in use: {error}");
            std::process::exit(1);
        }
    };
    let store = Store::open(&settings.data_dir);
    let first_master = settings.slaveof.clone();
    let app: &'static App = Box::leak(Box::new(App {
        readonly: AtomicBool::new(settings.readonly),
        store: Mutex::new(store),
        logged: Condvar::new(),
        following: Mutex::new(None),
        slaves: Mutex::default(),
        master_last_log_id: Mutex::default(),
        clients: AtomicUsize::new(0),
        settings,
    }));
    if !first_master.is_empty() {
        app.follow(&first_master, false);
    }
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || answer::serve(app, stream));
    }
}
