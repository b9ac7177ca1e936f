//! What the page for operators is fed with, as JSON.

use super::routes::{Response, Task};
use crate::admin::history::{BOUNDS_US, Readings};
use crate::admin::http::Request;
use crate::admin::json::Json;
use crate::cluster::Cluster;
use crate::cluster::node::{Node, NodeKey};
use crate::config::Named;
use crate::keyspace::{Entry, object};
use crate::server::Server;
use crate::sys::alloc;
use crate::sys::build::{HEXAD_VERSION, REDIS_VERSION};

/// Clients shown, those with most memory.
const CLIENTS: usize = 100;
/// Entries of the slow log shown.
const SLOW: usize = 25;
/// Keys shown of a sample, the biggest and the hottest.
const KEYS: usize = 20;
/// Keys looked at for a sample, in all and in one step. Where there are no more than that, each is looked at.
const SAMPLED: usize = 10_000;
const SAMPLED_AT_A_TIME: usize = 250;

impl Server {
    /// Takes a sample for the charts: by the cron.
    pub(super) fn note_history(&mut self) {
        let (s, k) = (&self.stats, &self.ks.stats);
        let mut durations = (vec![0; BOUNDS_US.len()], 0);
        for entry in self.commands.all().filter(|entry| entry.stats.calls > 0) {
            let (counts, all) = entry.stats.latency().not_above(&BOUNDS_US);
            durations.0.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            durations.1 += all;
        }
        let readings = Readings {
            at_ms: self.clock.ms(),
            counters: [
                s.commands_processed,
                k.hits,
                k.misses,
                k.evicted,
                k.expired,
                s.net_input_bytes + s.net_repl_input_bytes,
                s.net_output_bytes + s.net_repl_output_bytes,
            ],
            gauges: [alloc::used() as u64, self.memory_samples().rss as u64, self.clients_but_replicas() as u64],
            durations,
        };
        self.port.history.note(readings);
    }
}

/// This node: who it is, how it fares, and the last minutes.
pub(super) fn state(srv: &mut Server, request: &Request) -> Response {
    let since_ms = request.parameter("since").and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let (now_s, cfg) = (srv.now_s(), &srv.cfg);
    Response::json(Json::of(|j| {
        let port = if cfg.port != 0 { cfg.port } else { cfg.tls_port };
        j.field("port").number(port.into());
        j.field("version").text(format!("Hexad {HEXAD_VERSION} (Redis {REDIS_VERSION})").as_bytes());
        j.field("uptime").number(((srv.clock.ms() - srv.started_ms).max(0) / 1000) as f64);
        j.field("cluster").flag(cfg.cluster_enabled);
        j.field("not_ready").array(|j| srv.reasons_not_ready().iter().for_each(|r| j.text(r.as_bytes())));
        j.field("keys").number(srv.ks.total_keys() as f64);
        let expiring: usize = srv.ks.dbs.iter().map(|db| db.expires_len()).sum();
        j.field("expiring").number(expiring as f64);
        j.field("used").number(alloc::used() as f64);
        j.field("maxmemory").number(cfg.maxmemory as f64);
        j.field("policy").text(cfg.maxmemory_policy.name().as_bytes());
        j.field("clients").number(srv.clients_but_replicas() as f64);
        // In a blocking command, or held back by CLIENT PAUSE.
        j.field("blocked").number((srv.blocked.clients.len() + srv.postponed.len()) as f64);
        j.field("is_replica").flag(srv.repl.is_replica());
        if let Some(m) = srv.repl.master_view(now_s) {
            j.field("master").object(|j| {
                j.field("address").text(format!("{}:{}", m.host, m.port).as_bytes());
                j.field("state").text(m.state.as_bytes());
                j.field("is_up").flag(m.is_up);
                j.field("heard").number(m.last_io_s as f64);
            });
        }
        j.field("replicas").array(|j| {
            for r in srv.repl.replica_views(now_s) {
                j.object(|j| {
                    j.field("address").text(format!("{}:{}", r.ip, r.port).as_bytes());
                    j.field("state").text(r.state.name().as_bytes());
                    j.field("behind").number((srv.repl.offset() - r.offset).max(0) as f64);
                    j.field("lag").number(r.lag_s as f64);
                });
            }
        });
        srv.port.history.write(since_ms, j);
    }))
}

/// The nodes of the cluster.
pub(super) fn cluster(srv: &mut Server, _: &Request) -> Response {
    let offset = if srv.repl.is_replica() { srv.repl.replica_offset() } else { srv.repl.offset() };
    let now_ms = srv.bus.as_ref().map_or(0, |bus| bus.machine_ms(srv.clock.mono_us()));
    Response::json(Json::of(|j| {
        let Some(cluster) = srv.cluster() else { return };
        j.field("is_up").flag(cluster.is_up());
        j.field("nodes").array(|j| {
            for (key, node) in cluster.nodes().iter() {
                j.object(|j| write_node(cluster, key, node, offset, now_ms, j));
            }
        });
    }))
}

fn write_node(cluster: &Cluster, key: NodeKey, node: &Node, my_offset: i64, now_ms: i64, j: &mut Json) {
    let offset = |key: NodeKey| if key == cluster.my_key() { my_offset } else { cluster.node(key).repl_offset };
    j.field("id").text(node.id.as_bytes());
    let port = if node.tcp_port != 0 { node.tcp_port } else { node.tls_port };
    j.field("address").text(format!("{}:{port}", node.ip).as_bytes());
    j.field("name").text(if node.human_name.is_empty() { &node.hostname } else { &node.human_name }.as_bytes());
    j.field("is_me").flag(key == cluster.my_key());
    j.field("is_replica").flag(node.is_replica());
    j.field("state").text(match (node.failed(), node.timed_out(), node.in_handshake()) {
        (true, ..) => b"failed",
        (_, true, _) => b"not reached",
        (.., true) => b"handshake",
        _ => b"ok",
    });
    if let Some(master) = node.replica_of {
        j.field("master").text(cluster.node(master).id.as_bytes());
        j.field("behind").number((offset(master) - offset(key)).max(0) as f64);
    }
    j.field("epoch").number(node.epochs.config as f64);
    j.field("slot_count").number(node.slot_count as f64);
    j.field("slots").array(|j| {
        for (first, last) in node.slots.ranges() {
            j.array(|j| [first, last].into_iter().for_each(|slot| j.number(slot.into())));
        }
    });
    let heard_ms = if key == cluster.my_key() { now_ms } else { node.last_alive_ms() };
    j.field("heard").number(if heard_ms == 0 { -1.0 } else { ((now_ms - heard_ms) / 1000).max(0) as f64 });
}

pub(super) fn findings(srv: &mut Server, _: &Request) -> Response {
    Response::json(Json::of(|j| {
        j.field("findings").array(|j| {
            for f in srv.findings(false) {
                j.object(|j| {
                    f.fields().into_iter().for_each(|(name, value)| j.field(name).text(value.as_bytes()));
                });
            }
        });
    }))
}

pub(super) fn slow_log(srv: &mut Server, _: &Request) -> Response {
    let log = &srv.admin.slowlog;
    Response::json(Json::of(|j| {
        j.field("slower_than").number(srv.cfg.slowlog_log_slower_than as f64);
        j.field("entries").array(|j| {
            for entry in log.entries.iter().take(SLOW) {
                j.object(|j| {
                    j.field("time").number(entry.time as f64);
                    j.field("us").number(entry.duration_us as f64);
                    j.field("command").text(&entry.args.join(&b' '));
                    j.field("client").text(entry.peer.as_bytes());
                });
            }
        });
    }))
}

pub(super) fn clients(srv: &mut Server, _: &Request) -> Response {
    let mut by_memory: Vec<_> =
        srv.clients.iter().filter(|c| c.conn.is_some()).map(|c| (c.mem_bytes(), c.id)).collect();
    let total = by_memory.len();
    if total > CLIENTS {
        by_memory.select_nth_unstable_by_key(CLIENTS, |(bytes, _)| std::cmp::Reverse(*bytes));
        by_memory.truncate(CLIENTS);
    }
    by_memory.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    Response::json(Json::of(|j| {
        j.field("total").number(total as f64);
        j.field("clients").array(|j| {
            by_memory.iter().for_each(|(_, id)| j.text(srv.describe_client(*id).as_bytes()));
        });
    }))
}

/// Biggest and hottest keys of a sample, which takes several steps.
pub(super) fn keys(srv: &mut Server, _: &Request) -> Response {
    let left = match srv.ks.total_keys() {
        total if total <= SAMPLED => Left::All { db: 0, cursor: 0 },
        _ => Left::Random(SAMPLED),
    };
    let sample = KeySample { left, seen: 0, is_lfu: srv.ks.access.lfu, biggest: Vec::new(), hottest: Vec::new() };
    Response { task: Some(Task::Keys(Box::new(sample))), ..Response::json(Vec::new()) }
}

#[derive(Clone, Debug)]
struct SeenKey {
    db: usize,
    key: Vec<u8>,
    kind: &'static str,
    bytes: usize,
    /// The counter of LFU, or how many seconds ago it was used.
    heat: u32,
}

/// What is still to be looked at.
#[derive(Debug)]
enum Left {
    /// All keys from this database and this cursor on.
    All { db: usize, cursor: u64 },
    /// So many keys at random places.
    Random(usize),
}

/// A sample of keys in the making.
#[derive(Debug)]
pub(super) struct KeySample {
    left: Left,
    seen: usize,
    is_lfu: bool,
    biggest: Vec<SeenKey>,
    hottest: Vec<SeenKey>,
}

impl KeySample {
    /// Looks at some more keys; at the end the body.
    pub(super) fn go_on(&mut self, srv: &Server) -> (Vec<u8>, bool) {
        let is_last = match self.left {
            Left::All { db, cursor } => self.look_at_next(srv, db, cursor),
            Left::Random(left) => self.look_at_random(srv, left),
        };
        if !is_last {
            return (Vec::new(), false);
        }
        let body = Json::of(|j| {
            j.field("seen").number(self.seen as f64);
            j.field("is_lfu").flag(self.is_lfu);
            for (name, keys) in [("biggest", &self.biggest), ("hottest", &self.hottest)] {
                j.field(name).array(|j| keys.iter().for_each(|key| j.object(|j| write_key(key, j))));
            }
        });
        (body, true)
    }

    /// Returns whether these were the last.
    fn look_at_next(&mut self, srv: &Server, mut db: usize, mut cursor: u64) -> bool {
        // Keys that are added meanwhile do not make it endless.
        if self.seen >= 2 * SAMPLED {
            return true;
        }
        let until = self.seen + SAMPLED_AT_A_TIME;
        while let Some(keys) = srv.ks.dbs.get(db) {
            if self.seen >= until {
                self.left = Left::All { db, cursor };
                return false;
            }
            cursor = keys.scan(cursor, until - self.seen, |entry| self.look_at(srv, db, entry));
            if cursor == 0 {
                db += 1;
            }
        }
        true
    }

    /// Returns whether these were the last.
    fn look_at_random(&mut self, srv: &Server, left: usize) -> bool {
        let total = srv.ks.total_keys().max(1);
        let share = left.min(SAMPLED_AT_A_TIME);
        for (db, keys) in srv.ks.dbs.iter().enumerate().filter(|(_, db)| !db.is_empty()) {
            keys.sample((share * keys.len()).div_ceil(total), false, |entry| self.look_at(srv, db, entry));
        }
        self.left = Left::Random(left - share);
        left == share
    }

    fn look_at(&mut self, srv: &Server, db: usize, entry: &Entry) {
        let heat = match self.is_lfu {
            true => srv.ks.access.lfu_counter(entry.lru()),
            false => srv.ks.access.idle_seconds(entry.lru()),
        };
        let bytes = entry.alloc_size() + object::value_bytes_sampled(entry, 5);
        let key = SeenKey { db, key: Vec::new(), kind: object::type_name(entry), bytes, heat };
        keep(&mut self.biggest, &key, entry.key(), |k| k.bytes as u64);
        let is_lfu = self.is_lfu;
        keep(
            &mut self.hottest,
            &key,
            entry.key(),
            |k| {
                if is_lfu { k.heat.into() } else { u64::from(u32::MAX - k.heat) }
            },
        );
        self.seen += 1;
    }
}

fn write_key(key: &SeenKey, j: &mut Json) {
    j.field("db").number(key.db as f64);
    j.field("key").text(&key.key[..key.key.len().min(200)]);
    j.field("type").text(key.kind.as_bytes());
    j.field("bytes").number(key.bytes as f64);
    j.field("heat").number(key.heat.into());
}

/// Puts a key among the greatest of a list, in their order, if it is one of them and not there.
fn keep(list: &mut Vec<SeenKey>, key: &SeenKey, name: &[u8], rank: impl Fn(&SeenKey) -> u64) {
    let at = list.partition_point(|other| rank(other) >= rank(key));
    if at >= KEYS || list.iter().any(|other| other.db == key.db && other.key == name) {
        return;
    }
    list.insert(at, SeenKey { key: name.to_vec(), ..key.clone() });
    list.truncate(KEYS);
}
