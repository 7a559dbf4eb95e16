//! A guard inside another program: masters are watched and replaced by this very process.
//!
//! ```sh
//! cargo run -p redis-failover --example embed -- 127.0.0.1:6379
//! ```
//!
//! It prints what the guard sees and does, and ends with Ctrl-C.

#![expect(clippy::print_stdout, reason = "an example shows what it is told")]

use std::error::Error;
use std::time::Duration;

use redis_failover::config::Config;
use redis_failover::policy::Policy;
use redis_failover::{Guard, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let masters: Result<Vec<_>, _> = std::env::args().skip(1).map(|text| text.parse()).collect();
    // The guard takes no signals: they are the program's.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = Config {
        // No HTTP: this program has its own way of telling people where the master is.
        addr: None,
        masters: masters?,
        policy: Policy { check_interval: Duration::from_millis(100), ..Policy::default() },
        ..Config::default()
    };
    let builder = Guard::builder(config)
        // Asked before a failover is decided, while the group has no master: be quick. Only a veto stops it; an error,
        // a panic or a time-out does not.
        .before_failover(|plan| async move {
            println!("{}: may {} replace {}?", plan.group, plan.candidate, plan.old_master);
            if plan.group.to_string().starts_with("do-not-touch") {
                return Ok(Verdict::Veto("this group is moved by hand".to_owned()));
            }
            Ok(Verdict::Allow)
        })
        // Told when the new master was verified and recorded: the place to point a proxy at it. Of two changes of one
        // group the one with the higher epoch is the newer.
        .after_failover(|change| async move {
            println!("{}: {} is the master now", change.group, change.new_master);
            Ok(())
        });
    // Everything that is worth telling comes as a notice: for programs in `what`, for people in `sentence`.
    let mut notices = builder.subscribe();
    let guard = builder.start().await?;
    println!("guarding {:?}", guard.masters());

    loop {
        tokio::select! {
            notice = notices.recv() => match notice {
                Ok(notice) => println!("{}: {}", notice.group, notice.sentence),
                Err(RecvError::Lagged(missed)) => println!("{missed} notices were missed"),
                Err(RecvError::Closed) => break,
            },
            _ = interrupt.recv() => break,
        }
    }
    // The servers stay as they are.
    guard.stop().await;
    Ok(())
}
