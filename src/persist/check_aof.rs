//! `redis-check-aof`: checks an append-only log and cuts off a damaged tail, or everything after a point in time.
//!
//! Takes a manifest (then all its files are checked), a single-file log, or one with a snapshot at its head. The output
//! is that of Redis's tool. Only the last file is ever shortened.

use super::aof::manifest::read_manifest;
use super::check_rdb::{self, Verdict};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// Ends the run with an exit code.
enum Stop {
    Exit,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        Stop::Io(e)
    }
}

type Run<T> = Result<T, Stop>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Valid,
    Empty,
    Truncated,
    TruncatedToTimestamp,
}

struct Checker<'a> {
    out: &'a mut dyn Write,
    input: &'a mut dyn BufRead,
    fix: bool,
    to_timestamp: Option<i64>,
    /// Lines and the first error are counted across all files of a log.
    line: u64,
    error: Option<String>,
}

/// One file being read; `pos` is where `src` stands.
struct Input {
    src: BufReader<File>,
    pos: u64,
}

impl Input {
    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.src.fill_buf()?.first().copied())
    }

    /// A line of at most `limit` bytes, with its end; empty at the end of the file.
    fn line(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.len() < limit {
            let available = self.src.fill_buf()?;
            let window = &available[..available.len().min(limit - line.len())];
            if window.is_empty() {
                break;
            }
            let newline = memchr::memchr(b'\n', window);
            let n = newline.map_or(window.len(), |at| at + 1);
            line.extend_from_slice(&window[..n]);
            self.src.consume(n);
            self.pos += n as u64;
            if newline.is_some() {
                break;
            }
        }
        Ok(line)
    }

    /// Takes up to `len` bytes; the first `keep` of them and the last two are returned, with the number taken.
    fn take(&mut self, len: u64, keep: usize) -> io::Result<(Vec<u8>, [u8; 2], u64)> {
        let (mut head, mut last, mut taken) = (Vec::new(), [0; 2], 0);
        while taken < len {
            let available = self.src.fill_buf()?;
            if available.is_empty() {
                break;
            }
            let n = (available.len() as u64).min(len - taken) as usize;
            let window = &available[..n];
            head.extend_from_slice(&window[..n.min(keep - head.len())]);
            last = match window {
                [.., a, b] => [*a, *b],
                [b] => [last[1], *b],
                [] => last,
            };
            self.src.consume(n);
            self.pos += n as u64;
            taken += n as u64;
        }
        Ok((head, last, taken))
    }
}

/// The integer a text starts with, as C reads it, and what follows.
fn leading_long(text: &[u8]) -> (i64, &[u8]) {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = text[sign..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return (0, text);
    }
    let magnitude =
        text[sign..sign + digits].iter().fold(0i64, |n, d| n.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    (if text[0] == b'-' { -magnitude } else { magnitude }, &text[sign + digits..])
}

impl Checker<'_> {
    fn fail(&mut self, at: u64, text: String) {
        self.error = Some(format!("0x{at:16x}: {text}"));
    }

    fn exit<T>(&mut self, text: &str) -> Run<T> {
        self.out.write_all(text.as_bytes())?;
        Err(Stop::Exit)
    }

    fn newline(&mut self, at: u64, found: [u8; 2]) -> bool {
        if found != *b"\r\n" {
            let hex = |b: u8| i32::from(b as i8);
            self.fail(at, format!("Expected \\r\\n, got: {:02x}{:02x}", hex(found[0]), hex(found[1])));
            return false;
        }
        self.line += 1;
        true
    }

    /// A prefixed number on its line; `None` with `error` set, or without it at the end of the file.
    fn long(&mut self, input: &mut Input, prefix: u8) -> Run<Option<(i64, u64)>> {
        const MAX_LINE: usize = 127;
        let at = input.pos;
        let line = input.line(MAX_LINE)?;
        let Some((first, text)) = line.split_first() else {
            return Ok(None);
        };
        if *first != prefix {
            self.fail(at, format!("Expected prefix '{}', got: '{}'", prefix as char, *first as char));
            return Ok(None);
        }
        let (number, rest) = leading_long(text);
        let end = [rest.first().copied().unwrap_or(0), rest.get(1).copied().unwrap_or(0)];
        Ok(self.newline(at, end).then_some((number, at)))
    }

    /// One command. False when it is damaged or cut short.
    fn command(&mut self, input: &mut Input, name: &str, open_multi: &mut bool) -> Run<bool> {
        let Some((argc, _)) = self.long(input, b'*')? else {
            return Ok(false);
        };
        for i in 0..argc {
            let Some((len, at_len)) = self.long(input, b'$')? else {
                return Ok(false);
            };
            let Some(total) = u64::try_from(len).ok().filter(|n| *n <= i64::MAX as u64 - 2).map(|n| n + 2) else {
                self.fail(
                    at_len,
                    format!("Expected to read string of {len} bytes, which is not in the suitable range"),
                );
                return Ok(false);
            };
            let at = input.pos;
            let (head, last, taken) = input.take(total, 6)?;
            if taken != total {
                self.fail(at, format!("Expected to read {total} bytes, got {taken} bytes"));
                return Ok(false);
            }
            if !self.newline(at, last) {
                return Ok(false);
            }
            if i == 0 {
                let is = |word: &[u8]| len == word.len() as i64 && head[..word.len()].eq_ignore_ascii_case(word);
                let (multi, exec) = (is(b"multi"), is(b"exec"));
                if multi && *open_multi {
                    self.fail(at, format!("Unexpected MULTI in AOF {name}"));
                    return Ok(false);
                }
                if exec && !*open_multi {
                    self.fail(at, format!("Unexpected EXEC in AOF {name}"));
                    return Ok(false);
                }
                *open_multi = (*open_multi || multi) && !exec;
            }
        }
        Ok(true)
    }

    /// A `#` line. False when the file was cut before it.
    fn annotation(&mut self, input: &mut Input, path: &str, last_file: bool) -> Run<bool> {
        const MAX_LINE: usize = 1023;
        let at = input.pos;
        let line = input.line(MAX_LINE)?;
        let (Some(limit), Some(text)) = (self.to_timestamp, line.strip_prefix(b"#TS:")) else {
            return Ok(true);
        };
        let (timestamp, rest) = leading_long(text);
        if rest.first() != Some(&b'\r') {
            return self.exit("Invalid timestamp annotation\n");
        }
        if timestamp <= limit {
            return Ok(true);
        }
        if at == 0 {
            return self.exit(&format!("AOF {path} has nothing before timestamp {limit}, aborting...\n"));
        }
        if !last_file {
            return self.exit(&format!(
                "Failed to truncate AOF {path} to timestamp {limit} to offset {at} because it is not the last file.\n\
                 If you insist, please delete all files after this file according to the manifest file and delete \
                 the corresponding records in manifest file manually. Then re-run redis-check-aof.\n"
            ));
        }
        if input.src.get_ref().set_len(at).is_err() {
            return self.exit(&format!("Failed to truncate AOF {path} to timestamp {limit}\n"));
        }
        Ok(false)
    }

    fn file(&mut self, name: &str, path: &Path, last_file: bool, preamble: bool) -> Run<Outcome> {
        let shown = path.display().to_string();
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) => {
                let reason = super::aof::manifest::reason(&e);
                return self.exit(&format!("Cannot open file {shown}: {reason}, aborting...\n"));
            }
        };
        let size = file.metadata()?.len();
        if size == 0 {
            return Ok(Outcome::Empty);
        }
        let mut src = BufReader::with_capacity(1 << 16, file);
        if preamble {
            src = self.preamble(src, &shown)?;
        }
        let pos = src.stream_position()?;
        let mut input = Input { src, pos };
        let Some(good) = self.commands(&mut input, name, &shown, last_file)? else {
            return Ok(Outcome::TruncatedToTimestamp);
        };
        if let Some(error) = &self.error {
            writeln!(self.out, "{error}")?;
        }
        if size == good
            && let Some(limit) = self.to_timestamp
        {
            writeln!(self.out, "Truncate nothing in AOF {name} to timestamp {limit}")?;
            return Ok(Outcome::Valid);
        }
        let diff = size - good;
        writeln!(
            self.out,
            "AOF analyzed: filename={name}, size={size}, ok_up_to={good}, ok_up_to_line={}, diff={diff}",
            self.line
        )?;
        if diff == 0 {
            return Ok(Outcome::Valid);
        }
        if !self.fix {
            return self.exit(&format!("AOF {name} is not valid. Use the --fix option to try fixing it.\n"));
        }
        if !last_file {
            return self.exit(&format!("Failed to truncate AOF {name} because it is not the last file\n"));
        }
        self.shorten(input.src.into_inner(), name, (size, good))
    }

    /// Checks the snapshot that a file begins with; gives what follows it.
    fn preamble(&mut self, src: BufReader<File>, shown: &str) -> Run<BufReader<File>> {
        let (verdict, rest) = check_rdb::check(src, shown, self.out)?;
        match verdict {
            Verdict::Sound => {
                writeln!(self.out, "RDB preamble is OK, proceeding with AOF tail...")?;
                Ok(rest)
            }
            Verdict::Bad => self.exit("RDB preamble of AOF file is not sane, aborting.\n"),
            Verdict::Fatal => {
                log::warn!("Terminating server after rdb file reading failure.");
                Err(Stop::Exit)
            }
        }
    }

    /// Walks over commands and annotations. Gives where the last whole one, or transaction, ends; `None`: the file was
    /// shortened to a timestamp.
    fn commands(&mut self, input: &mut Input, name: &str, shown: &str, last_file: bool) -> Run<Option<u64>> {
        let (mut good, mut open_multi) = (input.pos, false);
        let at_end = loop {
            if !open_multi {
                good = input.pos;
            }
            match input.peek()? {
                None => break true,
                Some(b'#') => {
                    if !self.annotation(input, shown, last_file)? {
                        return Ok(None);
                    }
                }
                Some(b'*') => {
                    if !self.command(input, shown, &mut open_multi)? {
                        break input.peek()?.is_none();
                    }
                }
                Some(_) => {
                    writeln!(self.out, "AOF {name} format error")?;
                    break false;
                }
            }
        };
        if at_end && open_multi && self.error.is_none() {
            self.fail(input.pos, "Reached EOF before reading EXEC for MULTI".to_owned());
        }
        Ok(Some(good))
    }

    /// Cuts off what comes after `good`, if that is what the user wants.
    fn shorten(&mut self, mut file: File, name: &str, (size, good): (u64, u64)) -> Run<Outcome> {
        write!(
            self.out,
            "This will shrink the AOF {name} from {size} bytes, with {} bytes, to {good} bytes\nContinue? [y/N]: ",
            size - good
        )?;
        self.out.flush()?;
        let mut answer = Vec::new();
        self.input.read_until(b'\n', &mut answer)?;
        if !matches!(answer.first(), Some(b'y' | b'Y')) {
            return self.exit("Aborting...\n");
        }
        file.seek(SeekFrom::Start(good))?;
        if file.set_len(good).and_then(|()| file.sync_all()).is_err() {
            return self.exit(&format!("Failed to truncate AOF {name}\n"));
        }
        Ok(Outcome::Truncated)
    }

    fn show(&mut self, outcome: Outcome, name: &str, kind: &str) -> Run<()> {
        match (outcome, self.to_timestamp) {
            (Outcome::Valid, _) => writeln!(self.out, "{kind} {name} is valid")?,
            (Outcome::Empty, _) => writeln!(self.out, "{kind} {name} is empty")?,
            (Outcome::TruncatedToTimestamp, Some(limit)) => {
                writeln!(self.out, "Successfully truncated AOF {name} to timestamp {limit}")?;
            }
            (Outcome::Truncated | Outcome::TruncatedToTimestamp, _) => {
                writeln!(self.out, "Successfully truncated AOF {name}")?;
            }
        }
        Ok(())
    }

    /// The first bytes of a file that must be readable.
    fn head(&mut self, path: &Path) -> Run<Vec<u8>> {
        use std::io::Read;
        let mut head = Vec::new();
        match File::open(path).and_then(|f| f.take(1 << 20).read_to_end(&mut head)) {
            Ok(_) => Ok(head),
            Err(e) => {
                let reason = super::aof::manifest::reason(&e);
                self.exit(&format!("Cannot open file {}: {reason}\n", path.display()))
            }
        }
    }

    fn is_rdb(&mut self, path: &Path) -> Run<bool> {
        const HEADER_LEN: usize = 8;
        let head = self.head(path)?;
        Ok(head.len() >= HEADER_LEN && head.starts_with(b"REDIS"))
    }

    /// A manifest has `file` lines first, apart from comments.
    fn is_manifest(&mut self, path: &Path) -> Run<bool> {
        let head = self.head(path)?;
        let first = head.split(|b| *b == b'\n').find(|line| line.first() != Some(&b'#'));
        Ok(first.is_some_and(|line| line.starts_with(b"file")))
    }

    fn multi_part(&mut self, path: &Path) -> Run<()> {
        writeln!(self.out, "Start checking Multi Part AOF")?;
        let manifest = match read_manifest(path) {
            Ok(manifest) => manifest,
            Err(e) => {
                self.out.flush()?;
                e.log_fatal();
                return Err(Stop::Exit);
            }
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let total = manifest.live_files().count();
        let mut checked = 0;
        if let Some(base) = &manifest.base {
            checked += 1;
            let path = dir.join(std::ffi::OsStr::from_bytes(&base.name));
            let name = String::from_utf8_lossy(&base.name).into_owned();
            let rdb = self.is_rdb(&path)?;
            writeln!(self.out, "Start to check BASE AOF ({} format).", if rdb { "RDB" } else { "RESP" })?;
            let outcome = self.file(&name, &path, checked == total, rdb)?;
            self.show(outcome, &name, "BASE AOF")?;
        }
        if !manifest.incr.is_empty() {
            writeln!(self.out, "Start to check INCR files.")?;
        }
        for incr in &manifest.incr {
            checked += 1;
            let path = dir.join(std::ffi::OsStr::from_bytes(&incr.name));
            let name = String::from_utf8_lossy(&incr.name).into_owned();
            let outcome = self.file(&name, &path, checked == total, false)?;
            self.show(outcome, &name, "INCR AOF")?;
        }
        writeln!(self.out, "All AOF files and manifest are valid")?;
        Ok(())
    }

    fn single(&mut self, path: &Path) -> Run<()> {
        let rdb = self.is_rdb(path)?;
        writeln!(self.out, "Start checking Old-Style AOF")?;
        let name = path.display().to_string();
        let outcome = self.file(&name, path, true, rdb)?;
        self.show(outcome, &name, "AOF")
    }
}

use std::os::unix::ffi::OsStrExt;

/// The tool over the given streams. `args[0]` is its name. Returns the exit code.
pub(crate) fn run(args: &[String], input: &mut dyn BufRead, out: &mut dyn Write) -> i32 {
    let mut checker = Checker { out, input, fix: false, to_timestamp: None, line: 1, error: None };
    let path = match args {
        [_, path] => path,
        [_, flag, path] if flag == "--fix" => {
            checker.fix = true;
            path
        }
        [_, flag, timestamp, path] if flag == "--truncate-to-timestamp" => {
            let Ok(timestamp) = timestamp.trim_start().parse::<i64>() else {
                // A stream that cannot be written to leaves nothing better to do than to exit.
                let _ = writeln!(checker.out, "Invalid timestamp, aborting...");
                return 1;
            };
            checker.to_timestamp = (timestamp != 0).then_some(timestamp);
            path
        }
        _ => {
            let name = args.first().map_or("redis-check-aof", |s| s);
            let _ = writeln!(
                checker.out,
                "Usage: {name} [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>"
            );
            return 1;
        }
    };
    let path = Path::new(path);
    let result = match checker.is_manifest(path) {
        Ok(true) => checker.multi_part(path),
        Ok(false) => checker.single(path),
        Err(stop) => Err(stop),
    };
    let code = match result {
        Ok(()) => 0,
        Err(Stop::Exit) => 1,
        Err(Stop::Io(e)) => {
            let reason = super::aof::manifest::reason(&e);
            let _ = writeln!(checker.out, "Failed to read from AOF {}, aborting... ({reason})", path.display());
            1
        }
    };
    i32::from(code != 0 || checker.out.flush().is_err())
}

/// The tool. `args[0]` is its name. Returns the exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    run(args, &mut io::stdin().lock(), &mut io::stdout().lock())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn tool(args: &[&str], answer: &[u8]) -> (i32, String) {
        let args: Vec<String> =
            std::iter::once("redis-check-aof").chain(args.iter().copied()).map(Into::into).collect();
        let mut out = Vec::new();
        let code = run(&args, &mut { answer }, &mut out);
        (code, String::from_utf8(out).unwrap())
    }

    fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";

    #[test]
    fn old_style_valid_and_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "a.aof", SET);
        let p = path.to_str().unwrap();
        let (code, out) = tool(&[p], b"");
        assert_eq!(code, 0);
        assert!(
            out.contains(&format!("filename={p}, size=27, ok_up_to=27, ok_up_to_line=8, diff=0\nAOF {p} is valid"))
        );

        std::fs::write(&path, [SET, &SET[..20]].concat()).unwrap();
        let (code, out) = tool(&[p], b"");
        assert_eq!(code, 1);
        assert!(out.contains("ok_up_to=27") && out.contains("diff=20"));
        assert!(out.contains("is not valid. Use the --fix option to try fixing it."));
        assert_eq!(tool(&["--fix", p], b"n\n").0, 1);
        let (code, out) = tool(&["--fix", p], b"y\n");
        assert_eq!(code, 0);
        assert!(out.contains(&format!("Successfully truncated AOF {p}")));
        assert_eq!(std::fs::read(&path).unwrap(), SET);
    }

    #[test]
    fn an_open_transaction_is_cut_before_its_multi() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "a.aof", &[SET, b"*1\r\n$5\r\nMULTI\r\n", SET].concat());
        let (code, out) = tool(&["--fix", path.to_str().unwrap()], b"y\n");
        assert_eq!(code, 0);
        assert!(out.contains("Reached EOF before reading EXEC for MULTI"));
        assert_eq!(std::fs::read(&path).unwrap(), SET);
    }

    #[test]
    fn timestamps() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = [b"#TS:100\r\n", SET, b"#TS:200\r\n", SET].concat();
        let path = file(&dir, "a.aof", &bytes);
        let p = path.to_str().unwrap();
        assert!(tool(&["--truncate-to-timestamp", "200", p], b"").1.contains("Truncate nothing"));
        assert!(tool(&["--truncate-to-timestamp", "50", p], b"").1.contains("nothing before timestamp 50"));
        let (code, out) = tool(&["--truncate-to-timestamp", "150", p], b"");
        assert_eq!(code, 0);
        assert!(out.contains("to timestamp 150"));
        assert_eq!(std::fs::read(&path).unwrap(), bytes[..36]);
        assert_eq!(tool(&["--truncate-to-timestamp", "x", p], b"").0, 1);
    }

    #[test]
    fn multi_part() {
        let dir = tempfile::tempdir().unwrap();
        file(&dir, "b.aof", SET);
        file(&dir, "i.aof", &[SET, b"junk"].concat());
        let manifest = file(&dir, "m", b"file b.aof seq 1 type b\nfile i.aof seq 1 type i\n");
        let m = manifest.to_str().unwrap();
        let (code, out) = tool(&[m], b"");
        assert_eq!(code, 1);
        assert!(out.contains("Start to check BASE AOF (RESP format).") && out.contains("BASE AOF b.aof is valid"));
        assert!(out.contains("AOF i.aof format error"));
        let (code, out) = tool(&["--fix", m], b"y\n");
        assert_eq!(code, 0);
        assert!(out.ends_with("Successfully truncated AOF i.aof\nAll AOF files and manifest are valid\n"), "{out}");
        file(&dir, "b.aof", b"junk");
        assert!(tool(&["--fix", m], b"y\n").1.contains("Failed to truncate AOF b.aof because it is not the last file"));
    }

    #[test]
    fn usage() {
        assert_eq!(tool(&[], b"").0, 1);
        assert!(tool(&["a", "b"], b"").1.starts_with("Usage: redis-check-aof [--fix|"));
        assert!(tool(&["/nonexistent/x"], b"").1.starts_with("Cannot open file /nonexistent/x: No such file"));
    }
}
