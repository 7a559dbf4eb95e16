//! An after-failover handler that updates an external store: here another Redis server, in which programs look up where
//! the masters are.
//!
//! ```sh
//! cargo run -p redis-failover --example external_store -- 127.0.0.1:6999 127.0.0.1:6379
//! redis-cli -p 6999 HGET redis:masters 127.0.0.1:6379
//! ```
//!
//! A handler is told at least once, and an older change may come behind a newer one when it had to be told again. Both
//! are harmless when the epoch is stored beside the address and only a higher one replaces it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use redis_failover::config::Config;
use redis_failover::policy::Policy;
use redis_failover::{Addr, GroupName, Guard, HandlerError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// How long the store may take; a handler that fails is told again later.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// Stores a master unless a newer one is there. The keys are hashes by the group's name.
const STORE: &str = "if tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '-1') < tonumber(ARGV[3]) then \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end return 'OK'";

#[tokio::main]
async fn main() -> Result<(), HandlerError> {
    let mut args = std::env::args().skip(1);
    let (Some(store), Some(master)) = (args.next(), args.next()) else {
        return Err("what is needed: the address of the store, and a master".into());
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = Config {
        addr: None,
        masters: vec![master.parse()?],
        policy: Policy { check_interval: Duration::from_millis(100), ..Policy::default() },
        ..Config::default()
    };
    let of_handler = store.clone();
    let guard = Guard::builder(config)
        .after_failover(move |change| {
            let store = of_handler.clone();
            async move { update(&store, &change.group, &change.new_master, change.epoch).await }
        })
        .start()
        .await?;
    // What is so at the start is nobody's news, and is stored here.
    for group in guard.groups() {
        update(&store, &group.name, &group.master, group.epoch).await?;
    }
    println!("stored in {store}");
    interrupt.recv().await;
    // It waits for handlers that are on their way.
    guard.stop().await;
    Ok(())
}

/// Stores one master. An error has the handler told again.
async fn update(
    store: &str,
    group: &GroupName,
    master: &Addr,
    epoch: u64,
) -> Result<(), HandlerError> {
    let args = [
        "EVAL",
        STORE,
        "2",
        "redis:masters",
        "redis:epochs",
        group.as_str(),
        &master.to_string(),
        &epoch.to_string(),
    ];
    let answer = timeout(STORE_LIMIT, command(store, &args)).await??;
    if answer != "$2" && answer != "+OK" {
        return Err(format!("the store answered {answer}").into());
    }
    println!("{group}: {master} is the master in epoch {epoch}");
    Ok(())
}

/// Sends one command and gives the first line of the answer.
async fn command(addr: &str, args: &[&str]) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(addr).await?;
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}
