//! Whose slot the time and the bytes of a command count for (`cluster-slot-stats-enabled`), as Redis 8.2 counts them.
//!
//! A command that a client calls counts for the slot of its keys or shard channels, with all that runs within it; one that
//! has none, or used keys of several slots as scripts may, for none. Request bytes of a command that waits count when it is
//! answered, and so does its time. What a command leaves for replicas counts once for each of them.
//!
//! While it is off nothing of this is called: see `Obstacle::Timed` for plain calls.

use crate::catalog::row::Command;
use crate::catalog::table::CmdRef;
use crate::cluster::slot_stats::SlotCounts;
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::structs::slots::{Slot, key_slot};

/// What is known of the command under way.
#[derive(Debug, Default)]
pub(crate) struct SlotMeter {
    /// Bytes of the request that is being run, whether they are to be counted or not.
    pub(crate) request_bytes: usize,
    call: Option<MeteredCall>,
}

/// A command that a client has called.
#[derive(Debug)]
pub(crate) struct MeteredCall {
    slot: Option<Slot>,
    /// It used keys of another slot, too.
    is_mixed: bool,
    counts: SlotCounts,
}

impl Server {
    /// Whether commands are counted by slot.
    #[inline]
    pub(crate) fn meters_slots(&self) -> bool {
        self.bus.is_some() && self.cfg.cluster_slot_stats_enabled.counts_commands()
    }

    /// A client's command is about to run. Gives the command within which that happens, for the end.
    pub(crate) fn begin_metering(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Option<MeteredCall> {
        let row = self.commands.get(cmd).row;
        let request_bytes = self.slot_meter.request_bytes as u64;
        let (mut slot, mut bytes_in) = (None, request_bytes);
        if let Some(c) = self.clients.get_mut(id) {
            if row.name == "multi" {
                c.multi.request_bytes = request_bytes;
            } else if row.name == "exec" {
                bytes_in += std::mem::take(&mut c.multi.request_bytes);
            }
            slot = self.slot_of_call(id, row, args);
        }
        if let Some(waited) = self.clients.get(id).and_then(|c| c.blocked_call.as_ref()) {
            bytes_in = waited.request_bytes;
        }
        let counts = SlotCounts { bytes_in, ..SlotCounts::default() };
        self.slot_meter.call.replace(MeteredCall { slot, is_mixed: false, counts })
    }

    /// It has run, and its client is told so many bytes.
    pub(crate) fn end_metering(&mut self, id: ClientId, sent: usize, outer: Option<MeteredCall>) {
        let Some(mut call) = std::mem::replace(&mut self.slot_meter.call, outer) else { return };
        call.counts.bytes_out += sent as u64;
        if let Some(waiting) = self.clients.get_mut(id).filter(|c| c.is(ClientFlags::BLOCKED)) {
            // They count when it is answered.
            let bytes_in = std::mem::take(&mut call.counts.bytes_in);
            if let Some(waited) = &mut waiting.blocked_call {
                waited.request_bytes = bytes_in;
            }
        }
        if let Some(slot) = call.slot.filter(|_| !call.is_mixed) {
            self.count_for_slot(slot, call.counts);
        }
    }

    /// A command became part of a transaction.
    pub(crate) fn meter_queued(&mut self, cmd: CmdRef, args: Args<'_>) {
        if let Some(slot) = first_slot(self.commands.get(cmd).row, args) {
            let bytes_in = self.slot_meter.request_bytes as u64;
            self.count_for_slot(slot, SlotCounts { bytes_in, ..SlotCounts::default() });
        }
    }

    /// The command under way took so long, with all its runs.
    pub(crate) fn meter_time(&mut self, duration_us: i64) {
        if let Some(call) = &mut self.slot_meter.call {
            call.counts.cpu_us += duration_us.max(0).unsigned_abs();
        }
    }

    /// A command that waited is answered without running again.
    pub(crate) fn meter_answered(&mut self, cmd: CmdRef, args: Args<'_>, spent_us: i64, request_bytes: u64) {
        if !self.meters_slots() {
            return;
        }
        if let Some(slot) = first_slot(self.commands.get(cmd).row, args) {
            let cpu_us = spent_us.max(0).unsigned_abs();
            self.count_for_slot(slot, SlotCounts { cpu_us, bytes_in: request_bytes, bytes_out: 0 });
        }
    }

    /// What was said of a key or shard channel besides the reply to the command under way.
    pub(crate) fn meter_sent(&mut self, name: &[u8], bytes: usize) {
        if self.meters_slots() {
            self.count_for_slot(key_slot(name), SlotCounts { bytes_out: bytes as u64, ..SlotCounts::default() });
        }
    }

    /// The command under way leaves so many bytes for each replica.
    pub(crate) fn meter_replicated(&mut self, bytes: usize) {
        let replicas = self.repl.replica_count();
        if let Some(call) = &mut self.slot_meter.call {
            call.counts.bytes_out += (bytes * replicas) as u64;
        }
    }

    /// A script uses a key of this slot.
    pub(crate) fn meter_key_of_script(&mut self, slot: Slot) {
        if let Some(call) = &mut self.slot_meter.call {
            call.is_mixed |= *call.slot.get_or_insert(slot) != slot;
        }
    }

    fn count_for_slot(&mut self, slot: Slot, counts: SlotCounts) {
        let kinds = self.cfg.cluster_slot_stats_enabled;
        let (cpu_us, net) = (if kinds.cpu { counts.cpu_us } else { 0 }, kinds.net);
        let counts = if net { SlotCounts { cpu_us, ..counts } } else { SlotCounts { cpu_us, ..SlotCounts::default() } };
        if let Some(bus) = &mut self.bus {
            bus.machine.slot_stats_mut().add(slot, counts);
        }
    }

    fn slot_of_call(&self, id: ClientId, row: &Command, args: Args<'_>) -> Option<Slot> {
        if row.name != "exec" {
            return first_slot(row, args);
        }
        let queued =
            |c: &Client| c.multi.queued.iter().find_map(|(cmd, args)| first_slot(self.commands.get(cmd).row, args));
        self.clients.get(id).and_then(queued)
    }
}

/// The slot of the first key or shard channel that a command names: they have one slot, or the command is refused.
fn first_slot(row: &Command, args: Args<'_>) -> Option<Slot> {
    let mut slot = None;
    row.each_key(args, |key| {
        if slot.is_none() && key.index < args.len() {
            slot = Some(key_slot(args.at(key.index)));
        }
    });
    slot
}
