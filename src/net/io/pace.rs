//! Whether an I/O thread waits a little for more to do.
//!
//! With many clients at work, each of which sends now and then, there is little to do each time a thread wakes, and waking, and
//! waking the main thread, costs more than that. So a thread that has nothing to do sleeps for a moment before it waits for the
//! next event, and has the more to do then. The moment is a small part of the time in which each client sends once.

use std::time::{Duration, Instant};

/// How long is counted.
const WINDOW: Duration = Duration::from_millis(10);
/// The part of the time in which each link sends once that a nap takes, and the longest nap.
const PART: u32 = 16;
const LONGEST: Duration = Duration::from_micros(150);
/// How many reads there have to be to do after a nap, on average.
const READS: u32 = 3;

#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// The number of the window. Reads in it, and links that were read.
    window: u32,
    reads: u32,
    links: u32,
    nap: Option<Duration>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { began: Instant::now(), window: 1, reads: 0, links: 0, nap: None }
    }

    /// Takes note of a read of a link; `last`: the window in which it was read before.
    pub(super) fn note_read(&mut self, last: &mut u32) {
        self.reads += 1;
        if std::mem::replace(last, self.window) != self.window {
            self.links += 1;
        }
    }

    /// To be called in every turn.
    pub(super) fn note_time(&mut self, now: Instant) {
        let elapsed = now - self.began;
        if elapsed >= WINDOW {
            self.nap = nap(elapsed, self.reads, self.links);
            self.began = now;
            self.window = self.window.wrapping_add(1);
            (self.reads, self.links) = (0, 0);
        }
    }

    /// How long to sleep where there is nothing to do, if at all.
    pub(super) fn nap(&self) -> Option<Duration> {
        self.nap
    }
}

/// That with so many reads of so many links in some time.
fn nap(elapsed: Duration, reads: u32, links: u32) -> Option<Duration> {
    let each = elapsed * links / reads.max(1);
    let nap = (each / PART).min(LONGEST);
    (nap * reads >= elapsed * READS).then_some(nap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_busy_links_are_worth_a_nap() {
        let us = Duration::from_micros;
        // 200 links, 80,000 reads a second: each sends every 2.5 ms.
        assert_eq!(nap(us(10_000), 800, 200), Some(us(150)));
        assert_eq!(nap(us(10_000), 1600, 200), Some(Duration::from_nanos(78_125)));
        // Few, and many that are seldom heard of.
        assert_eq!(nap(us(10_000), 800, 40), None);
        assert_eq!(nap(us(10_000), 100, 100), None);
        assert_eq!(nap(us(1_000_000), 1, 1), None);
        assert_eq!(nap(us(10_000), 0, 0), None);
    }

    #[test]
    fn it_is_counted_anew_in_every_window() {
        let mut pace = Pace::new();
        let (mut links, mut now) = ([0; 100], pace.began);
        for _ in 0..4 {
            links.iter_mut().for_each(|last| pace.note_read(last));
        }
        assert_eq!((pace.reads, pace.links), (400, 100));
        pace.note_time(now + WINDOW / 2);
        assert_eq!(pace.nap(), None);
        now += WINDOW;
        pace.note_time(now);
        assert_eq!(pace.nap(), Some(LONGEST));
        pace.note_read(&mut links[0]);
        assert_eq!((pace.reads, pace.links), (1, 1));
        pace.note_time(now + WINDOW);
        assert_eq!(pace.nap(), None);
    }
}
