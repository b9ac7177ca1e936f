//! INFO memory.

use super::InfoText;
use crate::admin::human_bytes;
use crate::config::Named;
use crate::server::Server;
use crate::sys::alloc;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    let o = srv.memory_overhead();
    let s = &srv.admin.memory;
    both(out, "used_memory", o.used as u64);
    both(out, "used_memory_rss", s.rss as u64);
    both(out, "used_memory_peak", o.peak as u64);
    out.field("used_memory_peak_perc", format_args!("{:.2}%", o.used as f64 * 100.0 / o.peak.max(1) as f64));
    out.field("used_memory_overhead", o.total);
    out.field("used_memory_startup", o.startup);
    out.field("used_memory_dataset", o.dataset);
    out.field("used_memory_dataset_perc", format_args!("{:.2}%", o.dataset_perc()));
    out.field("allocator_allocated", s.allocated);
    out.field("allocator_active", s.active);
    out.field("allocator_resident", s.resident);
    both(out, "total_system_memory", crate::admin::memory::system_memory());
    out.field("used_memory_lua", o.scripts.vm_eval);
    out.field("used_memory_vm_eval", o.scripts.vm_eval);
    out.field("used_memory_lua_human", human_bytes(o.scripts.vm_eval as u64));
    out.field("used_memory_scripts_eval", o.scripts.eval_cache);
    out.field("number_of_cached_scripts", o.scripts.cached_scripts);
    out.field("number_of_functions", o.scripts.functions);
    out.field("number_of_libraries", o.scripts.libraries);
    out.field("used_memory_vm_functions", o.scripts.vm_functions);
    both(out, "used_memory_vm_total", (o.scripts.vm_eval + o.scripts.vm_functions) as u64);
    out.field("used_memory_functions", o.scripts.function_cache);
    both(out, "used_memory_scripts", (o.scripts.eval_cache + o.scripts.function_cache) as u64);
    both(out, "maxmemory", srv.cfg.maxmemory);
    out.field("maxmemory_policy", srv.cfg.maxmemory_policy.name());
    for (ratio, bytes, of, to) in [
        ("allocator_frag_ratio", "allocator_frag_bytes", s.active, s.allocated),
        ("allocator_rss_ratio", "allocator_rss_bytes", s.resident, s.active),
        ("rss_overhead_ratio", "rss_overhead_bytes", s.rss, s.resident),
        ("mem_fragmentation_ratio", "mem_fragmentation_bytes", s.rss, s.used),
    ] {
        out.decimal(ratio, of as f64 / to.max(1) as f64);
        out.field(bytes, of as i64 - to as i64);
    }
    out.field("mem_not_counted_for_evict", srv.memory_not_counted());
    out.field("mem_replication_backlog", o.replication.backlog);
    out.field("mem_total_replication_buffers", o.replication.buffers);
    out.field("mem_clients_slaves", o.replication.replicas);
    out.field("mem_clients_normal", o.clients);
    out.field("mem_cluster_links", o.cluster_links);
    out.field("mem_aof_buffer", o.aof_buffer);
    out.field("mem_allocator", alloc::name());
    out.field("active_defrag_running", 0);
    out.field("lazyfree_pending_objects", srv.background.lazy_free_pending());
    out.field("lazyfreed_objects", srv.background.lazy_freed());
}

/// A number of bytes, and the same for people.
fn both(out: &mut InfoText, name: &str, bytes: u64) {
    out.field(name, bytes);
    out.field(&format!("{name}_human"), human_bytes(bytes));
}
