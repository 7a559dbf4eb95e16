//! The program: the daemon (settings in, guard, exit code out), or a command.

mod log;

use std::process::ExitCode;

use redis_failover::cli::{self, Doctor, Found, Migrate, Parsed};
use redis_failover::config::{BrokerKind, Config};
use redis_failover::{Guard, StartError, fault};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Bad flag, file or environment; nothing was started.
const EXIT_USAGE: u8 = 2;
/// It failed at run time.
const EXIT_FAILED: u8 = 1;
/// The doctor found something.
const EXIT_FOUND: u8 = 3;

fn main() -> ExitCode {
    let config = match cli::load(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Parsed::Run(config)) => *config,
        Ok(Parsed::Print(text)) => {
            print(&text);
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Doctor(doctor)) => return examine(&doctor),
        Ok(Parsed::Migrate(migrate)) => return copy(&migrate),
        Err(error) => return fail(EXIT_USAGE, &error.to_string()),
    };
    let fault = match fault::arm() {
        Ok(fault) => fault,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    if let Err(error) = log::start(&config) {
        return fail(EXIT_FAILED, &error);
    }
    raise_descriptor_limit();
    if let Some(warning) = fault {
        tracing::error!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("redis-failover")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &format!("cannot start threads: {error}")),
    };
    match runtime.block_on(run(config)) {
        Ok(code) => code,
        Err(StartError::Config(error)) => fail(EXIT_USAGE, &error.to_string()),
        Err(error) => fail(EXIT_FAILED, &error.to_string()),
    }
}

/// Each instance takes a connection, and a second one while it is in doubt. What may be had is taken.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays {:?}: {error}", limit.current);
    }
}

async fn run(config: Config) -> Result<ExitCode, StartError> {
    let (alone, groups) = (config.broker == BrokerKind::None, config.all_groups().count());
    let others = config.raft.cluster.iter().any(|addr| Some(addr) != config.raft.addr.as_ref());
    let single = config.broker == BrokerKind::Raft && !others;
    // Before anything is said to run: whoever reads that may send a signal at once.
    let mut signals = signals();
    let guard = Guard::builder(config).start().await?;
    match guard.http_addr() {
        Some(addr) => tracing::info!("listening on {addr}"),
        None => tracing::info!("started without HTTP"),
    }
    if single {
        tracing::warn!(
            "raft runs in single node mode, since raft_cluster names no other node: what it decides outlasts a restart, \
             but while this node is down nobody acts; three nodes are for production"
        );
    }
    if alone {
        tracing::warn!(
            "this node is alone (broker none) and keeps nothing on disk: after a restart it knows the {groups} configured \
             groups only and asks their servers who is master; a failover that was half done is not resumed"
        );
    }
    tokio::select! {
        kind = signals.join_next() => {
            if let Some(Ok(kind)) = kind {
                tracing::info!("signal {} received, stopping", kind.as_raw_value());
            }
        }
        () = guard.ended() => {
            tracing::error!("the program broke and guards nothing any more; it ends so that it can be started again");
            guard.stop().await;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    }
    guard.stop().await;
    tracing::info!("stopped; the servers stay as they are");
    Ok(ExitCode::SUCCESS)
}

/// SIGINT, SIGTERM, SIGQUIT and SIGHUP, which stop cleanly; none of them ends the process by itself from here on.
fn signals() -> JoinSet<SignalKind> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
        SignalKind::hangup(),
    ];
    let mut waiting = JoinSet::new();
    for kind in kinds {
        if let Ok(mut signal) = signal(kind) {
            waiting.spawn(async move {
                signal.recv().await;
                kind
            });
        }
    }
    waiting
}

fn examine(doctor: &Doctor) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &format!("cannot start: {error}")),
    };
    match runtime.block_on(doctor.run(print)) {
        Ok(Found::Nothing) => ExitCode::SUCCESS,
        Ok(Found::Something) => ExitCode::from(EXIT_FOUND),
        Err(why) => fail(EXIT_FAILED, &why),
    }
}

fn copy(migrate: &Migrate) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &format!("cannot start: {error}")),
    };
    match runtime.block_on(migrate.run(print)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(EXIT_FAILED, &why),
    }
}

/// A reader that went away is none of our business.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn fail(code: u8, message: &str) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "redis-failover: {message}");
    ExitCode::from(code)
}
