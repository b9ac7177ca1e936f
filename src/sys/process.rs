//! Settings of the server's own process: the out-of-memory score, the number of open files, the title in process lists,
//! the locale of comparisons, huge pages, timers and processors.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::io::{self, Read};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use super::os_error;

/// Stops this process until somebody has it go on.
pub(crate) fn stop() {
    log::info!("This process stops itself, as DEBUG asked for");
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}

/// Whether and how `/proc/self/oom_score_adj` is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OomScoreAdj {
    No,
    Relative,
    Absolute,
}

const OOM_SCORE_FILE: &str = "/proc/self/oom_score_adj";

/// The out-of-memory score of this process. A change is undone when the feature is turned off.
#[derive(Debug, Default)]
pub(crate) struct OomScore {
    /// The score the server was started with, once it has been changed.
    inherited: Option<i32>,
}

impl OomScore {
    /// Sets the score to `value`, absolute or relative to the inherited one. A failure is logged, too.
    pub(crate) fn set(&mut self, mode: OomScoreAdj, value: i32) -> io::Result<()> {
        let score = match (mode, self.inherited) {
            (OomScoreAdj::No, None) => return Ok(()),
            (OomScoreAdj::No, Some(inherited)) => {
                self.inherited = None;
                inherited
            }
            (OomScoreAdj::Relative | OomScoreAdj::Absolute, inherited) => {
                let inherited = match inherited {
                    Some(inherited) => inherited,
                    None => read_oom_score().inspect_err(|error| {
                        log::warn!("Unable to read oom_score_adj: {}", os_error(error));
                    })?,
                };
                self.inherited = Some(inherited);
                let base = if mode == OomScoreAdj::Relative { inherited } else { 0 };
                base.saturating_add(value).clamp(-1000, 1000)
            }
        };
        fs::write(OOM_SCORE_FILE, format!("{score}\n")).inspect_err(|error| {
            log::warn!("Unable to write oom_score_adj: {}", os_error(error));
        })
    }
}

fn read_oom_score() -> io::Result<i32> {
    let text = fs::read_to_string(OOM_SCORE_FILE)?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Descriptors the server needs besides those of clients: listeners, files, links.
pub(crate) const RESERVED_FILES: u64 = 32;

/// The limit of open files is so low that none are left for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFewFiles {
    pub(crate) limit: u64,
    /// The limit that was asked for.
    pub(crate) needed: u64,
}

/// Raises the limit of open files for `maxclients` clients as far as the system allows, and returns how many clients it
/// is enough for. Logs a raised limit, and one that is too low.
pub(crate) fn raise_open_files(maxclients: u32) -> Result<u32, TooFewFiles> {
    let needed = u64::from(maxclients) + RESERVED_FILES;
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            log::warn!(
                "Unable to obtain the current NOFILE limit ({}), assuming 1024 and setting the max clients configuration \
                 accordingly.",
                error.desc()
            );
            return Ok(1024 - RESERVED_FILES as u32);
        }
    };
    if soft >= needed {
        return Ok(maxclients);
    }
    // Only a privileged process can exceed the hard limit.
    let error = match setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)) {
        Ok(()) => {
            log::info!("Increased maximum number of open files to {needed} (it was originally set to {soft}).");
            return Ok(maxclients);
        }
        Err(error) => error,
    };
    let limit = match hard > soft && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        true => hard,
        false => soft,
    };
    if limit <= RESERVED_FILES {
        return Err(TooFewFiles { limit: soft, needed });
    }
    let possible = (limit - RESERVED_FILES) as u32;
    log::warn!("You requested maxclients of {maxclients} requiring at least {needed} max file descriptors.");
    log::warn!("Server can't set maximum open files to {needed} because of OS error: {}.", error.desc());
    log::warn!(
        "Current maximum open files is {limit}. maxclients has been reduced to {possible} to compensate for low ulimit. If \
         you need higher maxclients increase 'ulimit -n'."
    );
    Ok(possible)
}

/// The memory in which the kernel looks for the title: arguments and environment, one after the other, as they were
/// passed to the process. Null until `collect_title_space` ran.
static TITLE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static TITLE_LEN: AtomicUsize = AtomicUsize::new(0);
static PROGRAM: OnceLock<String> = OnceLock::new();
/// What the dynamic loader passed to `remember_arguments`.
static ARGV: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// Run by the loader before main, with main's arguments; the standard library returns only copies of them.
extern "C" fn remember_arguments(_argc: c_int, argv: *const *const c_char, _environ: *const *const c_char) {
    ARGV.store(argv.cast_mut(), Ordering::Relaxed);
}

#[used]
// SAFETY: functions in this section are called by glibc with (argc, argv, environ) before main.
#[unsafe(link_section = ".init_array")]
static REMEMBER_ARGUMENTS: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = remember_arguments;

/// Takes the memory of the arguments for the title and moves the environment elsewhere. To be called once, before there
/// are other threads and after the arguments were read: `std::env::args` shows the title afterwards.
pub(crate) fn collect_title_space() {
    let argv = ARGV.load(Ordering::Relaxed);
    if argv.is_null() || !TITLE.load(Ordering::Relaxed).is_null() {
        return;
    }
    // SAFETY: argv is the null-terminated array the process was started with, its strings are writable and live as long
    // as the process, and only the main thread exists, so nobody reads the environment meanwhile. Each entry of environ
    // that lies after the arguments is replaced by a copy that is never freed.
    unsafe {
        let start: *mut u8 = (*argv).cast_mut().cast();
        if start.is_null() {
            return;
        }
        let mut end = start;
        let mut grow = |string: *const c_char| {
            let is_next = string.cast::<u8>() == end.cast_const();
            if is_next {
                end = end.add(CStr::from_ptr(string).to_bytes_with_nul().len());
            }
            is_next
        };
        let mut at = argv;
        while !(*at).is_null() && grow(*at) {
            at = at.add(1);
        }
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            if grow(*at) {
                let copy = libc::strdup(*at);
                if copy.is_null() {
                    return;
                }
                *at = copy;
            }
            at = at.add(1);
        }
        let _ = PROGRAM.set(CStr::from_ptr(*argv).to_string_lossy().into_owned());
        TITLE_LEN.store(end.offset_from(start) as usize, Ordering::Relaxed);
        TITLE.store(start, Ordering::Release);
    }
}

unsafe extern "C" {
    static mut environ: *mut *const c_char;
}

/// The name the program was called by.
pub(crate) fn program() -> &'static str {
    PROGRAM.get().map_or("redis-server", String::as_str)
}

/// Shows `title` in process lists, cut to the available space. False: there is none. To be called by the main thread
/// (or a child process).
pub(crate) fn set_title(title: &[u8]) -> bool {
    let start = TITLE.load(Ordering::Acquire);
    let len = TITLE_LEN.load(Ordering::Relaxed);
    if start.is_null() || len == 0 {
        return false;
    }
    let fits = title.len().min(len - 1);
    // SAFETY: `start` and `len` are memory that `collect_title_space` found writable and took over; `fits` is less.
    unsafe {
        ptr::copy_nonoverlapping(title.as_ptr(), start, fits);
        ptr::write_bytes(start.add(fits), 0, len - fits);
    }
    true
}

/// Sets the locale for [`collate`]; "" takes it from the environment. False: there is no such locale.
pub(crate) fn set_collation(locale: &str) -> bool {
    let Ok(locale) = CString::new(locale) else { return false };
    // SAFETY: setlocale copies the name; it is called before there are threads that compare strings by locale, or by the
    // main thread, the only one that does.
    !unsafe { libc::setlocale(libc::LC_COLLATE, locale.as_ptr()) }.is_null()
}

/// Whether the locale orders strings by their bytes, which in UTF-8 is the order of code points.
pub(crate) fn collates_bytes() -> bool {
    // SAFETY: without a name setlocale only returns the one in use, as a string that lives until it is changed, which
    // the calling thread alone does.
    let name = unsafe {
        let name = libc::setlocale(libc::LC_COLLATE, ptr::null());
        if name.is_null() { c"C" } else { CStr::from_ptr(name) }
    };
    matches!(name.to_bytes(), b"C" | b"POSIX" | b"C.UTF-8" | b"C.utf8")
}

/// Compares strings in the order of the locale.
pub(crate) fn collate(a: &CStr, b: &CStr) -> std::cmp::Ordering {
    // SAFETY: both are strings with a zero at their end.
    unsafe { libc::strcoll(a.as_ptr(), b.as_ptr()) }.cmp(&0)
}

/// Turns transparent huge pages off for this process. False: the kernel refused.
pub(crate) fn disable_huge_pages() -> bool {
    // SAFETY: this option of prctl takes plain numbers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0 }
}

/// Makes short sleeps of the calling thread, and of threads it will start, end on time: by default the kernel delays
/// them by up to 50 microseconds to serve several at once.
pub(crate) fn sleep_exactly() {
    // A kernel that refuses leaves sleeps as they were.
    let _ = nix::sys::prctl::set_timerslack(1);
}

/// Binds the calling thread, and threads it will start, to some processors: `0,2-5` or `0-6:2`. An empty list means
/// all.
pub(crate) fn set_cpu_affinity(list: &str) {
    if list.is_empty() {
        return;
    }
    let Some(cpus) = parse_cpus(list) else {
        log::warn!("The list of processors '{list}' cannot be understood and is ignored.");
        return;
    };
    let mut set = nix::sched::CpuSet::new();
    let outcome = cpus.iter().try_for_each(|cpu| set.set(*cpu));
    let outcome = outcome.and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = outcome {
        log::warn!("Can't run on the processors '{list}': {}", error.desc());
    }
}

/// The processor time that the calling thread has had.
pub(crate) fn thread_cpu_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_THREAD).map(|usage| usage.user_time() + usage.system_time());
    used.map_or(Duration::ZERO, |time| Duration::from_micros(time.num_microseconds().max(0) as u64))
}

/// When the calling thread wakes, it does not take a processor from whoever is at work there.
pub(crate) fn let_others_finish() {
    // SAFETY: zeroes are a value of it: the policy knows no priorities.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: it reads the structure, which outlives the call. A kernel that refuses leaves the thread as it was.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) };
}

/// Fills a buffer with random bytes of the system, by a call that takes no descriptor; old systems have a file instead.
/// False: it has none to give.
pub(crate) fn entropy(out: &mut [u8]) -> bool {
    // It gives no more than 256 bytes at a time.
    let is_filled = out.chunks_mut(256).all(|chunk| {
        // SAFETY: it writes so many bytes there, which are those of a slice.
        unsafe { libc::getentropy(chunk.as_mut_ptr().cast(), chunk.len()) == 0 }
    });
    is_filled || fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(out)).is_ok()
}

/// The numbers of a list of processors.
fn parse_cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.split(',').map(str::trim) {
        let (range, step) = match range.split_once(':') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
            None => (range, 1),
        };
        let (first, last): (usize, usize) = match range.split_once('-') {
            Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            None => (range.parse().ok()?, range.parse().ok()?),
        };
        if last < first || last >= nix::sched::CpuSet::count() {
            return None;
        }
        cpus.extend((first..=last).step_by(step));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_goes_up_and_back() {
        let before = read_oom_score().unwrap();
        let mut score = OomScore::default();
        score.set(OomScoreAdj::No, 500).unwrap();
        assert_eq!(read_oom_score().unwrap(), before);
        score.set(OomScoreAdj::Relative, 5).unwrap();
        assert_eq!(read_oom_score().unwrap(), (before + 5).min(1000));
        score.set(OomScoreAdj::Absolute, 999).unwrap();
        assert_eq!(read_oom_score().unwrap(), 999);
        // Lowering the score needs a privilege, so this may fail.
        let _ = score.set(OomScoreAdj::No, 0);
    }

    #[test]
    fn clients_fit_into_the_files_there_are() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_open_files(1), Ok(1));
        let now = (soft.saturating_sub(RESERVED_FILES)).min(100_000) as u32;
        assert_eq!(raise_open_files(now), Ok(now));
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse_cpus("0,2-4,8-12:2"), Some(vec![0, 2, 3, 4, 8, 10, 12]));
        for bad in ["", "a", "3-1", "1-2:0", "100000"] {
            assert_eq!(parse_cpus(bad), None, "{bad}");
        }
    }
}
