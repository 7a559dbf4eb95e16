//! Library.

mod clock;
mod requests;
mod shown;

pub use shown::Shown;
