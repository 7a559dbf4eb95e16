//! What two nodes with the same secret can prove to each other, and what they seal their frames with.
//!
//! Everything is derived from the two messages that open a connection, which have a fresh random number of each side:
//! a proof is good for one connection, and so is the key of its frames. The number of a frame is not sent but counted, so
//! a frame that is left out, repeated or moved does not fit any more.

use bytes::BytesMut;
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

/// Length of a proof.
pub(super) const PROOF_BYTES: usize = 32;
/// Length of what is at the end of a sealed frame.
pub(super) const SEAL_BYTES: usize = 32;

/// A proof of knowing the secret.
pub(super) type Proof = [u8; PROOF_BYTES];

/// Which of the two sides of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Opened the connection.
    Caller,
    /// Accepted it.
    Answerer,
}

/// What both sides know of a connection once its first two messages went over it.
#[derive(Clone, Copy)]
pub(super) struct Transcript<'a> {
    pub(super) secret: &'a SecretString,
    pub(super) hello: &'a [u8],
    pub(super) welcome: &'a [u8],
}

impl Transcript<'_> {
    /// What this side sends to prove that it has the secret.
    pub(super) fn proof(self, of: Side) -> Proof {
        self.derive(match of {
            Side::Caller => b"proof of the caller",
            Side::Answerer => b"proof of the answerer",
        })
        .finalize()
        .into_bytes()
        .into()
    }

    /// Whether the other side has the secret; takes the same time for every wrong proof.
    pub(super) fn is_proof(self, of: Side, proof: &[u8]) -> bool {
        self.derive(match of {
            Side::Caller => b"proof of the caller",
            Side::Answerer => b"proof of the answerer",
        })
        .verify_slice(proof)
        .is_ok()
    }

    /// The seal of what this side sends.
    pub(super) fn seal(self, of: Side) -> Seal {
        let key = self.derive(match of {
            Side::Caller => b"frames of the caller",
            Side::Answerer => b"frames of the answerer",
        });
        Seal { key: Some(keyed(&key.finalize().into_bytes())), frames: 0 }
    }

    /// Lengths come first, so that no two transcripts have the same bytes.
    fn derive(self, purpose: &[u8]) -> HmacSha256 {
        let mut mac = keyed(self.secret.expose_secret().as_bytes());
        for part in [purpose, self.hello, self.welcome] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// Seals the frames of one direction of one connection, or checks them.
pub(super) struct Seal {
    /// `None`: nodes without a secret send their frames as they are.
    key: Option<HmacSha256>,
    frames: u64,
}

impl Seal {
    /// Between nodes that have no secret.
    pub(super) fn open() -> Self {
        Self { key: None, frames: 0 }
    }

    /// Adds the seal to a frame that is about to be sent.
    pub(super) fn close(&mut self, frame: &mut BytesMut) {
        if let Some(mac) = self.next(frame) {
            frame.extend_from_slice(&mac.finalize().into_bytes());
        }
    }

    /// Takes the seal off a frame that came. `false`: it is not the one that was sent at this place.
    pub(super) fn check(&mut self, frame: &mut BytesMut) -> bool {
        if self.key.is_none() {
            return true;
        }
        let Some(at) = frame.len().checked_sub(SEAL_BYTES) else {
            return false;
        };
        let seal = frame.split_off(at);
        self.next(frame).is_some_and(|mac| mac.verify_slice(&seal).is_ok())
    }

    fn next(&mut self, frame: &[u8]) -> Option<HmacSha256> {
        let mut mac = self.key.clone()?;
        mac.update(&self.frames.to_be_bytes());
        mac.update(frame);
        self.frames += 1;
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(secret: &SecretString) -> Transcript<'_> {
        Transcript { secret, hello: b"hello", welcome: b"welcome" }
    }

    #[test]
    fn a_proof_is_of_one_side_one_secret_and_one_connection() {
        let (secret, other) = (SecretString::from("a secret"), SecretString::from("another"));
        let of = transcript(&secret);
        let proof = of.proof(Side::Caller);
        assert!(of.is_proof(Side::Caller, &proof));
        assert!(!of.is_proof(Side::Answerer, &proof), "it cannot be sent back");
        assert!(!transcript(&other).is_proof(Side::Caller, &proof));
        assert!(!Transcript { welcome: b"w2", ..of }.is_proof(Side::Caller, &proof));
        let moved = Transcript { hello: b"hellow", welcome: b"elcome", ..of };
        assert!(!moved.is_proof(Side::Caller, &proof), "lengths count");
        assert!(!of.is_proof(Side::Caller, &proof[1..]));
        assert!(!of.is_proof(Side::Caller, b""));
    }

    #[test]
    fn a_frame_fits_only_once_at_its_place_unaltered() {
        let secret = SecretString::from("a secret");
        let of = transcript(&secret);
        let mut sender = of.seal(Side::Caller);
        let mut sealed = |text: &[u8]| {
            let mut frame = BytesMut::from(text);
            sender.close(&mut frame);
            frame
        };
        let (first, second) = (sealed(b"first"), sealed(b"second"));

        let mut receiver = of.seal(Side::Caller);
        let mut frame = first.clone();
        assert!(receiver.check(&mut frame));
        assert_eq!(&frame[..], b"first");
        assert!(!receiver.check(&mut first.clone()), "repeated");

        assert!(!of.seal(Side::Caller).check(&mut second.clone()), "one was left out");
        assert!(!of.seal(Side::Answerer).check(&mut first.clone()), "sent back");
        for at in 0..first.len() {
            let mut altered = first.clone();
            altered[at] ^= 1;
            assert!(!of.seal(Side::Caller).check(&mut altered), "byte {at}");
        }
        assert!(!of.seal(Side::Caller).check(&mut BytesMut::new()), "too short");
    }
}
