//! What clients cost: a sum kept as they change, the largest buffers of late, the limits on output buffers, and the
//! eviction of clients when all of them together cost too much.
//!
//! Invariant: `normal` and `pubsub` are the sums of `Client::mem_counted` over the clients counted as such.

use crate::admin::client_memory::{ClientClass, MAX_CLASS, MIN_CLASS, may_evict, over_limit, size_class};
use crate::net::{Client, ClientFlags, ClientId};
use crate::server::Server;

impl Server {
    /// Bytes that wait to be sent to a client beyond its reply buffer, with what holds them.
    pub fn output_bytes(&self, c: &Client) -> usize {
        match ClientClass::of(c) {
            ClientClass::Replica => self.replica_output_bytes(c),
            _ => c.out.chunk_mem(),
        }
    }

    /// Closes a client whose output passed its class's limit. True if it did.
    pub fn check_output_limit(&mut self, id: ClientId) -> bool {
        let now_ms = self.clock.mono_ms();
        let Some(c) = self.clients.get(id) else { return false };
        let class = ClientClass::of(c);
        let has_output = c.out.chunk_count() > 0 || class == ClientClass::Replica || c.soft_limit_since_ms.is_some();
        if c.conn.is_none() || c.is(ClientFlags::CLOSE_ASAP) || !has_output {
            return false;
        }
        let (over, since) = over_limit(self, c, now_ms);
        if over {
            self.close_over_limit(id);
        }
        if let Some(c) = self.clients.get_mut(id) {
            c.soft_limit_since_ms = since;
            if over {
                self.admin.client_memory.update(c);
            }
        }
        over
    }

    /// Closes a client because of its output limit.
    pub fn close_over_limit(&mut self, id: ClientId) {
        log::warn!(
            "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
            self.describe_client(id)
        );
        self.clients.close_later(id);
        self.stats.client_output_buffer_limit_disconnections += 1;
    }

    /// Counts a client's memory anew; to be called where it can have changed much.
    pub fn update_client_memory(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            self.admin.client_memory.update(c);
        }
    }

    /// Closes the largest clients while all of them cost more than `maxmemory-clients`.
    pub fn evict_clients(&mut self) {
        let limit = self.cfg.maxmemory_clients.bytes(self.cfg.maxmemory) as usize;
        if limit == 0 || self.admin.client_memory.evictable_bytes() < limit {
            return;
        }
        let mut candidates: Vec<(u32, u64, ClientId)> =
            self.clients.iter().filter(|c| may_evict(c)).map(|c| (size_class(c), c.number, c.id)).collect();
        candidates.sort_unstable_by_key(|(class, number, _)| (std::cmp::Reverse(*class), *number));
        for (.., id) in candidates {
            if self.admin.client_memory.evictable_bytes() < limit {
                return;
            }
            log::info!("Evicting client: {}", self.describe_client(id));
            self.stats.evicted_clients += 1;
            self.close_now(id);
        }
        if self.admin.client_memory.evictable_bytes() >= limit {
            log::warn!("Over client maxmemory after evicting all evictable clients");
        }
    }
}

impl Server {
    /// Clients and their memory by size class, for people; `None` while clients are not evicted.
    pub fn client_eviction_classes(&self) -> Option<String> {
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
