//! What a snapshot is read from, for readers that must not wait for it.

use std::io::{BufRead, BufReader, Read};

/// A source that, when it has no more for the moment, says `WouldBlock` and can be read again from an earlier place.
pub(crate) trait Source: BufRead {
    /// The place to go back to is here.
    fn keep(&mut self) {}

    /// Goes back to that place. False: this source always has something to give, or is at its end.
    fn go_back(&mut self) -> bool {
        false
    }
}

impl<R: Read> Source for BufReader<R> {}
impl Source for &[u8] {}
