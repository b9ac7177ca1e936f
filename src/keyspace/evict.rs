//! Eviction: which key goes when `maxmemory` is reached.
//!
//! Candidates are found by sampling a few keys at random. The best that were not chosen are kept for the next time,
//! which comes close to the exact order at little cost. How long to go on, and the effects of a deletion, are in
//! `server/keyspace/cron.rs`.

use super::{Entry, Keyspace};
use crate::config::MaxmemoryPolicy as Policy;
use std::time::Instant;

/// Candidates that are kept between choices.
const POOL_SIZE: usize = 16;

/// A sampled key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    /// The highest score is evicted first.
    score: u64,
    db: usize,
    key: Vec<u8>,
}

/// The outcome of an attempt to get below the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// Memory is below the limit, or there is no limit.
    Enough,
    /// The time for one attempt is over; the loop goes on with another.
    Running,
    /// Nothing that may be evicted is left.
    Fail,
}

#[derive(Debug, Default)]
pub(crate) struct Eviction {
    /// The best candidate last.
    pool: Vec<Candidate>,
    pool_policy: Option<Policy>,
    next_db: usize,
    /// An attempt ran out of time: the loop goes on.
    pub(crate) running: bool,
    /// Since when memory is over the limit.
    pub(crate) exceeded_since: Option<Instant>,
    pub(crate) exceeded_total_us: u64,
    /// Memory is so close to the limit that tables should not grow.
    pub(crate) tight: bool,
    /// Before the running command memory was over the limit, with nothing left to evict: commands of scripts are
    /// refused by it.
    pub(crate) out_of_memory: bool,
}

impl Eviction {
    /// How long memory has been over the limit, microseconds: in all, and this time.
    pub(crate) fn exceeded_us(&self) -> (u64, u64) {
        let current = self.exceeded_since.map_or(0, |s| s.elapsed().as_micros() as u64);
        (self.exceeded_total_us + current, current)
    }

    /// Notes the outcome of an attempt.
    pub(crate) fn note(&mut self, outcome: Evicted) {
        match (outcome, self.exceeded_since) {
            (Evicted::Enough, Some(since)) => {
                self.exceeded_total_us += since.elapsed().as_micros() as u64;
                self.exceeded_since = None;
            }
            (Evicted::Running | Evicted::Fail, None) => self.exceeded_since = Some(Instant::now()),
            _ => {}
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        let at = self.pool.partition_point(|c| c.score < candidate.score);
        if self.pool.len() == POOL_SIZE {
            if at == 0 {
                return;
            }
            self.pool.remove(0);
            self.pool.insert(at - 1, candidate);
        } else {
            self.pool.insert(at, candidate);
        }
    }
}

/// Whether a policy spares keys without a time to live.
fn is_volatile(policy: Policy) -> bool {
    matches!(policy, Policy::VolatileLru | Policy::VolatileLfu | Policy::VolatileRandom | Policy::VolatileTtl)
}

impl Keyspace {
    /// The key to evict next, and its database. `None`: there is nothing to evict.
    pub(crate) fn choose_victim(&mut self, policy: Policy, samples: usize) -> Option<(usize, Vec<u8>)> {
        match policy {
            Policy::Noeviction => None,
            Policy::AllkeysRandom | Policy::VolatileRandom => self.random_victim(is_volatile(policy)),
            Policy::VolatileLru
            | Policy::VolatileLfu
            | Policy::VolatileTtl
            | Policy::AllkeysLru
            | Policy::AllkeysLfu => self.best_victim(policy, samples),
        }
    }

    /// The databases take turns.
    fn random_victim(&mut self, volatile: bool) -> Option<(usize, Vec<u8>)> {
        for _ in 0..self.dbs.len() {
            self.eviction.next_db = (self.eviction.next_db + 1) % self.dbs.len();
            let db = &self.dbs[self.eviction.next_db];
            let entry = if volatile { db.random_expiring() } else { db.random() };
            if let Some(entry) = entry {
                return Some((self.eviction.next_db, entry.key().to_vec()));
            }
        }
        None
    }

    fn best_victim(&mut self, policy: Policy, samples: usize) -> Option<(usize, Vec<u8>)> {
        let volatile = is_volatile(policy);
        if self.eviction.pool_policy != Some(policy) {
            // Scores of different policies do not compare.
            self.eviction.pool.clear();
            self.eviction.pool_policy = Some(policy);
        }
        loop {
            let mut any = false;
            for db in 0..self.dbs.len() {
                let keys = if volatile { self.dbs[db].shown_expires_len() } else { self.dbs[db].shown_len() };
                if keys > 0 {
                    any = true;
                    self.fill_pool(db, policy, samples);
                }
            }
            if !any {
                return None;
            }
            while let Some(best) = self.eviction.pool.pop() {
                // It may have gone, or lost its time to live, since it was sampled.
                let there = self.dbs[best.db].get(&best.key).is_some_and(|e| !volatile || e.has_expire());
                if there {
                    return Some((best.db, best.key));
                }
            }
        }
    }

    fn fill_pool(&mut self, db: usize, policy: Policy, samples: usize) {
        let Keyspace { dbs, eviction, access, .. } = self;
        let score = |entry: &Entry| match policy {
            Policy::VolatileTtl => u64::MAX - entry.expire_ms().unwrap_or(i64::MAX).max(0) as u64,
            Policy::AllkeysLfu | Policy::VolatileLfu => 255 - u64::from(access.lfu_counter(entry.lru())),
            _ => u64::from(access.idle_seconds(entry.lru())),
        };
        dbs[db].sample(samples, is_volatile(policy), |entry| {
            let score = score(entry);
            let full = eviction.pool.len() == POOL_SIZE;
            if full && eviction.pool.first().is_some_and(|worst| worst.score >= score) {
                return;
            }
            if eviction.pool.iter().any(|c| c.db == db && c.key == entry.key()) {
                return;
            }
            eviction.offer(Candidate { score, db, key: entry.key().to_vec() });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::entry::NewValue;
    use crate::structs::table::HashSeed;

    /// 1000 keys, `i` last used at second `i`, every second one with a time to live of `i` seconds.
    fn keyspace(per_slot: bool) -> Keyspace {
        let mut ks = Keyspace::new(1, per_slot, HashSeed([3; 16]));
        for i in 0..1000i64 {
            ks.access.set_time(i * 1000);
            let at = (i % 2 == 0).then_some(1_000_000 + i * 1000);
            ks.insert(0, format!("{i}").as_bytes(), NewValue::Int(i), at);
        }
        ks.access.set_time(2_000_000);
        ks
    }

    fn evict(ks: &mut Keyspace, policy: Policy, count: usize) -> Vec<i64> {
        let mut gone = Vec::new();
        for _ in 0..count {
            let (db, key) = ks.choose_victim(policy, 5).expect("keys are left");
            ks.delete(db, &key, false);
            gone.push(std::str::from_utf8(&key).unwrap().parse().unwrap());
        }
        gone
    }

    #[test]
    fn old_keys_go_first() {
        for per_slot in [false, true] {
            let gone = evict(&mut keyspace(per_slot), Policy::AllkeysLru, 300);
            let mean = gone.iter().sum::<i64>() / 300;
            assert!(mean < 300, "mean age rank {mean}, per slot: {per_slot}");
        }
    }

    #[test]
    fn volatile_policies_spare_the_others() {
        for policy in [Policy::VolatileLru, Policy::VolatileTtl, Policy::VolatileRandom] {
            let mut ks = keyspace(false);
            let gone = evict(&mut ks, policy, 500);
            assert!(gone.iter().all(|i| i % 2 == 0), "{policy:?}");
            assert_eq!(ks.choose_victim(policy, 5), None);
            assert_eq!(ks.total_keys(), 500);
        }
    }

    #[test]
    fn every_policy_ends_with_nothing_left() {
        for policy in [Policy::AllkeysLru, Policy::AllkeysLfu, Policy::AllkeysRandom] {
            let mut ks = keyspace(true);
            evict(&mut ks, policy, 1000);
            assert_eq!(ks.choose_victim(policy, 5), None);
        }
        assert_eq!(keyspace(false).choose_victim(Policy::Noeviction, 5), None);
    }

    #[test]
    fn the_pool_keeps_the_best() {
        let mut e = Eviction::default();
        for score in (0..40).rev().chain(40..60) {
            e.offer(Candidate { score, db: 0, key: vec![] });
        }
        let scores: Vec<u64> = e.pool.iter().map(|c| c.score).collect();
        assert_eq!(scores, (44..60).collect::<Vec<_>>());
    }
}
