//! Time: a monotonic clock for durations and a wall clock for everything that has a date.
//!
//! The wall clock is read once a turn; within the turn it moves with the monotonic one, which costs one read for both.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    /// Monotonic microseconds since `origin`, at the last read.
    mono_us: i64,
    /// Wall clock minus monotonic clock, microseconds.
    offset_us: i64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    pub fn new() -> Clock {
        let mut clock = Clock { origin: Instant::now(), mono_us: 0, offset_us: 0 };
        clock.sync();
        clock
    }

    /// Reads both clocks; once a turn.
    pub fn sync(&mut self) {
        self.tick_us();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        self.offset_us = wall - self.mono_us;
    }

    /// Reads the monotonic clock and gives it, in microseconds since an arbitrary start.
    pub fn tick_us(&mut self) -> i64 {
        self.mono_us = self.origin.elapsed().as_micros() as i64;
        self.mono_us
    }

    /// The monotonic clock as last read, microseconds.
    pub fn mono_us(&self) -> i64 {
        self.mono_us
    }

    /// The monotonic clock as last read, milliseconds.
    pub fn mono_ms(&self) -> i64 {
        self.mono_us / 1000
    }

    /// The wall clock as last read, microseconds since 1970.
    pub fn us(&self) -> i64 {
        self.mono_us + self.offset_us
    }

    /// The wall clock as last read, milliseconds since 1970.
    pub fn ms(&self) -> i64 {
        self.us() / 1000
    }
}
