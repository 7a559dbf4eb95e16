//! Opening a connection to an instance, and what it means when that fails.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use failover_core::addr::Addr;
use tokio::net::TcpStream;

use super::connection::Connection;
use crate::resolve::Resolver;

/// A host that does not answer a connection attempt for this long is unreachable for now.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection attempt that has no answer for this long is joined by another one.
const SECOND_ATTEMPT: Duration = Duration::from_millis(50);

/// Why a connection could not be opened.
pub(super) enum ConnectError {
    /// Its host says that no process listens.
    Refused,
    /// This node lacks what it takes: descriptors, memory, or a free port of its own.
    Ours(String),
    Unreachable(String),
    Unresolved(String),
}

/// A connection to an address, by name or number.
pub(super) async fn connect(
    addr: Addr,
    resolver: Resolver,
) -> Result<Box<Connection>, ConnectError> {
    if let Some(socket) = addr.socket() {
        return connect_socket(socket).await;
    }
    let sockets = resolver.resolve(&addr).await.map_err(ConnectError::Unresolved)?;
    let opened = connect_first(&sockets).await;
    match &opened {
        Ok(connection) => resolver.prefer(&addr, connection.socket()),
        // The name may lead elsewhere by now.
        Err(_) => resolver.forget(&addr),
    }
    opened
}

/// A connection to the first that accepts one. A name like `localhost` has several addresses of which the server need
/// not listen on all: only a refusal by all of them is one.
async fn connect_first(sockets: &[SocketAddr]) -> Result<Box<Connection>, ConnectError> {
    let mut worst = ConnectError::Refused;
    for socket in sockets {
        match connect_socket(*socket).await {
            Ok(connection) => return Ok(connection),
            Err(ConnectError::Refused) => {}
            Err(error) => worst = error,
        }
    }
    Err(worst)
}

/// A connection attempt can get lost, for example one that arrives while the process behind the address is dying, and the
/// system repeats it only after a second: a second attempt is made beside it much earlier, and the first answer counts.
async fn connect_socket(socket: SocketAddr) -> Result<Box<Connection>, ConnectError> {
    let mut first = pin!(connect_once(socket));
    tokio::select! {
        biased;
        opened = &mut first => return opened,
        () = tokio::time::sleep(SECOND_ATTEMPT) => {}
    }
    tokio::select! {
        opened = first => opened,
        opened = connect_once(socket) => opened,
    }
}

async fn connect_once(socket: SocketAddr) -> Result<Box<Connection>, ConnectError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(socket)).await {
        Ok(Ok(stream)) => Ok(Box::new(Connection::new(stream, socket))),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(ConnectError::Refused)
        }
        Ok(Err(error)) if is_ours(&error) => {
            Err(ConnectError::Ours(format!("this node cannot open a connection: {error}")))
        }
        Ok(Err(error)) => Err(ConnectError::Unreachable(format!("connecting failed: {error}"))),
        Err(_) => Err(ConnectError::Unreachable(format!(
            "its host does not answer a connection attempt within {} ms",
            CONNECT_TIMEOUT.as_millis()
        ))),
    }
}

/// Whether a connection failed for want of something on this node.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use failover_core::time::Time;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_name_refuses_when_none_of_its_addresses_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let open = listener.local_addr().expect("it is bound");
        // Nobody listens on this other address of the loopback network.
        let closed = SocketAddr::from(([127, 0, 0, 2], open.port()));
        let connection = connect_first(&[closed, open]).await.ok().expect("the second accepts");
        assert_eq!(connection.socket(), open);
        drop(listener);
        assert!(matches!(connect_first(&[closed, open]).await, Err(ConnectError::Refused)));
    }

    #[tokio::test]
    async fn what_was_not_delivered_when_a_connection_is_closed_never_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let mut connection = connect_first(&[addr]).await.ok().expect("it accepts");
        let (mut stream, _) = listener.accept().await.expect("a client");
        connection.ask(1, Time::ZERO).await.expect("it is written");
        drop(connection);
        let mut received = Vec::new();
        let end = stream.read_to_end(&mut received).await;
        // An end in good order would be delivered behind everything that was written.
        let kind = end.expect_err("it is aborted").kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_attempt_that_got_lost_does_not_hold_up_the_next_one() {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        listener.listen(0).expect("it listens");
        let addr = listener.local_addr().expect("it is bound").as_socket().expect("an address");
        // One connection fills the queue, and the system throws further attempts away.
        let _waiting = TcpStream::connect(addr).await.expect("there is room for one");
        let started_at = tokio::time::Instant::now();
        let connecting = tokio::spawn(connect_socket(addr));
        tokio::time::sleep(SECOND_ATTEMPT / 2).await;
        assert!(!connecting.is_finished(), "the first attempt is lost");
        let _accepted = listener.accept().expect("the one that waits");
        connecting.await.expect("no panic").ok().expect("the second attempt gets through");
        assert!(started_at.elapsed() < CONNECT_TIMEOUT * 9 / 10, "{:?}", started_at.elapsed());
    }
}
