//! Where the memory goes: takes the samples, and tells what is overhead rather than data.

use crate::admin::memory::{DbOverhead, Overhead, ReplicationMemory, SAMPLE_PERIOD_MS, resident_set};
use crate::server::Server;
use crate::sys::alloc;

impl Server {
    /// Takes the samples when they are due; called by the cron.
    pub(crate) fn sample_memory(&mut self) {
        alloc::peak();
        if self.every_ms(SAMPLE_PERIOD_MS) {
            self.sample_memory_now();
        }
    }

    /// Takes `used_memory` as what an empty server costs.
    pub(crate) fn note_initial_memory(&mut self) {
        self.admin.memory.startup = alloc::used();
        self.sample_memory_now();
    }

    fn sample_memory_now(&mut self) {
        let (allocated, active, resident) = alloc::jemalloc_stats();
        let m = &mut self.admin.memory;
        m.rss = resident_set();
        m.used = alloc::used();
        m.allocated = allocated;
        m.active = active;
        m.resident = resident;
    }

    /// Sums up what is known to be overhead.
    pub(crate) fn memory_overhead(&self) -> Overhead {
        let used = alloc::used();
        let mut o = Overhead {
            used,
            peak: alloc::peak(),
            startup: self.admin.memory.startup,
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
