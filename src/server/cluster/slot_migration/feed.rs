//! Writes to slots on their way to targets: every command that goes to replicas goes there, too, if its keys are in those slots
//! and have been sent.

use super::Migrations;
use super::link::Peer;
use super::walk::{KeyUse, Walk};
use crate::catalog::CommandTable;
use crate::catalog::row::key;
use crate::catalog::table::Resolved;
use crate::net::ClientId;
use crate::resp::{Args, Limits, Parsed, RequestParser};
use crate::server::Server;
use crate::structs::slots::{Slot, SlotSet, key_slot};
use std::time::Instant;

/// What goes over a link: keys as they are, as long as there is a walk, and writes.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) slots: SlotSet,
    pub(super) walk: Option<Walk>,
    /// When the walk goes on, where `rdb-key-save-delay` slows it down.
    pub(super) rests_until: Option<Instant>,
}

impl Feed {
    /// Whether the walk stands still for a while.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Finds out which keys a command is about.
#[derive(Debug, Default)]
pub(super) struct Feeder {
    /// Whether any link has a feed.
    is_on: bool,
    parser: RequestParser,
}

impl Feeder {
    /// The keys of a command as it is propagated, and the slot of all of them; `None` if it has none: what such a command says
    /// is no part of slots, and that others belong together is not seen until all are there.
    pub(super) fn write_of<'a>(
        &'a mut self,
        command: &'a [u8],
        table: &CommandTable,
    ) -> Option<(Slot, Vec<KeyUse<'a>>)> {
        self.parser.reset();
        let limits = Limits { max_bulk_len: i64::MAX, unauthenticated: false };
        let Ok(Parsed::Command { consumed }) = self.parser.parse(command, limits) else { return None };
        let args = Args::new(&command[..consumed], self.parser.spans());
        let Resolved::Found(cmd) = table.resolve(args.at(0), args.get(1)) else { return None };
        let mut keys: Vec<KeyUse<'a>> = Vec::new();
        table.get(cmd).row.each_key(args, |key| {
            if key.index < args.len() {
                keys.push((args.at(key.index), key.flags & key::RO != 0));
            }
        });
        let (first, _) = *keys.first()?;
        Some((key_slot(first), keys))
    }
}

impl Migrations {
    /// Whether writes go to targets of slots.
    pub(super) fn feeds_any(&self) -> bool {
        self.feeder.is_on
    }

    pub(super) fn note_feeds(&mut self) {
        self.feeder.is_on = self.links.iter().any(|link| link.feed.is_some());
    }
}

impl Server {
    /// Whether writes go to targets of slots.
    pub(crate) fn feeds_targets(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| bus.migrations.feeds_any())
    }

    /// Gives one command, which has been carried out, to the targets that are to have it.
    pub(crate) fn feed_targets(&mut self, command: &[u8]) {
        let Some(bus) = &mut self.bus else { return };
        let Migrations { feeder, links, .. } = &mut bus.migrations;
        let Some((slot, keys)) = feeder.write_of(command, &self.commands) else { return };
        for link in links {
            let (Some(feed), &Peer::Client(id)) = (&mut link.feed, &link.peer) else { continue };
            let is_meant =
                feed.slots.contains(slot) && feed.walk.as_mut().is_none_or(|walk| walk.takes(&self.ks.dbs[0], &keys));
            if is_meant {
                link.streamed += command.len() as u64;
                self.clients.push(id, command);
            }
        }
    }

    /// Memory of what waits for targets and of what their walks have noted, bytes.
    pub(crate) fn export_memory(&self) -> usize {
        let Some(bus) = &self.bus else { return 0 };
        let of_link = |link: &super::link::Link| match link.peer {
            Peer::Client(id) if link.is_export => {
                let of_walk = link.feed.as_ref().and_then(|feed| feed.walk.as_ref()).map_or(0, Walk::memory);
                of_walk + self.clients.get(id).map_or(0, |c| c.out.chunk_mem())
            }
            _ => 0,
        };
        bus.migrations.links.iter().map(of_link).sum()
    }

    /// What a target had waiting was written as far as its connection takes it.
    pub(crate) fn wrote_to_target(&mut self, id: ClientId) {
        let Some(pending) = self.clients.get(id).map(|c| c.out.pending()) else { return };
        let Some(bus) = &mut self.bus else { return };
        if let Some(link) = bus.migrations.link_of_mut(id) {
            link.has_moved |= link.unsent != pending as u64;
            link.unsent = pending as u64;
        }
    }
}
