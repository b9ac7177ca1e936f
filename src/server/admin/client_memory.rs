//! What clients cost: a sum kept as they change, the largest buffers of late, the limits on output buffers, and the
//! eviction of clients when all of them together cost too much.
//!
//! Invariant: `normal` and `pubsub` are the sums of `Client::mem_counted` over the clients counted as such.

use crate::admin::memory::system_memory;
use crate::config::{Config, OBUF_NORMAL, OBUF_PUBSUB, OBUF_REPLICA};
use crate::net::{ClientId, Conn};
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};

/// Seconds the largest buffers are remembered.
const PEAK_SLOTS: usize = 8;
/// Clients are evicted by size class, the largest first: powers of two between these.
pub(crate) const MIN_CLASS: u32 = 15;
pub(crate) const MAX_CLASS: u32 = 33;

/// How a client is treated by limits and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum ClientClass {
    #[default]
    Normal,
    Replica,
    Pubsub,
    Master,
}

impl ClientClass {
    #[inline]
    pub(crate) fn of(c: &Client) -> ClientClass {
        if c.is(ClientFlags::MASTER) {
            ClientClass::Master
        } else if c.is(ClientFlags::REPLICA) && !c.is(ClientFlags::MONITOR) || c.is(ClientFlags::EXPORT) {
            // A monitor is a replica to no one but MONITOR's own flags; a target of slots is one of a part of the data.
            ClientClass::Replica
        } else if c.is(ClientFlags::PUBSUB) {
            ClientClass::Pubsub
        } else {
            ClientClass::Normal
        }
    }

    /// The class of this name in CLIENT LIST and KILL.
    pub(crate) fn by_name(name: &[u8]) -> Option<ClientClass> {
        let is = |n: &str| name.eq_ignore_ascii_case(n.as_bytes());
        if is("normal") {
            Some(ClientClass::Normal)
        } else if is("slave") || is("replica") {
            Some(ClientClass::Replica)
        } else if is("pubsub") {
            Some(ClientClass::Pubsub)
        } else if is("master") || is("primary") {
            Some(ClientClass::Master)
        } else {
            None
        }
    }
}

/// What is counted for a client now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) bytes: usize,
    class: ClientClass,
}

#[derive(Debug, Default)]
pub(crate) struct ClientMemory {
    normal: usize,
    pubsub: usize,
    master: usize,
    replicas: usize,
    peaks: [(usize, usize); PEAK_SLOTS],
}

impl ClientMemory {
    fn sum_mut(&mut self, class: ClientClass) -> &mut usize {
        match class {
            ClientClass::Normal => &mut self.normal,
            ClientClass::Replica => &mut self.replicas,
            ClientClass::Pubsub => &mut self.pubsub,
            ClientClass::Master => &mut self.master,
        }
    }

    /// Counts a client as it is now in place of what was counted before.
    pub(crate) fn update(&mut self, c: &mut Client) {
        let old = c.mem_counted;
        let sum = self.sum_mut(old.class);
        *sum = sum.saturating_sub(old.bytes);
        // A client that is about to be closed costs nothing any more. The arguments of a command that runs go with it.
        let bytes = if c.is(ClientFlags::CLOSE_ASAP) { 0 } else { c.mem_bytes() - c.argv_bytes };
        c.mem_counted = Counted { bytes, class: ClientClass::of(c) };
        *self.sum_mut(c.mem_counted.class) += bytes;
    }

    /// Takes a client off the sums.
    pub(crate) fn forget(&mut self, c: &mut Client) {
        let old = std::mem::take(&mut c.mem_counted);
        let sum = self.sum_mut(old.class);
        *sum = sum.saturating_sub(old.bytes);
    }

    /// Memory of clients that are not replicas, in bytes.
    pub(crate) fn normal_bytes(&self) -> usize {
        self.normal + self.pubsub + self.master
    }

    /// What `maxmemory-clients` limits, in bytes.
    pub(crate) fn evictable_bytes(&self) -> usize {
        self.normal + self.pubsub
    }

    /// Begins the next second of the peaks; called by the cron.
    pub(crate) fn begin_second(&mut self, now_ms: i64) {
        let next = (now_ms / 1000 + 1) as usize % PEAK_SLOTS;
        self.peaks[next] = (0, 0);
    }

    /// Notes the sizes of a client's buffers.
    pub(crate) fn note_peaks(&mut self, now_ms: i64, input: usize, output: usize) {
        let slot = &mut self.peaks[(now_ms / 1000) as usize % PEAK_SLOTS];
        *slot = (slot.0.max(input), slot.1.max(output));
    }

    /// The largest input and output buffers of the last seconds, in bytes.
    pub(crate) fn recent_peaks(&self) -> (usize, usize) {
        self.peaks.iter().fold((0, 0), |(i, o), p| (i.max(p.0), o.max(p.1)))
    }
}

/// Who has yet to authenticate may leave so much unread beyond the reply buffer: whoever connects could otherwise have the
/// server store error replies without end.
const UNAUTHENTICATED_BYTES: u64 = 1024;
/// The same of what is on its way to the socket by an I/O thread.
const UNAUTHENTICATED_FAR_BYTES: usize = 16 * 1024;

/// A reply below this size is always finished.
const MIN_ROOM: usize = 64 * 1024;

/// Why a client's output is too much.
pub(crate) fn over_limit(srv: &Server, c: &Client, now_ms: i64) -> (bool, Option<i64>) {
    let class = match ClientClass::of(c) {
        ClientClass::Normal | ClientClass::Master => OBUF_NORMAL,
        ClientClass::Replica => OBUF_REPLICA,
        ClientClass::Pubsub => OBUF_PUBSUB,
    };
    let limit = srv.cfg.client_output_buffer_limit[class];
    let used = srv.output_bytes(c) as u64;
    let is_much = used > UNAUTHENTICATED_BYTES || c.has_far_output(UNAUTHENTICATED_FAR_BYTES);
    if is_much && srv.must_authenticate(c) {
        return (true, c.soft_limit_since_ms);
    }
    let mut hard_bytes = limit.hard_bytes;
    if class == OBUF_REPLICA && hard_bytes != 0 {
        // What the backlog holds anyway is no reason to lose a replica.
        hard_bytes = hard_bytes.max(srv.cfg.repl_backlog_size);
    }
    if hard_bytes != 0 && used >= hard_bytes {
        return (true, c.soft_limit_since_ms);
    }
    if limit.soft_bytes == 0 || used < limit.soft_bytes {
        return (false, None);
    }
    match c.soft_limit_since_ms {
        None => (false, Some(now_ms)),
        Some(since) => ((now_ms - since) / 1000 > limit.soft_seconds, Some(since)),
    }
}

/// Bytes that a reply to a client may have before its hard limit ends the client: one that is longer need not be finished,
/// but the client has to be closed with `close_over_limit`.
pub(crate) fn reply_room(c: &Client, cfg: &Config) -> usize {
    if c.conn.is_none() {
        return usize::MAX;
    }
    let class = match ClientClass::of(c) {
        ClientClass::Normal => OBUF_NORMAL,
        ClientClass::Pubsub => OBUF_PUBSUB,
        ClientClass::Master | ClientClass::Replica => return usize::MAX,
    };
    match cfg.client_output_buffer_limit[class].hard_bytes {
        // A reply that leaves no room for anything else would end the server rather than the client.
        0 => match usize::try_from(system_memory() / 4) {
            Ok(room) if room > 0 => room,
            _ => usize::MAX,
        },
        // Twice the limit leaves no doubt that it is passed, however buffers are counted.
        hard => usize::try_from(hard).unwrap_or(usize::MAX).saturating_mul(2).max(MIN_ROOM),
    }
}

/// The class of a client among those that may be evicted: the number of bits of its size, within limits.
pub(crate) fn size_class(c: &Client) -> u32 {
    (usize::BITS - c.mem_counted.bytes.leading_zeros()).clamp(MIN_CLASS, MAX_CLASS)
}

pub(crate) fn may_evict(c: &Client) -> bool {
    c.conn.is_some()
        && !c.is(ClientFlags::NO_EVICT.union(ClientFlags::CLOSE_ASAP).union(ClientFlags::IMPORT))
        && matches!(ClientClass::of(c), ClientClass::Normal | ClientClass::Pubsub)
}

impl Server {
    /// Bytes that wait to be sent to a client beyond its reply buffer, with what holds them.
    pub(crate) fn output_bytes(&self, c: &Client) -> usize {
        match ClientClass::of(c) {
            ClientClass::Replica if c.is(ClientFlags::EXPORT) => c.out.chunk_mem(),
            ClientClass::Replica => self.replica_output_bytes(c),
            _ => c.out.chunk_mem(),
        }
    }

    /// Closes a client whose output passed its class's limit. True if it did.
    pub(crate) fn check_output_limit(&mut self, id: ClientId) -> bool {
        let now_ms = self.clock.mono_ms();
        let Some(c) = self.clients.get(id) else { return false };
        let class = ClientClass::of(c);
        let has_output = c.out.chunk_count() > 0
            || class == ClientClass::Replica
            || c.soft_limit_since_ms.is_some()
            || c.has_far_output(UNAUTHENTICATED_FAR_BYTES);
        if c.conn.is_none() || c.is(ClientFlags::CLOSE_ASAP) || !has_output {
            return false;
        }
        let (over, since) = over_limit(self, c, now_ms);
        if !over && since == c.soft_limit_since_ms {
            return false;
        }
        if over {
            self.close_over_limit(id);
        }
        if let Some(c) = self.clients.get_mut(id) {
            c.soft_limit_since_ms = since;
            if over {
                self.client_memory.update(c);
            }
        }
        over
    }

    /// Closes a client because of its output limit.
    pub(crate) fn close_over_limit(&mut self, id: ClientId) {
        log::warn!(
            "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
            self.describe_client(id)
        );
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::KILLED);
        }
        self.clients.close_later(id);
        self.stats.client_output_buffer_limit_disconnections += 1;
    }

    /// Counts a client's memory anew; to be called where it can have changed much.
    pub(crate) fn update_client_memory(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            self.client_memory.update(c);
        }
    }

    /// Closes the largest clients while all of them cost more than `maxmemory-clients`.
    pub(crate) fn evict_clients(&mut self) {
        let limit = self.cfg.maxmemory_clients.bytes(self.cfg.maxmemory) as usize;
        if limit == 0 || self.client_memory.evictable_bytes() < limit {
            return;
        }
        // What was on its way through another thread when a client was counted may have left since, and what is on its way now is
        // gone in a moment: nobody is closed for that.
        let (mut leaving, period) = (0, self.io.period());
        for c in self.clients.iter_mut().filter(|c| matches!(c.conn, Some(Conn::Far(_)))) {
            self.client_memory.update(c);
            leaving += c.link.leaving_mem(period);
        }
        let limit = limit + leaving;
        if self.client_memory.evictable_bytes() < limit {
            return;
        }
        let mut candidates: Vec<(u32, u64, ClientId)> =
            self.clients.iter().filter(|c| may_evict(c)).map(|c| (size_class(c), c.number, c.id)).collect();
        candidates.sort_unstable_by_key(|(class, number, _)| (std::cmp::Reverse(*class), *number));
        for (.., id) in candidates {
            if self.client_memory.evictable_bytes() < limit {
                return;
            }
            log::info!("Evicting client: {}", self.describe_client(id));
            self.stats.evicted_clients += 1;
            self.kill_client(id);
        }
        if self.client_memory.evictable_bytes() >= limit {
            log::warn!("Over client maxmemory after evicting all evictable clients");
        }
    }
}

impl Server {
    /// Clients and their memory by size class, for people; `None` while clients are not evicted.
    pub(crate) fn client_eviction_classes(&self) -> Option<String> {
        use std::fmt::Write;
        if self.cfg.maxmemory_clients.bytes(self.cfg.maxmemory) == 0 {
            return None;
        }
        let mut text = String::new();
        for class in MIN_CLASS..=MAX_CLASS {
            let members = || self.clients.iter().filter(|c| may_evict(c) && size_class(c) == class);
            let low = if class == MIN_CLASS { 0 } else { 1u64 << (class - 1) };
            let _ = match class {
                MAX_CLASS => write!(text, "bucket {low:10}+            : "),
                _ => write!(text, "bucket {low:10} - {:10}: ", (1u64 << class) - 1),
            };
            let bytes: usize = members().map(|c| c.mem_counted.bytes).sum();
            let _ = writeln!(text, "tot-mem: {bytes:10}, clients: {}", members().count());
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::clients::Clients;

    #[test]
    fn sums_follow_the_clients() {
        let mut clients = Clients::default();
        let mut memory = ClientMemory::default();
        let id = clients.add(None, 0);
        let c = clients.get_mut(id).unwrap();
        memory.update(c);
        let empty = memory.evictable_bytes();
        assert!(empty >= size_of::<Client>());
        c.query.reserve(10_000);
        memory.update(c);
        assert!(memory.evictable_bytes() >= empty + 10_000);
        c.flags.add(ClientFlags::PUBSUB);
        memory.update(c);
        assert_eq!(memory.normal, 0);
        memory.forget(c);
        assert_eq!(memory.evictable_bytes(), 0);
    }

    #[test]
    fn peaks_fade() {
        let mut memory = ClientMemory::default();
        memory.note_peaks(1000, 50, 70);
        assert_eq!(memory.recent_peaks(), (50, 70));
        for second in 1..=PEAK_SLOTS as i64 + 1 {
            memory.begin_second(second * 1000);
        }
        assert_eq!(memory.recent_peaks(), (0, 0));
    }
}
