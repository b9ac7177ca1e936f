//! A helper thread for work that must not hold up the loop: freeing large values, closing and syncing files.

use super::{alloc, process};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// What the helper thread frees, with its figures.
pub(crate) struct Discarded {
    /// Number of keys freed lazily on request: INFO counts them.
    pub(crate) counted: usize,
    /// About how much memory it frees, bytes.
    pub(crate) bytes: usize,
    #[expect(dead_code, reason = "all that is wanted of it is that it is dropped there")]
    pub(crate) garbage: Box<dyn Send>,
}

/// Work in order, on one thread.
pub(crate) struct Worker {
    sender: Sender<Job>,
    pending: Arc<AtomicUsize>,
}

impl Worker {
    /// Starts a thread of this name on some processors (see [`process::set_cpu_affinity`]).
    pub(crate) fn new(name: &str, cpus: &str) -> std::io::Result<Worker> {
        let (sender, jobs) = channel::<Job>();
        let pending = Arc::new(AtomicUsize::new(0));
        let done = pending.clone();
        let cpus = cpus.to_string();
        thread::Builder::new().name(name.to_string()).spawn(move || {
            process::set_cpu_affinity(&cpus);
            for job in jobs {
                job();
                done.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Worker { sender, pending })
    }

    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        self.pending.fetch_add(1, Ordering::Acquire);
        // The thread ends only with the process.
        let _ = self.sender.send(Box::new(job));
    }

    /// Number of jobs that are waiting or running.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }
}

pub(crate) struct Background {
    pub(crate) files: Worker,
    pub(crate) fsync: Worker,
    lazy_free: Worker,
    freed: Arc<AtomicUsize>,
    /// Bytes handed over and not freed yet.
    leaving: Arc<AtomicUsize>,
}

impl Background {
    pub(crate) fn new(cpus: &str) -> std::io::Result<Background> {
        Ok(Background {
            files: Worker::new("bio_close_file", cpus)?,
            fsync: Worker::new("bio_aof", cpus)?,
            lazy_free: Worker::new("bio_lazy_free", cpus)?,
            freed: Arc::default(),
            leaving: Arc::default(),
        })
    }

    /// Frees values on the helper thread.
    pub(crate) fn free(&self, discarded: Vec<Discarded>) {
        let (freed, leaving) = (self.freed.clone(), self.leaving.clone());
        let count = discarded.iter().map(|d| d.counted).sum();
        let bytes = discarded.iter().map(|d| d.bytes).sum();
        leaving.fetch_add(bytes, Ordering::Relaxed);
        self.lazy_free.submit(move || {
            drop(discarded);
            alloc::flush_thread_cache();
            freed.fetch_add(count, Ordering::Relaxed);
            leaving.fetch_sub(bytes, Ordering::Relaxed);
        });
    }

    /// About how much memory is handed over and not freed yet, bytes.
    pub(crate) fn leaving_bytes(&self) -> usize {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Objects handed over and not freed yet, in batches (INFO's `lazyfree_pending_objects`).
    pub(crate) fn lazy_free_pending(&self) -> usize {
        self.lazy_free.pending()
    }

    /// Objects freed so far (INFO's `lazyfreed_objects`).
    pub(crate) fn lazy_freed(&self) -> usize {
        self.freed.load(Ordering::Relaxed)
    }

    pub(crate) fn reset_lazy_freed(&self) {
        self.freed.store(0, Ordering::Relaxed);
    }
}
