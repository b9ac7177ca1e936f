//! When changes wait a moment for others, so that one sync serves them all.
//!
//! Clients that were answered after a sync mostly write again at once. If the next sync began with the first of them, the
//! others would wait for it and for one more, and the disk work for two groups by turns. So it begins when as many wait as
//! did before, when no more have come for a while, or when waiting has taken half as long again as a sync does.
//!
//! Clients that take much longer to come back than a sync takes are not waited for: two groups by turns then keep disk, server
//! and clients at work side by side. Now and then it is tried again how long they take.
//!
//! Looking who has come takes a turn of the loop each time. When all of them came last time, nobody looks before it is about
//! as late as it was then.
//!
//! A state machine without I/O: it is told the time, microseconds of any clock that only goes forward.

/// Waiting goes on for this share of a sync's time after somebody came; of the first kind if most of those that were
/// expected came last time, of the second if not.
const PATIENCE: [i64; 2] = [4, 16];
/// However long a sync takes, nobody is waited for longer than this, microseconds.
const WAIT_MAX_US: i64 = 10_000;
/// What it may take to answer a client and to hear from it again, beside the time of a sync, microseconds.
const ROUND_US: i64 = 20;

/// By so much earlier than last time it is first looked whether all have come, microseconds: if they have, it is tried a
/// little earlier each time.
const MARGIN_US: i64 = 24;
/// Waiting takes at most so much of a sync's time. Clients that take longer are not waited for.
const MOST: (i64, i64) = (3, 2);
/// When nobody is waited for, clients are thought to come back sooner by this share each time.
const DOUBT: i64 = 64;

#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// How many clients may come back; 0: nobody is waited for.
    expected: usize,
    /// When the sync was done that they waited for, and how long it took.
    done_us: i64,
    sync_us: i64,
    /// When somebody came last, and until when to wait at most; 0: none has come yet.
    last_us: i64,
    latest_us: i64,
    /// How many had come at the last look.
    gathered: usize,
    /// Most of those that were expected did not come.
    disappointed: bool,
    /// How long after a sync all had come, last time; half of that after each time when no more of them came, and how long
    /// they were waited for when that took too long.
    usual_us: i64,
}

impl Gather {
    /// A sync is done that so many clients waited for, or that others waited for while it was under way.
    pub(crate) fn expect(&mut self, clients: usize, sync_us: u64, now_us: i64) {
        let sync_us = (sync_us as i64).min(WAIT_MAX_US);
        let Gather { disappointed, usual_us, .. } = *self;
        *self = Gather { expected: clients, done_us: now_us, sync_us, disappointed, usual_us, ..Gather::default() };
    }

    /// So many clients have changes that wait. Until when to wait for more before the next look; `None`: no longer.
    pub(crate) fn wait_until(&mut self, gathered: usize, now_us: i64) -> Option<i64> {
        if self.expected == 0 {
            return None;
        }
        if self.latest_us == 0 {
            if now_us > self.done_us + self.sync_us + ROUND_US * self.expected as i64 {
                // They had their time.
                self.expected = 0;
                return None;
            }
            let most_us = self.sync_us * MOST.0 / MOST.1;
            if self.usual_us > most_us {
                self.usual_us -= self.usual_us / DOUBT;
                self.expected = 0;
                return None;
            }
            self.latest_us = now_us + most_us;
        }
        if gathered > self.gathered {
            self.last_us = now_us;
            self.gathered = gathered;
        }
        let patience_us = self.sync_us / PATIENCE[usize::from(self.disappointed)];
        let first_look_us = self.done_us + self.usual_us - MARGIN_US;
        let until_us = self.latest_us.min(first_look_us.max(self.last_us + patience_us));
        if gathered < self.expected && now_us < until_us {
            return Some(until_us);
        }
        self.usual_us = if gathered >= self.expected || now_us >= self.latest_us {
            now_us - self.done_us
        } else {
            self.usual_us / 2
        };
        self.disappointed = gathered * 4 < self.expected * 3;
        self.expected = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_sync(clients: usize) -> Gather {
        let mut gather = Gather::default();
        gather.expect(clients, 400, 1_000_000);
        gather
    }

    #[test]
    fn it_waits_as_long_as_clients_come() {
        let mut gather = after_sync(10);
        for n in 1..=9 {
            let now_us = 1_000_000 + 30 * n as i64;
            assert_eq!(gather.wait_until(n, now_us), Some(now_us + 100), "a quarter of a sync after the last");
        }
        assert_eq!(gather.wait_until(10, 1_000_300), None, "all came");
        assert_eq!(gather.wait_until(10, 1_000_301), None, "and that was it");
    }

    #[test]
    fn it_gives_up_when_no_more_come_and_is_quicker_to_do_so_next_time() {
        let mut gather = after_sync(10);
        assert_eq!(gather.wait_until(2, 1_000_100), Some(1_000_200));
        assert_eq!(gather.wait_until(2, 1_000_150), Some(1_000_200));
        assert_eq!(gather.wait_until(2, 1_000_200), None);
        gather.expect(10, 400, 2_000_000);
        assert_eq!(gather.wait_until(2, 2_000_000), Some(2_000_025), "a sixteenth");
        assert_eq!(gather.wait_until(8, 2_000_010), Some(2_000_035));
        assert_eq!(gather.wait_until(8, 2_000_035), None, "eight of ten");
        gather.expect(10, 400, 3_000_000);
        assert_eq!(gather.wait_until(2, 3_000_000), Some(3_000_100));
    }

    #[test]
    fn it_looks_again_when_all_had_come_the_last_time() {
        let mut gather = after_sync(10);
        assert_eq!(gather.wait_until(4, 1_000_050), Some(1_000_150));
        assert_eq!(gather.wait_until(10, 1_000_150), None);
        gather.expect(10, 400, 2_000_000);
        assert_eq!(gather.wait_until(1, 2_000_010), Some(2_000_126), "a little earlier than then");
        assert_eq!(gather.wait_until(10, 2_000_126), None);
        gather.expect(10, 400, 3_000_000);
        assert_eq!(gather.wait_until(1, 3_000_000), Some(3_000_102));
        assert_eq!(gather.wait_until(9, 3_000_102), Some(3_000_202), "too early: one is missing");
        assert_eq!(gather.wait_until(9, 3_000_202), None, "it does not come");
        gather.expect(10, 400, 4_000_000);
        assert_eq!(gather.wait_until(1, 4_000_000), Some(4_000_100), "half of it is less than a quarter of a sync");
    }

    #[test]
    fn it_never_waits_longer_than_one_sync_and_a_half() {
        let mut gather = after_sync(1000);
        let mut now_us = 1_000_000;
        for n in 1.. {
            if gather.wait_until(n, now_us).is_none() {
                break;
            }
            now_us += 50;
        }
        assert_eq!(now_us, 1_000_600);
    }

    #[test]
    fn clients_that_take_longer_than_a_sync_are_rarely_waited_for() {
        let mut gather = after_sync(10);
        gather.wait_until(1, 1_000_100);
        let mut now_us = 1_000_100;
        while gather.wait_until(((now_us - 1_000_000) / 90) as usize, now_us).is_some() {
            now_us += 90;
        }
        assert_eq!(now_us, 1_000_730, "by then seven had come, too late");
        let waits = |gather: &mut Gather, n: i64| {
            gather.expect(10, 400, n * 1_000_000);
            gather.wait_until(1, n * 1_000_000 + 50).is_some()
        };
        let skipped = (2..200).take_while(|n| !waits(&mut gather, *n)).count();
        assert!((10..30).contains(&skipped), "{skipped}");
    }

    #[test]
    fn who_comes_alone_or_late_does_not_wait() {
        assert_eq!(after_sync(1).wait_until(1, 1_000_010), None, "the only one");
        assert_eq!(after_sync(10).wait_until(1, 1_000_601), None, "the others would have come");
        assert_eq!(Gather::default().wait_until(1, 5), None);
    }
}
