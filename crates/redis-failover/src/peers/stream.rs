//! What a connection is made of: TCP, cut into frames by a length before each.
//!
//! This is the only place that knows, on both sides: TLS would be one more layer between the two.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::SinkExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{
    FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, USER_TIMEOUT,
    WRITE_TIMEOUT,
};

/// The frames that come.
pub(super) type Reader = FramedRead<ReadHalf<TcpStream>, LengthDelimitedCodec>;
/// The frames that go; a write that makes no progress fails after a while.
pub(super) type Writer =
    FramedWrite<Pin<Box<TimeoutWriter<WriteHalf<TcpStream>>>>, LengthDelimitedCodec>;

/// Both directions of a connection, which takes only short frames until [`Wire::open_up`].
pub(super) struct Wire {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// Opens a connection.
pub(super) async fn connect(socket: SocketAddr) -> io::Result<Wire> {
    let stream = TcpStream::connect(socket).await?;
    if stream.local_addr()? == socket {
        // The system gave this end the very port that nobody listens on, and connected it to itself.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(Wire::new(stream))
}

impl Wire {
    /// Around a connection that was opened or accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        let raw = SockRef::from(&stream);
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        // Without these it still works, only slower, and a vanished host is noticed later.
        let _ = raw.set_tcp_nodelay(true);
        let _ = raw.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let _ = raw.set_tcp_keepalive(&keepalive);
        let (reader, writer) = split(stream);
        let mut writer = TimeoutWriter::new(writer);
        writer.set_timeout(Some(WRITE_TIMEOUT));
        Self {
            reader: FramedRead::new(reader, frames(HANDSHAKE_FRAME_BYTES_MAX)),
            writer: FramedWrite::new(Box::pin(writer), frames(HANDSHAKE_FRAME_BYTES_MAX)),
        }
    }

    /// The other side is a node: long frames are fine from here on.
    pub(super) fn open_up(&mut self) {
        self.reader.decoder_mut().set_max_frame_length(FRAME_BYTES_MAX);
        self.writer.encoder_mut().set_max_frame_length(FRAME_BYTES_MAX);
    }
}

/// Sends what was put together, as soon as nothing more waits to be added.
pub(super) async fn flush(writer: &mut Writer) -> io::Result<()> {
    SinkExt::<Bytes>::flush(writer).await
}

fn frames(bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(bytes_max).new_codec()
}
