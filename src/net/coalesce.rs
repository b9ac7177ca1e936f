//! When the loop lets requests gather for a moment before it looks for the next.
//!
//! A loop that answers faster than its clients ask runs one turn for each request: it asks the kernel for events, finds
//! one, and wakes a client that had just gone to sleep. Under such a load a pause of a few microseconds lets several
//! requests come, which then share the turn and the waking; network cards hold their interrupts back for the same reason.
//! Clients are answered as quickly, as less time goes into the work around their requests.
//!
//! A pause must not be what the clients wait for. It is therefore taken only by a loop that works for much of its time, in
//! which short turns follow each other and which has time to spare beside: pauses get longer while the loop still finds
//! nothing to do now and then, and shorter when it no longer does, as then the clients wait for it rather than it for them.
//! And a pause stays short beside the time in which a client comes round: that is the number of clients that took part in the
//! last stretch of time, by the rate of their requests (Little's law). One client, or a few, never see one.

/// The loop looks at its load in stretches of this length, microseconds.
const WINDOW_US: i64 = 2_000;
/// A pause is at most this share of the time in which a client comes round.
const SHARE: i64 = 3;
/// Fewer clients than this may each be waiting for its reply while the loop has time to spare.
const MANY: i64 = 16;
/// Of a stretch of time, this much is work when the loop is busy, and that much is spent waiting when it has time to spare.
const BUSY: (i64, i64) = (1, 3);
const SPARE: (i64, i64) = (1, 32);
/// A shorter one costs more than it saves, microseconds.
const MIN_PAUSE_US: i64 = 8;
/// Turns in which more clients than this were read, or more commands ran, share their work already.
const FEW: u32 = 4;
const FEW_COMMANDS: u64 = 64;

#[derive(Debug, Default)]
pub struct Coalesce {
    /// Number of the window, for telling which clients took part in it.
    window: u32,
    since_us: i64,
    /// Time that the loop slept in this window as nothing was to be done, and time that it paused, microseconds.
    idle_us: i64,
    paused_us: i64,
    /// Reads and different clients in this window; reads in this turn.
    reads: u32,
    clients: u32,
    turn_reads: u32,
    /// Commands that had run, over all, when the last turn ended.
    commands: u64,
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

    /// At the end of a turn: how long to pause before the next, microseconds, `most` at most. `commands`: how many have run,
    /// over all.
    pub fn pause_us(&mut self, now_us: i64, commands: u64, most: i64) -> i64 {
        let turn_commands = commands.saturating_sub(std::mem::replace(&mut self.commands, commands));
        if now_us - self.since_us >= WINDOW_US {
            self.pause_us = self.best_pause(now_us - self.since_us);
            self.since_us = now_us;
            self.window = self.window.wrapping_add(1);
            (self.idle_us, self.paused_us, self.reads, self.clients) = (0, 0, 0, 0);
        }
        let pause_us = self.pause_us.min(most);
        let shares = self.turn_reads > FEW || turn_commands > FEW_COMMANDS;
        if pause_us < MIN_PAUSE_US || self.turn_reads == 0 || shares {
            return 0;
        }
        self.pauses += 1;
        self.paused_us += pause_us;
        pause_us
    }

    fn best_pause(&self, elapsed_us: i64) -> i64 {
        let of_elapsed = |(part, whole): (i64, i64)| elapsed_us * part / whole;
        let (reads, clients) = (i64::from(self.reads), i64::from(self.clients));
        let busy_us = elapsed_us - self.idle_us - self.paused_us;
        if reads == 0 || clients < MANY || busy_us < of_elapsed(BUSY) {
            return 0;
        }
        let wanted_us = if self.idle_us >= of_elapsed(SPARE) {
            (self.pause_us * 3 / 2).max(MIN_PAUSE_US)
        } else {
            self.pause_us * 3 / 4
        };
        let round_us = elapsed_us * clients / reads;
        wanted_us.min(round_us / SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after each of a number of windows in which `clients` came round `rounds` times each, one a turn, while the
    /// loop slept for `idle_us` of its 2,000 microseconds.
    fn pauses(windows: usize, clients: usize, rounds: usize, idle_us: i64) -> Vec<i64> {
        let mut coalesce = Coalesce::default();
        let mut seen = vec![u32::MAX; clients];
        let (turns, mut commands) = (clients * rounds, 0);
        let mut after_window = |window: i64| {
            let start_us = 1_000_000 + window * WINDOW_US;
            for turn in 0..turns {
                coalesce.note_sleep(idle_us / turns as i64);
                coalesce.note_read(&mut seen[turn % clients]);
                commands += 1;
                // Within the window it is the length that is looked at here: none is taken.
                coalesce.pause_us(start_us + turn as i64, commands, 0);
            }
            coalesce.pause_us(start_us + WINDOW_US, commands, 100)
        };
        (0..windows as i64).map(&mut after_window).collect()
    }

    #[test]
    fn a_busy_loop_with_time_to_spare_pauses_longer_and_longer() {
        let many = pauses(12, 50, 4, 400);
        assert!(many.is_sorted() && many[1] < 20, "{many:?}");
        assert_eq!(many[11], 100, "the most there may be");
        assert_eq!(pauses(12, 20, 10, 400)[11], 66, "a third of 200 microseconds");
    }

    #[test]
    fn a_few_clients_never_wait() {
        assert!(pauses(12, 1, 200, 400).iter().all(|us| *us == 0));
        assert!(pauses(12, 10, 20, 400).iter().all(|us| *us == 0));
    }

    #[test]
    fn a_loop_with_little_to_do_does_not_pause() {
        assert_eq!(pauses(12, 50, 4, 1_400)[11], 0);
    }

    #[test]
    fn a_loop_that_finds_no_time_to_spare_shortens_its_pauses() {
        let mut coalesce = Coalesce { pause_us: 80, since_us: 1_000_000, ..Coalesce::default() };
        let mut seen = [u32::MAX; 50];
        let mut last = 100;
        for window in 1..12 {
            seen.iter_mut().for_each(|seen| coalesce.note_read(seen));
            coalesce.note_sleep(0);
            coalesce.note_read(&mut seen[0]);
            let pause = coalesce.pause_us(1_000_000 + window * WINDOW_US, 0, 100);
            assert!(pause < last || last == 0, "{pause} after {last}");
            last = pause;
        }
        assert_eq!(last, 0);
    }

    #[test]
    fn turns_that_share_their_work_are_not_held_up() {
        let mut coalesce = Coalesce { pause_us: 20, since_us: 1_000_000, ..Coalesce::default() };
        let mut seen = [u32::MAX; 5];
        coalesce.note_sleep(0);
        assert_eq!(coalesce.pause_us(1_000_010, 0, 25), 0, "nobody was read");
        seen.iter_mut().take(4).for_each(|seen| coalesce.note_read(seen));
        assert_eq!(coalesce.pause_us(1_000_010, 64, 25), 20);
        assert_eq!(coalesce.pause_us(1_000_010, 129, 25), 0, "sixty-five commands ran");
        coalesce.note_read(&mut seen[4]);
        assert_eq!(coalesce.pause_us(1_000_010, 129, 25), 0, "five came");
        assert_eq!(coalesce.pauses, 1);
    }
}
