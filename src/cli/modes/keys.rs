//! `--bigkeys`, `--memkeys` and `--hotkeys`: what a scan of all keys tells about them.

use std::collections::BTreeMap;
use std::process::exit;

use super::scan;
use crate::cli::connection::LinkError;
use crate::cli::quote::quoted;
use crate::cli::session::Session;
use crate::cli::term::{complain, say};
use crate::resp::reply_reader::Reply;

/// Hot keys to show.
const HOT_KEYS: usize = 16;

/// How the size of a type is asked for and named.
struct Measure {
    kind: &'static str,
    command: &'static [&'static str],
    unit: &'static str,
}

const MEASURES: [Measure; 6] = [
    Measure { kind: "string", command: &["STRLEN"], unit: "bytes" },
    Measure { kind: "list", command: &["LLEN"], unit: "items" },
    Measure { kind: "set", command: &["SCARD"], unit: "members" },
    Measure { kind: "hash", command: &["HLEN"], unit: "fields" },
    Measure { kind: "zset", command: &["ZCARD"], unit: "members" },
    Measure { kind: "stream", command: &["XLEN"], unit: "entries" },
];

#[derive(Default)]
struct Tally {
    keys: u64,
    total: u64,
    biggest: u64,
    biggest_key: Option<Vec<u8>>,
}

/// Finds the key with the most elements of every type.
pub fn big_keys(session: &mut Session) -> i32 {
    survey(session, "biggest", "big", |kind, key| {
        let measure = MEASURES.iter().find(|measure| measure.kind == kind)?;
        let mut args: Vec<Vec<u8>> = measure.command.iter().map(|w| w.as_bytes().to_vec()).collect();
        args.push(key.to_vec());
        Some((args, measure.unit))
    })
}

/// Finds the key that takes most memory of every type.
pub fn memory_keys(session: &mut Session, samples: Option<u64>) -> i32 {
    survey(session, "biggest", "mem", |_, key| {
        let mut args = vec![b"MEMORY".to_vec(), b"USAGE".to_vec(), key.to_vec()];
        if let Some(samples) = samples.filter(|n| *n > 0) {
            args.push(b"SAMPLES".to_vec());
            args.push(samples.to_string().into_bytes());
        }
        Some((args, "bytes"))
    })
}

type Ask = (Vec<Vec<u8>>, &'static str);

fn survey(session: &mut Session, superlative: &str, _what: &str, ask: impl Fn(&str, &[u8]) -> Option<Ask>) -> i32 {
    let total_keys = db_size(session);
    say!(
        "\n# Scanning the entire keyspace to find {superlative} keys as well as\n\
         # average sizes per key type.  You can use -i 0.1 to sleep 0.1 sec\n\
         # per 100 SCAN commands (not usually needed).\n\n"
    );
    let mut tallies: BTreeMap<String, (Tally, &'static str)> = BTreeMap::new();
    let (mut sampled, mut key_bytes, mut pages) = (0u64, 0u64, 0u64);
    let mut cursor = b"0".to_vec();
    loop {
        let keys = scan::page(session, &mut cursor);
        pages += 1;
        let types: Vec<Vec<Vec<u8>>> = keys.iter().map(|key| vec![b"TYPE".to_vec(), key.clone()]).collect();
        let types = pipeline(session, &types);
        let mut asks = Vec::new();
        for (key, kind) in keys.iter().zip(&types) {
            let kind = kind.text_lossy();
            sampled += 1;
            key_bytes += key.len() as u64;
            if kind != "none"
                && let Some((command, unit)) = ask(&kind, key)
            {
                asks.push((key, kind, unit, command));
            }
        }
        let commands: Vec<Vec<Vec<u8>>> = asks.iter().map(|ask| ask.3.clone()).collect();
        let sizes = pipeline(session, &commands);
        for ((key, kind, unit, _), size) in asks.into_iter().zip(sizes) {
            let size = size.integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            let (tally, _) = tallies.entry(kind.clone()).or_insert_with(|| (Tally::default(), unit));
            tally.keys += 1;
            tally.total += size;
            if size > tally.biggest || tally.biggest_key.is_none() {
                tally.biggest = size;
                tally.biggest_key = Some(key.clone());
                let percent = 100.0 * sampled as f64 / total_keys.max(1) as f64;
                say!(
                    "[{percent:05.2}%] Biggest {kind:<6} found so far '{}' with {size} {unit}\n",
                    String::from_utf8_lossy(&quoted(key))
                );
            }
        }
        if cursor == b"0" {
            break;
        }
        if pages % 100 == 0 {
            scan::pause(session);
        }
    }
    say!("\n-------- summary -------\n\n");
    say!("Sampled {sampled} keys in the keyspace!\n");
    let average = |total: u64, n: u64| total as f64 / n.max(1) as f64;
    say!("Total key length in bytes is {key_bytes} (avg len {:.2})\n\n", average(key_bytes, sampled));
    for (kind, (tally, unit)) in &tallies {
        if let Some(key) = &tally.biggest_key {
            say!("Biggest {kind:>6} found '{}' has {} {unit}\n", String::from_utf8_lossy(&quoted(key)), tally.biggest);
        }
    }
    say!("\n");
    for (kind, (tally, unit)) in &tallies {
        say!(
            "{} {kind}s with {} {unit} ({:05.2}% of keys, avg size {:.2})\n",
            tally.keys,
            tally.total,
            100.0 * tally.keys as f64 / sampled.max(1) as f64,
            average(tally.total, tally.keys)
        );
    }
    0
}

/// Finds the keys with the highest LFU counters.
pub fn hot_keys(session: &mut Session) -> i32 {
    let total_keys = db_size(session);
    say!(
        "\n# Scanning the entire keyspace to find hot keys as well as\n\
         # average sizes per key type.  You can use -i 0.1 to sleep 0.1 sec\n\
         # per 100 SCAN commands (not usually needed).\n\n"
    );
    let mut hottest: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut sampled, mut pages) = (0u64, 0u64);
    let mut cursor = b"0".to_vec();
    loop {
        let keys = scan::page(session, &mut cursor);
        pages += 1;
        let commands: Vec<Vec<Vec<u8>>> =
            keys.iter().map(|key| vec![b"OBJECT".to_vec(), b"FREQ".to_vec(), key.clone()]).collect();
        for (key, reply) in keys.into_iter().zip(pipeline(session, &commands)) {
            sampled += 1;
            if let Some(reason) = reply.error() {
                complain!("Error: {}\n", String::from_utf8_lossy(reason));
                return 1;
            }
            let counter = reply.integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            if counter == 0 || (hottest.len() == HOT_KEYS && counter <= hottest[HOT_KEYS - 1].0) {
                continue;
            }
            let at = hottest.partition_point(|(other, _)| *other >= counter);
            let percent = 100.0 * sampled as f64 / total_keys.max(1) as f64;
            say!(
                "[{percent:05.2}%] Hot key '{}' found so far with counter {counter}\n",
                String::from_utf8_lossy(&quoted(&key))
            );
            hottest.insert(at, (counter, key));
            hottest.truncate(HOT_KEYS);
        }
        if cursor == b"0" {
            break;
        }
        if pages % 100 == 0 {
            scan::pause(session);
        }
    }
    say!("\n-------- summary -------\n\nSampled {sampled} keys in the keyspace!\n");
    for (counter, key) in &hottest {
        say!("hot key found with counter: {counter}\tkeyname: {}\n", String::from_utf8_lossy(&quoted(key)));
    }
    0
}

fn db_size(session: &mut Session) -> u64 {
    match session.internal(&[b"DBSIZE"]) {
        Ok(Reply::Integer(n)) => u64::try_from(n).unwrap_or(0),
        _ => {
            complain!("Couldn't determine DBSIZE!\n");
            exit(1);
        }
    }
}

/// Sends all commands, then reads all replies. A broken link ends the program.
fn pipeline(session: &mut Session, commands: &[Vec<Vec<u8>>]) -> Vec<Reply> {
    let Some(conn) = session.conn.as_mut() else {
        exit(1);
    };
    let mut exchange = || -> Result<Vec<Reply>, LinkError> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend(crate::cli::connection::encode_command(command));
        }
        conn.send_raw(&bytes)?;
        (0..commands.len()).map(|_| conn.read()).collect()
    };
    exchange().unwrap_or_else(|error| {
        complain!("Error: {error}\n");
        exit(1)
    })
}
