//! Time as a value that is handed in from outside.
//!
//! The core never reads a clock. Whoever drives it (the daemon's loop, the simulator, a test) says what time it is, so
//! that every decision can be replayed from its inputs.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since the Unix epoch.
///
/// The shell anchors it to the wall clock once, at its start, and lets it run with the monotonic clock from there:
/// differences are exact, it never goes back, and it can be printed as a date. A wall clock that is stepped later is not
/// followed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(u64);

impl Time {
    /// The epoch itself; earlier than anything that happens.
    pub const ZERO: Self = Self(0);

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// From RFC 3339, with whatever offset; `None` when it is none, or before the epoch.
    pub fn parse(text: &str) -> Option<Self> {
        let stamp: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(stamp.as_microsecond()).ok().map(Self)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// How long ago `earlier` was, zero when it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// RFC 3339 in UTC with milliseconds, as everything that people and programs read shows a moment.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        let stamp = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{stamp:.3}")
    }
}

/// Serializes a [`Time`] the way the API shows it (RFC 3339), for fields of views. The record keeps microseconds.
pub mod rfc3339 {
    use serde::Serializer;

    use super::Time;

    /// One moment.
    ///
    /// # Errors
    /// Only what the serializer itself reports.
    pub fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    /// A moment that may be unknown (`null`).
    pub mod option {
        use serde::Serializer;

        use super::Time;

        /// One moment, or null.
        ///
        /// # Errors
        /// Only what the serializer itself reports.
        pub fn serialize<S: Serializer>(
            time: &Option<Time>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.collect_str(time),
                None => serializer.serialize_none(),
            }
        }
    }
}

/// A duration in milliseconds with three decimals, as histories and sentences show it.
pub fn millis(duration: Duration) -> f64 {
    let secs = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    // Whole microseconds are exact, so that their thousandth is printed with three decimals and no more.
    (f64::from(secs) * 1_000_000.0 + f64::from(duration.subsec_micros())) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_and_prints() {
        let t = Time::from_millis(1500);
        assert_eq!((t + Duration::from_millis(250)).as_millis(), 1750);
        assert_eq!((t - Duration::from_secs(9)).as_micros(), 0);
        assert_eq!(Time::ZERO.since(t), Duration::ZERO);
        assert_eq!(t.to_string(), "1970-01-01T00:00:01.500Z");
        assert_eq!(Time::parse("1970-01-01T01:00:01.5+01:00"), Some(t));
        assert_eq!((Time::parse("1969-12-31T23:59:59Z"), Time::parse("soon")), (None, None));
        assert_eq!(millis(Duration::from_micros(1_005_253)).to_string(), "1005.253");
        assert_eq!(millis(Duration::from_secs(7200)).to_string(), "7200000");
    }
}
