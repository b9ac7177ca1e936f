//! The manifest of the append-only log, and the directory it lies in.
//!
//! Each line is `file <name> seq <n> type <b|h|i>`: the base, then history (files of an older rewrite, waiting to be
//! removed), then increments. Further key and value pairs are allowed and ignored. The manifest is replaced as a whole:
//! temporary file, fsync, rename, fsync of the directory; so a crash leaves the old log or the new one.

use crate::config::words::{quote, split};
use crate::sys::reserve::open_in_need;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAX_LINE: usize = 1024;

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AofFile {
    /// Name inside the directory.
    pub(crate) name: Vec<u8>,
    pub(crate) seq: i64,
}

/// Which files make up the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) base: Option<AofFile>,
    pub(crate) history: Vec<AofFile>,
    /// Oldest first; the last one is written to.
    pub(crate) incr: Vec<AofFile>,
    /// Highest sequence number given to a base file.
    pub(crate) base_seq: i64,
    /// Highest sequence number given to an increment.
    pub(crate) incr_seq: i64,
    /// Differs from what is on disk.
    pub(crate) dirty: bool,
}

/// A manifest that cannot be used. The server logs it with `log_fatal` and exits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestError {
    /// Number and text of the offending line.
    pub(crate) line: Option<(usize, Vec<u8>)>,
    pub(crate) reason: String,
}

impl ManifestError {
    fn new(reason: &str) -> ManifestError {
        ManifestError { line: None, reason: reason.to_owned() }
    }

    /// The lines Redis logs, one after the other.
    pub(crate) fn messages(&self) -> Vec<String> {
        let mut out = vec!["\n*** FATAL AOF MANIFEST FILE ERROR ***\n".to_owned()];
        if let Some((number, text)) = &self.line {
            out.push(format!("Reading the manifest file, at line {number}\n"));
            out.push(format!(">>> '{}'\n", String::from_utf8_lossy(text)));
        }
        out.push(format!("{}\n", self.reason));
        out
    }

    pub(crate) fn log_fatal(&self) {
        for message in self.messages() {
            log::warn!("{message}");
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Nothing to load: neither base nor increments.
    pub(crate) fn is_empty(&self) -> bool {
        self.base.is_none() && self.incr.is_empty()
    }

    /// Files to load, in order.
    pub(crate) fn live_files(&self) -> impl Iterator<Item = &AofFile> {
        self.base.iter().chain(&self.incr)
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        if text.is_empty() {
            return Err(ManifestError::new("Found an empty AOF manifest"));
        }
        let mut manifest = Manifest::default();
        let mut rest = text;
        let mut number = 0;
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(MAX_LINE)];
            let newline = window.iter().position(|b| *b == b'\n');
            let (line, tail) = rest.split_at(newline.map_or(window.len(), |at| at + 1));
            rest = tail;
            number += 1;
            if line[0] == b'#' {
                continue;
            }
            if newline.is_none() {
                return Err(ManifestError::new("The AOF manifest file contains too long line"));
            }
            let line = line.trim_ascii();
            manifest.add_line(line).map_err(|reason| ManifestError {
                line: Some((number, line.to_vec())),
                ..ManifestError::new(reason)
            })?;
        }
        Ok(manifest)
    }

    fn add_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        const INVALID: &str = "Invalid AOF manifest file format";
        let words = split(line).ok_or(INVALID)?;
        if words.len() < 6 || words.len() % 2 != 0 {
            return Err(INVALID);
        }
        let (mut name, mut seq, mut kind) = (None, 0, None);
        for pair in words.chunks_exact(2) {
            let (key, value) = (&pair[0], &pair[1]);
            if key.eq_ignore_ascii_case(b"file") {
                if value.iter().any(|b| matches!(b, b'/' | b'\\')) {
                    return Err("File can't be a path, just a filename");
                }
                name = Some(value.clone());
            } else if key.eq_ignore_ascii_case(b"seq") {
                seq = leading_integer(value);
            } else if key.eq_ignore_ascii_case(b"type") {
                kind = value.first().copied();
            }
        }
        let (Some(name), Some(kind)) = (name, kind) else {
            return Err(INVALID);
        };
        if seq == 0 {
            return Err(INVALID);
        }
        let file = AofFile { name, seq };
        match kind {
            b'b' if self.base.is_some() => return Err("Found duplicate base file information"),
            b'b' => {
                self.base = Some(file);
                self.base_seq = seq;
            }
            b'h' => self.history.push(file),
            b'i' if seq <= self.incr_seq => return Err("Found a non-monotonic sequence number"),
            b'i' => {
                self.incr.push(file);
                self.incr_seq = seq;
            }
            _ => return Err("Unknown AOF file type"),
        }
        Ok(())
    }

    /// The text of the manifest.
    pub(crate) fn format(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let base = self.base.iter().map(|f| (f, 'b'));
        let history = self.history.iter().map(|f| (f, 'h'));
        let incr = self.incr.iter().map(|f| (f, 'i'));
        for (file, kind) in base.chain(history).chain(incr) {
            out.extend_from_slice(b"file ");
            if needs_quotes(&file.name) {
                out.extend_from_slice(&quote(&file.name));
            } else {
                out.extend_from_slice(&file.name);
            }
            out.extend_from_slice(format!(" seq {} type {kind}\n", file.seq).as_bytes());
        }
        out
    }

    /// Puts a new base in place of the old one, which becomes history. `rdb` says in which format it is. Returns its
    /// name.
    pub(crate) fn new_base(&mut self, append_filename: &[u8], rdb: bool) -> Vec<u8> {
        if let Some(old) = self.base.take() {
            self.history.insert(0, old);
        }
        self.base_seq += 1;
        let suffix = if rdb { "rdb" } else { "aof" };
        let name = [append_filename, format!(".{}.base.{suffix}", self.base_seq).as_bytes()].concat();
        self.base = Some(AofFile { name: name.clone(), seq: self.base_seq });
        self.dirty = true;
        name
    }

    /// Adds an increment and returns its name.
    pub(crate) fn new_incr(&mut self, append_filename: &[u8]) -> Vec<u8> {
        self.incr_seq += 1;
        let name = [append_filename, format!(".{}.incr.aof", self.incr_seq).as_bytes()].concat();
        self.incr.push(AofFile { name: name.clone(), seq: self.incr_seq });
        self.dirty = true;
        name
    }

    /// Name of the increment to write to, a new one if there is none.
    pub(crate) fn last_incr(&mut self, append_filename: &[u8]) -> Vec<u8> {
        match self.incr.last() {
            Some(file) => file.name.clone(),
            None => self.new_incr(append_filename),
        }
    }

    /// After a rewrite: the increments it covers become history. `keep_last` keeps the one being written to.
    pub(crate) fn retire_incr(&mut self, keep_last: bool) {
        if self.incr.is_empty() {
            return;
        }
        let kept = self.incr.split_off(self.incr.len() - usize::from(keep_last));
        let retired = std::mem::replace(&mut self.incr, kept);
        self.history.splice(0..0, retired);
        self.dirty = true;
    }
}

/// Whether a name has to be quoted to be read back as it is.
fn needs_quotes(name: &[u8]) -> bool {
    name.iter().any(|b| !b.is_ascii_graphic() || matches!(b, b'\\' | b'"'))
}

/// The integer a word starts with, 0 if none, clamped to 64 bits.
fn leading_integer(word: &[u8]) -> i64 {
    let word = word.trim_ascii_start();
    let (negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let magnitude = digits
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0i64, |n, d| n.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    if negative { -magnitude } else { magnitude }
}

/// Where the log lies: `appenddirname` (relative to the working directory) and `appendfilename`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AofDir {
    pub(crate) dirname: PathBuf,
    pub(crate) filename: Vec<u8>,
}

/// A name as it goes into a log line.
pub(crate) fn shown(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// The system's text for an error, without the number Rust adds.
pub(crate) fn reason(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => e.to_string(),
    }
}

/// Makes renames and new files in `dir` durable.
pub(crate) fn fsync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    open_in_need(|| File::open(dir))?.sync_all()
}

impl AofDir {
    pub(crate) fn path(&self, name: &[u8]) -> PathBuf {
        self.dirname.join(OsStr::from_bytes(name))
    }

    pub(crate) fn manifest_name(&self) -> Vec<u8> {
        [&self.filename, &b".manifest"[..]].concat()
    }

    fn temp_manifest_name(&self) -> Vec<u8> {
        [&b"temp-"[..], &self.filename, b".manifest"].concat()
    }

    /// The increment written while the log's first rewrite runs, before it has a place in the manifest.
    pub(crate) fn temp_incr_name(&self) -> Vec<u8> {
        [&b"temp-"[..], &self.filename, b".incr"].concat()
    }

    /// Reads the manifest; without a directory or a manifest in it the log is empty.
    pub(crate) fn load_manifest(&self) -> Result<Manifest, ManifestError> {
        if !self.dirname.is_dir() {
            log::trace!("The AOF directory {} doesn't exist", self.dirname.display());
            return Ok(Manifest::default());
        }
        let name = self.manifest_name();
        let path = self.path(&name);
        if !path.exists() {
            log::trace!("The AOF manifest file {} doesn't exist", shown(&name));
            return Ok(Manifest::default());
        }
        read_manifest(&path)
    }

    /// Creates the directory unless it is there.
    pub(crate) fn create(&self) -> io::Result<()> {
        match fs::DirBuilder::new().create(&self.dirname) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.dirname.is_dir() => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            other => other,
        }
        .inspect_err(|e| {
            log::warn!("Can't open or create append-only dir {}: {}", self.dirname.display(), reason(e));
        })
    }

    /// Replaces the manifest on disk if this one differs. Failures are logged; the old manifest then still stands.
    pub(crate) fn persist(&self, manifest: &mut Manifest) -> io::Result<()> {
        if !manifest.dirty {
            return Ok(());
        }
        let (name, temp_name) = (self.manifest_name(), self.temp_manifest_name());
        let (path, temp) = (self.path(&name), self.path(&temp_name));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644);
        let mut file = open_in_need(|| options.open(&temp))
            .inspect_err(|e| log::warn!("Can't open the AOF manifest file {}: {}", shown(&temp_name), reason(e)))?;
        file.write_all(&manifest.format()).inspect_err(|e| {
            log::warn!("Error trying to write the temporary AOF manifest file {}: {}", shown(&temp_name), reason(e));
        })?;
        file.sync_all()
            .inspect_err(|e| log::warn!("Fail to fsync the temp AOF file {}: {}.", shown(&temp_name), reason(e)))?;
        fs::rename(&temp, &path).inspect_err(|e| {
            log::warn!(
                "Error trying to rename the temporary AOF manifest file {} into {}: {}",
                shown(&temp_name),
                shown(&name),
                reason(e)
            );
        })?;
        fsync_dir(&self.dirname)
            .inspect_err(|e| log::warn!("Fail to fsync AOF directory {}: {}.", path.display(), reason(e)))?;
        manifest.dirty = false;
        Ok(())
    }

    /// Whether a single-file log of before version 7 lies in the working directory and is to become the base: there is
    /// no directory, or nothing in it, or an earlier move was interrupted before its last step.
    pub(crate) fn needs_upgrade(&self, manifest: &Manifest) -> bool {
        if !Path::new(OsStr::from_bytes(&self.filename)).exists() {
            return false;
        }
        let interrupted = manifest.incr.is_empty()
            && manifest.base.as_ref().is_some_and(|b| b.name == self.filename)
            && !self.path(&self.filename).exists();
        !self.dirname.is_dir() || manifest.is_empty() || interrupted
    }

    /// Makes the old single-file log the base: directory, manifest, and last the move of the file, so that an
    /// interruption at any point is picked up by the next start. Failures are logged.
    pub(crate) fn upgrade(&self, manifest: &mut Manifest) -> io::Result<()> {
        self.create()?;
        manifest.base = Some(AofFile { name: self.filename.clone(), seq: 1 });
        manifest.base_seq = 1;
        manifest.dirty = true;
        self.persist(manifest)?;
        let old = Path::new(OsStr::from_bytes(&self.filename));
        fs::rename(old, self.path(&self.filename)).inspect_err(|e| {
            log::warn!(
                "Error trying to move the old AOF file {} into dir {}: {}",
                shown(&self.filename),
                self.dirname.display(),
                reason(e)
            );
        })?;
        log::info!(
            "Successfully migrated an old-style AOF file ({}) into the AOF directory ({}).",
            shown(&self.filename),
            self.dirname.display()
        );
        Ok(())
    }

    /// Size of a file of the log; a failure is logged.
    pub(crate) fn file_size(&self, name: &[u8]) -> io::Result<u64> {
        fs::metadata(self.path(name)).map(|m| m.len()).inspect_err(|e| {
            log::warn!("Unable to obtain the AOF file {} length. stat: {}", shown(name), reason(e));
        })
    }
}

pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, ManifestError> {
    let text = fs::read(path).map_err(|e| {
        log::warn!("Fatal error: can't open the AOF manifest file {} for reading: {}", path.display(), reason(&e));
        ManifestError::new("Read AOF manifest failed")
    })?;
    Manifest::parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(text: &str) -> String {
        Manifest::parse(text.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let text = "file a.2.base.rdb seq 2 type b\n\
                    file a.1.incr.aof seq 1 type h\n\
                    file \"a b.4.incr.aof\" seq 4 type i\n\
                    file a.5.incr.aof seq 5 type i\n";
        let m = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(m.format(), text.as_bytes());
        assert_eq!((m.base_seq, m.incr_seq), (2, 5));
        assert_eq!(m.live_files().count(), 3);
        let m = Manifest::parse(b"# note\nFILE x SEQ 7 TYPE i newkey newvalue\n").unwrap();
        assert_eq!(m.incr, [AofFile { name: b"x".to_vec(), seq: 7 }]);
    }

    #[test]
    fn refusals_have_the_known_texts() {
        assert_eq!(reason_of(""), "Found an empty AOF manifest");
        assert_eq!(reason_of("\n"), "Invalid AOF manifest file format");
        assert_eq!(reason_of("file a seq 1\n"), "Invalid AOF manifest file format");
        assert_eq!(reason_of("file a seq 0 type b\n"), "Invalid AOF manifest file format");
        assert_eq!(reason_of("file a seq 1 type b x\n"), "Invalid AOF manifest file format");
        assert_eq!(reason_of("file a seq 1 type b x y\"\n"), "Invalid AOF manifest file format");
        assert_eq!(reason_of("file d/a seq 1 type b\n"), "File can't be a path, just a filename");
        assert_eq!(reason_of("file a seq 1 type x\n"), "Unknown AOF file type");
        assert_eq!(reason_of("file a seq 1 type b\nfile b seq 2 type b\n"), "Found duplicate base file information");
        assert_eq!(reason_of("file b seq 2 type i\nfile a seq 1 type i\n"), "Found a non-monotonic sequence number");
        assert_eq!(reason_of("file a seq 1 type b"), "The AOF manifest file contains too long line");
        assert_eq!(
            reason_of(&format!("file {} seq 1 type b\n", "x".repeat(1100))),
            "The AOF manifest file contains too long line"
        );
        let e = Manifest::parse(b"file a seq 1 type i\n  \n").unwrap_err();
        assert_eq!(e.line, Some((2, vec![])));
        assert_eq!(e.messages()[1], "Reading the manifest file, at line 2\n");
    }

    #[test]
    fn a_rewrite_retires_what_it_covers() {
        let mut m = Manifest::default();
        assert_eq!(m.new_base(b"a", true), b"a.1.base.rdb");
        assert_eq!(m.last_incr(b"a"), b"a.1.incr.aof");
        assert_eq!(m.new_incr(b"a"), b"a.2.incr.aof");
        assert_eq!(m.new_base(b"a", false), b"a.2.base.aof");
        m.retire_incr(true);
        assert_eq!(
            String::from_utf8(m.format()).unwrap(),
            "file a.2.base.aof seq 2 type b\n\
             file a.1.incr.aof seq 1 type h\n\
             file a.1.base.rdb seq 1 type h\n\
             file a.2.incr.aof seq 2 type i\n"
        );
        m.retire_incr(false);
        assert!(m.incr.is_empty());
        assert_eq!(m.last_incr(b"a"), b"a.3.incr.aof");
    }

    #[test]
    fn persist_replaces_and_loads() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = AofDir { dirname: tmp.path().join("d"), filename: b"a.aof".to_vec() };
        assert_eq!(dir.load_manifest().unwrap(), Manifest::default());
        dir.create().unwrap();
        dir.create().unwrap();
        let mut m = Manifest::default();
        m.new_base(&dir.filename, true);
        m.new_incr(&dir.filename);
        dir.persist(&mut m).unwrap();
        assert!(!m.dirty);
        assert_eq!(dir.load_manifest().unwrap(), m);
        assert!(!dir.path(b"temp-a.aof.manifest").exists());
        assert_eq!(dir.file_size(b"a.aof.1.incr.aof").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
