//! The clients: each sends its pipeline, waits for the replies, and begins again, until all requests are done.

use super::options::{MAX_THREADS, Options};
use super::replies::{self, Found};
use super::server::{self, Tags, Target, greeting};
use super::workload::Workload;
use crate::net::Conn;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use std::io::{self, IoSlice, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Latencies above this count as this, microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(250);
/// Overwrites a line of progress.
const BLANK_LINE: &str = "                                                            ";
/// A cluster is asked at most this often where its slots are.
const SLOTS_AGAIN: Duration = Duration::from_millis(100);
/// Pause after `-CLUSTERDOWN`, for the cluster to recover.
const CLUSTER_DOWN_PAUSE: Duration = Duration::from_secs(1);

/// What a run measured.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Latencies in microseconds, one for each request; those of one pipeline are the same.
    pub(crate) latencies: Histogram<u64>,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds.max(1e-9)
    }
}

/// What the threads of a run share.
struct Shared<'a> {
    options: &'a Options,
    nodes: &'a [Target],
    workload: &'a Workload,
    /// Requests that clients have begun.
    taken: AtomicU64,
    finished: AtomicU64,
    /// Sum of the latencies of finished requests, microseconds.
    waited_us: AtomicU64,
    routes: Mutex<Routes>,
    /// Counts changes of `routes`, so that drivers need not lock to see that there was none.
    routes_version: AtomicU64,
}

/// Where slots are, in a cluster.
struct Routes {
    /// Hash tags by node, in the order of the nodes.
    tags: Arc<Tags>,
    asked: Option<Instant>,
}

pub(crate) fn run(options: &Options, nodes: &[Target], workload: &Workload) -> Result<Outcome, String> {
    let shared = Shared {
        options,
        nodes,
        workload,
        taken: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        waited_us: AtomicU64::new(0),
        routes: Mutex::new(Routes { tags: Arc::new(nodes.iter().map(|n| n.tags.clone()).collect()), asked: None }),
        routes_version: AtomicU64::new(0),
    };
    let start = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let (latencies, seconds) = thread::scope(|scope| {
        let handles: Vec<_> = (0..options.threads.min(options.clients).min(MAX_THREADS))
            .map(|t| {
                let shared = &shared;
                let clients: Vec<usize> = (t..options.clients).step_by(options.threads).collect();
                scope.spawn(move || {
                    let outcome = Driver::new(shared, t, &clients).and_then(Driver::run);
                    if outcome.is_err() {
                        // Leave nothing for the others to begin.
                        shared.taken.store(options.requests, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .collect();
        let progress = (!options.csv).then(|| {
            let done = done.clone();
            let shared = &shared;
            scope.spawn(move || show_progress(shared, start, &done))
        });
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
        if let Some(progress) = progress {
            progress.thread().unpark();
        }
        match failure {
            Some(e) => Err(e),
            None => Ok((all, seconds)),
        }
    })?;
    let requests = shared.finished.load(Ordering::Relaxed);
    Ok(Outcome { requests, seconds, latencies })
}

/// Opens the connections and leaves them alone until the program is stopped or the server has enough of one.
pub(crate) fn hold_idle(options: &Options, nodes: &[Target]) -> Result<(), String> {
    let mut poll = Poll::new().map_err(|e| e.to_string())?;
    let mut connections = Vec::new();
    for i in 0..options.clients {
        let node = &nodes[i % nodes.len()];
        let mut conn = node.connect(options).map_err(|e| could_not_connect(node, &e))?;
        conn.register(poll.registry(), Token(i)).map_err(|e| e.to_string())?;
        connections.push(conn);
    }
    println!("Creating {} idle connections and waiting forever (Ctrl+C when done)", connections.len());
    let mut events = Events::with_capacity(64);
    let mut chunk = [0u8; 4096];
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(|e| e.to_string())?,
        }
        for event in events.iter().filter(|e| e.is_readable() || e.is_read_closed() || e.is_error()) {
            match connections[event.token().0].read(&mut chunk) {
                Ok(0) => return Err("Error: Server closed the connection".into()),
                Ok(n) if chunk[0] == b'-' => return Err(server_error(&chunk[..n])),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(format!("Error: {}", crate::sys::os_error(&e))),
            }
        }
    }
}

/// Shows requests a second and the mean latency, since the last time and since the start, on one line.
fn show_progress(shared: &Shared<'_>, start: Instant, done: &AtomicU64) {
    let (mut before, mut waited_before, mut at) = (0, 0, start);
    while done.load(Ordering::Acquire) == 0 {
        thread::park_timeout(PROGRESS);
        if done.load(Ordering::Acquire) != 0 {
            break;
        }
        let finished = shared.finished.load(Ordering::Relaxed);
        let waited = shared.waited_us.load(Ordering::Relaxed);
        let now = Instant::now();
        let per_second = |n: u64, since: Instant| n as f64 / now.duration_since(since).as_secs_f64().max(1e-9);
        let mean_ms = |us: u64, n: u64| us as f64 / 1000.0 / n.max(1) as f64;
        print!(
            "{}: rps={:.1} (overall: {:.1}) avg_msec={:.3} (overall: {:.3})\r",
            shared.workload.title,
            per_second(finished - before, at),
            per_second(finished, start),
            mean_ms(waited - waited_before, finished - before),
            mean_ms(waited, finished),
        );
        let _ = io::stdout().flush();
        (before, waited_before, at) = (finished, waited, now);
    }
    print!("{BLANK_LINE}\r");
    let _ = io::stdout().flush();
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("bounds are in order")
}

fn could_not_connect(node: &Target, error: &io::Error) -> String {
    format!("Could not connect to Redis at {}: {}", node.name(), crate::cli::describe_error(error))
}

struct Client {
    conn: Conn,
    node: usize,
    /// The requests of one pipeline, one after the other.
    out: Vec<u8>,
    sent: usize,
    /// Replies to the greeting still to come.
    greetings: usize,
    /// Replies to the pipeline still to come, and its requests.
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
    /// Where slots are, as of `routes_version`.
    tags: Arc<Tags>,
    routes_version: u64,
    chunk: Box<[u8]>,
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Shared<'a>, thread: usize, numbers: &[usize]) -> Result<Driver<'a>, String> {
        let poll = Poll::new().map_err(|e| e.to_string())?;
        let tags = shared.routes.lock().unwrap_or_else(PoisonError::into_inner).tags.clone();
        let mut driver = Driver {
            shared,
            poll,
            clients: Vec::new(),
            rng: match shared.options.seed {
                Some(seed) => fastrand::Rng::with_seed(seed.wrapping_add(thread as u64)),
                None => fastrand::Rng::new(),
            },
            latencies: new_histogram(),
            live: 0,
            tags,
            routes_version: 0,
            chunk: vec![0; 64 * 1024].into_boxed_slice(),
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
        let mut conn = target.connect(self.shared.options).map_err(|e| could_not_connect(target, &e))?;
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

    /// Sends what the client has to send; begins the next pipeline when the last is answered.
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
                Err(e) => return Err(format!("Writing to socket: {}", crate::sys::os_error(&e))),
            }
        }
        Ok(())
    }

    /// Fills the client's output with its next requests. False when all have been begun.
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
        if self.routes_version != shared.routes_version.load(Ordering::Acquire) {
            let routes = shared.routes.lock().unwrap_or_else(PoisonError::into_inner);
            self.tags = routes.tags.clone();
            self.routes_version = shared.routes_version.load(Ordering::Acquire);
        }
        let tags = &self.tags[client.node];
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
        loop {
            match client.conn.read(&mut self.chunk) {
                // An error that came before the end may say why.
                Ok(0) if client.input.first() == Some(&b'-') => break,
                Ok(0) => return Err("Error: Server closed the connection".into()),
                Ok(n) => client.input.extend_from_slice(&self.chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("Error: {}", crate::sys::os_error(&e))),
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
                    if is_error && (client.greetings > 0 || !self.shared.tolerates(reply)?) {
                        return Err(server_error(reply));
                    }
                    if client.greetings > 0 {
                        client.greetings -= 1;
                        continue;
                    }
                    client.missing = client.missing.saturating_sub(1);
                    finished += 1;
                    self.latencies.saturating_record(latency.max(1));
                }
            }
        }
        client.input.drain(..at);
        self.shared.finished.fetch_add(finished, Ordering::Relaxed);
        self.shared.waited_us.fetch_add(finished * latency, Ordering::Relaxed);
        Ok(())
    }
}

fn server_error(reply: &[u8]) -> String {
    format!("Error from server: {}", String::from_utf8_lossy(&reply[1..]).trim_end())
}

impl Shared<'_> {
    /// Whether an error reply only says that slots have moved or that the cluster needs a moment. Then asks where the
    /// slots are now. Any other error would make the figures meaningless.
    fn tolerates(&self, reply: &[u8]) -> Result<bool, String> {
        let down = reply.starts_with(b"-CLUSTERDOWN");
        if !self.options.cluster || !(down || reply.starts_with(b"-MOVED") || reply.starts_with(b"-ASK")) {
            return Ok(false);
        }
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.asked.is_some_and(|at| at.elapsed() < SLOTS_AGAIN) {
            return Ok(true);
        }
        if down {
            eprintln!("{}", server_error(reply));
            thread::sleep(CLUSTER_DOWN_PAUSE);
        }
        routes.tags = Arc::new(server::current_tags(self.options, self.nodes)?);
        routes.asked = Some(Instant::now());
        self.routes_version.fetch_add(1, Ordering::Release);
        Ok(true)
    }
}
