//! A cluster whose nodes live in network namespaces of their own, cut from each other in several ways, with clients on both
//! sides: no two nodes ever take writes for the same slot, and with durable acknowledgements nothing acknowledged is lost.

use crate::common;

use common::SERVER;
use common::cluster::{text_of, wait};
use common::network::{Network, address};
use redis::Value;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NODE_TIMEOUT: Duration = Duration::from_millis(1500);
const PORT: u16 = 6379;

/// Reply of a node to words, as text; asked from its own host.
fn ask(network: &Network, host: usize, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
    let asked = network.on(host, move || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{PORT}/")).unwrap();
        let reply = client.get_connection_with_timeout(Duration::from_secs(2)).and_then(|mut c| {
            c.set_read_timeout(Some(Duration::from_secs(5)))?;
            redis::cmd(&words[0]).arg(&words[1..]).query::<Value>(&mut c)
        });
        text_of(reply)
    });
    asked.join().unwrap()
}

/// Five nodes: masters on the hosts 1 to 3, and two replicas of the first.
struct Cluster {
    nodes: Vec<(Child, TempDir)>,
    network: Network,
}

const MEMBERS: [usize; 3] = [1, 4, 5];

impl Cluster {
    fn start(more: &[&str]) -> Cluster {
        let network = Network::new(5);
        let timeout = NODE_TIMEOUT.as_millis().to_string();
        let nodes = (1..=5)
            .map(|host| {
                // In memory: how long a busy disk takes to note a vote is not what is asked here.
                let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
                let child = Command::new("ip")
                    .args(["netns", "exec", &network.namespace(host), SERVER])
                    .args([
                        "--port",
                        &PORT.to_string(),
                        "--bind",
                        &address(host),
                        "127.0.0.1",
                        "--protected-mode",
                        "no",
                    ])
                    .args(["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout, "--save", ""])
                    .args(["--logfile", "server.log", "--dir", dir.path().to_str().unwrap()])
                    .args(more)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("the server starts");
                (child, dir)
            })
            .collect();
        let cluster = Cluster { nodes, network };
        for host in 1..=5 {
            wait("it answers", 20, || cluster.ask(host, &["PING"]).contains("PONG"));
            assert_eq!(cluster.ask(host, &["CLUSTER", "SET-CONFIG-EPOCH", &host.to_string()]), "OK");
        }
        // All slots that matter belong to the first.
        for (host, first, last) in [(1, "0", "16000"), (2, "16001", "16200"), (3, "16201", "16383")] {
            assert_eq!(cluster.ask(host, &["CLUSTER", "ADDSLOTSRANGE", first, last]), "OK");
        }
        for host in 2..=5 {
            assert_eq!(cluster.ask(host, &["CLUSTER", "MEET", &address(1), &PORT.to_string()]), "OK");
        }
        wait("all know each other", 30, || {
            (1..=5).all(|host| cluster.info(host).contains("cluster_known_nodes:5"))
                && !(1..=5).any(|host| cluster.ask(host, &["CLUSTER", "NODES"]).contains("handshake"))
        });
        let master = cluster.ask(1, &["CLUSTER", "MYID"]);
        for host in [4, 5] {
            wait("it follows", 10, || cluster.ask(host, &["CLUSTER", "REPLICATE", &master]) == "OK");
        }
        cluster.wait_whole();
        cluster
    }

    fn ask(&self, host: usize, words: &[&str]) -> String {
        ask(&self.network, host, words)
    }

    fn info(&self, host: usize) -> String {
        self.ask(host, &["CLUSTER", "INFO"])
    }

    /// Who serves most slots; by what the second master knows.
    fn master(&self) -> Option<usize> {
        let nodes = self.ask(2, &["CLUSTER", "NODES"]);
        MEMBERS
            .into_iter()
            .find(|host| nodes.lines().any(|l| l.contains(&format!(" {}:", address(*host))) && l.contains(" 0-16000")))
    }

    /// All serve, one of the three is master, the others follow it, and it takes writes.
    fn wait_whole(&self) -> usize {
        wait("the cluster is whole", 30, || {
            let Some(master) = self.master() else { return false };
            (1..=5).all(|host| self.info(host).contains("cluster_state:ok"))
                && MEMBERS.into_iter().filter(|host| *host != master).all(|host| {
                    let state = self.ask(host, &["INFO", "replication"]);
                    state.contains("master_link_status:up")
                        && state.contains(&format!("master_host:{}", address(master)))
                })
                && self.ask(master, &["SET", "{a}probe", "x"]) == "OK"
        });
        self.master().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (child, dir) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                eprintln!("{}", std::fs::read_to_string(dir.path().join("server.log")).unwrap_or_default());
            }
        }
    }
}

/// A write that was acknowledged: its number, who took it, and when the reply came.
type Taken = (u64, usize, Instant);

/// Writes numbers to some hosts by turns, from a host, until told to stop.
fn write_on(
    network: &Network,
    from: usize,
    to: &'static [usize],
    numbers: Arc<Mutex<u64>>,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<Vec<Taken>> {
    network.on(from, move || {
        let mut taken = Vec::new();
        let mut at = 0;
        while !stop.load(Ordering::Relaxed) {
            at += 1;
            let host = to[at % to.len()];
            let client = redis::Client::open(format!("redis://{}:{PORT}/", address(host))).unwrap();
            let connected = client.get_connection_with_timeout(Duration::from_millis(200));
            let Ok(mut c) = connected else { continue };
            let _ = c.set_read_timeout(Some(Duration::from_millis(2000)));
            while !stop.load(Ordering::Relaxed) {
                let number = {
                    let mut numbers = numbers.lock().unwrap();
                    *numbers += 1;
                    *numbers
                };
                match redis::cmd("SET").arg(format!("{{a}}{number}")).arg(number).query::<Value>(&mut c) {
                    Ok(Value::Okay) => taken.push((number, host, Instant::now())),
                    Ok(_) => break,
                    Err(e) if e.is_io_error() => break,
                    // It does not serve: asked again at once, so that nothing it takes is missed.
                    Err(_) if to.len() == 1 => std::thread::sleep(Duration::from_micros(300)),
                    Err(_) => break,
                }
            }
        }
        taken
    })
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Nothing goes to or from the master.
    Unplugged,
    /// It hears all and is heard by nobody.
    Mute,
    /// Its replicas reach it, the other masters do not, nor it them.
    FromMasters,
}

impl Cut {
    fn make(self, network: &Network, master: usize) {
        match self {
            Cut::Unplugged => network.unplug(master),
            Cut::Mute => (1..=5).filter(|to| *to != master).for_each(|to| network.mute(master, to)),
            Cut::FromMasters => [2, 3].into_iter().for_each(|other| {
                network.mute(master, other);
                network.mute(other, master);
            }),
        }
    }

    fn mend(self, network: &Network, master: usize) {
        match self {
            Cut::Unplugged => network.plug_in(master),
            Cut::Mute => (1..=5).filter(|to| *to != master).for_each(|to| network.unmute(master, to)),
            Cut::FromMasters => [2, 3].into_iter().for_each(|other| {
                network.unmute(master, other);
                network.unmute(other, master);
            }),
        }
    }
}

/// The writer at the master's side, and one elsewhere. What each of the hosts took, in this order.
fn cut_off(cluster: &Cluster, cut: Cut, numbers: &Arc<Mutex<u64>>) -> (Vec<Taken>, Vec<Taken>) {
    let master = cluster.wait_whole();
    let (with_it, others): (&[usize], &[usize]) = match master {
        1 => (&[1], &[4, 5]),
        4 => (&[4], &[1, 5]),
        _ => (&[5], &[1, 4]),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let here = write_on(&cluster.network, master, with_it, numbers.clone(), stop.clone());
    let elsewhere = write_on(&cluster.network, 2, others, numbers.clone(), stop.clone());
    std::thread::sleep(Duration::from_millis(300));
    cut.make(&cluster.network, master);
    let start = Instant::now();
    wait("another took over", 20, || cluster.master().is_some_and(|now| now != master));
    let failover = start.elapsed();
    assert!(failover < NODE_TIMEOUT + Duration::from_millis(1500), "{cut:?}: {failover:?}");
    std::thread::sleep(Duration::from_millis(300));
    cut.mend(&cluster.network, master);
    cluster.wait_whole();
    stop.store(true, Ordering::Relaxed);
    (here.join().unwrap(), elsewhere.join().unwrap())
}

#[test]
#[cfg_attr(not(has_netns), ignore = "network namespaces cannot be made here")]
fn a_master_that_is_cut_off_stops_before_its_replica_takes_over() {
    let cluster = Cluster::start(&[]);
    let numbers = Arc::new(Mutex::new(0));
    for cut in [Cut::Unplugged, Cut::Mute, Cut::FromMasters] {
        let (here, elsewhere) = cut_off(&cluster, cut, &numbers);
        let last = here.last().expect("the master took writes before").2;
        let first = elsewhere.first().expect("the new master takes writes").2;
        assert!(last < first, "{cut:?}: both took writes for {:?}", last - first);
        println!("{cut:?}: {:?} between the last write here and the first there", first - last);
    }
}

#[test]
#[cfg_attr(not(has_netns), ignore = "network namespaces cannot be made here")]
fn what_was_acknowledged_on_either_side_is_there_afterwards() {
    let cluster = Cluster::start(&["--cluster-durable-acks", "1"]);
    let numbers = Arc::new(Mutex::new(0));
    let mut all = Vec::new();
    for cut in [Cut::Unplugged, Cut::Mute, Cut::FromMasters] {
        let (here, elsewhere) = cut_off(&cluster, cut, &numbers);
        assert!(!here.is_empty() && !elsewhere.is_empty(), "{cut:?}: {} and {} writes", here.len(), elsewhere.len());
        all.extend(here.iter().chain(&elsewhere).map(|(number, ..)| *number));
    }
    let master = cluster.wait_whole();
    let keys: Vec<String> = all.iter().map(|number| format!("{{a}}{number}")).collect();
    let asked = cluster.network.on(master, move || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{PORT}/")).unwrap();
        let mut c = client.get_connection().unwrap();
        keys.chunks(1000)
            .flat_map(|keys| redis::cmd("MGET").arg(keys).query::<Vec<Option<u64>>>(&mut c).unwrap())
            .collect::<Vec<_>>()
    });
    let there = asked.join().unwrap();
    let lost: Vec<u64> = all.iter().zip(&there).filter(|(n, there)| **there != Some(**n)).map(|(n, _)| *n).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), all.len());
}
