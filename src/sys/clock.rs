//! Time: a monotonic clock for durations and a wall clock for dates.
//!
//! The wall clock is read at most once a turn; in between it moves with the monotonic one, so that one read serves
//! both. Commands are timed one by one, so that read is of the processor's time stamp counter, where it runs at one
//! rate on all cores. It is synchronised with the system's clock when the wall clock is read.

#![allow(unsafe_code)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone)]
pub(crate) struct Clock {
    origin: Instant,
    /// Monotonic microseconds since `origin`, at the last read.
    mono_us: i64,
    /// Wall clock minus monotonic clock, microseconds.
    offset_us: i64,
    counter: Option<Counter>,
    /// When the system's clocks were last read, in microseconds since `origin`.
    synced_us: i64,
}

/// The time stamp counter, in terms of the monotonic clock.
#[derive(Debug, Clone)]
struct Counter {
    /// The count when it was first read, and the time of that, microseconds.
    first: (u64, i64),
    /// The same, when it was last synchronised.
    last: (u64, i64),
    /// Microseconds of one count, times 2^32; 0: not known yet.
    us_per_count: u64,
}

/// After this time, microseconds, the counter's rate is known well enough: reading both clocks takes about 0.1.
const MEASURED_US: i64 = 20_000;
/// It is measured again this often: a virtual machine may have moved to another processor.
const REMEASURED_US: i64 = 1_000_000;
/// How long the counter is trusted before it is synchronised again, microseconds.
const SYNC_US: i64 = 500;

impl Counter {
    fn new(mono_us: i64) -> Option<Counter> {
        if !counter::is_steady() {
            return None;
        }
        let now = (counter::read(), mono_us);
        Some(Counter { first: now, last: now, us_per_count: 0 })
    }

    fn set_right(&mut self, mono_us: i64) {
        self.last = (counter::read(), mono_us);
        let (counts, us) = (self.last.0.wrapping_sub(self.first.0), mono_us - self.first.1);
        let is_due = us >= REMEASURED_US || (self.us_per_count == 0 && us >= MEASURED_US);
        if is_due && counts > 0 {
            self.us_per_count = (((us as u128) << 32) / counts as u128) as u64;
            self.first = self.last;
        }
    }

    /// The monotonic clock now, microseconds; `None`: the rate is not known yet.
    fn us(&self) -> Option<i64> {
        if self.us_per_count == 0 {
            return None;
        }
        let counts = counter::read().wrapping_sub(self.last.0);
        // A counter that went back (that of another core, slightly) counts as no time passed.
        let counts = if counts > u64::MAX / 2 { 0 } else { counts };
        Some(self.last.1 + ((counts as u128 * self.us_per_count as u128) >> 32) as i64)
    }
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    /// Whether the counter neither stops nor changes its rate, by the processor's own word.
    pub(crate) fn is_steady() -> bool {
        // The leaf of advanced power management, and its bit for an invariant time stamp counter.
        const LEAF: u32 = 0x8000_0007;
        __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx & 1 << 8 != 0
    }

    #[inline]
    pub(crate) fn read() -> u64 {
        // SAFETY: every processor of this architecture has the instruction.
        unsafe { _rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    pub(crate) fn is_steady() -> bool {
        false
    }

    pub(crate) fn read() -> u64 {
        0
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let mut clock =
            Clock { origin: Instant::now(), mono_us: 0, offset_us: 0, counter: Counter::new(0), synced_us: i64::MIN };
        clock.sync();
        clock
    }

    /// Reads the time at the beginning of a turn. The system's clocks are read only when [`SYNC_US`] have passed; in
    /// short turns the counter is as good.
    pub(crate) fn begin_turn(&mut self) {
        if self.counter.as_ref().and_then(Counter::us).is_none_or(|us| us.saturating_sub(self.synced_us) > SYNC_US) {
            self.sync();
        } else {
            self.tick_us();
        }
    }

    /// Reads all clocks.
    pub(crate) fn sync(&mut self) {
        self.mono_us = (self.origin.elapsed().as_micros() as i64).max(self.mono_us);
        if let Some(counter) = &mut self.counter {
            counter.set_right(self.mono_us);
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        self.offset_us = wall - self.mono_us;
        self.synced_us = self.mono_us;
    }

    /// Reads the monotonic clock, microseconds since an arbitrary start.
    #[inline]
    pub(crate) fn tick_us(&mut self) -> i64 {
        let now_us = match self.counter.as_ref().and_then(Counter::us) {
            Some(us) => us,
            None => self.origin.elapsed().as_micros() as i64,
        };
        self.mono_us = now_us.max(self.mono_us);
        self.mono_us
    }

    /// Reads the monotonic clock without storing it, microseconds: where the last read may be too old.
    #[inline]
    pub(crate) fn fresh_us(&self) -> i64 {
        let now_us = self.counter.as_ref().and_then(Counter::us);
        now_us.unwrap_or_else(|| self.origin.elapsed().as_micros() as i64).max(self.mono_us)
    }

    /// The monotonic clock as last read, microseconds.
    pub(crate) fn mono_us(&self) -> i64 {
        self.mono_us
    }

    /// The monotonic clock as last read, milliseconds.
    pub(crate) fn mono_ms(&self) -> i64 {
        self.mono_us / 1000
    }

    /// The wall clock as last read, microseconds since 1970.
    pub(crate) fn us(&self) -> i64 {
        self.mono_us + self.offset_us
    }

    /// The wall clock as last read, milliseconds since 1970.
    pub(crate) fn ms(&self) -> i64 {
        self.us() / 1000
    }

    /// What this clock shows when `then` is over, in whole milliseconds.
    pub(crate) fn ms_until(&self, then: Instant) -> i64 {
        let left = then.saturating_duration_since(Instant::now()).as_millis();
        self.ms().saturating_add(i64::try_from(left).unwrap_or(i64::MAX)).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_ways_to_tell_the_time_agree() {
        let mut clock = Clock::new();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(10));
            clock.sync();
        }
        // Long after it was synchronised, the counter is off only by the error of its measured rate.
        let before = clock.mono_us();
        std::thread::sleep(Duration::from_millis(50));
        let real = clock.origin.elapsed().as_micros() as i64;
        let told = clock.tick_us();
        assert!(told >= before + 50_000, "{told} after {before}");
        assert!((told - real).abs() < 2_000, "{told} against {real}");
    }

    #[test]
    fn what_is_far_ahead_is_not_in_the_past() {
        let clock = Clock::new();
        let far = Instant::now().checked_add(Duration::from_secs(i64::MAX as u64 / 2)).unwrap();
        assert_eq!(clock.ms_until(far), i64::MAX);
        assert_eq!(clock.ms_until(Instant::now()), clock.ms() + 1);
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::new();
        let mut last = 0;
        for i in 0..20_000 {
            if i % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(1));
                clock.sync();
            }
            let now = clock.tick_us();
            assert!(now >= last);
            last = now;
        }
    }
}
