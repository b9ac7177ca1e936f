//! Plain calls: commands of ordinary clients that only work on data. Whatever might be said against them is asked for once,
//! and then those of one command that follow each other are run in a loop that does nothing else.

use super::ahead::{Ahead, AheadKeys, Found};
use super::call::Caller;
use super::input::{REPLY_MOVE_BYTES, Taken, is_chunk};
use crate::catalog::CmdResult;
use crate::catalog::row::{Command, flag};
use crate::catalog::table::CmdRef;
use crate::commands::context::{self as data, DataFn, Want};
use crate::config::MemoryOrPercent;
use crate::net::ClientId;
use crate::resp::{Args, Reply, Span};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use std::mem::take;
use std::ops::Range;

/// Calls of a quick command that are timed together, at most.
const STRETCH_CALLS: u32 = 16;
/// Requests and replies larger than this are timed by themselves, bytes.
const LIGHT_BYTES: usize = 1024;
/// Calls are timed one by one when those that take less than this are to be logged as slow, microseconds.
const FINE_SLOW_US: i64 = 1_000;

/// Why no more calls of a plain command were run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// What follows is another command, or nothing.
    Done,
    /// Replies are to be sent or set aside first.
    Full,
    /// Something besides the last reply came of a call: what holds for the client is to be looked at anew.
    Disturbed,
}

/// Calls of one quick command that follow each other and are timed together: reading the clock takes longer than some of
/// them do.
#[derive(Debug, Default)]
struct Stretch {
    /// How many were not counted yet.
    calls: u32,
    since_us: i64,
}

/// Requests of one form, of which `most` may be run in one go.
struct Several<'a> {
    found: &'a Found,
    query: &'a [u8],
    spans: &'a [Span],
    most: u32,
}

/// What calls that were run in one go came to: the last of them, as all others left nothing but their replies.
struct Ran {
    calls: u32,
    result: CmdResult,
    want: Option<Want>,
    /// The length of the reply buffer, and `dirty`, before the last.
    before: usize,
    dirty_before: u64,
}

impl Server {
    /// The database of a client whose plain commands may be run right away, without asking everyone who may have
    /// something against it: nobody has.
    pub(super) fn plain_db(&mut self, id: ClientId) -> Option<usize> {
        const NOT_PLAIN: ClientFlags = ClientFlags::REPLICA
            .union(ClientFlags::MASTER)
            .union(ClientFlags::MONITOR)
            .union(ClientFlags::MULTI)
            .union(ClientFlags::BLOCKED)
            .union(ClientFlags::CLOSE_AFTER_REPLY)
            .union(ClientFlags::CLOSE_ASAP)
            .union(ClientFlags::ASKING)
            .union(ClientFlags::PUBSUB)
            .union(ClientFlags::REPLY_OFF)
            .union(ClientFlags::REPLY_SKIP)
            .union(ClientFlags::REPLY_SKIP_NEXT)
            .union(ClientFlags::NO_TOUCH)
            .union(ClientFlags::TRACKING)
            .union(ClientFlags::AOF)
            .union(ClientFlags::SCRIPT)
            .union(ClientFlags::REPROCESSING);
        let c = self.clients.get(id)?;
        let is_plain = !c.is(NOT_PLAIN)
            && c.conn.is_some()
            && c.resume.is_none()
            && (!self.auth_required || c.is(ClientFlags::AUTHENTICATED))
            && self.acl.is_free(&c.user)
            && self.is_undisturbed();
        if !is_plain {
            return None;
        }
        let db = c.db;
        self.set_expire_policy(id);
        Some(db)
    }

    /// Nothing about the server keeps commands of ordinary clients from being run.
    fn is_undisturbed(&self) -> bool {
        self.depth == 0
            && self.clients.monitors.is_empty()
            && self.pauses.kind().is_none()
            && !self.is_loading()
            && !self.repl.is_replica()
            && self.cfg.min_replicas_to_write == 0
            && self.cfg.latency_monitor_threshold == 0
            && self.cfg.maxmemory_clients == MemoryOrPercent::Bytes(0)
            && !self.admin.debug.enforce_reply_list
            && self.disk_error().is_none()
            && self.exit.is_none()
    }

    /// Runs calls of a plain command: those at the beginning of `next`, of which there is one at least, for a client of which
    /// `plain_db` gave the database. Takes out of `next` what was run.
    #[inline(never)]
    pub(super) fn run_plain(
        &mut self,
        (id, db): (ClientId, usize),
        (cmd, run): (CmdRef, DataFn),
        ahead: &mut Ahead,
        next: &mut Range<usize>,
        taken: &mut Taken,
    ) -> Ended {
        let Taken { query, pos, out, durable, .. } = taken;
        let query = &query[..];
        let command = self.commands.get(cmd);
        let row = command.row;
        let (least_args, most_args) = command.arg_counts();
        let is_timed_finely = (0..FINE_SLOW_US).contains(&self.cfg.slowlog_log_slower_than);
        let most_calls = if command.is_quick && !is_timed_finely { STRETCH_CALLS } else { 1 };
        let is_gated = self.cfg.maxmemory != 0 || self.ks.eviction.tight || self.bus.is_some();
        self.push_before_reply(out);
        let mut stretch = Stretch::default();
        let mut ended = Ended::Done;
        let Ahead { found, keys, .. } = ahead;
        let found = &*found;
        // What holds for all requests of a form.
        let (mut spans, mut has_right_args, mut is_small) = (&[][..], false, false);
        while next.start < next.end {
            keys.fetch(next.start, found, &self.ks);
            let request = found.request(next.start);
            if request.cmd != Some(cmd) {
                break;
            }
            if !request.follows || spans.is_empty() {
                spans = found.spans(request);
                has_right_args = (least_args..=most_args).contains(&spans.len());
                is_small = request.consumed <= LIGHT_BYTES;
            }
            let args = Args::new(&query[*pos..][..request.consumed], spans);
            if !is_small {
                self.end_calls_before((id, cmd), found, next.start, &query[..*pos], &mut stretch);
            }
            keys.expect(request, args, &mut self.ks);
            if (!has_right_args || is_gated) && !self.admit_plain(id, cmd, args, has_right_args, out) {
                self.end_calls_before((id, cmd), found, next.start, &query[..*pos], &mut stretch);
                next.start += 1;
                *pos += request.consumed;
                *durable = *durable && self.tells_only_durable(cmd, args);
                return Ended::Disturbed;
            }
            if stretch.calls == 0 {
                stretch.since_us = self.clock.mono_us();
                self.ks.now_ms = self.clock.ms();
            }
            let most = if is_gated || *durable { 1 } else { most_calls - stretch.calls };
            let several = Several { found, query, spans, most };
            let ran = self.run_several((id, db), (row, run), several, keys, next, pos, out);
            let Ran { calls, result, want, before, dirty_before } = ran;
            stretch.calls += calls;
            let args = found.args_before(next.start, &query[..*pos]);
            if *durable {
                *durable = self.tells_only_durable(cmd, args);
            }
            let failed = result.is_err();
            if let Err(error) = result {
                self.write_call_error((cmd, args, db), out, error);
                self.commands.stats_mut(cmd).failed += 1;
            }
            let ks = &mut self.ks;
            let is_quiet = ks.is_quiet();
            let is_done = is_quiet && want.is_none() && !ks.effects.has_to_propagate(dirty_before);
            if is_done {
                ks.effects.forget_command();
                let len = out.buf.len();
                let is_light = is_small && !failed && len - before <= LIGHT_BYTES && !out.has_lent();
                if is_light && stretch.calls < most_calls && len < REPLY_MOVE_BYTES {
                    continue;
                }
            }
            self.end_stretch(id, cmd, args, &mut stretch);
            if !is_done {
                self.end_plain(id, db, args, dirty_before);
            }
            if let Some(want) = want {
                self.carry_out(want, id, args);
                ended = Ended::Disturbed;
                break;
            }
            if !is_quiet {
                ended = Ended::Disturbed;
                break;
            }
            if is_chunk(&out.buf, before) || out.is_full_of_lent() {
                ended = Ended::Full;
                break;
            }
        }
        self.end_calls_before((id, cmd), found, next.start, &query[..*pos], &mut stretch);
        ended
    }

    /// Runs the call of the request `next` begins with, whose keys are expected, and those that follow it in the same form, as
    /// long as nothing came of the last one but a small reply.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn run_several(
        &mut self,
        (id, db): (ClientId, usize),
        (row, run): (&'static Command, DataFn),
        Several { found, query, spans, most }: Several<'_>,
        keys: &mut AheadKeys,
        next: &mut Range<usize>,
        pos: &mut usize,
        out: &mut Reply,
    ) -> Ran {
        self.depth += 1;
        let (mut want, mut calls) = (None, 0);
        let rooms = (&self.acl, &self.commands, &self.cfg, &self.persist, &self.repl);
        let caller = Caller { id, depth: self.depth, clients: &self.clients, rooms };
        let mut ctx =
            data::Ctx { ks: &mut self.ks, cfg: &self.cfg, out, session: &caller, want: &mut want, db, cmd: row };
        let (result, before, dirty_before) = loop {
            let request = found.request(next.start);
            let before = ctx.out.buf.len();
            let dirty_before = ctx.ks.effects.dirty;
            let result = run(&mut ctx, Args::new(&query[*pos..][..request.consumed], spans));
            calls += 1;
            next.start += 1;
            *pos += request.consumed;
            let len = ctx.out.buf.len();
            let is_light = result.is_ok()
                && calls < most
                && request.consumed <= LIGHT_BYTES
                && len - before <= LIGHT_BYTES
                && len < REPLY_MOVE_BYTES
                && !ctx.out.has_lent()
                && ctx.ks.is_quiet()
                && ctx.want.is_none()
                && !ctx.ks.effects.has_to_propagate(dirty_before);
            let is_next_alike = || next.start < next.end && found.request(next.start).continues(request);
            if !is_light || !is_next_alike() {
                break (result, before, dirty_before);
            }
            ctx.ks.effects.forget_command();
            keys.fetch(next.start, found, ctx.ks);
            let request = found.request(next.start);
            keys.expect(request, Args::new(&query[*pos..][..request.consumed], spans), ctx.ks);
        };
        self.depth -= 1;
        Ran { calls, result, want, before, dirty_before }
    }

    /// Counts the calls of a stretch, if there are any, the last of which was that of the request before `index`; `done` is
    /// the query buffer up to the end of that.
    #[inline(always)]
    fn end_calls_before(
        &mut self,
        (id, cmd): (ClientId, CmdRef),
        found: &Found,
        index: usize,
        done: &[u8],
        stretch: &mut Stretch,
    ) {
        if stretch.calls > 0 {
            self.end_stretch(id, cmd, found.args_before(index, done), stretch);
        }
    }

    /// Whether a plain command may be run where there is a limit on memory or a cluster, or the number of its arguments is
    /// not `allowed`. Otherwise it was refused.
    #[inline(never)]
    fn admit_plain(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, allowed: bool, out: &mut Reply) -> bool {
        if !allowed {
            self.run_resolved(id, cmd, args, out);
            return false;
        }
        let row = self.commands.get(cmd).row;
        let memory = if self.cfg.maxmemory != 0 || self.ks.eviction.tight {
            self.check_memory(id, row, row.has(flag::DENYOOM), false)
        } else {
            Ok(())
        };
        self.push_before_reply(out);
        match memory.and_then(|()| self.check_slot(id, cmd, args)) {
            Ok(()) => true,
            Err(error) => {
                self.reject(id, Some(cmd), error, out);
                false
            }
        }
    }

    /// Counts the calls of a stretch; `args` are those of the last one. Which of several was slow is not known if they
    /// were together. All but the last were light, however.
    #[inline(never)]
    fn end_stretch(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, stretch: &mut Stretch) {
        let calls = take(&mut stretch.calls);
        let duration_us = (self.clock.tick_us() - stretch.since_us).max(0);
        self.admin.metrics.commands_us += duration_us as u64;
        self.count_calls(cmd, calls, duration_us);
        let slow_us = self.cfg.slowlog_log_slower_than;
        if slow_us >= 0 && duration_us >= slow_us {
            self.note_slow_command(id, cmd, args, duration_us);
        }
    }

    /// Sees to what a plain command left behind beside its reply.
    #[inline(never)]
    fn end_plain(&mut self, id: ClientId, db: usize, args: Args<'_>, dirty_before: u64) {
        let old_offset = self.repl_offset();
        self.propagate_call(db, args, self.ks.effects.dirty > dirty_before);
        self.ks.effects.forget_command();
        self.drain_effects();
        let new_offset = self.repl_offset();
        if new_offset != old_offset
            && let Some(c) = self.clients.get_mut(id)
        {
            c.write_offset = new_offset;
        }
        self.serve_ready_keys();
        self.clock.tick_us();
    }
}
