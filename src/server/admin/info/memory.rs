//! INFO memory.

use super::Facts;
use super::row::{Figure, field};
use crate::admin::figure::Value;
use crate::admin::human_bytes;
use crate::admin::memory::{MemorySamples, system_memory};
use crate::config::Named;
use crate::sys::alloc;

pub(super) static ROWS: &[Figure] = &[
    field("used_memory", |f| f.memory().used.into())
        .gauge("redis_memory_used_bytes", "Memory that the allocator has handed out."),
    field("used_memory_human", |f| human(f.memory().used)),
    field("used_memory_rss", |f| f.srv.memory_samples().rss.into())
        .gauge("redis_memory_used_rss_bytes", "Resident set of the process."),
    field("used_memory_rss_human", |f| human(f.srv.memory_samples().rss)),
    field("used_memory_peak", |f| f.memory().peak.into())
        .gauge("redis_memory_used_peak_bytes", "The most memory that was handed out at one time."),
    field("used_memory_peak_human", |f| human(f.memory().peak)),
    field("used_memory_peak_perc", |f| Value::Percent(f.memory().used as f64 * 100.0 / f.memory().peak.max(1) as f64)),
    field("used_memory_overhead", |f| f.memory().total.into())
        .gauge("redis_memory_used_overhead_bytes", "Memory that is not data."),
    field("used_memory_startup", |f| f.memory().startup.into())
        .gauge("redis_memory_used_startup_bytes", "What an empty server takes."),
    field("used_memory_dataset", |f| f.memory().dataset.into())
        .gauge("redis_memory_used_dataset_bytes", "Memory of the data."),
    field("used_memory_dataset_perc", |f| Value::Percent(f.memory().dataset_perc())),
    field("allocator_allocated", |f| f.srv.memory_samples().allocated.into())
        .gauge("redis_allocator_allocated_bytes", "Memory that the allocator has handed out, by its own figures."),
    field("allocator_active", |f| f.srv.memory_samples().active.into())
        .gauge("redis_allocator_active_bytes", "Memory in pages of the allocator with something handed out."),
    field("allocator_resident", |f| f.srv.memory_samples().resident.into())
        .gauge("redis_allocator_resident_bytes", "Memory of the allocator that is resident."),
    field("total_system_memory", |_| system_memory().into())
        .gauge("redis_total_system_memory_bytes", "Memory of the machine."),
    field("total_system_memory_human", |_| human(system_memory() as usize)),
    field("used_memory_lua", |f| f.memory().scripts.vm_eval.into())
        .gauge("redis_memory_used_lua_bytes", "Memory of the engine that runs scripts."),
    field("used_memory_vm_eval", |f| f.memory().scripts.vm_eval.into())
        .gauge("redis_memory_used_vm_eval_bytes", "Memory of the engine that runs scripts."),
    field("used_memory_lua_human", |f| human(f.memory().scripts.vm_eval)),
    field("used_memory_scripts_eval", |f| f.memory().scripts.eval_cache.into())
        .gauge("redis_memory_used_scripts_eval_bytes", "Memory of cached scripts outside the engine."),
    field("number_of_cached_scripts", |f| f.memory().scripts.cached_scripts.into())
        .gauge("redis_number_of_cached_scripts", "Scripts that are cached."),
    field("number_of_functions", |f| f.memory().scripts.functions.into())
        .gauge("redis_number_of_functions", "Functions that are loaded."),
    field("number_of_libraries", |f| f.memory().scripts.libraries.into())
        .gauge("redis_number_of_libraries", "Libraries of functions."),
    field("used_memory_vm_functions", |f| f.memory().scripts.vm_functions.into())
        .gauge("redis_memory_used_vm_functions_bytes", "Memory of the engine that runs functions."),
    field("used_memory_vm_total", |f| vm(f).into()).gauge("redis_memory_used_vm_total", "Memory of both engines."),
    field("used_memory_vm_total_human", |f| human(vm(f))),
    field("used_memory_functions", |f| f.memory().scripts.function_cache.into())
        .gauge("redis_memory_used_functions_bytes", "Memory of functions outside the engine."),
    field("used_memory_scripts", |f| scripts(f).into())
        .gauge("redis_memory_used_scripts_bytes", "Memory of scripts and functions outside the engines."),
    field("used_memory_scripts_human", |f| human(scripts(f))),
    field("maxmemory", |f| f.srv.cfg.maxmemory.into()).gauge("redis_memory_max_bytes", "The limit to memory; 0: none."),
    field("maxmemory_human", |f| human(f.srv.cfg.maxmemory as usize)),
    field("maxmemory_policy", |f| f.srv.cfg.maxmemory_policy.name().into()),
    field("allocator_frag_ratio", |f| ratio(FRAGMENTED, f))
        .gauge("redis_allocator_frag_ratio", "Active over allocated."),
    field("allocator_frag_bytes", |f| beyond(FRAGMENTED, f))
        .gauge("redis_allocator_frag_bytes", "Memory in pages that are not full."),
    field("allocator_rss_ratio", |f| ratio(KEPT, f)).gauge("redis_allocator_rss_ratio", "Resident over active."),
    field("allocator_rss_bytes", |f| beyond(KEPT, f))
        .gauge("redis_allocator_rss_bytes", "Free pages that the allocator keeps."),
    field("rss_overhead_ratio", |f| ratio(BESIDE, f)),
    field("rss_overhead_bytes", |f| beyond(BESIDE, f)),
    field("mem_fragmentation_ratio", |f| ratio(ALL, f))
        .gauge("redis_mem_fragmentation_ratio", "The resident set over what was handed out."),
    field("mem_fragmentation_bytes", |f| beyond(ALL, f))
        .gauge("redis_mem_fragmentation_bytes", "The resident set without what was handed out."),
    field("mem_not_counted_for_evict", |f| f.srv.memory_not_counted().into())
        .gauge("redis_mem_not_counted_for_eviction_bytes", "Memory that does not count towards the limit."),
    field("mem_replication_backlog", |f| f.memory().replication.backlog.into())
        .gauge("redis_mem_replication_backlog_bytes", "Memory of the replication backlog."),
    field("mem_total_replication_buffers", |f| f.memory().replication.buffers.into()).gauge(
        "redis_mem_total_replication_buffers_bytes",
        "Memory of the backlog and of what replicas still have to get.",
    ),
    field("mem_clients_slaves", |f| f.memory().replication.replicas.into())
        .gauge("redis_mem_clients_slaves", "Memory of what replicas still have to get, beyond the backlog."),
    field("mem_clients_normal", |f| f.memory().clients.into()).gauge("redis_mem_clients_normal", "Memory of clients."),
    field("mem_cluster_links", |f| f.memory().cluster_links.into())
        .gauge("redis_mem_cluster_links_bytes", "Memory of links of the cluster bus."),
    field("mem_cluster_slot_migration_output_buffer", |f| f.srv.export_memory().into())
        .gauge("hexad_mem_slot_migration_output_bytes", "Memory of what waits for targets of slots."),
    field("mem_cluster_slot_migration_input_buffer", |f| f.srv.gathered_memory().0.into())
        .gauge("hexad_mem_slot_migration_input_bytes", "Memory of what has come of writes to slots that are pulled."),
    field("mem_cluster_slot_migration_input_buffer_peak", |f| f.srv.gathered_memory().1.into()).gauge(
        "hexad_mem_slot_migration_input_peak_bytes",
        "The most that waited for the snapshot of slots at a time.",
    ),
    field("mem_aof_buffer", |f| f.memory().aof_buffer.into())
        .gauge("redis_mem_aof_buffer_bytes", "Memory of what waits to be written to the log."),
    field("mem_allocator", |_| alloc::name().into()),
    field("active_defrag_running", |_| 0u8.into())
        .gauge("redis_active_defrag_running", "Defragmentation is the allocator's own."),
    field("lazyfree_pending_objects", |f| f.srv.background.lazy_free_pending().into())
        .gauge("redis_lazyfree_pending_objects", "What waits to be freed beside the loop."),
    field("lazyfreed_objects", |f| f.srv.background.lazy_freed().into())
        .gauge("redis_lazyfreed_objects", "What was freed beside the loop."),
];

/// A number of bytes for people.
fn human(bytes: usize) -> Value {
    human_bytes(bytes as u64).into()
}

fn vm(f: &Facts<'_>) -> usize {
    f.memory().scripts.vm_eval + f.memory().scripts.vm_functions
}

fn scripts(f: &Facts<'_>) -> usize {
    f.memory().scripts.eval_cache + f.memory().scripts.function_cache
}

/// Two of the samples that are set in relation.
type Pair = fn(&MemorySamples) -> (usize, usize);
const FRAGMENTED: Pair = |s| (s.active, s.allocated);
const KEPT: Pair = |s| (s.resident, s.active);
const BESIDE: Pair = |s| (s.rss, s.resident);
const ALL: Pair = |s| (s.rss, s.used);

fn ratio(pair: Pair, f: &Facts<'_>) -> Value {
    let (of, to) = pair(&f.srv.memory_samples());
    Value::Decimal(of as f64 / to.max(1) as f64)
}

fn beyond(pair: Pair, f: &Facts<'_>) -> Value {
    let (of, to) = pair(&f.srv.memory_samples());
    Value::Int(of as i64 - to as i64)
}
