//! Holds the connections: how many, for how long, and how they end.
//!
//! axum's own server waits for ever for a client that sends or reads nothing, so the connections are driven here.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::{Context, HEAD_BYTES_MAX, Limits, router};

/// The pause after the system has no room for one more connection: the condition ends only when others close theirs.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves until `shutdown` completes, then takes no more connections, lets requests that are on their way end within
/// [`Limits::stop_timeout`], and cuts the rest. Dropping the future cuts everything at once.
pub(crate) async fn serve(
    listener: TcpListener,
    context: Context,
    shutdown: impl Future<Output = ()>,
) {
    let limits = context.limits;
    let router = router(context);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < limits.connections_max => {
                match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(hold(stream, router.clone(), graceful.watcher(), limits));
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!("HTTP takes no connection for a moment: {error}");
                        sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        }
    }
    drop(listener);
    let in_time = timeout(limits.stop_timeout, graceful.shutdown()).await;
    if in_time.is_err() {
        connections.shutdown().await;
    }
}

/// How a connection ends is the client's affair: its errors say that the client went away, was too slow, or does not
/// speak HTTP, which it was told where that is possible.
async fn hold(stream: TcpStream, router: Router, watcher: Watcher, limits: Limits) {
    // Answers are one write each, and somebody waits for them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let _ = watcher.watch(connection).await;
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}
