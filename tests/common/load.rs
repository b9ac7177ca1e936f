//! Clients that write all over the slots of a cluster and read back what they wrote, while nodes come and go.

use redis::{Connection, ErrorKind, RedisResult};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many slots are written to.
const GROUPS: u64 = 64;

/// What one client was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<u64>,
    errors: Vec<String>,
    slowest: Duration,
    redirected: u64,
    reconnected: u64,
}

/// A client of the cluster that knows no more than it must: it goes where it is sent, and elsewhere when a connection ends.
struct Client {
    /// `host:port` of all nodes that it has heard of.
    known: Vec<String>,
    conns: HashMap<String, Connection>,
    /// Where a slot was served last.
    owners: HashMap<u64, String>,
    redirected: u64,
    reconnected: u64,
}

impl Client {
    fn new(addresses: &[String]) -> Client {
        let (conns, owners) = Default::default();
        Client { known: addresses.to_vec(), conns, owners, redirected: 0, reconnected: 0 }
    }

    fn ask_at(&mut self, address: &str, words: &[&str]) -> RedisResult<Option<u64>> {
        let conn = match self.conns.entry(address.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let client = redis::Client::open(format!("redis://{address}/"))?;
                let conn = client.get_connection_with_timeout(Duration::from_secs(1))?;
                conn.set_read_timeout(Some(Duration::from_secs(20)))?;
                entry.insert(conn)
            }
        };
        let reply: redis::Value = redis::cmd(words[0]).arg(&words[1..]).query(conn)?;
        Ok(redis::from_redis_value(&reply).unwrap_or_default())
    }

    /// A connection ended: whom to ask instead. Who is gone is known again when somebody names it.
    fn other_than(&mut self, address: &str) -> String {
        self.conns.remove(address);
        self.owners.retain(|_, owner| owner != address);
        let at = self.known.iter().position(|known| known == address);
        if let Some(at) = at.filter(|_| self.known.len() > 1) {
            self.known.remove(at);
        }
        self.known[at.unwrap_or(0) % self.known.len()].clone()
    }

    /// `group` stands for the slot of the key.
    fn call(&mut self, group: u64, words: &[&str]) -> RedisResult<Option<u64>> {
        let mut address = self.owners.get(&group).unwrap_or(&self.known[0]).clone();
        let start = Instant::now();
        loop {
            let error = match self.ask_at(&address, words) {
                Ok(value) => {
                    self.owners.insert(group, address);
                    return Ok(value);
                }
                Err(error) if start.elapsed() > Duration::from_secs(30) => return Err(error),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Moved {
                self.redirected += 1;
                address = error.redirect_node().expect("where to").0.to_owned();
                if !self.known.contains(&address) {
                    self.known.push(address.clone());
                }
            } else if error.is_io_error() {
                self.reconnected += 1;
                address = self.other_than(&address);
            } else {
                return Err(error);
            }
        }
    }
}

/// Some clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Told>>,
}

impl Load {
    /// They begin with what they are told at the first address, and find others there.
    pub(crate) fn start(addresses: &[String]) -> Load {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..4).map(|_| write_and_read(addresses, &stop, &next)).collect();
        Load { stop, clients }
    }

    /// Ends it: nobody saw an error, and what was acknowledged is there, by those who know of these nodes.
    pub(crate) fn finish(self, addresses: &[String]) {
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for client in self.clients {
            let told = client.join().unwrap();
            println!(
                "{} acknowledged, the slowest pair took {:?}, {} redirections, {} reconnects",
                told.acknowledged.len(),
                told.slowest,
                told.redirected,
                told.reconnected
            );
            assert_eq!(told.errors, Vec::<String>::new());
            acknowledged.extend(told.acknowledged);
        }
        assert!(acknowledged.len() > 500, "{}", acknowledged.len());
        let mut client = Client::new(addresses);
        let mut is_there =
            |n: u64| client.call(n % GROUPS, &["GET", &format!("{{{}}}{n}", n % GROUPS)]).unwrap() == Some(n);
        let missing: Vec<_> = acknowledged.iter().filter(|n| !is_there(**n)).collect();
        assert!(missing.is_empty(), "{missing:?} of {}", acknowledged.len());
    }
}

/// Writes keys all over the slots, and reads each back.
fn write_and_read(addresses: &[String], stop: &Arc<AtomicBool>, next: &Arc<AtomicU64>) -> JoinHandle<Told> {
    let mut client = Client::new(addresses);
    let (stop, next) = (stop.clone(), next.clone());
    std::thread::spawn(move || {
        let mut told = Told::default();
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let (group, start) = (n % GROUPS, Instant::now());
            let (key, value) = (format!("{{{group}}}{n}"), n.to_string());
            match client.call(group, &["SET", &key, &value]) {
                Ok(_) => told.acknowledged.push(n),
                Err(e) => told.errors.push(format!("SET {n}: {e}")),
            }
            match client.call(group, &["GET", &key]) {
                Ok(value) if value == Some(n) => {}
                other => told.errors.push(format!("GET {n}: {other:?}")),
            }
            told.slowest = told.slowest.max(start.elapsed());
        }
        (told.redirected, told.reconnected) = (client.redirected, client.reconnected);
        told
    })
}
