//! The links of jobs: connecting to the other side, and what both sides say.

use super::Migrations;
use super::feed::Feed;
use crate::catalog::CmdError;
use crate::catalog::row::{Command, Group, flag};
use crate::cluster::slot_migration::{Channel, JobId, JobLink, Message};
use crate::config::OBUF_REPLICA;
use crate::net::listener::reason;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Source};
use crate::resp::Args;
use crate::resp::encode::put_command;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::{BlockKind, BlockState};
use crate::structs::slots::key_slot;
use std::io::{self, Write};
use std::task::Poll;

/// A reply to the handshake is a line, not longer than this.
const LONGEST_REPLY: usize = 16 * 1024;
/// So many of them are read before others have their turn.
const REPLIES_PER_TURN: usize = 64;
/// And so much of what gathers, bytes.
const GATHERED_PER_TURN: usize = 256 * 1024;
/// After so much of what has gathered, `key-load-delay` passes, bytes.
const DELAYED_BYTES: u64 = 16 * 1024;

/// A link of a job.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: JobLink,
    pub(super) is_export: bool,
    pub(super) peer: Peer,
    /// The writes that are to go over it.
    pub(super) feed: Option<Feed>,
    /// Bytes that the connection did not take when it last could, and whether it has taken some since that was last asked.
    pub(super) unsent: u64,
    pub(super) has_moved: bool,
    /// Bytes of the stream that were given to it (export), or that came by it and were run (import).
    pub(super) streamed: u64,
}

#[derive(Debug)]
pub(super) enum Peer {
    Handshake(Box<Handshake>),
    Client(ClientId),
}

/// A connection to another node that has not agreed yet.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) conn: Conn,
    number: u32,
    connected: bool,
    input: Vec<u8>,
    /// No more is taken in beforehand.
    is_full: bool,
    outbox: Vec<u8>,
}

impl Link {
    fn new(name: JobLink, is_export: bool, peer: Peer) -> Link {
        Link { name, is_export, peer, feed: None, unsent: 0, has_moved: false, streamed: 0 }
    }

    /// It is this client's connection.
    pub(super) fn is_of(&self, id: ClientId) -> bool {
        matches!(self.peer, Peer::Client(client) if client == id)
    }

    /// It, unless it is none yet.
    pub(super) fn client(&self) -> Option<ClientId> {
        match self.peer {
            Peer::Client(id) => Some(id),
            Peer::Handshake(_) => None,
        }
    }
}

impl Handshake {
    fn flush(&mut self) -> io::Result<()> {
        while self.connected && !self.outbox.is_empty() {
            match self.conn.write(&self.outbox) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The next line, if it is there. What comes after it may be more than lines, and is left to the connection.
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(Some(line.trim_ascii_end().to_vec()));
            }
            if self.input.len() > LONGEST_REPLY {
                return Err(io::Error::other("Response to establish job is larger than buffer limit"));
            }
            if !self.conn.read_some(&mut self.input)? {
                return Ok(None);
            }
        }
    }
}

impl Server {
    // ---- whoever connects ----

    pub(super) fn connect_for_migration(&mut self, link: JobLink, ip: &str, port: u16) {
        let ends = match self.connection_ends(ip, port) {
            Poll::Ready(ends) => ends,
            // The address to connect from is being looked up: it is there the next time.
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        };
        let Some(bus) = &mut self.bus else { return };
        bus.migrations.next_link = bus.migrations.next_link.wrapping_add(1);
        let number = bus.migrations.next_link;
        let watched = Source::SlotMigration(number);
        let connected = ends.and_then(|ends| self.connect(ends, self.cfg.tls_replication, watched));
        let Some(bus) = &mut self.bus else { return };
        match connected {
            Ok(conn) => {
                let handshake =
                    Handshake { conn, number, connected: false, input: Vec::new(), is_full: false, outbox: Vec::new() };
                let peer = Peer::Handshake(Box::new(handshake));
                let is_export = bus.machine.is_export(link.job);
                bus.migrations.links.push(Link::new(link, is_export, peer));
            }
            Err(e) => self.fail_to_connect(link, &reason(&e)),
        }
    }

    fn fail_to_connect(&mut self, link: JobLink, why: &str) {
        self.with_cluster(|machine, env| machine.on_migration_unconnected(link, why, env));
    }

    /// A connection to the other side is ready for something.
    pub(crate) fn on_migration_link_ready(&mut self, number: u32, event: Ready) {
        let Some(bus) = &mut self.bus else { return };
        let found = bus.migrations.links.iter_mut().find_map(|link| match &mut link.peer {
            Peer::Handshake(handshake) if handshake.number == number => Some((link.name, handshake)),
            _ => None,
        });
        let Some((link, handshake)) = found else { return };
        if !handshake.connected {
            match handshake.conn.finish_connecting() {
                Ok(true) => {}
                Ok(false) if event.closed => return self.fail_to_connect(link, "connection closed"),
                Ok(false) => return,
                Err(e) => return self.fail_to_connect(link, &reason(&e)),
            }
            handshake.connected = true;
            let auth = self.auth_for_node();
            self.with_cluster(|machine, env| machine.on_migration_connected(link, auth, env));
            return;
        }
        let _ = handshake.flush();
        if bus.machine.gathers_stream(link) {
            return self.gather_stream(link);
        }
        // What comes unasked is left to the connection until it is a client's.
        if !bus.machine.awaits_reply(link) && event.closed {
            return self.lose_migration_link(link);
        }
        for _ in 0..REPLIES_PER_TURN {
            match self.next_reply(link) {
                Ok(Some(line)) => self.with_cluster(|machine, env| machine.on_migration_reply(link, &line, env)),
                Ok(None) => return,
                Err(e) if e.kind() == io::ErrorKind::Other => return self.fail_migration(link.job, &e.to_string()),
                // The link is closed when what the machine wants done is: nothing is read from it until then.
                Err(_) => return self.lose_migration_link(link),
            };
        }
        self.look_again(link);
    }

    /// What is written at the source while its snapshot comes is taken in, so that it does not wait there, up to a limit: the
    /// rest is left to the connection until the snapshot is there.
    fn gather_stream(&mut self, link: JobLink) {
        let most = self.most_gathered();
        let Some(Migrations { links, gathered_peak, .. }) = self.bus.as_mut().map(|bus| &mut bus.migrations) else {
            return;
        };
        let Some(Link { peer: Peer::Handshake(handshake), .. }) = links.iter_mut().find(|other| other.name == link)
        else {
            return;
        };
        let until = handshake.input.len() + GATHERED_PER_TURN;
        let read = loop {
            if handshake.input.len() >= most {
                if !std::mem::replace(&mut handshake.is_full, true) {
                    log::info!("Slots sync buffer limit has been reached, the rest waits at the source node");
                }
                break Ok(false);
            }
            match handshake.conn.read_some(&mut handshake.input) {
                Ok(true) if handshake.input.len() < until => {}
                other => break other,
            }
        };
        *gathered_peak = (*gathered_peak).max(handshake.input.len());
        match read {
            Ok(true) => self.look_again(link),
            Ok(false) => {}
            Err(_) => self.lose_migration_link(link),
        }
    }

    /// How much is taken in beforehand, bytes.
    fn most_gathered(&self) -> usize {
        let of_replicas = self.cfg.client_output_buffer_limit[OBUF_REPLICA].hard_bytes;
        let limits = [self.cfg.replica_full_sync_buffer_limit, of_replicas, super::MOST_WAITING];
        let limit = limits.into_iter().find(|limit| *limit > 0).unwrap_or(super::MOST_WAITING);
        usize::try_from(limit.min(super::MOST_WAITING)).unwrap_or(usize::MAX)
    }

    /// What has come of streams and was not run yet, bytes; and the most that waited for a snapshot at a time.
    pub(crate) fn gathered_memory(&self) -> (usize, usize) {
        let Some(bus) = &self.bus else { return (0, 0) };
        let of_link = |link: &Link| match &link.peer {
            _ if link.is_export || link.name.channel == Channel::Snapshot => 0,
            Peer::Handshake(handshake) => handshake.input.len(),
            Peer::Client(id) => self.clients.get(*id).map_or(0, |c| c.query.len().saturating_sub(c.query_pos)),
        };
        (bus.migrations.links.iter().map(of_link).sum(), bus.migrations.gathered_peak)
    }

    pub(super) fn lose_migration_link(&mut self, link: JobLink) {
        self.with_cluster(|machine, env| machine.on_migration_link_lost(link, env));
    }

    /// There may be more on a link: that is shown anew as soon as others have had their turn.
    fn look_again(&mut self, link: JobLink) {
        let registry = self.reactor.registry();
        let peer = self.bus.as_mut().and_then(|bus| bus.migrations.link(link)).map(|link| &mut link.peer);
        if let Some(Peer::Handshake(handshake)) = peer
            && handshake.conn.reregister(registry, Source::SlotMigration(handshake.number).token()).is_err()
        {
            self.lose_migration_link(link);
        }
    }

    fn next_reply(&mut self, link: JobLink) -> io::Result<Option<Vec<u8>>> {
        let Some(bus) = self.bus.as_mut().filter(|bus| bus.machine.awaits_reply(link)) else { return Ok(None) };
        match bus.migrations.link(link).map(|link| &mut link.peer) {
            Some(Peer::Handshake(handshake)) => handshake.read_line(),
            _ => Ok(None),
        }
    }

    fn auth_for_node(&self) -> Option<Vec<u8>> {
        let (user, password) = (&self.cfg.masteruser, &self.cfg.masterauth);
        let mut out = Vec::new();
        match (user.is_empty(), password.is_empty()) {
            (_, true) => return None,
            (true, false) => put_command(&mut out, &[b"AUTH", password]),
            (false, false) => put_command(&mut out, &[b"AUTH", user, password]),
        }
        Some(out)
    }

    /// The other side has agreed: from now on the connection is a client's.
    pub(super) fn adopt_migration_link(&mut self, link: JobLink) {
        let now_ms = self.clock.ms();
        let Some(bus) = &mut self.bus else { return };
        let Some(at) = bus.migrations.links.iter().position(|other| other.name == link) else { return };
        let link = bus.migrations.links.swap_remove(at);
        let Peer::Handshake(handshake) = link.peer else { return };
        let Handshake { conn, input, outbox, .. } = *handshake;
        conn.set_nodelay(true);
        conn.set_keepalive(self.cfg.tcp_keepalive);
        let id = self.clients.add(Some(conn), now_ms);
        let side = if link.is_export { ClientFlags::EXPORT } else { ClientFlags::IMPORT };
        bus.migrations.links.push(Link { peer: Peer::Client(id), ..link });
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(side.union(ClientFlags::INTERNAL).union(ClientFlags::AUTHENTICATED));
        c.query = input;
        c.out.append(&outbox);
        let registry = self.reactor.registry();
        let moved = c.conn.as_mut().map(|conn| conn.reregister(registry, Source::Client(id).token()));
        if let Some(Err(e)) = moved {
            log::warn!("Can't watch the connection of a slot migration: {}", reason(&e));
            return self.clients.close_later(id);
        }
        self.clients.want_read(id);
    }

    // ---- whoever is connected to ----

    /// The client whose command runs is the other side of a job.
    pub(crate) fn adopt_link(&mut self, id: ClientId, link: JobLink) {
        let Some(bus) = &mut self.bus else { return };
        let is_export = bus.machine.is_export(link.job);
        bus.migrations.links.push(Link::new(link, is_export, Peer::Client(id)));
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(if is_export { ClientFlags::EXPORT } else { ClientFlags::IMPORT });
            // What the other side is told is to last.
            c.flags.remove(ClientFlags::NOT_DURABLE.union(ClientFlags::REPLY_OFF));
        }
    }

    /// What comes over the link of a job: from a target nothing but what belongs to the dialogue, from a source besides
    /// that commands that write to its slots, and what a Valkey may put before them.
    pub(crate) fn check_slot_link(&mut self, id: ClientId, row: &Command, args: Args<'_>) -> Result<(), CmdError> {
        let Some(JobLink { job, channel }) = self.job_of(id) else { return Ok(()) };
        let is_import = self.clients.get(id).is_some_and(|c| c.is(ClientFlags::IMPORT));
        let is_expected = match row.name {
            "cluster|syncslots" => args
                .get(2)
                .is_some_and(|word| !word.eq_ignore_ascii_case(b"establish") && !word.eq_ignore_ascii_case(b"finish")),
            _ if !is_import => false,
            // What a source has of them is part of its snapshot.
            "function|restore" if channel == Channel::Snapshot => true,
            _ if row.group == Group::Scripting => false,
            _ if row.flags & flag::WRITE != 0 => self.is_within_job(job, row, args),
            "select" | "ping" => true,
            _ => false,
        };
        if is_expected {
            return Ok(());
        }
        let error = CmdError::text(format!("ERR '{}' is no part of a slot migration here", row.name));
        self.fail_import(id, &error);
        Err(error)
    }

    fn is_within_job(&self, job: JobId, row: &Command, args: Args<'_>) -> bool {
        let Some(slots) = self.cluster().and_then(|machine| machine.slots_of_job(job)) else { return false };
        let (mut keys, mut strangers) = (0, 0);
        row.each_key(args, |key| {
            keys += 1;
            let is_in = key.index < args.len() && slots.contains(key_slot(args.at(key.index)));
            strangers += usize::from(!is_in);
        });
        keys > 0 && strangers == 0
    }

    /// A command of a source failed: the keys here would differ from those there.
    pub(crate) fn fail_import(&mut self, id: ClientId, error: &CmdError) {
        let Some(JobLink { job, .. }) = self.job_of(id) else { return };
        let text = if error.code() == b"OOM" {
            "Ran out of memory (OOM) during slot import".to_string()
        } else {
            format!("Failed to process command during slot migration: {error}")
        };
        match error.code() {
            b"OOM" | b"BUSY" | b"MISCONF" | b"LOADING" | b"NOREPLICAS" => {
                self.with_cluster(|machine, env| machine.on_migration_hindered(job, &text, env));
            }
            _ => self.fail_migration(job, &text),
        }
    }

    // ---- both sides ----

    pub(crate) fn job_of(&self, id: ClientId) -> Option<JobLink> {
        Some(self.bus.as_ref()?.migrations.link_of(id)?.name)
    }

    /// The link of a job says something.
    pub(crate) fn on_sync_message(&mut self, link: JobLink, message: Message) {
        self.with_cluster(|machine, env| machine.on_migration_message(link, message, env));
    }

    /// A source's commands were run, so many bytes.
    pub(crate) fn note_import_run(&mut self, id: ClientId, bytes: usize) {
        let Some(bus) = &mut self.bus else { return };
        let Some(link) = bus.migrations.link_of_mut(id) else { return };
        link.streamed += bytes as u64;
        let name = link.name;
        let delay_us = self.cfg.key_load_delay.max(0).unsigned_abs();
        if delay_us > 0 && bytes > 0 && name.channel == Channel::Main && bus.machine.catches_up(name.job) {
            let delay_us = delay_us.saturating_mul((bytes as u64).div_ceil(DELAYED_BYTES));
            let deadline_ms = self.clock.ms() + i64::try_from(delay_us.div_ceil(1000)).unwrap_or(i64::MAX / 2);
            self.block(id, BlockState { kind: BlockKind::Resting, deadline_ms: Some(deadline_ms), command: None });
        }
    }

    pub(super) fn send_on_migration_link(&mut self, link: JobLink, bytes: &[u8]) {
        let Some(link) = self.bus.as_mut().and_then(|bus| bus.migrations.link(link)) else { return };
        match &mut link.peer {
            Peer::Client(id) => self.clients.push(*id, bytes),
            Peer::Handshake(handshake) => {
                handshake.outbox.extend_from_slice(bytes);
                // A lasting error shows when the reply is read.
                let _ = handshake.flush();
            }
        }
    }
}
