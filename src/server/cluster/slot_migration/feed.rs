//! Writes to slots on their way to targets: every command that goes to replicas goes there, too, if its keys are in those slots.

use super::link::Peer;
use super::{JobId, Migrations};
use crate::catalog::table::Resolved;
use crate::net::ClientId;
use crate::resp::{Args, Limits, Parsed, RequestParser};
use crate::server::Server;
use crate::structs::slots::{Slot, SlotSet, key_slot};

/// Of what waits, so much is together.
const PIECE_BYTES: usize = 64 * 1024;

/// Which writes go over a link.
#[derive(Debug)]
pub(super) struct Feed {
    slots: SlotSet,
    /// Those that wait for the end of the snapshot.
    pub(super) held: Option<Held>,
}

/// Commands that wait, in pieces, so that none of them is moved when more come.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, command: &[u8]) {
        self.bytes += command.len();
        match self.pieces.last_mut() {
            Some(last) if last.capacity() - last.len() >= command.len() => last.extend_from_slice(command),
            _ => {
                let mut piece = Vec::with_capacity(command.len().max(PIECE_BYTES));
                piece.extend_from_slice(command);
                self.pieces.push(piece);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }
}

/// Finds out which slot a command is about.
#[derive(Debug, Default)]
pub(super) struct Feeder {
    /// Whether any link has a feed.
    is_on: bool,
    parser: RequestParser,
}

impl Migrations {
    pub(super) fn note_feeds(&mut self) {
        self.feeder.is_on = self.links.iter().any(|link| link.feed.is_some());
    }
}

impl Server {
    /// Whether writes go to targets of slots.
    pub(crate) fn feeds_targets(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| bus.migrations.feeder.is_on)
    }

    /// From now on writes to these slots are kept for the link of a job; where the snapshot has another one, they go at once.
    pub(super) fn begin_feed(&mut self, job: JobId, slots: SlotSet) {
        let has_own_link = self.begin_pulled_snapshot(job);
        let Some(bus) = &mut self.bus else { return };
        if let Some(link) = bus.migrations.link(job.main()) {
            link.feed = Some(Feed { slots, held: (!has_own_link).then(Held::default) });
        }
        bus.migrations.note_feeds();
    }

    /// What was kept follows, and what comes goes at once.
    pub(super) fn begin_streaming(&mut self, job: JobId) {
        let Some(link) = self.bus.as_mut().and_then(|bus| bus.migrations.link(job.main())) else { return };
        let held = link.feed.as_mut().and_then(|feed| feed.held.take()).unwrap_or_default();
        if let Peer::Client(id) = link.peer {
            held.pieces.into_iter().for_each(|piece| self.clients.push_all(id, piece));
        }
    }

    /// Gives one command to the targets that are to have it.
    pub(crate) fn feed_targets(&mut self, command: &[u8]) {
        let Some(slot) = self.slot_of_write(command) else { return };
        let Some(bus) = &mut self.bus else { return };
        for link in &mut bus.migrations.links {
            let (Some(feed), Peer::Client(id)) = (&mut link.feed, &link.peer) else { continue };
            if !feed.slots.contains(slot) {
                continue;
            }
            link.streamed += command.len() as u64;
            match &mut feed.held {
                Some(held) => held.add(command),
                None => self.clients.push(*id, command),
            }
        }
    }

    /// The slot of the keys of a command as it is propagated; `None` if it has none: what such a command says is no part of
    /// slots, and that others belong together is not seen until all are there.
    fn slot_of_write(&mut self, command: &[u8]) -> Option<Slot> {
        let feeder = &mut self.bus.as_mut()?.migrations.feeder;
        feeder.parser.reset();
        let limits = Limits { max_bulk_len: i64::MAX, unauthenticated: false };
        let Ok(Parsed::Command { consumed }) = feeder.parser.parse(command, limits) else { return None };
        let args = Args::new(&command[..consumed], feeder.parser.spans());
        let Resolved::Found(cmd) = self.commands.resolve(args.at(0), args.get(1)) else { return None };
        let mut slot = None;
        self.commands.get(cmd).row.each_key(args, |key| {
            if slot.is_none() && key.index < args.len() {
                slot = Some(key_slot(args.at(key.index)));
            }
        });
        slot
    }

    /// Bytes that wait for the target of a job, beside the client's own output.
    pub(crate) fn held_for_target(&self, id: ClientId) -> usize {
        let link = self.bus.as_ref().and_then(|bus| bus.migrations.link_of(id));
        link.map_or(0, super::link::Link::held_bytes)
    }

    /// Memory of what waits for targets, bytes.
    pub(crate) fn export_memory(&self) -> usize {
        let Some(bus) = &self.bus else { return 0 };
        let of_link = |link: &super::link::Link| match link.peer {
            Peer::Client(id) if link.is_export => {
                link.held_bytes() + self.clients.get(id).map_or(0, |c| c.out.chunk_mem())
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
            self.pump_slot_snapshot();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_kept_in_order_and_never_moved() {
        let (mut held, mut all) = (Held::default(), Vec::new());
        for n in 0..400_usize {
            let command = vec![n as u8; n * 7 % 1000];
            held.add(&command);
            all.extend_from_slice(&command);
        }
        held.add(&vec![1; 3 * PIECE_BYTES]);
        all.extend(vec![1; 3 * PIECE_BYTES]);
        assert_eq!((held.len(), held.pieces.concat() == all), (all.len(), true));
        assert!(held.pieces.len() > 3 && held.pieces.iter().all(|piece| piece.len() <= piece.capacity()));
    }
}
