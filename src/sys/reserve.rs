//! Descriptors held in reserve for what must not fail when clients have taken all others: saves, rewrites of the AOF,
//! and the server's own files.
//!
//! Such files are opened with [`open_in_need`], which closes reserved descriptors as needed. [`refill`] takes them back
//! as soon as descriptors are free; clients get the rest.

use std::fs::File;
use std::io;
use std::sync::Mutex;

/// Most that one operation has open at a time: the pipe of a child, the next increment of the AOF, a manifest and its
/// directory, and one to spare.
const COUNT: usize = 6;

static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Whether the error says that there are no more descriptors, in this process or in the system.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Calls `open`, with descriptors of the reserve if there are no others. It may run several times; the error is that of
/// its last run.
pub(crate) fn open_in_need<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        let error = match open() {
            Err(error) if is_exhausted(&error) => error,
            done => return done,
        };
        // The lock is not waited for: in a child, another thread may have held it at the fork.
        let Some(given_up) = HELD.try_lock().ok().and_then(|mut held| held.pop()) else { return Err(error) };
        drop(given_up);
    }
}

/// Fills the reserve as far as there are descriptors.
pub(crate) fn refill() {
    let Ok(mut held) = HELD.try_lock() else { return };
    while held.len() < COUNT {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_gets_descriptors_of_the_reserve_one_by_one() {
        refill();
        let exhausted = || io::Error::from_raw_os_error(libc::EMFILE);
        let mut failures = 3;
        let opened = open_in_need(|| {
            if failures == 0 {
                return Ok("open");
            }
            failures -= 1;
            Err(exhausted())
        });
        assert_eq!(opened.unwrap(), "open");
        assert_eq!(HELD.lock().unwrap().len(), COUNT - 3);
        let mut tries = 0;
        let failed: io::Result<()> = open_in_need(|| {
            tries += 1;
            Err(exhausted())
        });
        assert!(is_exhausted(&failed.unwrap_err()));
        assert_eq!(tries, COUNT - 3 + 1, "until there is none left");
        refill();
        assert_eq!(HELD.lock().unwrap().len(), COUNT);
        // Other errors do not use the reserve.
        let missing = open_in_need(|| File::open("/none/such"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(HELD.lock().unwrap().len(), COUNT);
    }
}
