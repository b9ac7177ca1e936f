//! `redis-check-rdb`: walks a snapshot and reports whether it is sound.
//!
//! The output is that of Redis's tool. Values are read as a server would read them, packed ones to the last element,
//! and thrown away; those of modules, which no server without the module can read, are walked over.

use super::rdb::{Error, ErrorKind, NEWEST_READ, Reader, Source, VERSION, Value, ValueType, module_name, opcode};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the checker was about to do; named in its report.
#[derive(Clone, Copy)]
enum Doing {
    Start,
    ReadType,
    ReadExpire,
    ReadKey,
    ReadObjectValue,
    CheckSum,
    ReadLen,
    ReadAux,
    ReadModuleAux,
    ReadFunctions,
}

impl Doing {
    fn name(self) -> &'static str {
        match self {
            Doing::Start => "start",
            Doing::ReadType => "read-type",
            Doing::ReadExpire => "read-expire",
            Doing::ReadKey => "read-key",
            Doing::ReadObjectValue => "read-object-value",
            Doing::CheckSum => "check-sum",
            Doing::ReadLen => "read-len",
            Doing::ReadAux => "read-aux",
            Doing::ReadModuleAux => "read-module-aux",
            Doing::ReadFunctions => "read-functions",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    /// Reported, the caller goes on.
    Bad,
    /// Damage inside the format; Redis's tool ends at once, with a log line.
    Fatal,
}

struct State {
    doing: Doing,
    key: Option<Vec<u8>>,
    key_type: Option<ValueType>,
    keys: u64,
    expires: u64,
    already_expired: u64,
}

/// Checks the snapshot `source` stands at. The source of a sound one stands after it then.
pub(crate) fn check<S: Source>(source: S, name: &str, out: &mut dyn Write) -> io::Result<(Verdict, S)> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let mut reader = Reader::new(source, true);
    let mut state = State { doing: Doing::Start, key: None, key_type: None, keys: 0, expires: 0, already_expired: 0 };
    writeln!(out, "[offset 0] Checking RDB file {name}")?;
    let verdict = match walk(&mut reader, &mut state, now_ms, out) {
        Err(Stop::Report(e)) => return Err(e),
        Err(Stop::Snapshot(e)) => report(&e, reader.offset(), &state, out)?,
        Ok(()) => {
            writeln!(out, "[offset {}] \\o/ RDB looks OK! \\o/", reader.offset())?;
            show_counts(&state, out)?;
            Verdict::Sound
        }
    };
    out.flush()?;
    Ok((verdict, reader.into_source()))
}

fn show_counts(state: &State, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "[info] {} keys read", state.keys)?;
    writeln!(out, "[info] {} expires", state.expires)?;
    writeln!(out, "[info] {} already expired", state.already_expired)
}

fn report(e: &Error, offset: u64, state: &State, out: &mut dyn Write) -> io::Result<Verdict> {
    let (text, verdict) = match &e.kind {
        ErrorKind::Io(_) | ErrorKind::Eof => (ErrorKind::Eof.to_string(), Verdict::Bad),
        ErrorKind::Signature | ErrorKind::Version(_) | ErrorKind::Checksum { .. } => (e.kind.to_string(), Verdict::Bad),
        ErrorKind::UnknownType(byte) => (format!("Invalid object type: {byte}"), Verdict::Bad),
        ErrorKind::Newer(_) => (e.kind.to_string(), Verdict::Bad),
        ErrorKind::Corrupt(_) | ErrorKind::Module { .. } => (e.to_string(), Verdict::Fatal),
    };
    writeln!(out, "--- RDB ERROR DETECTED ---")?;
    writeln!(out, "[offset {offset}] {text}")?;
    writeln!(out, "[additional info] While doing: {}", state.doing.name())?;
    if let Some(key) = &state.key {
        out.write_all(&[b"[additional info] Reading key '", key.as_slice(), b"'\n"].concat())?;
    }
    if let Some(t) = state.key_type {
        writeln!(out, "[additional info] Reading type {} ({})", t as u8, t.name())?;
    }
    show_counts(state, out)?;
    Ok(verdict)
}

/// Why a walk ends early: the report cannot be written, or something is wrong with the snapshot.
enum Stop {
    Report(io::Error),
    Snapshot(Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        Stop::Report(e)
    }
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Snapshot(e)
    }
}

fn walk<S: Source>(reader: &mut Reader<S>, state: &mut State, now_ms: i64, out: &mut dyn Write) -> Result<(), Stop> {
    let version = reader.header()?;
    let mut expire_ms = None;
    loop {
        state.doing = Doing::ReadType;
        match reader.byte()? {
            opcode::EXPIRETIME => {
                state.doing = Doing::ReadExpire;
                expire_ms = Some(reader.expire_s()?);
            }
            opcode::EXPIRETIME_MS => {
                state.doing = Doing::ReadExpire;
                expire_ms = Some(reader.expire_ms()?);
            }
            opcode::FREQ => drop(reader.byte()?),
            opcode::IDLE => drop(reader.len()?),
            opcode::EOF => break,
            opcode::FUNCTION_PRE_GA => {
                return Err(reader.corrupt(format!("Pre-release function format not supported {version}")).into());
            }
            opcode::FUNCTION2 => {
                state.doing = Doing::ReadFunctions;
                reader.string()?;
            }
            opcode::SLOT_INFO if version > VERSION => {
                state.doing = Doing::ReadLen;
                reader.slot_info()?;
            }
            byte @ (opcode::SELECTDB | opcode::RESIZEDB | opcode::AUX | opcode::MODULE_AUX) => {
                walk_over_note(reader, byte, state, out)?;
            }
            byte => {
                let value_type = reader.value_type(byte, version)?;
                walk_over_key(reader, value_type, state)?;
                if let Some(at_ms) = expire_ms.take() {
                    state.expires += 1;
                    state.already_expired += u64::from(at_ms < now_ms);
                }
            }
        }
    }
    if version >= 5 {
        state.doing = Doing::CheckSum;
        let disabled = reader.checksum()?;
        let text =
            if disabled { "RDB file was saved with checksum disabled: no check performed." } else { "Checksum OK" };
        writeln!(out, "[offset {}] {text}", reader.offset())?;
    }
    debug_assert!(version <= NEWEST_READ);
    Ok(())
}

/// What is about no key.
fn walk_over_note<S: Source>(
    reader: &mut Reader<S>,
    opcode: u8,
    state: &mut State,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    match opcode {
        opcode::SELECTDB => {
            state.doing = Doing::ReadLen;
            let db = reader.len()?;
            writeln!(out, "[offset {}] Selecting DB ID {db}", reader.offset())?;
        }
        opcode::RESIZEDB => {
            state.doing = Doing::ReadLen;
            reader.len()?;
            reader.len()?;
        }
        opcode::AUX => {
            state.doing = Doing::ReadAux;
            let key = reader.string()?.into_bytes();
            let value = reader.string()?.into_bytes();
            write!(out, "[offset {}] AUX FIELD ", reader.offset())?;
            out.write_all(&[key.as_slice(), b" = '", &value, b"'\n"].concat())?;
        }
        _ => {
            state.doing = Doing::ReadModuleAux;
            let name = reader.module_aux_header()?;
            writeln!(out, "[offset {}] MODULE AUX for: {name}", reader.offset())?;
            reader.skip_module_value(&name)?;
        }
    }
    Ok(())
}

fn walk_over_key<S: Source>(reader: &mut Reader<S>, value_type: ValueType, state: &mut State) -> Result<(), Error> {
    state.key_type = Some(value_type);
    state.doing = Doing::ReadKey;
    state.key = Some(reader.string()?.into_bytes());
    state.keys += 1;
    state.doing = Doing::ReadObjectValue;
    if value_type == ValueType::Module2 {
        let name = module_name(reader.len()?);
        reader.skip_module_value(&name)?;
    } else if matches!(reader.value(value_type)?, Value::Empty) {
        // A collection without elements, which no server stores.
        return Err(reader.err(ErrorKind::Eof));
    }
    state.key = None;
    state.key_type = None;
    Ok(())
}

/// Checks a file and writes the report; false when it is not sound or cannot be opened.
pub(crate) fn check_file(path: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let Ok(file) = File::open(path) else {
        writeln!(out, "[offset 0] Checking RDB file {}", path.display())?;
        return Ok(false);
    };
    let (verdict, _) = check(BufReader::with_capacity(1 << 16, file), &path.display().to_string(), out)?;
    if verdict == Verdict::Fatal {
        log::warn!("Terminating server after rdb file reading failure.");
    }
    Ok(verdict == Verdict::Sound)
}

/// The tool. `args[0]` is its name; `version` what `--version` prints. Returns the exit code.
pub(crate) fn main(args: &[String], version: &str) -> i32 {
    let mut out = io::stdout().lock();
    let result = match args {
        [_, flag] if flag == "-v" || flag == "--version" => writeln!(out, "redis-check-rdb {version}").map(|()| true),
        [_, path] => check_file(Path::new(path), &mut out),
        _ => {
            eprintln!("Usage: {} <rdb-file-name>", args.first().map_or("redis-check-rdb", |s| s));
            return 1;
        }
    };
    i32::from(!result.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8]) -> (Verdict, String) {
        let mut out = Vec::new();
        let (verdict, _) = check(bytes, "x.rdb", &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_sound_file() {
        let (verdict, out) = run(b"REDIS0003\xFE\x00\xFD\x01\x00\x00\x00\x00\x01a\x01b\x04\x01h\x01\x01f\x01v\xFF");
        assert_eq!(verdict, Verdict::Sound);
        assert_eq!(
            out,
            "[offset 0] Checking RDB file x.rdb\n\
             [offset 11] Selecting DB ID 0\n\
             [offset 30] \\o/ RDB looks OK! \\o/\n\
             [info] 2 keys read\n[info] 1 expires\n[info] 1 already expired\n"
        );
    }

    #[test]
    fn a_cut_file() {
        let (verdict, out) = run(b"REDIS0003\xFE\x00\x04\x01h\x02\x01f\x01v");
        assert_eq!(verdict, Verdict::Bad);
        assert!(out.ends_with(
            "--- RDB ERROR DETECTED ---\n\
             [offset 19] Unexpected EOF reading RDB file\n\
             [additional info] While doing: read-object-value\n\
             [additional info] Reading key 'h'\n\
             [additional info] Reading type 4 (hash-hashtable)\n\
             [info] 1 keys read\n[info] 0 expires\n[info] 0 already expired\n"
        ));
    }

    #[test]
    fn refusals() {
        assert!(run(b"REDIS0014").1.contains("Can't handle RDB format version 14"));
        assert!(run(b"REDIS0011\x1A").1.contains("Invalid object type: 26"));
        assert!(run(b"REDIS0012\x18\x01h").1.contains("a hash whose fields have a time to live"));
        assert!(run(b"REDIS0011\x08").1.contains("Invalid object type: 8"));
        assert_eq!(run(b"REDIS0011\x00\xC4").0, Verdict::Fatal);
        assert!(run(b"REDIS0011\xFF12345678").1.contains("RDB CRC error"));
    }
}
