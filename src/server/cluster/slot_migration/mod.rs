//! Slots that move as a whole, as the server drives it: links, the walks that send keys, and clients that wait.
//! What is to be done and when is decided in `cluster::slot_migration`.
//!
//! The link of the side that connects is a connection until the other one has agreed, and then a client; that of the other
//! side is the client that asked. A source's has the EXPORT flag, and its output is the snapshot and the stream; a target's
//! the IMPORT flag: what it sends runs like any command, obeyed like those of a master. Where the target pulls, each side has
//! two of them.
//!
//! Files: `link` (connecting, what comes and goes), `pull` (who asks to pull, and what begins a snapshot for him), `walk` (the
//! keys of a job, in slices), `snapshot` (the slices of all jobs), `feed` (writes on their way to targets), `trim` (keys that
//! go, in slices).

mod feed;
mod link;
mod pull;
mod snapshot;
mod trim;
mod walk;

use crate::cluster::slot_migration::{Channel, JobId, JobLink, Order};
use crate::keyspace::effects::target;
use crate::net::ClientId;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::structs::slots::{Slot, SlotSet};
use link::{Link, Peer};
use trim::Trim;
pub(crate) use trim::TrimMethod;

/// More than this never waits for a target, whatever is configured. Bytes.
const MOST_WAITING: u64 = 1 << 30;

/// What the server keeps for it.
#[derive(Debug, Default)]
pub(crate) struct Migrations {
    links: Vec<Link>,
    next_link: u32,
    trim: Trim,
    /// Writes to these slots wait.
    held: Option<SlotSet>,
    feeder: feed::Feeder,
    /// Clients that have said which node they are.
    callers: Vec<pull::Caller>,
    /// The most that waited for a snapshot at a time, bytes.
    gathered_peak: usize,
    /// The import that last had to wait for what is left in its slots.
    waiting_import: Option<JobId>,
    /// How often all data had been flushed when that was last looked at.
    flushes: u64,
}

/// The client that the snapshot of a job goes to.
fn snapshot_client(links: &[Link], job: JobId) -> Option<ClientId> {
    let client = |name| links.iter().find(|link| link.name == name).and_then(Link::client);
    client(job.snapshot()).or_else(|| client(job.main()))
}

impl Migrations {
    fn link(&mut self, name: JobLink) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.name == name)
    }

    fn link_of(&self, id: ClientId) -> Option<&Link> {
        self.links.iter().find(|link| link.is_of(id))
    }

    fn link_of_mut(&mut self, id: ClientId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.is_of(id))
    }

    /// Whether writes to a slot wait; of those to no certain slot, whether any do.
    pub(crate) fn holds(&self, slot: Option<Slot>) -> bool {
        self.held.as_ref().is_some_and(|held| slot.is_none_or(|slot| held.contains(slot)))
    }

    /// Whether writes to any slot wait.
    pub(crate) fn holds_any(&self) -> bool {
        self.held.is_some()
    }
}

impl Server {
    /// Before the loop sleeps: goes on with slots that move. What was executed is in their streams by now.
    pub(crate) fn slot_migrations_before_sleep(&mut self) {
        if self.bus.is_none() {
            return;
        }
        let flushes = self.ks.flushes;
        let stands_still = self.depth > 0 || self.loads_own_data();
        let Some(bus) = &mut self.bus else { return };
        let walks = |link: &Link| link.feed.as_ref().is_some_and(|feed| feed.walk.is_some());
        if stands_still && bus.migrations.links.iter().any(walks) {
            // What is loaded anew is not what was walked over: it is seen to when it is there.
            return;
        }
        let flushed = std::mem::replace(&mut bus.migrations.flushes, flushes) != flushes;
        if stands_still || !bus.machine.slots_migrate() {
            return;
        }
        self.drain_effects();
        self.note_migration_links();
        // A target that has been kept in this turn is not to take over by an old time.
        self.clock.tick_us();
        self.with_cluster(|machine, env| {
            if flushed {
                machine.on_data_flushed(None, env);
            }
            machine.advance_slot_migrations(env);
        });
        if self.feeds_targets() {
            self.walk_slots();
        }
    }

    /// Tells the machine how it stands with the links, and closes those whose target does not keep up.
    pub(crate) fn note_migration_links(&mut self) {
        let now_ms = self.clock.ms();
        let Some(bus) = &self.bus else { return };
        let ids: Vec<ClientId> = bus.migrations.links.iter().filter_map(Link::client).collect();
        for id in ids {
            self.check_output_limit(id);
            let Some(c) = self.clients.get(id) else { continue };
            let (pending, silent_ms) = (c.out.pending() as u64, now_ms - c.last_interaction_ms);
            let is_all_run =
                c.query_pos >= c.query.len() && !c.is(ClientFlags::PENDING_READ.union(ClientFlags::BLOCKED));
            let Some(link) = self.bus.as_mut().and_then(|bus| bus.migrations.link_of_mut(id)) else { continue };
            let (JobLink { job, channel }, unsent) = (link.name, link.unsent);
            let (is_export, streamed) = (link.is_export, link.streamed);
            let has_moved = std::mem::take(&mut link.has_moved) || pending == 0;
            self.with_cluster(|machine, env| match (is_export, channel) {
                (true, Channel::Main) => {
                    machine.note_migration_backlog(job, pending, unsent);
                    machine.note_migration_streamed(job, streamed);
                    if pending > MOST_WAITING {
                        machine.on_migration_failed(job, "Too much waits for the target", env);
                    }
                }
                (true, Channel::Snapshot) if has_moved => machine.note_migration_heard(job, env.now_ms),
                (true, Channel::Snapshot) => {}
                (false, _) => {
                    machine.note_migration_heard(job, env.now_ms - silent_ms.max(0));
                    if channel == Channel::Main {
                        machine.note_migration_backlog(job, pending, pending);
                        machine.note_migration_applied(job, streamed, is_all_run, env);
                    }
                }
            });
        }
    }

    /// Carries out what the machine wants done.
    pub(super) fn do_for_slot_migration(&mut self, order: Order) {
        match order {
            Order::Prepare { job, slots } => self.prepare_import(job, &slots),
            Order::Connect { link, ip, port } => self.connect_for_migration(link, &ip, port),
            Order::Send { link, bytes } => self.send_on_migration_link(link, &bytes),
            Order::Adopt { link } => self.adopt_migration_link(link),
            Order::Snapshot { job, slots } => self.begin_slot_snapshot(job, slots),
            Order::Close { job } => self.close_migration(job),
            Order::CloseSnapshotLink { job } => {
                self.close_migration_link(job.snapshot());
                if self.admin.debug.stops.at_gathered_stream {
                    crate::sys::process::stop();
                }
            }
            Order::Delete { job, slots } => self.delete_for_job(job, &slots),
            Order::Propagate(command) => self.propagate_of_job(target::ALL, &command),
            // To one that is about to take over nothing more is told.
            Order::Tell(_) if self.writes_paused() => {}
            Order::Tell(command) => self.propagate_of_job(target::REPLICAS, &command),
            Order::Review => self.review_slots(),
        }
    }

    /// Each by itself: who does not know one of them is not to pass over others.
    fn propagate_of_job(&mut self, targets: u8, command: &[Vec<u8>]) {
        self.begin_effects();
        self.ks.effects.propagate(0, targets, command.iter().map(Vec::as_slice));
        self.drain_effects();
    }

    /// Takes in which slots are hidden and to which writes wait.
    pub(crate) fn review_slots(&mut self) {
        let Some(bus) = &mut self.bus else { return };
        let held = bus.machine.held_slots();
        let migrations = &mut bus.migrations;
        let hidden = bus.machine.importing_slots().with(&migrations.trim.queued);
        let fewer = migrations.held.as_ref().is_some_and(|old| !old.without(&held).is_empty());
        migrations.held = (!held.is_empty()).then_some(held);
        self.ks.dbs[0].hide(hidden);
        if fewer {
            self.release_postponed();
        }
    }

    /// A job cannot go on.
    fn fail_migration(&mut self, job: JobId, why: &str) {
        self.with_cluster(|machine, env| machine.on_migration_failed(job, why, env));
    }

    fn close_migration(&mut self, job: JobId) {
        self.close_migration_link(job.snapshot());
        self.close_migration_link(job.main());
    }

    fn close_migration_link(&mut self, name: JobLink) {
        let Some(bus) = &mut self.bus else { return };
        let Some(at) = bus.migrations.links.iter().position(|link| link.name == name) else { return };
        let link = bus.migrations.links.swap_remove(at);
        bus.migrations.note_feeds();
        if link.feed.is_some_and(|feed| feed.walk.is_some()) {
            // Somebody may wait for a key.
            self.release_postponed();
        }
        match link.peer {
            Peer::Client(id) => self.clients.close_later(id),
            Peer::Handshake(mut handshake) => drop(handshake.conn.deregister(self.reactor.registry())),
        }
    }

    /// This process is about to end, and its links with it.
    pub(crate) fn end_slot_migrations_at_exit(&mut self) {
        self.with_cluster(|machine, env| machine.cancel_at_exit(env));
    }

    /// Imports that a snapshot told of.
    pub(crate) fn track_imports(&mut self, imports: &[Vec<u8>]) {
        self.with_cluster(|machine, env| {
            for text in imports {
                // A Redis has another form for it.
                match text.contains(&b':') {
                    true => _ = machine.track_task(text, env),
                    false => machine.track_import(text, env),
                }
            }
        });
        self.review_slots();
    }

    /// The imports that are under way, as they stand in a snapshot.
    pub(crate) fn imports_text(&self) -> Vec<String> {
        self.cluster().map_or_else(Vec::new, |machine| machine.imports_text())
    }

    /// A client of a job is about to go.
    pub(crate) fn forget_migration_client(&mut self, id: ClientId) {
        let Some(bus) = &mut self.bus else { return };
        let Some(link) = bus.migrations.link_of(id).map(|link| link.name) else { return };
        match link.channel {
            Channel::Main => self.close_migration(link.job),
            Channel::Snapshot => self.close_migration_link(link),
        }
        self.lose_migration_link(link);
    }
}
