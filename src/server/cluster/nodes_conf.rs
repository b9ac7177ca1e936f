//! The file `nodes.conf`: locked against a second node, and replaced as a whole, by the loop or beside it.
//!
//! What is in it, and when it is written, is the machine's (`cluster::nodes_conf`, `cluster::saving`).
//!
//! Invariant: whatever has the name is whole and locked, and no version takes the place of a later one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::Waker;
use nix::fcntl::{Flock, FlockArg};

use crate::net::listener::reason;
use crate::sys::background::Worker;
use crate::sys::reserve::open_in_need;

/// A disk that took less than this for the last version is waited for by the loop, so long at most: what tells of the change
/// leaves in the same turn then.
const WORTH_WAITING: Duration = Duration::from_millis(2);

/// A version in its place, and how long that took.
type Replaced = (Result<Flock<File>, String>, Duration);

/// What has become of a version that is written beside the loop.
#[derive(Default)]
struct Outcome {
    result: Mutex<Option<Replaced>>,
    is_there: Condvar,
}

impl Outcome {
    fn set(&self, result: Result<Flock<File>, String>, took: Duration) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some((result, took));
        self.is_there.notify_one();
    }

    /// Waits for it, so long at most.
    fn take(&self, patience: Duration) -> Option<Replaced> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.is_there.wait_timeout_while(result, patience, |result| result.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// A version that is being written beside the loop.
struct Writing {
    number: u64,
    fd: RawFd,
    outcome: Arc<Outcome>,
}

pub(super) struct ConfFile {
    path: PathBuf,
    /// Holding the file open holds the lock.
    lock: Flock<File>,
    versions: u64,
    writer: Worker,
    writing: Option<Writing>,
    /// How long the last version took.
    took: Duration,
    /// The number of a version that is in its place, which is still to be told.
    written: Option<u64>,
}

impl ConfFile {
    /// Locks the file, which is made if it is not there. `cpus`: where the thread is to run that writes beside the loop. The error
    /// is for the log.
    pub(super) fn open(path: &str, cpus: &str) -> Result<ConfFile, String> {
        let path = PathBuf::from(path);
        let lock = lock_file(&path)?;
        let writer = Worker::new("bio_nodes_conf", cpus)
            .map_err(|e| format!("Can't start the thread that writes {}: {}", path.display(), reason(&e)))?;
        Ok(ConfFile { path, lock, versions: 0, writer, writing: None, took: Duration::MAX, written: None })
    }

    pub(super) fn read(&self) -> Result<String, String> {
        std::fs::read_to_string(&self.path)
            .map_err(|e| format!("Loading the cluster node config from {}: {}", self.path.display(), reason(&e)))
    }

    /// What a child process must not keep, as the locks would last.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let writing = self.writing.as_ref().map(|writing| writing.fd);
        [self.lock.as_raw_fd()].into_iter().chain(writing)
    }

    /// Puts a new version in place of the old one, whole or not at all.
    pub(super) fn replace(&mut self, text: &str, fsync: bool) -> Result<(), String> {
        self.wait()?;
        let (version, began) = (self.new_version()?, Instant::now());
        self.lock = version.put_in_place(text, fsync)?;
        self.took = began.elapsed();
        Ok(())
    }

    /// Begins to do so beside the loop, which is woken when it is done. A quick disk may be done with it at once.
    pub(super) fn begin(&mut self, text: String, fsync: bool, number: u64, waker: Arc<Waker>) -> Result<(), String> {
        self.wait()?;
        let version = self.new_version()?;
        let outcome = Arc::new(Outcome::default());
        self.writing = Some(Writing { number, fd: version.lock.as_raw_fd(), outcome: outcome.clone() });
        self.writer.submit(move || {
            let began = Instant::now();
            let result = version.put_in_place(&text, fsync);
            outcome.set(result, began.elapsed());
            // The loop looks in its next turn in any case.
            let _ = waker.wake();
        });
        let is_quick = self.took < WORTH_WAITING;
        self.look(if is_quick { WORTH_WAITING } else { Duration::ZERO })
    }

    /// The number of a version that is in its place since this was asked last.
    pub(super) fn written(&mut self) -> Result<Option<u64>, String> {
        self.look(Duration::ZERO)?;
        Ok(self.written.take())
    }

    /// Waits for the version that is being written.
    pub(super) fn wait(&mut self) -> Result<(), String> {
        while self.writing.is_some() {
            self.look(Duration::from_secs(1))?;
        }
        Ok(())
    }

    /// Looks whether it is in its place, or will be so soon.
    fn look(&mut self, patience: Duration) -> Result<(), String> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let Some((outcome, took)) = writing.outcome.take(patience) else { return Ok(()) };
        self.took = took;
        self.written = self.writing.take().map(|writing| writing.number);
        self.lock = outcome?;
        Ok(())
    }

    /// A file to be written, which is locked by this thread, so that a child process knows that it has it.
    fn new_version(&mut self) -> Result<Version, String> {
        self.versions += 1;
        let temporary = format!("{}.tmp-{}-{}", self.path.display(), std::process::id(), self.versions);
        let temporary = PathBuf::from(temporary);
        let file = open_in_need(|| File::create(&temporary))
            .map_err(|e| format!("Could not open temp cluster config file: {}", reason(&e)))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| format!("Impossible to lock {}: {}", temporary.display(), e.desc()))?;
        Ok(Version { temporary, path: self.path.clone(), lock })
    }
}

/// A version of the file that does not have the name yet.
struct Version {
    temporary: PathBuf,
    path: PathBuf,
    lock: Flock<File>,
}

impl Version {
    fn put_in_place(self, text: &str, fsync: bool) -> Result<Flock<File>, String> {
        let Version { temporary, path, mut lock } = self;
        let result = write_and_rename(&mut lock, &temporary, &path, text.as_bytes(), fsync);
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        result.map(|()| lock)
    }
}

fn write_and_rename(file: &mut File, temporary: &Path, path: &Path, text: &[u8], fsync: bool) -> Result<(), String> {
    let failed = |what: &str, e: &io::Error| format!("{what}: {}", reason(e));
    file.write_all(text).map_err(|e| failed("Failed after writing to tmp cluster config file", &e))?;
    if fsync {
        file.sync_all().map_err(|e| failed("Could not sync tmp cluster config file", &e))?;
    }
    std::fs::rename(temporary, path).map_err(|e| failed("Could not rename tmp cluster config file", &e))?;
    if fsync {
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        open_in_need(|| File::open(directory))
            .and_then(|d| d.sync_all())
            .map_err(|e| failed("Could not sync cluster config file dir", &e))?;
    }
    Ok(())
}

/// Locks the file, which is made if it is not there, against a second node. Every version of the file is locked before it
/// gets the name, so what has the name is locked at any time; what has lost the name meanwhile does not count.
fn lock_file(path: &Path) -> Result<Flock<File>, String> {
    let shown = path.display();
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| format!("Can't open {shown} in order to acquire a lock: {}", reason(&e)))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
            nix::errno::Errno::EWOULDBLOCK => format!(
                "Sorry, the cluster configuration file {shown} is already used by a different Redis Cluster node. Please \
                 make sure that different nodes use different cluster configuration files."
            ),
            e => format!("Impossible to lock {shown}: {}", e.desc()),
        })?;
        let (Ok(locked), Ok(named)) = (lock.metadata(), std::fs::metadata(path)) else { continue };
        if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
            return Ok(lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waker() -> (mio::Poll, Arc<Waker>) {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        (poll, waker)
    }

    #[test]
    fn what_is_written_beside_the_loop_is_told_once_and_never_takes_the_place_of_later_versions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.conf");
        let mut file = ConfFile::open(path.to_str().unwrap(), "").unwrap();
        let (mut poll, waker) = waker();
        let mut events = mio::Events::with_capacity(1);
        file.begin("first".into(), true, 1, waker.clone()).unwrap();
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert!(!events.is_empty(), "the loop is woken");
        while file.writing.is_some() {
            file.look(Duration::ZERO).unwrap();
        }
        assert_eq!((file.read().unwrap().as_str(), file.written(), file.written()), ("first", Ok(Some(1)), Ok(None)));
        for round in 2..50 {
            file.took = Duration::MAX;
            file.begin(format!("beside {round}"), round % 2 == 0, round, waker.clone()).unwrap();
            file.replace(&format!("at once {round}"), false).unwrap();
            assert_eq!(file.written(), Ok(Some(round)));
            assert_eq!(file.read().unwrap(), format!("at once {round}"));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn the_file_is_locked_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.conf");
        let mut file = ConfFile::open(path.to_str().unwrap(), "").unwrap();
        let (_poll, waker) = waker();
        for round in 0..50 {
            file.took = Duration::from_secs(round % 2);
            file.begin(format!("{round}"), false, round, waker.clone()).unwrap();
            assert!(lock_file(&path).is_err(), "{round}");
        }
        file.wait().unwrap();
        assert!(lock_file(&path).is_err());
    }

    #[test]
    fn a_version_that_cannot_be_written_is_an_error_and_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.conf");
        let mut file = ConfFile::open(path.to_str().unwrap(), "").unwrap();
        file.replace("old", true).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.took = Duration::MAX;
        let (_poll, waker) = waker();
        file.begin("new".into(), true, 7, waker).unwrap();
        assert!(file.wait().unwrap_err().starts_with("Could not rename tmp cluster config file"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
