//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.

use super::prelude::*;
use crate::keyspace::effects::target;
use crate::keyspace::expire::is_due;
use crate::keyspace::watch::WatchedKey;
use crate::net::ClientId;
use crate::server::Server;
use crate::server::clients::ClientFlags;

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Transactions, "multi", multi)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .since("1.2.0")
        .summary("Begins a transaction."),
    command(Group::Transactions, "exec", exec)
        .flags(flag::LOADING | flag::NOSCRIPT | flag::SKIP_SLOWLOG | flag::STALE)
        .since("1.2.0")
        .complexity("Depends on the commands of the transaction.")
        .summary("Runs the commands of the transaction."),
    command(Group::Transactions, "discard", discard)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .since("2.0.0")
        .complexity("O(N) where N is the number of its commands.")
        .summary("Forgets the transaction."),
    command(Group::Transactions, "watch", watch)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .keys(&[KeySpec::range(key::RO, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .since("2.2.0")
        .complexity("O(1) for each key")
        .summary("Has the transaction to come fail if one of the keys changes before."),
    command(Group::Transactions, "unwatch", unwatch)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .since("2.2.0")
        .summary("Forgets all watched keys."),
];

fn multi(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if ctx.c().is(ClientFlags::MULTI) {
        return Err(CmdError::of("ERR MULTI calls can not be nested"));
    }
    ctx.c_mut().flags.add(ClientFlags::MULTI);
    ctx.out.just_ok()
}

fn discard(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if !ctx.c().is(ClientFlags::MULTI) {
        return Err(CmdError::of("ERR DISCARD without MULTI"));
    }
    ctx.srv.discard_transaction(ctx.client);
    ctx.out.just_ok()
}

fn exec(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let id = ctx.client;
    if !ctx.c().is(ClientFlags::MULTI) {
        return Err(CmdError::of("ERR EXEC without MULTI"));
    }
    // A watched key that has expired since has changed, too.
    if ctx.srv.watched_key_expired(id) {
        ctx.c_mut().flags.add(ClientFlags::DIRTY_CAS);
    }
    let c = ctx.c();
    if c.is(ClientFlags::DIRTY_EXEC) {
        ctx.srv.discard_transaction(id);
        return Err(error::EXEC_ABORT);
    }
    if c.is(ClientFlags::DIRTY_CAS) {
        ctx.srv.discard_transaction(id);
        return ctx.out.just_null_array();
    }
    ctx.srv.unwatch_all(id);
    let c = ctx.c_mut();
    let queued = c.multi.take();
    let denied_before = c.is(ClientFlags::DENY_BLOCKING);
    c.flags.add(ClientFlags::DENY_BLOCKING);
    ctx.out.array(queued.len());
    for (cmd, args) in queued.iter() {
        if let Some(error) = ctx.srv.recheck_queued(id, cmd, args) {
            ctx.srv.write_error(ctx.out, &error);
            continue;
        }
        ctx.srv.call(id, cmd, args, ctx.out);
    }
    let c = ctx.c_mut();
    c.flags.set(ClientFlags::DENY_BLOCKING, denied_before);
    let (db, resp3) = (c.db, c.resp == 3);
    ctx.db = db;
    ctx.out.resp3 = resp3;
    ctx.srv.discard_transaction(id);
    // Its commands speak for themselves; what goes around them is added where they are sent on.
    ctx.srv.ks.effects.prevented = target::ALL;
    Ok(())
}

fn watch(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.c().is(ClientFlags::MULTI) {
        return Err(CmdError::of("ERR WATCH inside MULTI is not allowed"));
    }
    // A transaction that is doomed gains nothing from more keys.
    if !ctx.c().is(ClientFlags::DIRTY_CAS) {
        for key in args.iter().skip(1) {
            let (db, id) = (ctx.db, ctx.client);
            if ctx.srv.ks.watch.is_watched_by(id, db, key) {
                continue;
            }
            let was_expired = ctx.srv.is_key_expired(db, key);
            let watched = WatchedKey { db, key: key.to_vec(), was_expired };
            ctx.srv.ks.watch.add(id, &watched);
            ctx.c_mut().multi.watch(watched);
        }
    }
    ctx.out.just_ok()
}

fn unwatch(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.unwatch_all(ctx.client);
    ctx.c_mut().flags.remove(ClientFlags::DIRTY_CAS);
    ctx.out.just_ok()
}

impl Server {
    /// Leaves the transaction without running it, and stops watching.
    pub(crate) fn discard_transaction(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.multi.take();
            c.flags.remove(ClientFlags::MULTI.union(ClientFlags::DIRTY_CAS).union(ClientFlags::DIRTY_EXEC));
        }
        self.unwatch_all(id);
    }

    /// Stops watching all keys of a client.
    pub(crate) fn unwatch_all(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        for watched in c.multi.take_watched() {
            self.ks.watch.remove(id, watched);
        }
    }

    /// The key is there and its time has come, whoever may delete it.
    fn is_key_expired(&self, db: usize, key: &[u8]) -> bool {
        self.ks.dbs[db].get(key).is_some_and(|e| is_due(e.expire_ms(), self.ks.now_ms))
    }

    fn watched_key_expired(&self, id: ClientId) -> bool {
        let expired = |w: &WatchedKey| self.is_key_expired(w.db, &w.key) && !self.ks.watch.was_expired(id, w);
        self.clients.get(id).is_some_and(|c| c.multi.watched.iter().any(expired))
    }
}
