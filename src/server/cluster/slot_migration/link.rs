//! The links of jobs: connecting to a target, and what both sides say.

use super::feed::Feed;
use crate::catalog::CmdError;
use crate::catalog::row::{Command, Group, flag};
use crate::cluster::slot_migration::{JobId, Message};
use crate::net::listener::reason;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Source};
use crate::persist::as_commands::put_command;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::repl::follow::open_connection;
use crate::structs::slots::key_slot;
use std::io::{self, Read, Write};
use std::task::Poll;

/// A reply of a target to the handshake is a line, not longer than this.
const LONGEST_REPLY: usize = 16 * 1024;

/// The link of a job.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) job: JobId,
    pub(super) is_export: bool,
    pub(super) peer: Peer,
    /// The writes that are to go over it.
    pub(super) feed: Option<Feed>,
    /// Bytes that the connection did not take when it last could.
    pub(super) unsent: u64,
}

#[derive(Debug)]
pub(super) enum Peer {
    Handshake(Box<Handshake>),
    Client(ClientId),
}

/// A connection to a target that has not agreed yet.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) conn: Conn,
    number: u32,
    connected: bool,
    input: Vec<u8>,
    outbox: Vec<u8>,
}

impl Link {
    /// It is this client's connection.
    pub(super) fn is_of(&self, id: ClientId) -> bool {
        matches!(self.peer, Peer::Client(client) if client == id)
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

    /// Reads what is there.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.conn.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if self.input.len() > LONGEST_REPLY {
                return Err(io::Error::other("Response to establish job is larger than buffer limit"));
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.input)?;
        let line: Vec<u8> = self.input.drain(..=end).collect();
        Some(line.trim_ascii_end().to_vec())
    }
}

impl Server {
    // ---- the source's side ----

    pub(super) fn connect_to_target(&mut self, job: JobId, ip: &str, port: u16) {
        let ends = match self.connection_ends(ip, port) {
            Poll::Ready(ends) => ends,
            // The address to connect from is being looked up: it is there the next time.
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        };
        let opened = ends
            .and_then(|(target, source)| open_connection(target, source))
            .and_then(|conn| self.secure(conn, self.cfg.tls_replication));
        let Some(bus) = &mut self.bus else { return };
        bus.migrations.next_link = bus.migrations.next_link.wrapping_add(1);
        let number = bus.migrations.next_link;
        let registered = opened.and_then(|mut conn| {
            conn.register(self.reactor.registry(), Source::SlotMigration(number).token())?;
            Ok(conn)
        });
        match registered {
            Ok(conn) => {
                let handshake = Handshake { conn, number, connected: false, input: Vec::new(), outbox: Vec::new() };
                let peer = Peer::Handshake(Box::new(handshake));
                bus.migrations.links.push(Link { job, is_export: true, peer, feed: None, unsent: 0 });
            }
            Err(e) => self.fail_to_connect(job, &reason(&e)),
        }
    }

    fn fail_to_connect(&mut self, job: JobId, why: &str) {
        self.fail_migration(job, &format!("Unable to connect to target node: {why}"));
    }

    /// A connection to a target is ready for something.
    pub(crate) fn on_migration_link_ready(&mut self, number: u32, event: Ready) {
        let Some(bus) = &mut self.bus else { return };
        let found = bus.migrations.links.iter_mut().find_map(|link| match &mut link.peer {
            Peer::Handshake(handshake) if handshake.number == number => Some((link.job, handshake)),
            _ => None,
        });
        let Some((job, handshake)) = found else { return };
        if !handshake.connected {
            match handshake.conn.finish_connecting() {
                Ok(true) => {}
                Ok(false) if event.closed => return self.fail_to_connect(job, "connection closed"),
                Ok(false) => return,
                Err(e) => return self.fail_to_connect(job, &reason(&e)),
            }
            handshake.connected = true;
            let auth = self.auth_for_target();
            self.with_cluster(|machine, env| machine.on_migration_connected(job, auth, env));
            return;
        }
        let _ = handshake.flush();
        let read = handshake.read();
        while let Some(line) = self.next_reply(job) {
            self.with_cluster(|machine, env| machine.on_migration_reply(job, &line, env));
        }
        if let Err(e) = read {
            if e.kind() == io::ErrorKind::Other {
                self.fail_migration(job, &e.to_string());
            } else {
                self.with_cluster(|machine, env| machine.on_migration_link_lost(job, env));
            }
        }
    }

    fn next_reply(&mut self, job: JobId) -> Option<Vec<u8>> {
        match &mut self.bus.as_mut()?.migrations.link(job)?.peer {
            Peer::Handshake(handshake) => handshake.take_line(),
            Peer::Client(_) => None,
        }
    }

    fn auth_for_target(&self) -> Option<Vec<u8>> {
        let (user, password) = (&self.cfg.masteruser, &self.cfg.masterauth);
        let mut out = Vec::new();
        match (user.is_empty(), password.is_empty()) {
            (_, true) => return None,
            (true, false) => put_command(&mut out, &[b"AUTH", password]),
            (false, false) => put_command(&mut out, &[b"AUTH", user, password]),
        }
        Some(out)
    }

    /// The target has agreed: from now on the connection is a client's.
    pub(super) fn adopt_export_link(&mut self, job: JobId) {
        let now_ms = self.clock.ms();
        let Some(bus) = &mut self.bus else { return };
        let Some(at) = bus.migrations.links.iter().position(|link| link.job == job) else { return };
        let link = bus.migrations.links.swap_remove(at);
        let Peer::Handshake(handshake) = link.peer else { return };
        let Handshake { conn, input, outbox, .. } = *handshake;
        conn.set_nodelay(true);
        conn.set_keepalive(self.cfg.tcp_keepalive);
        let id = self.clients.add(Some(conn), now_ms);
        bus.migrations.links.push(Link { peer: Peer::Client(id), ..link });
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(ClientFlags::EXPORT.union(ClientFlags::AUTHENTICATED));
        c.query.extend_from_slice(&input);
        c.out.append(&outbox);
        let registry = self.reactor.registry();
        let moved = c.conn.as_mut().map(|conn| conn.reregister(registry, Source::Client(id).token()));
        if let Some(Err(e)) = moved {
            log::warn!("Can't watch the connection of a slot migration: {}", reason(&e));
            return self.clients.close_later(id);
        }
        self.clients.want_read(id);
    }

    // ---- the target's side ----

    /// The client whose command runs is the source of a job.
    pub(crate) fn adopt_import(&mut self, id: ClientId, job: JobId) {
        let Some(bus) = &mut self.bus else { return };
        bus.migrations.links.push(Link { job, is_export: false, peer: Peer::Client(id), feed: None, unsent: 0 });
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::IMPORT);
            // What the source is told is to last.
            c.flags.remove(ClientFlags::NOT_DURABLE.union(ClientFlags::REPLY_OFF));
        }
    }

    /// What comes over the link of a job: from a target nothing but what belongs to the dialogue, from a source besides
    /// that commands that write to its slots.
    pub(crate) fn check_slot_link(&mut self, id: ClientId, row: &Command, args: Args<'_>) -> Result<(), CmdError> {
        let Some(job) = self.job_of(id) else { return Ok(()) };
        let is_import = self.clients.get(id).is_some_and(|c| c.is(ClientFlags::IMPORT));
        let is_expected = match row.name {
            "cluster|syncslots" => args
                .get(2)
                .is_some_and(|word| !word.eq_ignore_ascii_case(b"establish") && !word.eq_ignore_ascii_case(b"finish")),
            _ if !is_import => false,
            _ if row.group == Group::Scripting => false,
            _ if row.flags & flag::WRITE != 0 => self.is_within_job(job, row, args),
            _ => true,
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
        let Some(job) = self.job_of(id) else { return };
        let text = if error.code() == b"OOM" {
            "Ran out of memory (OOM) during slot import".to_string()
        } else {
            format!("Failed to process command during slot migration: {error}")
        };
        self.fail_migration(job, &text);
    }

    // ---- both sides ----

    /// The job that a client is a link of.
    pub(crate) fn job_of(&self, id: ClientId) -> Option<JobId> {
        Some(self.bus.as_ref()?.migrations.link_of(id)?.job)
    }

    /// The link of a job says something.
    pub(crate) fn on_sync_message(&mut self, job: JobId, message: Message) {
        self.with_cluster(|machine, env| machine.on_migration_message(job, message, env));
    }

    pub(super) fn send_on_migration_link(&mut self, job: JobId, bytes: &[u8]) {
        let Some(link) = self.bus.as_mut().and_then(|bus| bus.migrations.link(job)) else { return };
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
