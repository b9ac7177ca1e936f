//! The keyspace's share of the loop: what a client may see of expired keys, active expiry, eviction, resizing.
//!
//! What takes long is cut into slices that fit between two looks at the sockets.

use crate::catalog::error::{self, CmdError};
use crate::catalog::row::Command;
use crate::keyspace::ExpirePolicy;
use crate::keyspace::effects::notify;
use crate::keyspace::evict::Evicted;
use crate::keyspace::expire::Effort;
use crate::net::ClientId;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::call::must_obey;
use crate::sys::alloc;
use std::time::{Duration, Instant};

/// The longest slice of a slow expire cycle.
const SLICE: Duration = Duration::from_millis(1);
/// What resizing tables may take of a cron run.
const REHASH: Duration = Duration::from_millis(1);
/// Commands that a client in a transaction may send even when there is no memory for more of them.
const END_TRANSACTION: &[&str] = &["exec", "discard", "quit", "reset"];

impl Server {
    /// Sets how the lookups of this client treat expired keys, and whether they count as accesses.
    pub(crate) fn set_expire_policy(&mut self, id: ClientId) {
        let Some(c) = self.clients.get(id) else { return };
        // While a child process saves, every touched page would be copied.
        let no_touch = c.is(ClientFlags::NO_TOUCH) || self.has_child();
        let obeyed = must_obey(c);
        self.ks.expire_policy = if obeyed { ExpirePolicy::Ignore } else { self.usual_expire_policy() };
        self.ks.no_touch = no_touch;
    }

    /// How anyone but our master and the AOF sees expired keys.
    fn usual_expire_policy(&mut self) -> ExpirePolicy {
        if self.is_loading() {
            ExpirePolicy::Ignore
        } else if self.writes_paused() || self.is_read_only_replica() {
            ExpirePolicy::Hide
        } else if self.is_replica() {
            ExpirePolicy::DeleteOnWrite
        } else {
            ExpirePolicy::Delete
        }
    }

    /// Once a cron run: active expiry gets its budget, tables go on being resized.
    pub(crate) fn keyspace_cron(&mut self) {
        if self.depth > 0 {
            // Within a long command: its view of the data and of the time stays as it is.
            return;
        }
        self.ks.now_ms = self.clock.ms();
        if !self.is_replica() {
            self.ks.expiry.own_of_replica.clear();
            let effort = Effort::new(self.cfg.active_expire_effort);
            let period_us = 1_000_000 / self.hz() as u64;
            self.ks.expiry.slow_budget = Duration::from_micros(period_us * effort.slow_percent / 100);
            self.ks.expiry.last_fast = None;
            self.expire_slice(true);
        } else if self.admin.debug.active_expire && !self.ks.expiry.own_of_replica.is_empty() {
            self.begin_effects();
            self.ks.expire_own_of_replica(SLICE);
            self.drain_one_by_one();
        }
        if self.cfg.activerehashing {
            let deadline = Instant::now() + REHASH;
            self.ks.dbs.iter_mut().for_each(|db| db.rehash(deadline));
        }
    }

    /// Before the loop sleeps: the rest of what the cron began, and a fast cycle where many keys are stale.
    pub(crate) fn keyspace_before_sleep(&mut self) {
        self.expire_slice(false);
        if self.ks.eviction.running {
            self.perform_evictions();
        }
    }

    /// Work is left that cannot wait for the next cron run.
    pub(crate) fn keyspace_is_busy(&self) -> bool {
        self.ks.eviction.running || self.expire_cycle_is_under_way()
    }

    fn expire_cycle_is_under_way(&self) -> bool {
        self.ks.expiry.out_of_time && !self.ks.expiry.slow_budget.is_zero() && self.admin.debug.active_expire
    }

    /// Runs a slice of active expiry if it is due: the first of a cron run, a further one while there is budget, or a
    /// fast cycle beyond it when the share of stale keys is high.
    fn expire_slice(&mut self, first: bool) {
        let effort = Effort::new(self.cfg.active_expire_effort);
        let stale = self.ks.stats.expired_stale_perc * 100.0 >= effort.acceptable_stale_percent as f64;
        if !first && !stale && !self.ks.expiry.out_of_time {
            return;
        }
        let has_any = self.ks.dbs.iter().any(|db| db.shown_expires_len() > 0);
        if !has_any || !self.admin.debug.active_expire {
            self.ks.expiry.out_of_time = false;
            return;
        }
        if self.depth > 0 || self.is_replica() || self.is_loading() || self.writes_paused() {
            self.ks.expiry.out_of_time = false;
            return;
        }
        let expiry = &mut self.ks.expiry;
        let budget = if first || (expiry.out_of_time && !expiry.slow_budget.is_zero()) {
            expiry.slow_budget.min(SLICE)
        } else if (expiry.out_of_time || stale)
            && expiry.last_fast.is_none_or(|last| last.elapsed() >= effort.fast_budget * 2)
        {
            expiry.last_fast = Some(Instant::now());
            effort.fast_budget
        } else {
            return;
        };
        self.begin_effects();
        self.ks.now_ms = self.clock.ms();
        let start = Instant::now();
        self.ks.expire_cycle(effort, budget);
        let used = start.elapsed();
        self.note_latency("expire-cycle", used.as_millis() as i64);
        self.ks.expiry.slow_budget = self.ks.expiry.slow_budget.saturating_sub(used);
        self.drain_one_by_one();
    }

    /// Sends on what was collected, each command as a unit of its own.
    fn drain_one_by_one(&mut self) {
        self.ks.effects.no_multi = true;
        self.drain_effects();
        self.ks.effects.no_multi = false;
    }

    /// Makes room before a command, or refuses one that needs more memory when there is none.
    pub(crate) fn check_memory(
        &mut self,
        id: ClientId,
        row: &Command,
        denies_oom: bool,
        in_multi: bool,
    ) -> Result<(), CmdError> {
        if self.script_is_busy() {
            return Ok(());
        }
        self.ks.eviction.out_of_memory = false;
        self.spare_tables(id);
        if self.cfg.maxmemory == 0 {
            return Ok(());
        }
        let out_of_memory = self.perform_evictions() == Evicted::Fail;
        self.ks.eviction.out_of_memory = out_of_memory;
        let grows = denies_oom || (in_multi && !END_TRANSACTION.contains(&row.name));
        if out_of_memory && grows { Err(error::OOM) } else { Ok(()) }
    }

    /// Keeps tables from growing when that alone would pass `maxmemory`: keys would have to go for empty buckets.
    fn spare_tables(&mut self, id: ClientId) {
        /// Bytes that growth asks for at once, for a key and in all: buckets of 64 for six keys, twice as many as before,
        /// in segments.
        const GROWTH: (u64, u64) = (22, 512 * 1024);
        let limit = self.cfg.maxmemory;
        if limit == 0 && !self.ks.eviction.tight {
            return;
        }
        let db = self.clients.get(id).map_or(0, |c| c.db);
        let growth = (self.ks.dbs[db].len() as u64 * GROWTH.0).min(GROWTH.1);
        let tight = limit != 0 && limit.saturating_sub(alloc::used() as u64) < growth;
        if tight != self.ks.eviction.tight {
            self.ks.eviction.tight = tight;
            let avoid = tight || self.has_child();
            self.ks.dbs.iter_mut().for_each(|db| db.set_avoid_resize(avoid));
        }
    }

    /// Bytes over `maxmemory`, if any: without what serves replicas, I/O threads and the AOF, which goes away by itself, and
    /// what is being freed.
    pub(crate) fn memory_to_free(&self) -> Option<usize> {
        let limit = usize::try_from(self.cfg.maxmemory).unwrap_or(usize::MAX);
        let used = alloc::used();
        if limit == 0 || used <= limit {
            return None;
        }
        let counted = used.saturating_sub(self.memory_not_counted() + self.background.leaving_bytes());
        counted.checked_sub(limit).filter(|over| *over > 0)
    }

    /// Evicts keys until memory is below the limit, the time for it is over, or nothing is left to evict.
    pub(crate) fn perform_evictions(&mut self) -> Evicted {
        self.ks.eviction.running = false;
        if self.depth > 0
            || self.is_loading()
            || self.writes_paused()
            || (self.is_replica() && self.cfg.replica_ignore_maxmemory)
        {
            return Evicted::Enough;
        }
        self.begin_effects();
        let start = Instant::now();
        let outcome = self.evict_until_enough();
        self.note_latency("eviction-cycle", start.elapsed().as_millis() as i64);
        self.ks.eviction.running = outcome == Evicted::Running;
        self.ks.eviction.note(outcome);
        outcome
    }

    fn evict_until_enough(&mut self) -> Evicted {
        let Some(mut to_free) = self.memory_to_free().map(|n| n as isize) else { return Evicted::Enough };
        let start = Instant::now();
        let limit = time_limit(self.cfg.maxmemory_eviction_tenacity);
        let (policy, samples) = (self.cfg.maxmemory_policy, self.cfg.maxmemory_samples as usize);
        let lazy = self.cfg.lazyfree_lazy_eviction;
        let mut evicted = 0u32;
        while to_free > 0 {
            let Some((db, key)) = self.ks.choose_victim(policy, samples) else {
                return self.wait_for_lazy_free(start, limit);
            };
            let began = Instant::now();
            to_free -= self.ks.evict(db, &key, lazy);
            self.note_latency("eviction-del", began.elapsed().as_millis() as i64);
            self.drain_one_by_one();
            evicted += 1;
            if evicted.is_multiple_of(16) {
                // The deletions pile up for the replicas otherwise, and with them memory.
                self.flush_replicas();
                if lazy && self.memory_to_free().is_none() {
                    break;
                }
                if limit.is_some_and(|limit| start.elapsed() > limit) {
                    return Evicted::Running;
                }
            }
        }
        Evicted::Enough
    }

    /// Nothing is left to evict, but some of it may still be on its way out.
    fn wait_for_lazy_free(&self, start: Instant, limit: Option<Duration>) -> Evicted {
        let limit = limit.unwrap_or(Duration::from_millis(1));
        while self.background.lazy_free_pending() > 0 && start.elapsed() < limit {
            if self.memory_to_free().is_none() {
                return Evicted::Enough;
            }
            std::thread::sleep(limit.min(Duration::from_millis(1)));
        }
        if self.memory_to_free().is_none() { Evicted::Enough } else { Evicted::Fail }
    }
}

impl crate::keyspace::Keyspace {
    /// Deletes a key to make room, with everything that goes with it. Gives the bytes that came free: what is noted about
    /// the key for others, and soon sent and gone, does not count against them, or long keys would never make room.
    fn evict(&mut self, db: usize, key: &[u8], lazy: bool) -> isize {
        let before = alloc::used() as isize;
        let Some(entry) = self.dbs[db].remove(key) else { return 0 };
        // The room is wanted at once, so what is not to be freed lazily is freed here, however long it takes.
        if lazy {
            self.effects.free(entry, lazy);
        } else {
            drop(entry);
        }
        let freed = before - alloc::used() as isize;
        self.effects.gone(db, key);
        if !self.watch.is_empty() {
            self.watch.touch(db, key, false);
        }
        self.effects.modified(key, false);
        self.stats.evicted += 1;
        self.effects.notify(notify::EVICTED, "evicted", key, db);
        self.effects.propagate_now(db, &[if lazy { b"UNLINK" } else { b"DEL" }, key]);
        freed
    }
}

/// How long one attempt may take, from `maxmemory-eviction-tenacity`; `None`: as long as it needs.
fn time_limit(tenacity: i64) -> Option<Duration> {
    match tenacity {
        ..=10 => Some(Duration::from_micros(50 * tenacity.max(0) as u64)),
        11..=99 => Some(Duration::from_micros((500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenacity_grows_slowly_then_fast() {
        assert_eq!(time_limit(0), Some(Duration::ZERO));
        assert_eq!(time_limit(10), Some(Duration::from_micros(500)));
        assert_eq!(time_limit(20), Some(Duration::from_micros(2022)));
        assert_eq!(time_limit(100), None);
    }
}
