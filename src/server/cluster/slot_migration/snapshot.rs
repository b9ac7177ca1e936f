//! What slots hold, on its way to targets: slices of the walks of all jobs, between other work.
//!
//! No child process writes it: with some gigabytes of data a fork alone holds up the loop for longer than any client is to
//! wait. A walk holds it up for a slice, and the target's connection says how fast it goes.

use super::feed::Feed;
use super::link::Peer;
use super::walk::{Output, Walk};
use super::{JobId, snapshot_client};
use crate::catalog::row::flag;
use crate::catalog::table::CmdRef;
use crate::config::OBUF_REPLICA;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::Client;
use crate::structs::slots::SlotSet;
use std::time::{Duration, Instant};

/// The longest slice of a turn, for all walks.
const SLICE: Duration = Duration::from_millis(1);
/// So much is put together before it is given to the connection, bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// No more is taken while so much waits to be sent, bytes; of a value to which writes wait, more is.
const MOST_WAITING: usize = 1 << 20;

/// How much may wait for a target before its walk stands still. Who waits for a value does not wait for the target, unless
/// what waits comes near to its limit.
fn room_for(walk: &Walk, most_held: usize) -> usize {
    if walk.held().is_some() { most_held } else { MOST_WAITING.min(most_held) }
}

impl Server {
    /// From now on what the slots hold goes to the target of a job, and so do writes to what has gone.
    pub(super) fn begin_slot_snapshot(&mut self, job: JobId, slots: SlotSet) {
        self.begin_pulled_snapshot(job);
        let Some(bus) = &mut self.bus else { return };
        let Some(link) = bus.migrations.link(job.main()) else { return };
        link.feed = Some(Feed { walk: Some(Walk::new(&slots)), slots, rests_until: None });
        bus.migrations.note_feeds();
        self.with_cluster(|machine, env| machine.on_snapshot_started(job, env));
    }

    /// Before the loop sleeps, with nothing left to propagate: goes on with what is on its way.
    pub(super) fn walk_slots(&mut self) {
        let deadline = Instant::now() + SLICE;
        let delay = Duration::from_micros(self.cfg.rdb_key_save_delay.max(0).unsigned_abs());
        let most_held = self.most_waiting_held();
        let Some(bus) = &mut self.bus else { return };
        let links = &mut bus.migrations.links;
        let (mut ended, mut lets_go) = (Vec::new(), false);
        // Each job is the first one in its turn.
        if !links.is_empty() {
            links.rotate_left(1);
        }
        for at in 0..links.len() {
            let job = links[at].name.job;
            let Some(keys_to) = snapshot_client(links, job) else { continue };
            let link = &mut links[at];
            let (Some(feed), &Peer::Client(id)) = (&mut link.feed, &link.peer) else { continue };
            let rests = feed.rests();
            let Feed { walk, rests_until, .. } = feed;
            let Some(going) = walk else { continue };
            lets_go |= going.take_let_go();
            if rests {
                continue;
            }
            let mut is_done = false;
            while !is_done && Instant::now() < deadline {
                let Some(c) = self.clients.get(keys_to) else { break };
                if c.out.pending() >= room_for(going, most_held) {
                    break;
                }
                let mut out = Output { keys: Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8), again: Vec::new() };
                is_done = going.go_on(&self.ks.dbs[0], &mut out, &mut |gathered| {
                    gathered < PIECE_BYTES && delay.is_zero() && Instant::now() < deadline
                });
                // After each key, however many parts it has; slots without keys take no time.
                let rests = !delay.is_zero() && out.len() > 0 && !going.is_within_key();
                link.streamed += out.again.len() as u64;
                self.clients.push_all(keys_to, out.keys);
                self.clients.push_all(id, out.again);
                if rests {
                    *rests_until = Some(Instant::now() + delay);
                    break;
                }
            }
            lets_go |= going.take_let_go();
            if is_done {
                *walk = None;
                ended.push(job);
            }
        }
        for job in ended {
            self.with_cluster(|machine, env| machine.on_snapshot_ended(job, env));
        }
        if lets_go {
            self.release_postponed();
        }
    }

    /// Whether a walk can go on at once.
    pub(crate) fn is_walking(&self) -> bool {
        let Some(bus) = self.bus.as_ref().filter(|bus| bus.migrations.feeds_any()) else { return false };
        let most_held = self.most_waiting_held();
        bus.migrations.links.iter().any(|link| {
            let Some(feed) = &link.feed else { return false };
            let (Some(walk), Some(keys_to)) = (&feed.walk, snapshot_client(&bus.migrations.links, link.name.job))
            else {
                return false;
            };
            let has_room = |c: &Client| c.out.pending() < room_for(walk, most_held);
            walk.has_let_go() || !feed.rests() && self.clients.get(keys_to).is_some_and(has_room)
        })
    }

    /// How much of a value to which writes wait may wait for a target: well below what would end the job.
    fn most_waiting_held(&self) -> usize {
        let limit = self.cfg.client_output_buffer_limit[OBUF_REPLICA];
        let limits = [limit.hard_bytes, limit.soft_bytes].into_iter().filter(|limit| *limit > 0);
        let least = limits.fold(super::MOST_WAITING, |least, limit| least.min(limit));
        (least as usize / 2).max(PIECE_BYTES)
    }

    /// When a walk goes on that rests, wall clock ms.
    pub(crate) fn walk_deadline_ms(&self) -> Option<i64> {
        let links = &self.bus.as_ref().filter(|bus| bus.migrations.feeds_any())?.migrations.links;
        // Whose rest is over goes on when its target takes more.
        let walking = links.iter().filter_map(|link| link.feed.as_ref().filter(|feed| feed.walk.is_some()));
        let until = walking.filter(|feed| feed.rests()).filter_map(|feed| feed.rests_until).min()?;
        Some(self.clock.ms_until(until))
    }

    /// The keys that are being sent for the last time.
    fn keys_being_sent(&self) -> impl Iterator<Item = &[u8]> {
        let bus = self.bus.as_ref().filter(|bus| bus.migrations.feeds_any());
        let links = bus.into_iter().flat_map(|bus| &bus.migrations.links);
        links.filter_map(|link| link.feed.as_ref()?.walk.as_ref()?.held())
    }

    /// Whether writes to some keys wait.
    pub(crate) fn holds_keys(&self) -> bool {
        self.moving.holds_any() || self.keys_being_sent().next().is_some()
    }

    /// Whether a call that may write, or a transaction, names a key to which writes wait.
    pub(crate) fn names_held_key(&self, c: &Client, cmd: CmdRef, args: Args<'_>) -> bool {
        let names_one = |cmd: CmdRef, args: Args<'_>, db: Option<usize>| {
            let row = self.commands.get(cmd).row;
            // Some name keys of other databases.
            let db = db.filter(|_| !matches!(row.name, "copy" | "move"));
            let mut found = false;
            if self.flags_of_call(row, args) & (flag::WRITE | flag::MAY_REPLICATE) != 0 {
                row.each_key(args, |key| {
                    let is_held =
                        |key: &[u8]| self.moving.holds(db, key) || self.keys_being_sent().any(|held| held == key);
                    found |= key.index < args.len() && is_held(args.at(key.index));
                });
            }
            found
        };
        match self.commands.get(cmd).row.name {
            "exec" => c.multi.queued.iter().any(|(cmd, args)| names_one(cmd, args, None)),
            _ => names_one(cmd, args, Some(c.db)),
        }
    }
}
