//! Samples of the process's and the allocator's memory, and what scripts take.

use crate::sys::reserve::open_in_need;
use std::sync::OnceLock;

/// Time between samples, ms.
pub const SAMPLE_PERIOD_MS: i64 = 100;

/// Figures taken together by the cron, in bytes: asking for them is too slow for every INFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemorySamples {
    /// Resident set of the process.
    pub rss: usize,
    /// `used_memory` when the others were taken.
    pub used: usize,
    /// The allocator's: handed out, in pages with something handed out, and in memory.
    pub allocated: usize,
    pub active: usize,
    pub resident: usize,
    /// `used_memory` after start-up, before any data.
    pub startup: usize,
}

/// Overhead of one database, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct DbOverhead {
    pub db: usize,
    pub main: usize,
}

/// Memory of the script room.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScriptMemory {
    pub vm_eval: usize,
    pub vm_functions: usize,
    pub eval_cache: usize,
    pub function_cache: usize,
    pub cached_scripts: usize,
    pub functions: usize,
    pub libraries: usize,
}

/// Memory of replication.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicationMemory {
    pub backlog: usize,
    /// Beyond the backlog, for replicas that lag behind.
    pub replicas: usize,
    /// All buffers.
    pub buffers: usize,
}

/// What MEMORY STATS and INFO memory tell apart, in bytes.
#[derive(Debug, Default)]
pub struct Overhead {
    pub used: usize,
    pub peak: usize,
    pub startup: usize,
    /// Everything that is not data.
    pub total: usize,
    pub dataset: usize,
    pub keys: usize,
    pub replication: ReplicationMemory,
    pub clients: usize,
    pub cluster_links: usize,
    pub aof_buffer: usize,
    pub scripts: ScriptMemory,
    pub dbs: Vec<DbOverhead>,
}

impl Overhead {
    /// Memory used since start-up, at least 1.
    pub fn net(&self) -> usize {
        self.used.saturating_sub(self.startup).max(1)
    }

    pub fn dataset_perc(&self) -> f64 {
        self.dataset as f64 * 100.0 / self.net() as f64
    }

    pub fn bytes_per_key(&self) -> usize {
        self.net().checked_div(self.keys).unwrap_or(0)
    }
}

/// Bytes of the process in memory; 0 where the system does not say.
pub fn resident_set() -> usize {
    let pages = open_in_need(|| std::fs::read_to_string("/proc/self/statm"))
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()));
    pages.unwrap_or(0) * page_size() as usize
}

/// Bytes of memory in the machine.
pub fn system_memory() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    // It is asked for before replies of unknown length, and does not change.
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| match sysconf(SysconfVar::_PHYS_PAGES) {
        Ok(Some(pages)) => pages as u64 * page_size(),
        _ => 0,
    })
}

fn page_size() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    match sysconf(SysconfVar::PAGE_SIZE) {
        Ok(Some(bytes)) => bytes as u64,
        _ => 4096,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_its_memory() {
        assert!(resident_set() > 0);
        assert!(system_memory() as usize > resident_set());
    }
}
