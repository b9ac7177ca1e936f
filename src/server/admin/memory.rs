//! Where the memory goes: takes samples, and tells what is overhead rather than data.

use crate::admin::memory::{DbOverhead, MemorySamples, Overhead, ReplicationMemory, SAMPLE_PERIOD_MS, resident_set};
use crate::server::Server;
use crate::sys::alloc;

impl Server {
    /// Takes `used_memory` as what an empty server costs.
    pub(crate) fn note_initial_memory(&mut self) {
        // Opens the file that it reads, so that the number of descriptors stays what it is.
        resident_set();
        self.admin.memory.get_mut().startup = alloc::used();
    }

    /// The latest samples, taken anew if those are too old.
    pub(crate) fn memory_samples(&self) -> MemorySamples {
        let (old, now_ms) = (self.admin.memory.get(), self.clock.mono_ms());
        if old.taken_ms.is_some_and(|taken_ms| now_ms - taken_ms < SAMPLE_PERIOD_MS) {
            return old;
        }
        let (allocated, active, resident) = alloc::jemalloc_stats();
        let samples = MemorySamples {
            taken_ms: Some(now_ms),
            rss: resident_set(),
            used: alloc::used(),
            allocated,
            active,
            resident,
            startup: old.startup,
        };
        self.admin.memory.set(samples);
        samples
    }

    /// Sums up what is known to be overhead.
    pub(crate) fn memory_overhead(&self) -> Overhead {
        let used = alloc::used();
        let mut o = Overhead {
            used,
            peak: alloc::peak(),
            startup: self.admin.memory.get().startup,
            replication: self.replication_memory(),
            clients: self.client_memory.normal_bytes(),
            cluster_links: self.cluster_link_memory(),
            aof_buffer: self.aof_buffer_memory(),
            scripts: self.script_memory(),
            ..Overhead::default()
        };
        for (i, db) in self.ks.dbs.iter().enumerate().filter(|(_, db)| !db.is_empty()) {
            // Times to live and slots have no tables beside this one.
            o.dbs.push(DbOverhead { db: i, main: db.table_bytes() });
            o.keys += db.len();
        }
        o.total = o.startup
            + o.replication.backlog
            + o.replication.replicas
            + o.clients
            + o.cluster_links
            + o.aof_buffer
            + o.scripts.eval_cache
            + o.scripts.function_cache
            + o.dbs.iter().map(|d| d.main).sum::<usize>();
        o.dataset = used.saturating_sub(o.total);
        o
    }
}

/// Memory of rooms that are asked for it.
impl Server {
    // repl
    pub(crate) fn replication_memory(&self) -> ReplicationMemory {
        let memory = self.repl.memory();
        ReplicationMemory { backlog: memory.backlog, replicas: memory.replicas, buffers: memory.total }
    }
    // cluster
    pub(crate) fn cluster_link_memory(&self) -> usize {
        self.bus.as_ref().map_or(0, |bus| bus.links_mem())
    }
    // persist
    pub(crate) fn aof_buffer_memory(&self) -> usize {
        self.persist.aof.writing.buf_capacity()
    }
    /// Memory that does not count towards `maxmemory`: output to replicas and to I/O threads, and the AOF buffer.
    pub(crate) fn memory_not_counted(&self) -> usize {
        self.aof_buffer_memory() + self.repl.memory_not_counted() + self.io.output_on_the_way() + self.export_memory()
    }
}
