//! `--bigkeys`, `--memkeys` and `--hotkeys`: statistics from a scan of all keys.

use std::process::exit;

use super::scan;
use crate::cli::connection::LinkError;
use crate::cli::session::Session;
use crate::cli::term::{complain, say};
use crate::config::words;
use crate::resp::reply_reader::Reply;

/// Hot keys to show.
const HOT_KEYS: usize = 16;

/// SCAN calls between two pauses.
const PAGES_A_PAUSE: u64 = 100;

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

/// What is known of the keys of a type.
struct Tally {
    kind: String,
    keys: u64,
    total: u64,
    biggest: u64,
    biggest_key: Option<Vec<u8>>,
    unit: &'static str,
}

impl Tally {
    fn new(kind: &str, unit: &'static str) -> Tally {
        Tally { kind: kind.to_owned(), keys: 0, total: 0, biggest: 0, biggest_key: None, unit }
    }

    /// Counts a key that is found when so many percent are done.
    fn add(&mut self, key: &[u8], size: u64, percent: f64) {
        self.keys += 1;
        self.total += size;
        if size > self.biggest {
            (self.biggest, self.biggest_key) = (size, Some(key.to_vec()));
            let (kind, unit, key) = (&self.kind, self.unit, shown(key));
            say!("[{percent:05.2}%] Biggest {kind:<6} found so far '{key}' with {size} {unit}\n");
        }
    }
}

/// A key as it is printed.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(&words::quote(key)).into_owned()
}

/// Finds, for every type, the key with the most elements.
pub(crate) fn big_keys(session: &mut Session) -> i32 {
    survey(session, None, |kind, key| {
        let measure = MEASURES.iter().find(|measure| measure.kind == kind)?;
        let mut args: Vec<Vec<u8>> = measure.command.iter().map(|w| w.as_bytes().to_vec()).collect();
        args.push(key.to_vec());
        Some((args, measure.unit))
    })
}

/// Finds, for every type, the key that takes most memory.
pub(crate) fn memory_keys(session: &mut Session, samples: Option<u64>) -> i32 {
    survey(session, Some("bytes"), |_, key| {
        let mut args = vec![b"MEMORY".to_vec(), b"USAGE".to_vec(), key.to_vec()];
        if let Some(samples) = samples.filter(|n| *n > 0) {
            args.push(b"SAMPLES".to_vec());
            args.push(samples.to_string().into_bytes());
        }
        Some((args, "bytes"))
    })
}

type Ask = (Vec<Vec<u8>>, &'static str);

fn announce(what: &str) {
    say!(
        "\n# Scanning the entire keyspace to find {what} keys as well as\n\
         # average sizes per key type.  You can use -i 0.1 to sleep 0.1 sec\n\
         # per 100 SCAN commands (not usually needed).\n\n"
    );
}

/// Goes through all keys until the end or Ctrl-C. `page` gets the keys of a page and the percentage done before it;
/// false from it ends the walk with a failure.
fn walk(session: &mut Session, mut page: impl FnMut(&mut Session, Vec<Vec<u8>>, f64) -> bool) -> Option<u64> {
    let total = db_size(session);
    session.catch_interrupts();
    let mut cursor = b"0".to_vec();
    let mut sampled = 0;
    for pages in 1.. {
        let percent = 100.0 * sampled as f64 / total.max(1) as f64;
        let keys = scan::page(session, &mut cursor);
        sampled += keys.len() as u64;
        if !page(session, keys, percent) {
            return None;
        }
        if pages % PAGES_A_PAUSE == 0 {
            scan::pause(session);
        }
        if cursor == b"0" || session.interrupted() {
            break;
        }
    }
    Some(sampled)
}

/// Prints the biggest key of every type. `unit` is the unit of all sizes; `None`: each type has its own.
fn survey(session: &mut Session, unit: Option<&'static str>, ask: impl Fn(&str, &[u8]) -> Option<Ask>) -> i32 {
    announce("biggest");
    let mut tallies: Vec<Tally> =
        MEASURES.iter().map(|measure| Tally::new(measure.kind, unit.unwrap_or(measure.unit))).collect();
    let mut key_bytes = 0;
    let sampled = walk(session, |session, keys, percent| {
        key_bytes += keys.iter().map(Vec::len).sum::<usize>();
        for (key, kind, unit, size) in sizes(session, &keys, &ask) {
            let at = tallies.iter().position(|tally| tally.kind == kind).unwrap_or_else(|| {
                tallies.push(Tally::new(&kind, unit));
                tallies.len() - 1
            });
            tallies[at].add(key, size, percent);
        }
        true
    });
    summarize(&tallies, sampled.unwrap_or(0), key_bytes as u64);
    0
}

/// The keys of a page with type, unit and size, but for those that have gone meanwhile.
fn sizes<'k>(
    session: &mut Session,
    keys: &'k [Vec<u8>],
    ask: impl Fn(&str, &[u8]) -> Option<Ask>,
) -> Vec<(&'k [u8], String, &'static str, u64)> {
    let types: Vec<_> = keys.iter().map(|key| vec![b"TYPE".to_vec(), key.clone()]).collect();
    let mut asks = Vec::new();
    for (key, kind) in keys.iter().zip(pipeline(session, &types)) {
        let kind = kind.text_lossy();
        if kind != "none" {
            // The size of a module's key can not be asked for.
            let (command, unit) = ask(&kind, key).unwrap_or((Vec::new(), "?"));
            asks.push((key, kind, unit, command));
        }
    }
    let commands: Vec<_> = asks.iter().map(|ask| ask.3.clone()).filter(|c| !c.is_empty()).collect();
    let mut sizes = pipeline(session, &commands).into_iter();
    let with_size = asks.into_iter().map(|(key, kind, unit, command)| {
        let reply = if command.is_empty() { None } else { sizes.next() };
        (&key[..], kind, unit, reply.as_ref().map_or(0, unsigned))
    });
    with_size.collect()
}

fn summarize(tallies: &[Tally], sampled: u64, key_bytes: u64) {
    say!("\n-------- summary -------\n\n");
    say!("Sampled {sampled} keys in the keyspace!\n");
    let average = |total: u64, n: u64| total as f64 / n.max(1) as f64;
    say!("Total key length in bytes is {key_bytes} (avg len {:.2})\n\n", average(key_bytes, sampled));
    for Tally { kind, biggest, biggest_key, unit, .. } in tallies {
        if let Some(key) = biggest_key {
            say!("Biggest {kind:>6} found '{}' has {biggest} {unit}\n", shown(key));
        }
    }
    say!("\n");
    for Tally { kind, keys, total, unit, .. } in tallies {
        say!(
            "{keys} {kind}s with {total} {unit} ({:05.2}% of keys, avg size {:.2})\n",
            100.0 * average(*keys, sampled),
            average(*total, *keys)
        );
    }
}

/// Finds the keys with the highest LFU counters.
pub(crate) fn hot_keys(session: &mut Session) -> i32 {
    announce("hot");
    let mut hottest: Vec<(u64, Vec<u8>)> = Vec::new();
    let sampled = walk(session, |session, keys, percent| {
        let commands: Vec<Vec<Vec<u8>>> =
            keys.iter().map(|key| vec![b"OBJECT".to_vec(), b"FREQ".to_vec(), key.clone()]).collect();
        for (key, reply) in keys.into_iter().zip(pipeline(session, &commands)) {
            if let Some(reason) = reply.error() {
                complain!("Error: {}\n", String::from_utf8_lossy(reason));
                return false;
            }
            let counter = unsigned(&reply);
            if counter == 0 || (hottest.len() == HOT_KEYS && counter <= hottest[HOT_KEYS - 1].0) {
                continue;
            }
            let at = hottest.partition_point(|(other, _)| *other >= counter);
            say!("[{percent:05.2}%] Hot key '{}' found so far with counter {counter}\n", shown(&key));
            hottest.insert(at, (counter, key));
            hottest.truncate(HOT_KEYS);
        }
        true
    });
    let Some(sampled) = sampled else { return 1 };
    say!("\n-------- summary -------\n\nSampled {sampled} keys in the keyspace!\n");
    for (counter, key) in &hottest {
        say!("hot key found with counter: {counter}\tkeyname: {}\n", shown(key));
    }
    0
}

/// The number that a reply is; 0 if it is none.
fn unsigned(reply: &Reply) -> u64 {
    reply.integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
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
