//! Clients that wait: for what, until when, and how they are released.
//!
//! A command blocks its client with `Server::block`; its reply comes when the client is released. While a client is
//! blocked its input gathers, unprocessed.

use crate::catalog::table::{CmdRef, Resolved};
use crate::commands::context::Wait;
use crate::keyspace::object;
use crate::net::ClientId;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

/// The types of values that clients wait for.
const WAITED_FOR: [&str; 3] = ["list", "zset", "stream"];

/// What a blocked client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// CLIENT PAUSE, a failover or a shutdown holds the command; it runs afterwards.
    Postponed,
    /// WAIT: replicas that acknowledge an offset.
    Wait { offset: i64, replicas: i64 },
    /// WAITAOF: local (0 or 1) and replicas that have an offset on disk.
    WaitAof { offset: i64, local: i64, replicas: i64 },
    /// SHUTDOWN waits for replicas.
    Shutdown,
    /// DEBUG RELOAD and DEBUG LOADAOF wait for the data set.
    Loading,
    /// MIGRATE waits for the target.
    Moving,
    /// What gathered while slots came is run slowly, as `key-load-delay` has it.
    Resting,
    /// One of these keys is to come to hold a value of this type.
    /// `or_gone`: or it is to go away, or to come to hold another type. `ticket`: when it came; `Server::block` gives it.
    Keys { db: usize, keys: Vec<Vec<u8>>, wanted: &'static str, or_gone: bool, ticket: u64 },
}

#[derive(Debug)]
pub(crate) struct BlockState {
    pub(crate) kind: BlockKind,
    /// Wall clock ms; `None`: for ever.
    pub(crate) deadline_ms: Option<i64>,
    /// The command to run again on release, where that is how it goes on.
    pub(crate) command: Option<(CmdRef, OwnedArgs)>,
}

/// How a client's wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitEnd {
    /// The command was answered.
    Answered,
    /// The command was answered with an error.
    Failed,
    /// The command is to run now.
    Runs,
}

/// All blocked clients, and those with a deadline in its order.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    pub(crate) clients: BTreeSet<ClientId>,
    deadlines: BTreeSet<(i64, ClientId)>,
    /// Who waits for a key, by database, key and ticket.
    waiting: HashMap<usize, HashMap<Vec<u8>, BTreeMap<u64, ClientId>>>,
    /// The ticket given last: who blocks later has a higher one.
    last_ticket: u64,
    /// Number of clients that wait for keys to go away, too.
    for_gone: usize,
    /// The client whose command is being run again, with the deadline it came with.
    resumed: Option<(ClientId, Option<i64>)>,
    /// Clients that wait for keys are being served: what becomes ready meanwhile is looked at by the same loop.
    serving: bool,
}

impl Blocked {
    /// When the earliest deadline is over, wall clock ms.
    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at, _)| *at + 1)
    }

    /// Number of keys that clients wait for.
    pub(crate) fn key_count(&self) -> usize {
        self.waiting.values().map(HashMap::len).sum()
    }

    fn add_waiting(&mut self, id: ClientId, db: usize, keys: &[Vec<u8>]) -> u64 {
        self.last_ticket += 1;
        let of_db = self.waiting.entry(db).or_default();
        for key in keys {
            // The same key may be named twice.
            of_db.entry(key.clone()).or_default().insert(self.last_ticket, id);
        }
        self.last_ticket
    }

    fn remove_waiting(&mut self, ticket: u64, db: usize, keys: &[Vec<u8>]) {
        let Some(of_db) = self.waiting.get_mut(&db) else { return };
        for key in keys {
            let Some(queue) = of_db.get_mut(key) else { continue };
            queue.remove(&ticket);
            if queue.is_empty() {
                of_db.remove(key);
            }
        }
        if of_db.is_empty() {
            self.waiting.remove(&db);
        }
    }

    /// Those who wait for a key and hold one of these tickets, in the order they came.
    fn waiting_for(
        &self,
        db: usize,
        key: &[u8],
        tickets: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, ClientId)> + use<'_> {
        let queue = self.waiting.get(&db).and_then(|keys| keys.get(key));
        queue.into_iter().flat_map(move |queue| queue.range(tickets.clone())).map(|(ticket, id)| (*ticket, *id))
    }

    /// Clients wait for keys to go away, too.
    pub(crate) fn any_for_gone(&self) -> bool {
        self.for_gone > 0
    }

    /// Number of clients that wait with a deadline (INFO's `clients_in_timeout_table`).
    pub(crate) fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }
}

impl Server {
    /// Blocks a client. Its command returns without a reply.
    pub(crate) fn block(&mut self, id: ClientId, mut state: BlockState) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(ClientFlags::BLOCKED);
        if let Some(at) = state.deadline_ms {
            self.blocked.deadlines.insert((at, id));
        }
        if let BlockKind::Keys { db, keys, or_gone, ticket, .. } = &mut state.kind {
            *ticket = self.blocked.add_waiting(id, *db, keys);
            self.ks.effects.wants_ready = true;
            self.blocked.for_gone += usize::from(*or_gone);
            self.ks.effects.wants_gone = self.blocked.for_gone > 0;
        }
        if state.kind != BlockKind::Postponed {
            self.blocked.clients.insert(id);
        }
        c.block = Some(Box::new(state));
    }

    /// Ends a client's wait and gives what it was; its input is gone on with later in the turn. Replying is the caller's.
    pub(crate) fn unblock(&mut self, id: ClientId, end: WaitEnd) -> Option<Box<BlockState>> {
        let state = self.end_wait(id)?;
        match end {
            WaitEnd::Answered => self.count_answered(id, false),
            WaitEnd::Failed => self.count_answered(id, true),
            WaitEnd::Runs => {}
        }
        if end != WaitEnd::Runs
            && let Some(c) = self.clients.get_mut(id)
        {
            c.end_request(c.last_command);
        }
        self.go_on_later(id);
        Some(state)
    }

    fn end_wait(&mut self, id: ClientId) -> Option<Box<BlockState>> {
        let c = self.clients.get_mut(id)?;
        let state = c.block.take()?;
        c.flags.remove(ClientFlags::BLOCKED);
        self.forget_block(id, &state);
        Some(state)
    }

    /// Has the client's input gone on with later in the turn.
    fn go_on_later(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if !c.is(ClientFlags::UNBLOCKED) {
            c.flags.add(ClientFlags::UNBLOCKED);
            self.clients.unblocked.push(id);
        }
    }

    /// Has a client wait for keys that its command, called with `args`, found empty.
    pub(crate) fn block_for_keys(&mut self, id: ClientId, args: Args<'_>, wait: Wait) {
        let Some(db) = self.clients.get(id).map(|c| c.db) else { return };
        let Resolved::Found(cmd) = self.commands.resolve(args.at(0), args.get(1)) else { return };
        // A command that waits again goes on waiting until its first deadline.
        let deadline_ms = match self.blocked.resumed {
            Some((resumed, deadline)) if resumed == id => deadline,
            _ => wait.deadline_ms,
        };
        let Wait { keys, wanted, or_gone, .. } = wait;
        let kind = BlockKind::Keys { db, keys, wanted, or_gone, ticket: 0 };
        let command = Some((cmd, wait.args.unwrap_or_else(|| args.to_owned())));
        self.block(id, BlockState { kind, deadline_ms, command });
    }

    /// Serves the clients that wait for keys which hold something by now, in the order they came. To be called after
    /// each unit of execution.
    pub(crate) fn serve_ready_keys(&mut self) {
        let effects = &self.ks.effects;
        if self.depth > 0 || self.blocked.serving || (effects.ready_keys.is_empty() && !effects.any_ready) {
            return;
        }
        self.blocked.serving = true;
        // Serving one may make keys ready for others.
        loop {
            let mut ready = std::mem::take(&mut self.ks.effects.ready_keys);
            if std::mem::take(&mut self.ks.effects.any_ready) {
                let for_gone = self.blocked.any_for_gone();
                for (db, keys) in &self.blocked.waiting {
                    let is_there = |key: &&Vec<u8>| for_gone || self.ks.dbs[*db].get(key).is_some();
                    ready.extend(keys.keys().filter(is_there).map(|key| (*db, key.clone())));
                }
            }
            if ready.is_empty() {
                break;
            }
            let mut seen = HashSet::new();
            for (db, key) in &ready {
                if seen.insert((db, key)) {
                    self.serve_key(*db, key);
                }
            }
        }
        self.blocked.serving = false;
    }

    fn serve_key(&mut self, db: usize, key: &[u8]) {
        self.clock.tick_us();
        self.ks.now_ms = self.clock.ms();
        // Whoever blocks again meanwhile waits for the next time.
        let (mut next, last) = (0, self.blocked.last_ticket);
        while next <= last {
            // A key whose time came while the unit ran wakes nobody; it is left for whoever looks it up.
            let alive = self.ks.dbs[db].get(key).filter(|e| !self.ks.is_past(e));
            let holds = alive.map(object::type_name).filter(|holds| WAITED_FOR.contains(holds));
            if holds.is_none() && !self.blocked.any_for_gone() {
                return;
            }
            let is_served = |id: &ClientId| {
                let Some(c) = self.clients.get(*id) else { return false };
                let Some(BlockKind::Keys { wanted, or_gone, .. }) = c.block.as_ref().map(|b| &b.kind) else {
                    return false;
                };
                (holds == Some(*wanted) || *or_gone) && !c.is_closing() && self.clients.current != Some(*id)
            };
            let first = self.blocked.waiting_for(db, key, next..=last).find(|(_, id)| is_served(id));
            let Some((ticket, id)) = first else { return };
            next = ticket + 1;
            self.resume_blocked(id);
        }
    }

    /// Runs the command of a client that waited for keys again. It may wait again.
    fn resume_blocked(&mut self, id: ClientId) {
        let Some(mut state) = self.end_wait(id) else { return };
        let Some((cmd, args)) = state.command.take() else { return };
        let Some(c) = self.clients.get_mut(id) else { return };
        let mut out = std::mem::take(&mut c.out.cur);
        let outer = self.clients.current.replace(id);
        let outer_push = std::mem::take(&mut self.clients.self_push);
        self.blocked.resumed = Some((id, state.deadline_ms));
        self.run_resolved(id, cmd, args.as_args(), &mut out);
        self.finish_command(id, &mut out);
        self.blocked.resumed = None;
        self.clients.current = outer;
        self.clients.self_push = outer_push;
        self.put_output_back(id, out);
        if !self.clients.get(id).is_some_and(|c| c.is(ClientFlags::BLOCKED)) {
            self.go_on_later(id);
        }
    }

    fn put_output_back(&mut self, id: ClientId, mut out: Reply) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let pushed_meanwhile = std::mem::take(&mut c.out.cur.buf);
        out.raw(&pushed_meanwhile);
        c.out.cur = out;
        c.out.roll();
        if !c.out.is_empty() || c.is(ClientFlags::CLOSE_AFTER_REPLY) {
            self.clients.want_write(id);
        }
        self.check_output_limit(id);
        self.update_client_memory(id);
    }

    /// In cluster mode, releases clients that wait for keys of slots which are no longer ours.
    pub(crate) fn redirect_blocked(&mut self) {
        for id in self.blocked.clients.clone() {
            let Some(state) = self.clients.get(id).and_then(|c| c.block.as_ref()) else { continue };
            let (BlockKind::Keys { .. }, Some((cmd, args))) = (&state.kind, &state.command) else { continue };
            let (cmd, args) = (*cmd, args.clone());
            let Err(error) = self.check_slot(id, cmd, args.as_args()) else { continue };
            if matches!(error.code(), b"MOVED" | b"CLUSTERDOWN") {
                self.reply_error_to(id, &error);
                self.unblock(id, WaitEnd::Failed);
            }
        }
    }

    /// Takes a client that goes away off the lists.
    pub(crate) fn forget_block(&mut self, id: ClientId, state: &BlockState) {
        self.blocked.clients.remove(&id);
        if let BlockKind::Keys { db, keys, or_gone, ticket, .. } = &state.kind {
            self.blocked.remove_waiting(*ticket, *db, keys);
            self.blocked.for_gone -= usize::from(*or_gone);
            self.ks.effects.wants_gone = self.blocked.for_gone > 0;
            self.ks.effects.wants_ready = !self.blocked.waiting.is_empty();
        }
        self.forget_waiter(id, &state.kind);
        if state.kind == BlockKind::Postponed {
            self.postponed.retain(|c| *c != id);
        }
        if let Some(at) = state.deadline_ms {
            self.blocked.deadlines.remove(&(at, id));
        }
    }

    /// Releases the clients whose deadline has come, each with the reply its command gives then.
    pub(crate) fn expire_blocked(&mut self) {
        let now = self.clock.ms();
        while let Some((at, id)) = self.blocked.deadlines.first().copied() {
            // The clock shows whole milliseconds: only the next one is sure to be late enough.
            if at >= now {
                return;
            }
            self.blocked.deadlines.pop_first();
            let Some(kind) = self.clients.get(id).and_then(|c| c.block.as_ref()).map(|b| b.kind.clone()) else {
                continue;
            };
            self.reply_on_timeout(id, kind);
            self.unblock(id, WaitEnd::Answered);
        }
    }

    /// Answers a client that is waited for no longer.
    pub(crate) fn reply_on_timeout(&mut self, id: ClientId, kind: BlockKind) {
        if let BlockKind::Keys { keys, .. } = kind {
            let mut reply = Reply::new(self.clients.get(id).is_some_and(|c| c.resp == 3));
            reply.null_array();
            self.clients.reply(id, &reply.buf);
            if let Some(key) = keys.first() {
                self.meter_sent(key, reply.buf.len());
            }
        } else {
            self.repl_reply_on_timeout(id, &kind);
        }
    }
}
