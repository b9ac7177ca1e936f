//! Memory figures: samples of the process and the allocator, and the parts that MEMORY STATS tells apart.

use crate::sys::reserve::open_in_need;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Samples up to this age are good enough, ms: to take them is too slow for every INFO.
pub(crate) const SAMPLE_PERIOD_MS: i64 = 100;

/// Figures taken at the same time, bytes. They are taken when somebody asks: an idle server would do little else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemorySamples {
    /// When, by the monotonic clock, ms; `None`: never.
    pub(crate) taken_ms: Option<i64>,
    /// Resident set of the process.
    pub(crate) rss: usize,
    /// `used_memory` at the time of the other figures.
    pub(crate) used: usize,
    /// The allocator's: bytes handed out, in pages with something handed out, and in memory.
    pub(crate) allocated: usize,
    pub(crate) active: usize,
    pub(crate) resident: usize,
    /// `used_memory` after start-up, before any data.
    pub(crate) startup: usize,
}

/// Overhead of the tables of one database, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DbOverhead {
    pub(crate) db: usize,
    pub(crate) main: usize,
}

/// Memory of the script room, bytes, and counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScriptMemory {
    pub(crate) vm_eval: usize,
    pub(crate) vm_functions: usize,
    pub(crate) eval_cache: usize,
    pub(crate) function_cache: usize,
    pub(crate) cached_scripts: usize,
    pub(crate) functions: usize,
    pub(crate) libraries: usize,
}

/// Memory of replication, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplicationMemory {
    pub(crate) backlog: usize,
    /// Beyond the backlog, for replicas that lag.
    pub(crate) replicas: usize,
    /// The backlog and what replicas have beyond it.
    pub(crate) buffers: usize,
}

/// The parts that MEMORY STATS and INFO memory tell apart, bytes.
#[derive(Debug, Default)]
pub(crate) struct Overhead {
    pub(crate) used: usize,
    pub(crate) peak: usize,
    pub(crate) startup: usize,
    /// Everything that is not data.
    pub(crate) total: usize,
    pub(crate) dataset: usize,
    pub(crate) keys: usize,
    pub(crate) replication: ReplicationMemory,
    pub(crate) clients: usize,
    pub(crate) cluster_links: usize,
    pub(crate) aof_buffer: usize,
    pub(crate) scripts: ScriptMemory,
    pub(crate) dbs: Vec<DbOverhead>,
}

impl Overhead {
    /// Memory used since start-up, at least 1.
    pub(crate) fn net(&self) -> usize {
        self.used.saturating_sub(self.startup).max(1)
    }

    pub(crate) fn dataset_perc(&self) -> f64 {
        self.dataset as f64 * 100.0 / self.net() as f64
    }

    pub(crate) fn bytes_per_key(&self) -> usize {
        self.net().checked_div(self.keys).unwrap_or(0)
    }
}

/// Resident set of the process, bytes; 0 where the system does not say.
pub(crate) fn resident_set() -> usize {
    // It stays open, as that takes longer than reading it.
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE
        .get()
        .map_or_else(|| open_in_need(|| File::open("/proc/self/statm")).map(|file| FILE.get_or_init(|| file)), Ok);
    // Seven numbers: one read is enough.
    let mut text = [0; 256];
    let read = file.and_then(|file| file.read_at(&mut text, 0));
    let fields = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
    let pages = fields.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok());
    pages.unwrap_or(0) * page_size() as usize
}

/// Bytes of memory in the machine.
pub(crate) fn system_memory() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    // Asked for before replies of unknown length; it does not change.
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
