//! A tiny TCP proxy that always leads to the current master: clients connect to one address for ever.
//!
//! ```sh
//! cargo run -p redis-failover --example tcp_proxy -- 127.0.0.1:7000 127.0.0.1:6379
//! ```
//!
//! Each connection goes to whoever is the master when it is made. When another one takes over, it is cut, so that its
//! client connects again and writes nothing more to the old one. Several of these proxies would agree with
//! `broker: BrokerKind::Raft`; this one decides alone.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::time::Duration;

use redis_failover::config::Config;
use redis_failover::policy::Policy;
use redis_failover::{Addr, Guard};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections that are carried at the same time; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may wait for a master that can be reached.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(master)) = (args.next(), args.next()) else {
        return Err("what is needed: the address to listen on, and a master".into());
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(&listen).await?;
    let config = Config {
        addr: None,
        masters: vec![master.parse()?],
        policy: Policy { check_interval: Duration::from_millis(100), ..Policy::default() },
        ..Config::default()
    };
    let builder = Guard::builder(config);
    // From before the start on, so that no change is missed.
    let mut notices = builder.subscribe();
    let guard = builder.start().await?;
    // The group keeps its name, which is the address that it was registered by, whoever its master is.
    let group = guard.groups().first().map(|group| group.name.to_string()).unwrap_or_default();
    let current = || guard.group(&group).map(|group| group.master.clone());
    let (master, _) = watch::channel(current());
    let mut connections = JoinSet::new();
    println!("listening on {}, leading to {:?}", listener.local_addr()?, current());

    loop {
        tokio::select! {
            notice = notices.recv() => {
                if matches!(notice, Err(RecvError::Closed)) {
                    break;
                }
                // Whatever was told, or missed: the snapshot says who is the master, and costs nothing.
                let now = current();
                if master.send_if_modified(|before| std::mem::replace(before, now.clone()) != now) {
                    println!("leading to {now:?}");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let (client, _) = accepted?;
                connections.spawn(carry(client, master.subscribe()));
            }
            // How it ended was the client's affair: it saw a connection that was closed.
            Some(_) = connections.join_next() => {}
            _ = interrupt.recv() => break,
        }
    }
    guard.stop().await;
    Ok(())
}

/// Carries one connection until either side ends it, or another master takes over.
async fn carry(mut client: TcpStream, mut master: watch::Receiver<Option<Addr>>) -> io::Result<()> {
    let mut server = tokio::time::timeout(CONNECT_LIMIT, connect(&mut master)).await??;
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut server) => copied.map(drop),
        _ = master.changed() => Ok(()),
    }
}

/// Connects to the master; while it is dead, to the next one as soon as there is one.
async fn connect(master: &mut watch::Receiver<Option<Addr>>) -> io::Result<TcpStream> {
    loop {
        let addr = master.borrow_and_update().clone();
        if let Some(addr) = addr
            && let Ok(server) = TcpStream::connect((addr.host(), addr.port())).await
        {
            return Ok(server);
        }
        master.changed().await.map_err(io::Error::other)?;
    }
}
