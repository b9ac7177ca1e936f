//! Pausing clients: CLIENT PAUSE, failovers and the shutdown hold back commands, each for a time of its own.

use super::blocked::{BlockKind, BlockState, WaitEnd};
use crate::catalog::table::{CmdRef, Resolved};
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;

/// Who asked for the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PausePurpose {
    ClientCommand,
    Shutdown,
    Failover,
}

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PauseKind {
    /// Commands that may write.
    Write,
    /// And those that read keys.
    Keys,
    All,
}

#[derive(Debug, Default)]
pub(crate) struct Pauses {
    active: Vec<(PausePurpose, PauseKind, i64)>,
}

impl Pauses {
    /// The strongest pause in force.
    pub(crate) fn kind(&self) -> Option<PauseKind> {
        self.active.iter().map(|(_, kind, _)| *kind).max()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Why and what, by the names that INFO has for them: those of the pause that ends last.
    pub(crate) fn describe(&self) -> Option<(&'static str, &'static str)> {
        let (purpose, ..) = self.active.iter().max_by_key(|(.., end)| *end)?;
        let reason = match purpose {
            PausePurpose::ClientCommand => "client_pause",
            PausePurpose::Shutdown => "shutdown_in_progress",
            PausePurpose::Failover => "failover_in_progress",
        };
        Some((reason, if self.kind() == Some(PauseKind::All) { "all" } else { "write" }))
    }

    /// When the last one ends, wall clock ms.
    pub(crate) fn end_ms(&self) -> Option<i64> {
        self.active.iter().map(|(.., end)| *end).max()
    }
}

impl Server {
    /// Starts or replaces the pause of this purpose; CLIENT PAUSE never shortens or weakens one that is in force.
    pub(crate) fn pause_clients(&mut self, purpose: PausePurpose, kind: PauseKind, end_ms: i64) {
        let old = self.pauses.active.iter().find(|(p, ..)| *p == purpose).copied();
        let (kind, end_ms) = match old {
            Some((_, old_kind, old_end)) if purpose == PausePurpose::ClientCommand => {
                (kind.max(old_kind), end_ms.max(old_end))
            }
            _ => (kind, end_ms),
        };
        self.pauses.active.retain(|(p, ..)| *p != purpose);
        self.pauses.active.push((purpose, kind, end_ms));
    }

    /// Ends the pause of this purpose; commands that were held back run later in the turn.
    pub(crate) fn unpause_clients(&mut self, purpose: PausePurpose) {
        self.pauses.active.retain(|(p, ..)| *p != purpose);
        self.release_postponed();
    }

    /// Ends pauses whose time is over.
    pub(crate) fn expire_pauses(&mut self) {
        let now = self.clock.ms();
        let before = self.pauses.active.len();
        self.pauses.active.retain(|(.., end)| *end > now);
        if self.pauses.active.len() != before {
            self.release_postponed();
        }
    }

    /// Why clients are held back, and which commands, as INFO shows it.
    pub(crate) fn describe_pause(&self) -> (&'static str, &'static str) {
        let holds = self.bus.as_ref().is_some_and(|bus| bus.migrations.holds_any());
        let of_slots = holds.then_some(("slot_migration_in_progress", "write"));
        self.pauses.describe().or(of_slots).unwrap_or(("none", "none"))
    }

    /// Whether a write is held back now: expiry and eviction stand still, too.
    pub(crate) fn writes_paused(&self) -> bool {
        self.pauses.kind().is_some()
    }

    /// Holds a command back until the pause ends.
    pub(crate) fn postpone(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) {
        let command = Some((cmd, args.to_owned()));
        self.block(id, BlockState { kind: BlockKind::Postponed, deadline_ms: None, command });
        self.postponed.push(id);
    }

    /// Puts off the command that a client is running, which has done nothing yet, until it is to be tried again.
    pub(crate) fn postpone_this(&mut self, id: ClientId, args: Args<'_>) {
        let Resolved::Found(cmd) = self.commands.resolve(args.at(0), args.get(1)) else { return };
        self.postpone(id, cmd, args);
    }

    /// Whether the command that a client is running can be put off: its own, and no part of a transaction or script.
    pub(crate) fn may_postpone_this(&self, id: ClientId) -> bool {
        self.depth == 1 && self.clients.get(id).is_some_and(|c| c.conn.is_some() && !c.is(ClientFlags::MULTI))
    }

    /// Has commands tried again that wait for host names.
    pub(crate) fn names_were_looked_up(&mut self) {
        if self.resolver.take_answered() {
            self.release_postponed();
        }
    }

    /// Has commands tried again that were put off.
    pub(crate) fn release_postponed(&mut self) {
        // Those still held back by another pause are put off again when they are tried.
        for id in std::mem::take(&mut self.postponed) {
            let Some(state) = self.unblock(id, WaitEnd::Runs) else { continue };
            if let (Some(c), Some(command)) = (self.clients.get_mut(id), state.command) {
                c.flags.add(ClientFlags::REPROCESSING);
                c.resume = Some(command);
            }
        }
    }
}
