//! Who may talk: the first messages of a connection, on both sides.
//!
//! The caller says whom it asks for, the other side answers, each with a fresh random number. With a secret the caller
//! proves first that it has it, so that a stranger who knocks learns nothing that depends on it; then the other side
//! does. A node with a secret never talks to one without, in either direction.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use failover_core::addr::Addr;
use futures_util::{SinkExt as _, StreamExt as _};
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Lane;
use super::seal::{Seal, Side, Transcript};
use super::stream::Wire;
use super::wire::{Garbage, Hello, NONCE_BYTES, Refusal, Reply, VERSION};

/// The seals of an open connection.
pub(super) struct Seals {
    pub(super) outgoing: Seal,
    pub(super) incoming: Seal,
}

/// What the answering side knows of an open connection.
pub(super) struct Accepted {
    pub(super) lane: Lane,
    pub(super) seals: Seals,
    /// Its place among those that may be open.
    pub(super) place: OwnedSemaphorePermit,
}

/// Why a connection is not opened, in words that follow the name of the other side.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: String,
    /// A person has to change something, so it is to be logged.
    pub(super) is_mistake: bool,
}

/// The calling side.
pub(super) async fn open(
    wire: &mut Wire,
    lane: Lane,
    me: &Addr,
    to: &Addr,
    secret: Option<&SecretString>,
) -> Result<Seals, Failed> {
    let hello = Hello {
        lane,
        has_secret: secret.is_some(),
        nonce: nonce()?,
        to: to.to_string(),
        from: me.to_string(),
    }
    .encode();
    send(wire, hello.clone()).await?;
    let welcome = receive(wire).await?;
    let theirs = match Reply::decode(&welcome) {
        Ok(Reply::Welcome { has_secret, .. }) => has_secret,
        Ok(Reply::Refused(refusal)) => return Err(refused(refusal)),
        Err(garbage) => return Err(garbage.into()),
    };
    let seals = match (secret, theirs) {
        (None, false) => Seals { outgoing: Seal::open(), incoming: Seal::open() },
        (None, true) => return Err(refused(Refusal::NoSecret)),
        (Some(_), false) => return Err(refused(Refusal::Secret)),
        (Some(secret), true) => {
            let transcript = Transcript { secret, hello: &hello, welcome: &welcome };
            send(wire, BytesMut::from(&transcript.proof(Side::Caller)[..])).await?;
            let proof = receive(wire).await?;
            if !transcript.is_proof(Side::Answerer, &proof) {
                return Err(match Reply::decode(&proof) {
                    Ok(Reply::Refused(refusal)) => refused(refusal),
                    Ok(Reply::Welcome { .. }) | Err(_) => refused(Refusal::WrongSecret),
                });
            }
            Seals {
                outgoing: transcript.seal(Side::Caller),
                incoming: transcript.seal(Side::Answerer),
            }
        }
    };
    wire.open_up();
    Ok(seals)
}

/// Where a connection arrived.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    /// What the other nodes call this one.
    pub(super) me: &'a Addr,
    /// The address that it arrived at.
    pub(super) local: SocketAddr,
}

/// The answering side.
pub(super) async fn accept(
    wire: &mut Wire,
    here: Here<'_>,
    secret: Option<&SecretString>,
    room: &Arc<Semaphore>,
) -> Result<Accepted, Failed> {
    let hello = receive(wire).await?;
    let Hello { lane, has_secret: theirs, to, from, .. } = match Hello::decode(&hello) {
        Ok(hello) => hello,
        Err(Garbage::Version(version)) => {
            let _ = send(wire, Reply::Refused(Refusal::Version).encode()).await;
            return Err(Garbage::Version(version).into());
        }
        Err(Garbage::Stranger) => return Err(Garbage::Stranger.into()),
    };
    let refusal = match secret {
        _ if from.parse().as_ref() == Ok(here.me) => Some(Refusal::Itself),
        _ if !here.is(&to) => Some(Refusal::Elsewhere),
        Some(_) if !theirs => Some(Refusal::NoSecret),
        None if theirs => Some(Refusal::Secret),
        Some(_) | None => None,
    };
    if let Some(refusal) = refusal {
        return Err(refuse(wire, refusal, &from).await);
    }
    let welcome = Reply::Welcome { has_secret: secret.is_some(), nonce: nonce()? }.encode();
    let Some(secret) = secret else {
        let Ok(place) = Arc::clone(room).try_acquire_owned() else {
            return Err(refuse(wire, Refusal::Full, &from).await);
        };
        send(wire, welcome).await?;
        wire.open_up();
        let seals = Seals { outgoing: Seal::open(), incoming: Seal::open() };
        return Ok(Accepted { lane, seals, place });
    };
    send(wire, welcome.clone()).await?;
    let transcript = Transcript { secret, hello: &hello, welcome: &welcome };
    let proof = receive(wire).await?;
    if !transcript.is_proof(Side::Caller, &proof) {
        return Err(refuse(wire, Refusal::WrongSecret, &from).await);
    }
    let Ok(place) = Arc::clone(room).try_acquire_owned() else {
        return Err(refuse(wire, Refusal::Full, &from).await);
    };
    send(wire, BytesMut::from(&transcript.proof(Side::Answerer)[..])).await?;
    wire.open_up();
    let seals = Seals {
        outgoing: transcript.seal(Side::Answerer),
        incoming: transcript.seal(Side::Caller),
    };
    Ok(Accepted { lane, seals, place })
}

/// Tells the caller why, and gives the words for the log of this side.
async fn refuse(wire: &mut Wire, refusal: Refusal, from: &str) -> Failed {
    let _ = send(wire, Reply::Refused(refusal).encode()).await;
    // A stranger may say anything here; only an address is repeated.
    let name = match from.parse::<Addr>() {
        Ok(addr) => format!(" (it says that it is the node {addr})"),
        Err(_) => String::new(),
    };
    let why = match refusal {
        Refusal::NoSecret => "has no cluster_secret, but this node has one",
        Refusal::Secret => "has a cluster_secret, but this node has none",
        Refusal::WrongSecret => "has another cluster_secret than this node",
        Refusal::Elsewhere => "asks for a node with another address than this one",
        Refusal::Itself => {
            "is this node itself, which looked for another one: the name of that one leads here"
        }
        Refusal::Full => "has no place: as many nodes are connected as this one takes",
        Refusal::Version => "speaks another version of the protocol between nodes",
    };
    Failed { why: format!("{why}{name}"), is_mistake: true }
}

/// The same for the calling side.
fn refused(refusal: Refusal) -> Failed {
    let why = match refusal {
        Refusal::NoSecret => "has a cluster_secret, but this node has none",
        Refusal::Secret => "has no cluster_secret, but this node has one",
        Refusal::WrongSecret => "has another cluster_secret than this node",
        Refusal::Elsewhere => "is not there: another node answers at that address",
        Refusal::Itself => "is not there: its name leads to this node itself",
        Refusal::Full => "takes no more connections",
        Refusal::Version => "speaks another version of the protocol between nodes",
    };
    Failed { why: why.to_owned(), is_mistake: true }
}

impl Here<'_> {
    /// Whether a caller who asks for this address means this node. Addresses are given out again: without this a call for
    /// a node that is gone could be answered by the one that has its address now. A name that leads here although this
    /// node has another one is somebody else's; where this node has none, a name's port is all that can be compared.
    fn is(self, asked: &str) -> bool {
        let Ok(asked) = asked.parse::<Addr>() else {
            return false;
        };
        let is_name = |addr: &Addr| addr.socket().is_none();
        if is_name(&asked) && is_name(self.me) {
            return asked == *self.me;
        }
        asked.port() == self.local.port() && (is_name(&asked) || asked == Addr::from(self.local))
    }
}

fn nonce() -> Result<[u8; NONCE_BYTES], Failed> {
    let mut nonce = [0; NONCE_BYTES];
    match getrandom::fill(&mut nonce) {
        Ok(()) => Ok(nonce),
        Err(error) => Err(Failed {
            why: format!("was not asked: the system gives no random numbers ({error})"),
            is_mistake: true,
        }),
    }
}

async fn send(wire: &mut Wire, frame: BytesMut) -> Result<(), Failed> {
    wire.writer.send(frame.freeze()).await.map_err(Into::into)
}

/// The other side has the next word, and there must be one.
async fn receive(wire: &mut Wire) -> Result<BytesMut, Failed> {
    match wire.reader.next().await {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(error)) => Err(error.into()),
        None => Err(Failed {
            why: "closed the connection before it said who it is".to_owned(),
            is_mistake: false,
        }),
    }
}

impl From<Garbage> for Failed {
    fn from(garbage: Garbage) -> Self {
        let why = match garbage {
            Garbage::Stranger => "says something that no node of redis-failover says".to_owned(),
            Garbage::Version(version) => format!(
                "speaks version {version} of the protocol between nodes, this node version \
                 {VERSION}"
            ),
        };
        Self { why, is_mistake: true }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            // The length of a frame that no node would send.
            return Garbage::Stranger.into();
        }
        Self { why: format!("broke the connection: {error}"), is_mistake: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_for_another_address_is_not_for_here() {
        let v4 = "127.0.0.1:12000".parse().expect("an address");
        let mapped = "[::ffff:127.0.0.1]:12000".parse().expect("an address");
        for (asked, me, local, is) in [
            ("127.0.0.1:12000", "127.0.0.1:12000", v4, true),
            ("127.0.0.1:12000", "127.0.0.1:12000", mapped, true),
            ("127.0.0.1:12000", "node-b:12000", v4, true),
            ("127.0.0.2:12000", "127.0.0.1:12000", v4, false),
            ("127.0.0.1:12001", "127.0.0.1:12000", v4, false),
            ("node-b:12000", "127.0.0.1:12000", v4, true),
            ("node-b:12000", "node-b:12000", v4, true),
            ("node-a:12000", "node-b:12000", v4, false),
            ("node-b:12001", "127.0.0.1:12000", v4, false),
            ("[::1]:12000", "127.0.0.1:12000", v4, false),
            ("", "127.0.0.1:12000", v4, false),
            ("nonsense", "127.0.0.1:12000", v4, false),
        ] {
            let me = me.parse().expect("an address");
            let here = Here { me: &me, local };
            assert_eq!(here.is(asked), is, "{asked} at {local}, which is {me}");
        }
    }
}
