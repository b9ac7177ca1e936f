//! When the loop lets requests gather for a moment before it looks for the next.
//!
//! A loop that answers faster than its clients ask runs one turn for each request: it asks the kernel for events, finds
//! one, and wakes a client that had just gone to sleep. Under such a load a pause of a few microseconds lets several
//! requests come, which then share the turn and the waking; network cards hold their interrupts back for the same reason.
//! Clients are answered as quickly, as less time goes into the work around their requests.
//!
//! A pause must not be what the clients wait for. It is therefore taken only while the loop is busy, short turns follow each
//! other, and the pause is short beside the time in which a client comes round: that is the number of clients that took
//! part in the last stretch of time, by the rate of their requests (Little's law). One client, or a few, never see one.

/// The loop looks at its load in stretches of this length, microseconds.
const WINDOW_US: i64 = 2_000;
/// A pause is at most this share of the time in which a client comes round.
const SHARE: i64 = 8;
/// A shorter one costs more than it saves, microseconds.
const MIN_PAUSE_US: i64 = 8;
/// Turns in which more clients than this were read share their work already.
const FEW: u32 = 4;

#[derive(Debug, Default)]
pub struct Coalesce {
    /// Number of the window, for telling which clients took part in it.
    window: u32,
    since_us: i64,
    /// Time that the loop slept in this window as nothing was to be done, microseconds.
    idle_us: i64,
    /// Reads and different clients in this window, and clients in the one before; reads in this turn.
    reads: u32,
    clients: u32,
    clients_before: u32,
    turn_reads: u32,
    pause_us: i64,
    /// Pauses so far.
    pub pauses: u64,
}

impl Coalesce {
    /// A client was read. `seen` is the window in which this was noted last, kept for us by the client.
    pub fn note_read(&mut self, seen: &mut u32) {
        self.reads += 1;
        self.turn_reads += 1;
        if *seen != self.window {
            *seen = self.window;
            self.clients += 1;
        }
    }

    /// The loop comes back from a sleep for events of this length.
    pub fn note_sleep(&mut self, us: i64) {
        self.idle_us += us;
        self.turn_reads = 0;
    }

    /// How many clients sent something lately.
    pub fn clients_at_work(&self) -> usize {
        self.clients.max(self.clients_before) as usize
    }

    /// At the end of a turn: how long to pause before the next, microseconds, `most` at most.
    pub fn pause_us(&mut self, now_us: i64, most: i64) -> i64 {
        if now_us - self.since_us >= WINDOW_US {
            self.pause_us = self.best_pause(now_us - self.since_us);
            self.since_us = now_us;
            self.window = self.window.wrapping_add(1);
            self.clients_before = self.clients;
            (self.idle_us, self.reads, self.clients) = (0, 0, 0);
        }
        let pause_us = self.pause_us.min(most);
        if pause_us < MIN_PAUSE_US || !(1..=FEW).contains(&self.turn_reads) {
            return 0;
        }
        self.pauses += 1;
        pause_us
    }

    fn best_pause(&self, elapsed_us: i64) -> i64 {
        let (reads, clients) = (i64::from(self.reads), i64::from(self.clients));
        let is_busy = self.idle_us < elapsed_us / 2;
        if reads == 0 || !is_busy {
            return 0;
        }
        let round_us = elapsed_us * clients / reads;
        round_us / SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause after a window in which `clients` came round `rounds` times each, one a turn, while the loop slept for
    /// `idle_us` of its 2,000 microseconds.
    fn pause(clients: usize, rounds: usize, idle_us: i64) -> i64 {
        let mut coalesce = Coalesce::default();
        assert_eq!(coalesce.pause_us(1_000_000, 25), 0, "a new window");
        let mut seen = vec![0; clients];
        let turns = (clients * rounds) as i64;
        for turn in 0..turns {
            coalesce.note_sleep(idle_us / turns);
            coalesce.note_read(&mut seen[turn as usize % clients]);
            if turn + 1 < turns {
                coalesce.pause_us(1_000_000 + turn, 25);
            }
        }
        coalesce.pause_us(1_002_000, 25)
    }

    #[test]
    fn a_busy_loop_with_many_clients_pauses() {
        assert_eq!(pause(50, 4, 100), 25, "the most there may be");
        assert_eq!(pause(20, 10, 100), 25, "an eighth of 200 microseconds");
    }

    #[test]
    fn a_few_clients_never_wait() {
        assert_eq!(pause(1, 200, 100), 0);
        assert_eq!(pause(5, 40, 100), 0);
    }

    #[test]
    fn a_loop_with_time_to_spare_does_not_pause() {
        assert_eq!(pause(50, 4, 1_200), 0);
    }

    #[test]
    fn turns_that_share_their_work_are_not_held_up() {
        let mut coalesce = Coalesce { pause_us: 20, since_us: 1_000_000, ..Coalesce::default() };
        let mut seen = [u32::MAX; 5];
        coalesce.note_sleep(0);
        assert_eq!(coalesce.pause_us(1_000_010, 25), 0, "nobody was read");
        seen.iter_mut().take(4).for_each(|seen| coalesce.note_read(seen));
        assert_eq!(coalesce.pause_us(1_000_010, 25), 20);
        coalesce.note_read(&mut seen[4]);
        assert_eq!(coalesce.pause_us(1_000_010, 25), 0, "five came");
        assert_eq!(coalesce.pauses, 1);
    }
}
