//! The bytes of the handshake, and of the frames after it.
//!
//! The first eight bytes of the first two messages and the version after them keep their place in every version, so that
//! a node of another one can be told apart from a stranger.

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::Lane;

/// What every first message begins with.
const MAGIC: &[u8; 8] = b"rf-node\n";
/// The only version of the protocol so far.
pub(super) const VERSION: u16 = 1;
/// Length of the random number of each side.
pub(super) const NONCE_BYTES: usize = 32;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;

/// What a caller opens a connection with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) lane: Lane,
    pub(super) has_secret: bool,
    pub(super) nonce: [u8; NONCE_BYTES],
    /// The address that the caller asks for.
    pub(super) to: String,
    /// The address that the caller says it has.
    pub(super) from: String,
}

/// What the other side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The connection is open; with a secret, once both have proved that they have it.
    Welcome { has_secret: bool, nonce: [u8; NONCE_BYTES] },
    /// It is not, and will be closed.
    Refused(Refusal),
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has a secret and the caller has none.
    NoSecret,
    /// It has none and the caller has one.
    Secret,
    /// The two have different ones.
    WrongSecret,
    /// It is not the node that the caller asks for.
    Elsewhere,
    /// It is the node that calls.
    Itself,
    /// It has as many connections as it takes.
    Full,
    /// It speaks another version, which stands in the message itself.
    Version,
}

/// Why what came is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbage {
    /// No node of this program sends that.
    Stranger,
    /// A node of a version that this one does not know.
    Version(u16),
}

impl Hello {
    pub(super) fn encode(&self) -> BytesMut {
        let mut out = begin(HELLO);
        out.put_u8(match self.lane {
            Lane::Raft => 0,
            Lane::Talk => 1,
        });
        out.put_u8(self.has_secret.into());
        out.put_slice(&self.nonce);
        for text in [&self.to, &self.from] {
            // An address is below 300 bytes.
            out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
            out.put_slice(text.as_bytes());
        }
        out
    }

    pub(super) fn decode(mut input: &[u8]) -> Result<Self, Garbage> {
        let input = &mut input;
        if take_kind(input)? != HELLO {
            return Err(Garbage::Stranger);
        }
        let lane = match take_u8(input)? {
            0 => Lane::Raft,
            1 => Lane::Talk,
            _ => return Err(Garbage::Stranger),
        };
        let hello = Self {
            lane,
            has_secret: take_bool(input)?,
            nonce: take_nonce(input)?,
            to: take_text(input)?,
            from: take_text(input)?,
        };
        end(input)?;
        Ok(hello)
    }
}

impl Reply {
    pub(super) fn encode(&self) -> BytesMut {
        match self {
            Self::Welcome { has_secret, nonce } => {
                let mut out = begin(WELCOME);
                out.put_u8((*has_secret).into());
                out.put_slice(nonce);
                out
            }
            Self::Refused(refusal) => {
                let mut out = begin(REFUSED);
                out.put_u8(match refusal {
                    Refusal::NoSecret => 0,
                    Refusal::Secret => 1,
                    Refusal::WrongSecret => 2,
                    Refusal::Elsewhere => 3,
                    Refusal::Full => 4,
                    Refusal::Version => 5,
                    Refusal::Itself => 6,
                });
                out
            }
        }
    }

    pub(super) fn decode(mut input: &[u8]) -> Result<Self, Garbage> {
        let input = &mut input;
        let reply = match take_kind(input)? {
            WELCOME => Self::Welcome { has_secret: take_bool(input)?, nonce: take_nonce(input)? },
            REFUSED => Self::Refused(match take_u8(input)? {
                0 => Refusal::NoSecret,
                1 => Refusal::Secret,
                2 => Refusal::WrongSecret,
                3 => Refusal::Elsewhere,
                4 => Refusal::Full,
                5 => Refusal::Version,
                6 => Refusal::Itself,
                _ => return Err(Garbage::Stranger),
            }),
            _ => return Err(Garbage::Stranger),
        };
        end(input)?;
        Ok(reply)
    }
}

fn begin(kind: u8) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    out.put_slice(MAGIC);
    out.put_u16(VERSION);
    out.put_u8(kind);
    out
}

fn take_kind(input: &mut &[u8]) -> Result<u8, Garbage> {
    if !input.starts_with(MAGIC) {
        return Err(Garbage::Stranger);
    }
    input.advance(MAGIC.len());
    match input.try_get_u16() {
        Ok(VERSION) => take_u8(input),
        Ok(version) => Err(Garbage::Version(version)),
        Err(_) => Err(Garbage::Stranger),
    }
}

fn take_u8(input: &mut &[u8]) -> Result<u8, Garbage> {
    input.try_get_u8().map_err(|_| Garbage::Stranger)
}

fn take_bool(input: &mut &[u8]) -> Result<bool, Garbage> {
    match take_u8(input)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Garbage::Stranger),
    }
}

fn take_nonce(input: &mut &[u8]) -> Result<[u8; NONCE_BYTES], Garbage> {
    let mut nonce = [0; NONCE_BYTES];
    input.try_copy_to_slice(&mut nonce).map_err(|_| Garbage::Stranger)?;
    Ok(nonce)
}

fn take_text(input: &mut &[u8]) -> Result<String, Garbage> {
    let length = usize::from(input.try_get_u16().map_err(|_| Garbage::Stranger)?);
    let (text, rest) = input.split_at_checked(length).ok_or(Garbage::Stranger)?;
    *input = rest;
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| Garbage::Stranger)
}

fn end(input: &[u8]) -> Result<(), Garbage> {
    if input.is_empty() { Ok(()) } else { Err(Garbage::Stranger) }
}

/// What became of a call that reached the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The body is the answer.
    Answered,
    /// It has too many calls of this connection; this one was thrown away.
    Busy,
    /// It was carried out, and its answer is too long to be sent.
    TooLong,
}

/// A call: its number and its body.
pub(super) fn call(number: u64, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(body.len() + super::FRAME_EXTRA_BYTES_MAX);
    out.put_u64(number);
    out.put_slice(body);
    out
}

/// The number of a call, and its body.
pub(super) fn take_call(mut frame: BytesMut) -> Option<(u64, Vec<u8>)> {
    let number = frame.try_get_u64().ok()?;
    Some((number, frame.into()))
}

/// An answer: the number of its call, what became of it, and the body.
pub(super) fn answer(number: u64, status: Status, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(body.len() + super::FRAME_EXTRA_BYTES_MAX);
    out.put_u64(number);
    out.put_u8(match status {
        Status::Answered => 0,
        Status::Busy => 1,
        Status::TooLong => 2,
    });
    out.put_slice(body);
    out
}

/// The number of the call that is answered, what became of it, and the body.
pub(super) fn take_answer(mut frame: BytesMut) -> Option<(u64, Status, Vec<u8>)> {
    let number = frame.try_get_u64().ok()?;
    let status = match frame.try_get_u8().ok()? {
        0 => Status::Answered,
        1 => Status::Busy,
        2 => Status::TooLong,
        _ => return None,
    };
    Some((number, status, frame.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            lane: Lane::Talk,
            has_secret: true,
            nonce: [7; NONCE_BYTES],
            to: "node-b:12000".to_owned(),
            from: "[::1]:12000".to_owned(),
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        let other = Hello { lane: Lane::Raft, has_secret: false, ..hello() };
        assert_eq!(Hello::decode(&other.encode()), Ok(other));
        for reply in [
            Reply::Welcome { has_secret: true, nonce: [9; NONCE_BYTES] },
            Reply::Welcome { has_secret: false, nonce: [9; NONCE_BYTES] },
            Reply::Refused(Refusal::NoSecret),
            Reply::Refused(Refusal::Secret),
            Reply::Refused(Refusal::WrongSecret),
            Reply::Refused(Refusal::Elsewhere),
            Reply::Refused(Refusal::Full),
            Reply::Refused(Refusal::Version),
            Reply::Refused(Refusal::Itself),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
        assert_eq!(take_call(call(5, b"body")), Some((5, b"body".to_vec())));
        for status in [Status::Answered, Status::Busy, Status::TooLong] {
            let taken = take_answer(answer(u64::MAX, status, b"body"));
            assert_eq!(taken, Some((u64::MAX, status, b"body".to_vec())));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (hello, welcome) = (hello().encode(), Reply::Refused(Refusal::Full).encode());
        for length in 0..hello.len() {
            assert_eq!(Hello::decode(&hello[..length]), Err(Garbage::Stranger), "{length}");
        }
        for length in 0..welcome.len() {
            assert_eq!(Reply::decode(&welcome[..length]), Err(Garbage::Stranger), "{length}");
        }
        let longer = [&hello[..], b"x"].concat();
        assert_eq!(Hello::decode(&longer), Err(Garbage::Stranger));
        assert_eq!(Hello::decode(&welcome), Err(Garbage::Stranger), "one is not the other");
        assert_eq!(Reply::decode(&hello), Err(Garbage::Stranger));
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\n\r\n"), Err(Garbage::Stranger));
        let mut newer = hello;
        newer[9] = 2;
        assert_eq!(Hello::decode(&newer), Err(Garbage::Version(2)));
        assert_eq!(take_call(BytesMut::from(&[0; 7][..])), None);
        assert_eq!(take_answer(BytesMut::from(&[0; 8][..])), None);
        assert_eq!(take_answer(BytesMut::from(&[9; 9][..])), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0..120_usize, byte: u8) {
            let _ = Hello::decode(&bytes);
            let _ = Reply::decode(&bytes);
            let _ = take_answer(BytesMut::from(&bytes[..]));
            let mut altered = hello().encode();
            if let Some(place) = altered.get_mut(at) {
                *place = byte;
            }
            let _ = Hello::decode(&altered);
        }
    }
}
