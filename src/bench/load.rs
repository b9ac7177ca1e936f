//! The clients: each sends its pipeline, waits for the replies, and begins again, until all requests are done.

use super::options::Options;
use super::replies::{self, Found};
use super::server::{Target, greeting};
use super::workload::Workload;
use crate::net::Conn;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use std::io::{self, IoSlice, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Largest latency kept apart, microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;
/// How often a quiet run shows where it is.
const PROGRESS: Duration = Duration::from_millis(250);

/// What a run measured.
pub struct Outcome {
    pub requests: u64,
    pub seconds: f64,
    /// Latencies in microseconds, one for each request; those of one pipeline are the same.
    pub latencies: Histogram<u64>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds.max(1e-9)
    }
}

/// What the threads of a run share.
struct Shared<'a> {
    options: &'a Options,
    nodes: &'a [Target],
    workload: &'a Workload,
    /// Requests that clients have taken on.
    taken: AtomicU64,
    finished: AtomicU64,
    /// When an error reply was last shown.
    error_shown: Mutex<Option<Instant>>,
}

pub fn run(options: &Options, nodes: &[Target], workload: &Workload) -> Result<Outcome, String> {
    let shared = Shared {
        options,
        nodes,
        workload,
        taken: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        error_shown: Mutex::new(None),
    };
    let start = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let (latencies, seconds) = thread::scope(|scope| {
        let handles: Vec<_> = (0..options.threads)
            .map(|t| {
                let shared = &shared;
                let clients: Vec<usize> = (t..options.clients).step_by(options.threads).collect();
                scope.spawn(move || Driver::new(shared, &clients)?.run())
            })
            .collect();
        if options.quiet && !options.csv {
            let done = done.clone();
            let shared = &shared;
            scope.spawn(move || show_progress(shared, start, &done));
        }
        let mut all = new_histogram();
        let mut failure = None;
        for handle in handles {
            match handle.join().unwrap_or_else(|_| Err("a load thread failed".into())) {
                Ok(part) => all.add(part).unwrap_or(()),
                Err(e) => failure = Some(e),
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        done.store(1, Ordering::Release);
        match failure {
            Some(e) => Err(e),
            None => Ok((all, seconds)),
        }
    })?;
    let requests = shared.finished.load(Ordering::Relaxed);
    Ok(Outcome { requests, seconds, latencies })
}

/// Opens the connections and leaves them alone until the program is stopped.
pub fn hold_idle(options: &Options, nodes: &[Target]) -> Result<(), String> {
    let mut connections = Vec::new();
    for i in 0..options.clients {
        let node = &nodes[i % nodes.len()];
        connections.push(node.connect().map_err(|e| could_not_connect(node, &e))?);
    }
    println!("Creating {} idle connections and waiting forever (Ctrl+C when done)", connections.len());
    loop {
        thread::park();
    }
}

fn show_progress(shared: &Shared<'_>, start: Instant, done: &AtomicU64) {
    let (mut before, mut at) = (0, start);
    while done.load(Ordering::Acquire) == 0 {
        thread::sleep(PROGRESS);
        let finished = shared.finished.load(Ordering::Relaxed);
        let now = Instant::now();
        let rps = (finished - before) as f64 / now.duration_since(at).as_secs_f64();
        let overall = finished as f64 / now.duration_since(start).as_secs_f64();
        if done.load(Ordering::Acquire) == 0 {
            print!("{}: rps={rps:.1} (overall: {overall:.1})\r", shared.workload.title);
            let _ = io::stdout().flush();
        }
        (before, at) = (finished, now);
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("bounds are in order")
}

fn could_not_connect(node: &Target, error: &io::Error) -> String {
    format!("Could not connect to Redis at {}: {}", node.name(), crate::config::os_error(error))
}

struct Client {
    conn: Conn,
    node: usize,
    /// Requests of one pipeline, one behind the other.
    out: Vec<u8>,
    sent: usize,
    /// Replies of the greeting still to come.
    greetings: usize,
    /// Replies of the pipeline still to come, and how many it has.
    missing: usize,
    pipeline: usize,
    input: Vec<u8>,
    since: Instant,
}

/// One thread's clients and their reactor.
struct Driver<'a> {
    shared: &'a Shared<'a>,
    poll: Poll,
    clients: Vec<Option<Client>>,
    rng: fastrand::Rng,
    latencies: Histogram<u64>,
    live: usize,
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Shared<'a>, numbers: &[usize]) -> Result<Driver<'a>, String> {
        let poll = Poll::new().map_err(|e| e.to_string())?;
        let mut driver = Driver {
            shared,
            poll,
            clients: Vec::new(),
            rng: fastrand::Rng::new(),
            latencies: new_histogram(),
            live: 0,
        };
        for (i, number) in numbers.iter().enumerate() {
            let client = driver.open(i, number % shared.nodes.len())?;
            driver.clients.push(Some(client));
            driver.live += 1;
        }
        Ok(driver)
    }

    fn open(&self, index: usize, node: usize) -> Result<Client, String> {
        let target = &self.shared.nodes[node];
        let mut conn = target.connect().map_err(|e| could_not_connect(target, &e))?;
        conn.register(self.poll.registry(), Token(index)).map_err(|e| e.to_string())?;
        let (out, greetings) = greeting(self.shared.options);
        let since = Instant::now();
        Ok(Client { conn, node, out, sent: 0, greetings, missing: 0, pipeline: 0, input: Vec::new(), since })
    }

    fn run(mut self) -> Result<Histogram<u64>, String> {
        for i in 0..self.clients.len() {
            self.advance(i)?;
        }
        let mut events = Events::with_capacity(1024);
        while self.live > 0 {
            match self.poll.poll(&mut events, None) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| e.to_string())?,
            }
            let ready: Vec<usize> = events.iter().map(|e| e.token().0).collect();
            for i in ready {
                self.read(i)?;
                self.advance(i)?;
            }
        }
        Ok(self.latencies)
    }

    /// Sends what the client has to send; takes the next pipeline on when the last is answered.
    fn advance(&mut self, i: usize) -> Result<(), String> {
        let Some(client) = self.clients[i].as_mut() else { return Ok(()) };
        if client.missing == 0 && client.greetings == 0 && client.sent == client.out.len() {
            if client.pipeline > 0 && !self.shared.options.keep_alive {
                let node = client.node;
                let _ = client.conn.deregister(self.poll.registry());
                self.clients[i] = None;
                let fresh = self.open(i, node)?;
                self.clients[i] = Some(fresh);
            }
            if !self.next_pipeline(i) {
                self.clients[i] = None;
                self.live -= 1;
                return Ok(());
            }
        }
        let Some(client) = self.clients[i].as_mut() else { return Ok(()) };
        while client.sent < client.out.len() {
            match client.conn.write_vectored(&[IoSlice::new(&client.out[client.sent..])]) {
                Ok(n) => client.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("Writing to socket: {}", crate::config::os_error(&e))),
            }
        }
        Ok(())
    }

    /// Fills the client's output with its next requests. False when all have been taken.
    fn next_pipeline(&mut self, i: usize) -> bool {
        let shared = self.shared;
        let options = shared.options;
        let want = options.pipeline as u64;
        let before = shared.taken.fetch_add(want, Ordering::Relaxed);
        if before >= options.requests {
            return false;
        }
        let count = want.min(options.requests - before) as usize;
        let Some(client) = self.clients[i].as_mut() else { return false };
        let one = shared.workload.request.len();
        let fresh_greeting = client.pipeline == 0 && client.greetings > 0;
        if client.pipeline != count || client.out.len() != one * count || fresh_greeting {
            client.out = shared.workload.request.repeat(count);
        }
        let tags = &shared.nodes[client.node].tags;
        for copy in client.out.chunks_exact_mut(one) {
            shared.workload.freshen(copy, options.keyspace, &mut self.rng, tags);
        }
        client.sent = 0;
        client.missing = count;
        client.pipeline = count;
        client.since = Instant::now();
        true
    }

    fn read(&mut self, i: usize) -> Result<(), String> {
        let Some(client) = self.clients[i].as_mut() else { return Ok(()) };
        let mut chunk = [0u8; 65536];
        loop {
            match client.conn.read(&mut chunk) {
                Ok(0) => return Err("Error: Server closed the connection".into()),
                Ok(n) => client.input.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("Error: {}", crate::config::os_error(&e))),
            }
        }
        let latency = client.since.elapsed().as_micros() as u64;
        let mut at = 0;
        let mut finished = 0;
        loop {
            match replies::next(&client.input[at..]) {
                Found::Incomplete => break,
                Found::Malformed => return Err("Error: the server sent something that is no reply".into()),
                Found::Push { len } => at += len,
                Found::Reply { len, is_error } => {
                    let reply = &client.input[at..at + len];
                    at += len;
                    if client.greetings > 0 {
                        if is_error {
                            return Err(format!(
                                "Error from server: {}",
                                String::from_utf8_lossy(&reply[1..]).trim_end()
                            ));
                        }
                        client.greetings -= 1;
                        continue;
                    }
                    if is_error {
                        show_error(self.shared, reply);
                    }
                    client.missing = client.missing.saturating_sub(1);
                    finished += 1;
                    self.latencies.saturating_record(latency.max(1));
                }
            }
        }
        client.input.drain(..at);
        self.shared.finished.fetch_add(finished, Ordering::Relaxed);
        Ok(())
    }
}

/// Shows an error reply, at most one a second.
fn show_error(shared: &Shared<'_>, reply: &[u8]) {
    if !shared.options.show_errors {
        return;
    }
    let Ok(mut last) = shared.error_shown.lock() else { return };
    if last.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
        println!("Error from server: {}", String::from_utf8_lossy(&reply[1..]).trim_end());
        *last = Some(Instant::now());
    }
}
