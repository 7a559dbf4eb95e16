//! RESP, the protocol that Redis, Valkey and LedisDB speak.
//!
//! Reads RESP2 and RESP3, because a server may be set up to answer in either. The decoder keeps its place between
//! calls, so that a reply that arrives in a thousand pieces costs no more than one that arrives whole, and it builds
//! elements only from bytes that are there: an announced length reserves nothing. Streamed RESP3 types (`$?`) and
//! inline commands are not here: no server that we ask sends them.

use std::fmt::Write as _;

use bytes::{Buf as _, Bytes, BytesMut};

use super::flavor::ServerError;

/// What one reply may take. A peer that exceeds a limit is not a server that we can talk with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest string with an announced length.
    pub(crate) bulk_bytes_max: usize,
    /// The longest simple string or error, its type and line end included.
    pub(crate) line_bytes_max: usize,
    /// The longest reply, everything included.
    pub(crate) reply_bytes_max: usize,
    /// The most elements of all arrays, maps, sets and attributes of one reply together.
    pub(crate) reply_elements_max: usize,
    /// The deepest nesting of arrays, maps and sets.
    pub(crate) depth_max: usize,
}

impl Limits {
    /// What the servers we watch stay far below: `INFO` of a busy server takes 16 KiB, and `ROLE` of a master with a
    /// thousand replicas about four thousand elements.
    pub(crate) const DEFAULT: Self = Self {
        bulk_bytes_max: 1024 * 1024,
        line_bytes_max: 16 * 1024,
        reply_bytes_max: 4 * 1024 * 1024,
        reply_elements_max: 16 * 1024,
        depth_max: 8,
    };
}

/// One value of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// `+`: a status such as `OK`.
    Simple(Bytes),
    /// `-` and `!`: the server refused, and why.
    Error(Bytes),
    /// `:`
    Integer(i64),
    /// `$`: bytes of an announced length.
    Bulk(Bytes),
    /// `=`: a text with three letters that name its format. `INFO` answers so under RESP3.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text itself.
        text: Bytes,
    },
    /// `_`, `$-1` and `*-1`: nothing.
    Null,
    /// `#`
    Boolean(bool),
    /// `,`
    Double(f64),
    /// `(`: an integer of any length, in decimal digits.
    BigNumber(Bytes),
    /// `*`
    Array(Vec<Self>),
    /// `~`
    Set(Vec<Self>),
    /// `>`: something that was not asked for.
    Push(Vec<Self>),
    /// `%`, in the order in which it was sent.
    Map(Vec<(Self, Self)>),
}

/// Why bytes are not a reply. The connection cannot be used any more: where the next reply begins is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// The first byte of a value names no type.
    #[error("a value begins with byte 0x{0:02x}, which is no type of the Redis protocol")]
    UnknownType(u8),
    /// A line feed without a carriage return before it.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// A string is not followed by a line end.
    #[error("a string is longer than its announced length")]
    BulkEnd,
    /// A number, length or truth value that is none.
    #[error("a number, length or truth value cannot be read")]
    Value,
    /// A line without an end.
    #[error("a line is longer than {0} bytes")]
    LineTooLong(usize),
    /// A string longer than allowed was announced.
    #[error("a string is longer than {0} bytes")]
    BulkTooLong(usize),
    /// The reply does not end.
    #[error("the reply is longer than {0} bytes")]
    ReplyTooLong(usize),
    /// More elements than allowed were announced.
    #[error("the reply has more than {0} elements")]
    TooManyElements(usize),
    /// Nested too deeply.
    #[error("the reply is nested more than {0} deep")]
    TooDeep(usize),
}

/// Takes replies out of a buffer that is filled piece by piece.
///
/// One decoder belongs to one connection. After an error both are to be dropped.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The aggregates that are begun, the innermost last.
    open: Vec<Open>,
    /// How many bytes of this reply have been taken out of the buffer.
    reply_bytes: usize,
    /// How many elements this reply has announced.
    reply_elements: usize,
    /// How many bytes at the front of the buffer are known to have no line end.
    searched_bytes: usize,
}

#[derive(Debug)]
struct Open {
    kind: Aggregate,
    missing: usize,
    items: Vec<Frame>,
}

#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Array,
    Set,
    Push,
    Map,
    /// Says something about the value after it. Nothing that we ask has attributes, so they are read and dropped.
    Attribute,
}

#[derive(Clone, Copy)]
enum Blob {
    Bulk,
    Error,
    Verbatim,
}

enum Piece {
    Value(Frame),
    Begin(Aggregate, usize),
}

impl Decoder {
    /// For a new connection.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { open: Vec::new(), reply_bytes: 0, reply_elements: 0, searched_bytes: 0 }
    }

    /// The next reply, or `None` when it is not complete: read more and call again. Bytes that were understood are
    /// taken out of the buffer even then, and strings share its memory. Between calls bytes may only be appended.
    ///
    /// # Errors
    /// When the bytes are no reply, or one beyond the limits.
    pub(crate) fn decode(
        &mut self,
        buffer: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Frame>, ProtocolError> {
        while let Some(piece) = self.piece(buffer, limits)? {
            let reply = match piece {
                Piece::Value(frame) => self.attach(frame),
                Piece::Begin(kind, missing) => self.begin(kind, missing, limits)?,
            };
            if let Some(reply) = reply {
                self.reply_bytes = 0;
                self.reply_elements = 0;
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    fn begin(
        &mut self,
        kind: Aggregate,
        missing: usize,
        limits: &Limits,
    ) -> Result<Option<Frame>, ProtocolError> {
        if self.open.len() >= limits.depth_max {
            return Err(ProtocolError::TooDeep(limits.depth_max));
        }
        if missing == 0 {
            return Ok(kind.close(Vec::new()).and_then(|frame| self.attach(frame)));
        }
        self.open.push(Open { kind, missing, items: Vec::new() });
        Ok(None)
    }

    /// Puts a value where it belongs; the reply when that was its last missing part.
    fn attach(&mut self, mut frame: Frame) -> Option<Frame> {
        while let Some(mut innermost) = self.open.pop() {
            innermost.items.push(frame);
            innermost.missing -= 1;
            if innermost.missing > 0 {
                self.open.push(innermost);
                return None;
            }
            frame = innermost.kind.close(innermost.items)?;
        }
        Some(frame)
    }

    /// The next value without parts, or the beginning of one with parts.
    fn piece(
        &mut self,
        buffer: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Piece>, ProtocolError> {
        let Some(&kind) = buffer.first() else {
            return Ok(None);
        };
        if !b"+-:$!=*~>%|_#,(".contains(&kind) {
            return Err(ProtocolError::UnknownType(kind));
        }
        let Some(line_bytes) = self.line(buffer, limits)? else {
            return Ok(None);
        };
        let text = &buffer[1..line_bytes - 2];
        let piece = match kind {
            b'$' => return self.blob(Blob::Bulk, line_bytes, buffer, limits),
            b'!' => return self.blob(Blob::Error, line_bytes, buffer, limits),
            b'=' => return self.blob(Blob::Verbatim, line_bytes, buffer, limits),
            b'*' if text == b"-1" => Piece::Value(Frame::Null),
            b'*' => Piece::Begin(Aggregate::Array, self.count(text, 1, limits)?),
            b'~' => Piece::Begin(Aggregate::Set, self.count(text, 1, limits)?),
            b'>' => Piece::Begin(Aggregate::Push, self.count(text, 1, limits)?),
            b'%' => Piece::Begin(Aggregate::Map, self.count(text, 2, limits)?),
            b'|' => Piece::Begin(Aggregate::Attribute, self.count(text, 2, limits)?),
            b':' => Piece::Value(Frame::Integer(number(text)?)),
            b',' => Piece::Value(Frame::Double(number(text)?)),
            b'_' if text.is_empty() => Piece::Value(Frame::Null),
            b'#' if text == b"t" => Piece::Value(Frame::Boolean(true)),
            b'#' if text == b"f" => Piece::Value(Frame::Boolean(false)),
            b'+' | b'-' | b'(' => {
                let text = self.take(line_bytes, buffer).slice(1..line_bytes - 2);
                return Ok(Some(Piece::Value(match kind {
                    b'+' => Frame::Simple(text),
                    b'-' => Frame::Error(text),
                    _ => Frame::BigNumber(big_number(text)?),
                })));
            }
            _ => return Err(ProtocolError::Value),
        };
        self.skip(line_bytes, buffer);
        Ok(Some(piece))
    }

    /// The length of the first line, its end included. What was searched in vain is not searched again.
    fn line(&mut self, buffer: &BytesMut, limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let reply_rest = limits.reply_bytes_max.saturating_sub(self.reply_bytes);
        let window = buffer.len().min(limits.line_bytes_max).min(reply_rest);
        let unsearched = buffer.get(self.searched_bytes..window).unwrap_or(&[]);
        let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched_bytes = window;
            return if window == reply_rest {
                Err(ProtocolError::ReplyTooLong(limits.reply_bytes_max))
            } else if window == limits.line_bytes_max {
                Err(ProtocolError::LineTooLong(limits.line_bytes_max))
            } else {
                Ok(None)
            };
        };
        let line_end = self.searched_bytes + at;
        // The line of a string whose bytes are still missing is looked at again: its end is found at once then.
        self.searched_bytes = line_end;
        if line_end < 2 || buffer[line_end - 1] != b'\r' {
            return Err(ProtocolError::LineEnd);
        }
        Ok(Some(line_end + 1))
    }

    /// A string with an announced length, once all of it is there.
    fn blob(
        &mut self,
        kind: Blob,
        line_bytes: usize,
        buffer: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Piece>, ProtocolError> {
        let text = &buffer[1..line_bytes - 2];
        if text == b"-1" && matches!(kind, Blob::Bulk) {
            self.skip(line_bytes, buffer);
            return Ok(Some(Piece::Value(Frame::Null)));
        }
        let bytes = length(text)?;
        if bytes > limits.bulk_bytes_max {
            return Err(ProtocolError::BulkTooLong(limits.bulk_bytes_max));
        }
        let whole_bytes = line_bytes + bytes + 2;
        if self.reply_bytes + whole_bytes > limits.reply_bytes_max {
            return Err(ProtocolError::ReplyTooLong(limits.reply_bytes_max));
        }
        if buffer.len() < whole_bytes {
            return Ok(None);
        }
        if buffer[whole_bytes - 2..whole_bytes] != *b"\r\n" {
            return Err(ProtocolError::BulkEnd);
        }
        let blob = self.take(whole_bytes, buffer).slice(line_bytes..line_bytes + bytes);
        let frame = match kind {
            Blob::Bulk => Frame::Bulk(blob),
            Blob::Error => Frame::Error(blob),
            Blob::Verbatim => match *blob {
                [a, b, c, b':', ..] => Frame::Verbatim { format: [a, b, c], text: blob.slice(4..) },
                _ => return Err(ProtocolError::Value),
            },
        };
        Ok(Some(Piece::Value(frame)))
    }

    fn count(
        &mut self,
        text: &[u8],
        values_per_item: usize,
        limits: &Limits,
    ) -> Result<usize, ProtocolError> {
        let values = length(text)?.saturating_mul(values_per_item);
        self.reply_elements = self.reply_elements.saturating_add(values);
        if self.reply_elements > limits.reply_elements_max {
            return Err(ProtocolError::TooManyElements(limits.reply_elements_max));
        }
        Ok(values)
    }

    fn skip(&mut self, bytes: usize, buffer: &mut BytesMut) {
        self.searched_bytes = 0;
        self.reply_bytes += bytes;
        buffer.advance(bytes);
    }

    fn take(&mut self, bytes: usize, buffer: &mut BytesMut) -> Bytes {
        self.searched_bytes = 0;
        self.reply_bytes += bytes;
        buffer.split_to(bytes).freeze()
    }
}

impl Aggregate {
    /// The value made of these parts; `None` for what is not a value of its own.
    fn close(self, items: Vec<Frame>) -> Option<Frame> {
        match self {
            Self::Array => Some(Frame::Array(items)),
            Self::Set => Some(Frame::Set(items)),
            Self::Push => Some(Frame::Push(items)),
            Self::Map => {
                let mut pairs = Vec::with_capacity(items.len() / 2);
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Some(Frame::Map(pairs))
            }
            Self::Attribute => None,
        }
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T, ProtocolError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(ProtocolError::Value)
}

/// A length has digits only; more than 10 of them are beyond every limit and need not be read.
fn length(text: &[u8]) -> Result<usize, ProtocolError> {
    if text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return Err(ProtocolError::Value);
    }
    number(text)
}

fn big_number(text: Bytes) -> Result<Bytes, ProtocolError> {
    let digits = text.strip_prefix(b"-").unwrap_or(&text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ProtocolError::Value);
    }
    Ok(text)
}

impl Frame {
    /// The text of a string, whichever kind of string the server chose.
    #[must_use]
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Bulk(text) | Self::Verbatim { text, .. } => Some(text),
            Self::Error(_)
            | Self::Integer(_)
            | Self::Null
            | Self::Boolean(_)
            | Self::Double(_)
            | Self::BigNumber(_)
            | Self::Array(_)
            | Self::Set(_)
            | Self::Push(_)
            | Self::Map(_) => None,
        }
    }

    /// The server's refusal, when it is one.
    #[must_use]
    pub(crate) fn refusal(&self) -> Option<ServerError> {
        if let Self::Error(text) = self { Some(ServerError::new(text)) } else { None }
    }
}

/// Writes a command: an array of strings, which may hold any bytes.
pub(crate) fn encode_command<A: AsRef<[u8]>>(out: &mut BytesMut, words: &[A]) {
    put_number(out, b'*', words.len());
    for word in words {
        put_blob(out, b'$', &[word.as_ref()]);
    }
}

fn put_blob(out: &mut BytesMut, kind: u8, parts: &[&[u8]]) {
    put_number(out, kind, parts.iter().map(|part| part.len()).sum::<usize>());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn put_number(out: &mut BytesMut, kind: u8, number: impl std::fmt::Display) {
    write!(out, "{}{number}\r\n", char::from(kind)).expect("a buffer in memory grows as needed");
}

#[cfg(test)]
mod tests;
