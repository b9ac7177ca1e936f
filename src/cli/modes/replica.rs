//! `--replica` and `--rdb`: the replication protocol, as a replica that keeps no data.
//!
//! A snapshot comes either with its length (`$123`) or, from a server that does not write it to disk first, after
//! `$EOF:` and a marker of forty random bytes, which also ends it.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use crate::cli::connection::{Connection, LinkError, describe};
use crate::cli::format::OutputMode;
use crate::cli::session::Session;
use crate::cli::term::complain;

/// Length of the marker that ends a snapshot of unknown length, bytes.
const MARK_LEN: usize = 40;

enum Payload {
    Sized(u64),
    Marked([u8; MARK_LEN]),
}

enum Start {
    Full(Payload),
    /// The stream of commands goes on without a snapshot.
    Partial,
}

/// Streams the commands of the master until the link breaks.
pub(crate) fn run(session: &mut Session) -> i32 {
    if replconf(session, "capa", "eof").is_err() || replconf(session, "rdb-filter-only", "").is_err() {
        return 1;
    }
    let ask = true;
    follow(session, ask);
    1
}

/// Follows a master: skips the snapshot and prints the commands. With `ask` unset, a SYNC or
/// PSYNC has already been sent.
pub(crate) fn follow(session: &mut Session, ask: bool) {
    let Some(conn) = session.conn.as_mut() else {
        return;
    };
    let start = match begin(conn, ask) {
        Ok(start) => start,
        Err(reason) => fail(&reason),
    };
    let what = match &start {
        Start::Full(Payload::Sized(n)) => {
            complain!("Full resync with master, discarding {n} bytes of bulk transfer...\n");
            "Full resync"
        }
        Start::Full(Payload::Marked(_)) => {
            complain!("Full resync with master, discarding bytes of bulk transfer until EOF marker...\n");
            "Full resync"
        }
        Start::Partial => {
            complain!("Partial resync with master...\n");
            "Partial resync"
        }
    };
    match start {
        Start::Full(Payload::Marked(mark)) => {
            let copied = copy(conn, &Payload::Marked(mark), &mut io::sink());
            match copied {
                Ok(n) => complain!("{what} done after {n} bytes. Logging commands from master.\n"),
                Err(error) => fail(&format!("Error reading RDB payload while {what}ing: {error}")),
            }
            // The master counts a replica as online once it acknowledges.
            std::thread::sleep(Duration::from_secs(1));
            let _ = conn.send(&["REPLCONF", "ACK", "0"]);
        }
        Start::Full(payload) => {
            if let Err(error) = copy(conn, &payload, &mut io::sink()) {
                fail(&format!("Error reading RDB payload while {what}ing: {error}"));
            }
            complain!("{what} done. Logging commands from master.\n");
        }
        Start::Partial => complain!("{what} done. Logging commands from master.\n"),
    }
    let output = std::mem::replace(&mut session.output, OutputMode::Csv);
    while let Ok(Some(_)) = session.show_reply(false) {}
    session.output = output;
}

/// Fetches a snapshot into a file.
pub(crate) fn fetch_rdb(session: &mut Session, file: &[u8], functions_only: bool) -> i32 {
    if replconf(session, "capa", "eof").is_err() || replconf(session, "rdb-only", "1").is_err() {
        return 1;
    }
    if functions_only && replconf(session, "rdb-filter-only", "functions") != Ok(true) {
        complain!("Failed requesting functions only RDB from server, aborting\n");
        return 1;
    }
    let Some(conn) = session.conn.take() else {
        return 1;
    };
    match save_snapshot(conn, &String::from_utf8_lossy(file)) {
        Ok(()) => 0,
        Err(reason) => {
            complain!("{reason}\n");
            1
        }
    }
}

/// Asks a master for a snapshot and writes it to a file, or to standard output for `-`.
pub(crate) fn save_snapshot(mut conn: Connection, path: &str) -> Result<(), String> {
    let Start::Full(payload) = begin(&mut conn, true)? else {
        return Err("The master sent no snapshot".into());
    };
    match &payload {
        Payload::Sized(n) => complain!("SYNC sent to master, writing {n} bytes to '{path}'\n"),
        Payload::Marked(_) => {
            complain!("SYNC sent to master, writing bytes of bulk transfer until EOF marker to '{path}'\n")
        }
    }
    let transfer = |conn: &mut Connection, out: &mut dyn Write| {
        copy(conn, &payload, out).map_err(|error| format!("I/O Error reading RDB payload from socket: {error}"))
    };
    let written = if path == "-" {
        transfer(&mut conn, &mut io::stdout().lock())?
    } else {
        let mut file = File::create(path).map_err(|error| format!("Error opening '{path}': {}", describe(&error)))?;
        let written = transfer(&mut conn, &mut file)?;
        drop(conn);
        file.sync_all().map_err(|error| format!("Fail to fsync '{path}': {}", describe(&error)))?;
        written
    };
    match payload {
        Payload::Sized(_) => complain!("Transfer finished with success.\n"),
        Payload::Marked(_) => {
            complain!("Transfer finished with success after {written} bytes\n")
        }
    }
    Ok(())
}

fn fail(reason: &str) -> ! {
    complain!("{reason}\n");
    std::process::exit(1);
}

/// Tells the master something about this replica; old masters may refuse.
fn replconf(session: &mut Session, option: &str, value: &str) -> Result<bool, ()> {
    complain!("sending REPLCONF {option} {value}\n");
    let reply = session.internal(&[b"REPLCONF", option.as_bytes(), value.as_bytes()]).map_err(|_| ())?;
    match reply.error() {
        None => Ok(true),
        Some(reason) => {
            complain!("REPLCONF {option} error: {}\n", String::from_utf8_lossy(reason));
            Ok(false)
        }
    }
}

fn begin(conn: &mut Connection, ask: bool) -> Result<Start, String> {
    if ask {
        conn.send_raw(b"SYNC\r\n").map_err(|_| "Error writing to master".to_string())?;
    }
    let line = |conn: &mut Connection| {
        read_line(conn).map_err(|error| format!("Error reading bulk length while SYNCing: {error}"))
    };
    let mut head = line(conn)?;
    if head.starts_with(b"-") {
        return Err(format!("SYNC with master failed: {}", String::from_utf8_lossy(&head)));
    }
    if head.starts_with(b"+CONTINUE") || head.starts_with(b"+FULLRESYNC") {
        complain!("PSYNC replied {}\n", String::from_utf8_lossy(&head));
        if head.starts_with(b"+CONTINUE") {
            return Ok(Start::Partial);
        }
        head = line(conn)?;
    }
    let size = head.strip_prefix(b"$").ok_or_else(|| "The master sent no snapshot length".to_string())?;
    if let Some(mark) = size.strip_prefix(b"EOF:") {
        let mark: [u8; MARK_LEN] = mark.try_into().map_err(|_| "The master sent a bad end marker".to_string())?;
        return Ok(Start::Full(Payload::Marked(mark)));
    }
    std::str::from_utf8(size)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .map(|n| Start::Full(Payload::Sized(n)))
        .ok_or_else(|| "The master sent no snapshot length".to_string())
}

/// A line without its end. Empty lines are the master's sign of life while it prepares.
fn read_line(conn: &mut Connection) -> Result<Vec<u8>, LinkError> {
    let mut line = Vec::new();
    let mut byte = [0u8; 1];
    loop {
        conn.read_raw(&mut byte)?;
        match byte[0] {
            b'\n' if line.is_empty() => {}
            b'\n' => return Ok(line),
            b'\r' => {}
            other if line.len() < 4096 => line.push(other),
            _ => return Ok(line),
        }
    }
}

/// Copies a snapshot and returns its length.
fn copy(conn: &mut Connection, payload: &Payload, out: &mut dyn Write) -> Result<u64, LinkError> {
    let mut chunk = [0u8; 64 * 1024];
    match payload {
        Payload::Sized(size) => {
            let mut left = *size;
            while left > 0 {
                let share = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                let n = conn.read_raw(&mut chunk[..share])?;
                out.write_all(&chunk[..n])?;
                left -= n as u64;
            }
            Ok(*size)
        }
        Payload::Marked(mark) => {
            // The last bytes are held back, as they may belong to the marker.
            let mut held: Vec<u8> = Vec::with_capacity(chunk.len() + MARK_LEN);
            let mut written = 0u64;
            loop {
                let n = conn.read_raw(&mut chunk)?;
                held.extend_from_slice(&chunk[..n]);
                if held.ends_with(mark) {
                    let body = held.len() - MARK_LEN;
                    out.write_all(&held[..body])?;
                    return Ok(written + body as u64);
                }
                let safe = held.len().saturating_sub(MARK_LEN);
                out.write_all(&held[..safe])?;
                written += safe as u64;
                held.drain(..safe);
            }
        }
    }
}
