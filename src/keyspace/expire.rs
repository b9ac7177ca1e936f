//! Active expiry: finding expired keys that nobody asks for.
//!
//! A cycle walks the buckets that hold keys with a time to live and goes on for as long as it finds many stale ones and
//! its budget lasts. The cron decides whether and how often it runs. Lazy expiry, at look-up, is in `mod`.
//!
//! Invariant: a cycle ends within its budget and the time of a few dozen deletions. Large values are freed on the helper
//! thread.

use super::{ExpirePolicy, Keyspace, note_expiry};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Keys of one round at the least effort; after it the cycle decides whether to go on.
const KEYS_PER_ROUND: usize = 20;
/// Databases that one cycle visits, unless the last one ran out of time.
const DBS_PER_CYCLE: usize = 16;
/// Expired keys, in percent of those looked at, that are tolerated at the least effort.
const ACCEPTABLE_STALE_PERCENT: usize = 10;
/// Budget of a fast cycle at the least effort, microseconds.
const FAST_BUDGET_US: u64 = 1000;
/// Share of the processor that slow cycles may take at the least effort, in percent.
const SLOW_PERCENT: u64 = 25;

/// Whether an expire time has passed. At that millisecond itself it has not.
#[inline(always)]
pub(crate) fn is_due(expire_ms: Option<i64>, now_ms: i64) -> bool {
    expire_ms.is_some_and(|at| at < now_ms)
}

/// How hard active expiry tries, from `active-expire-effort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effort {
    pub(crate) keys_per_round: usize,
    pub(crate) acceptable_stale_percent: usize,
    pub(crate) fast_budget: Duration,
    /// Share of the processor for slow cycles, percent.
    pub(crate) slow_percent: u64,
}

impl Effort {
    /// `effort`: 1 to 10.
    pub(crate) fn new(effort: i64) -> Effort {
        let more = effort.clamp(1, 10) as usize - 1;
        Effort {
            keys_per_round: KEYS_PER_ROUND + KEYS_PER_ROUND / 4 * more,
            acceptable_stale_percent: ACCEPTABLE_STALE_PERCENT - more,
            fast_budget: Duration::from_micros(FAST_BUDGET_US + FAST_BUDGET_US / 4 * more as u64),
            slow_percent: SLOW_PERCENT + 2 * more as u64,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct ActiveExpiry {
    next_db: usize,
    /// The last cycle ended because its budget was used up.
    pub(crate) out_of_time: bool,
    pub(crate) last_fast: Option<Instant>,
    /// What is left of the slow cycles' budget until the next cron run.
    pub(crate) slow_budget: Duration,
    /// Keys that clients of a writable replica gave a time to live, with one bit for each of their databases: the
    /// master does not know them and will not delete them.
    pub(crate) own_of_replica: HashMap<Vec<u8>, u64>,
}

/// The result of a round.
#[derive(Default)]
struct Round {
    looked_at: usize,
    due: Vec<Vec<u8>>,
    ttl_sum_ms: i64,
    ttl_count: i64,
    /// The database was walked to its end.
    at_end: bool,
}

impl Keyspace {
    /// Expires keys for at most `budget`. Deletions are left in the effects, to be propagated one by one.
    pub(crate) fn expire_cycle(&mut self, effort: Effort, budget: Duration) {
        let start = Instant::now();
        let dbs = if self.expiry.out_of_time { self.dbs.len() } else { self.dbs.len().min(DBS_PER_CYCLE) };
        self.expiry.out_of_time = false;
        let (mut looked_at, mut expired) = (0, 0);
        for _ in 0..dbs {
            let db = self.expiry.next_db % self.dbs.len();
            loop {
                if self.dbs[db].expires_len() == 0 {
                    self.dbs[db].avg_ttl_ms = 0;
                    break;
                }
                let round = self.expire_round(db, effort.keys_per_round);
                looked_at += round.looked_at;
                expired += round.due.len();
                if start.elapsed() > budget {
                    self.expiry.out_of_time = true;
                    self.stats.expired_time_cap_reached += 1;
                    break;
                }
                let many_stale =
                    round.looked_at == 0 || round.due.len() * 100 / round.looked_at > effort.acceptable_stale_percent;
                if round.at_end || !many_stale {
                    break;
                }
            }
            if self.expiry.out_of_time {
                // The next cycle goes on here.
                break;
            }
            self.expiry.next_db = (db + 1) % self.dbs.len();
        }
        let stale = if looked_at == 0 { 0.0 } else { expired as f64 / looked_at as f64 };
        self.stats.expired_stale_perc = stale * 0.05 + self.stats.expired_stale_perc * 0.95;
        self.stats.expire_cycle_cpu_us += start.elapsed().as_micros() as u64;
    }

    /// Looks at about `count` keys with a time to live and deletes the expired ones.
    fn expire_round(&mut self, db: usize, count: usize) -> Round {
        let now = self.now_ms;
        let target = &mut self.dbs[db];
        let count = count.min(target.expires_len());
        let mut cursor = target.expire_cursor;
        let mut round = Round::default();
        // Steps that find nothing end the round, too, but 20 times as many.
        let mut calls = count * 20;
        while round.looked_at < count && calls > 0 && !round.at_end {
            cursor = target.scan_expiring(cursor, |entry| {
                let Some(at) = entry.expire_ms() else { return };
                round.looked_at += 1;
                if is_due(Some(at), now) {
                    round.due.push(entry.key().to_vec());
                } else {
                    round.ttl_sum_ms = round.ttl_sum_ms.saturating_add(at - now);
                    round.ttl_count += 1;
                }
            });
            round.at_end = cursor == 0;
            calls -= 1;
        }
        target.expire_cursor = cursor;
        if round.ttl_count > 0 {
            let mean = round.ttl_sum_ms / round.ttl_count;
            // A running mean in which each round weighs 2%.
            target.avg_ttl_ms = if target.avg_ttl_ms == 0 { mean } else { target.avg_ttl_ms / 50 * 49 + mean / 50 };
        }
        for key in &round.due {
            self.expire_now(db, key);
        }
        round
    }

    /// Notes a time to live that a client of a writable replica set.
    pub(crate) fn note_own_expire(&mut self, db: usize, key: &[u8]) {
        if self.expire_policy == ExpirePolicy::DeleteOnWrite && db < 64 {
            *self.expiry.own_of_replica.entry(key.to_vec()).or_default() |= 1 << db;
        }
    }

    /// The cycle of a replica: over the keys that are its own. Nothing is propagated but to its own log and replicas.
    pub(crate) fn expire_own_of_replica(&mut self, budget: Duration) {
        let start = Instant::now();
        let now = self.now_ms;
        let mut own = std::mem::take(&mut self.expiry.own_of_replica);
        let mut checked = 0u32;
        own.retain(|key, dbs| {
            checked += 1;
            if checked.is_multiple_of(64) && start.elapsed() > budget {
                return true;
            }
            for db in 0..self.dbs.len().min(64) {
                let bit = 1u64 << db;
                if *dbs & bit == 0 {
                    continue;
                }
                match self.dbs[db].get(key).and_then(|e| e.expire_ms()) {
                    at @ Some(_) if is_due(at, now) => {
                        if let Some(entry) = self.dbs[db].remove(key) {
                            let Keyspace { effects, watch, stats, .. } = self;
                            note_expiry(effects, watch, stats, db, &entry, self.lazy_expire);
                            effects.free(entry, self.lazy_expire);
                        }
                        *dbs &= !bit;
                    }
                    Some(_) => {}
                    None => *dbs &= !bit,
                }
            }
            *dbs != 0
        });
        self.expiry.own_of_replica = own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::entry::NewValue;
    use crate::structs::table::HashSeed;

    fn keyspace(per_slot: bool) -> Keyspace {
        Keyspace::new(if per_slot { 1 } else { 3 }, per_slot, HashSeed([7; 16]))
    }

    #[test]
    fn cycles_find_every_stale_key() {
        for per_slot in [false, true] {
            let mut ks = keyspace(per_slot);
            let last = ks.dbs.len() - 1;
            for i in 0..5000i64 {
                let key = format!("key:{i}");
                let at = if i % 5 == 0 { Some(1000 + i) } else { (i % 5 == 1).then_some(1_000_000) };
                ks.insert(i as usize % (last + 1), key.as_bytes(), NewValue::Int(i), at);
            }
            ks.now_ms = 10_000;
            for _ in 0..200 {
                ks.expire_cycle(Effort::new(1), Duration::from_millis(50));
            }
            assert_eq!(ks.stats.expired, 1000, "per slot: {per_slot}");
            assert_eq!(ks.total_keys(), 4000);
            assert_eq!(ks.dbs.iter().map(|d| d.expires_len()).sum::<usize>(), 1000);
            assert!(ks.dbs[0].avg_ttl_ms > 900_000);
        }
    }

    #[test]
    fn a_budget_ends_a_cycle() {
        let mut ks = keyspace(false);
        for i in 0..100_000i64 {
            ks.insert(0, format!("{i}").as_bytes(), NewValue::Int(i), Some(1));
        }
        ks.now_ms = 10;
        ks.expire_cycle(Effort::new(1), Duration::from_micros(200));
        assert!(ks.expiry.out_of_time);
        assert!(ks.total_keys() > 0);
        assert!(ks.stats.expired > 0);
    }

    #[test]
    fn effort_scales() {
        let most = Effort::new(10);
        assert_eq!((most.keys_per_round, most.acceptable_stale_percent, most.slow_percent), (65, 1, 43));
    }
}
