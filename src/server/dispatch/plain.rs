//! Plain calls: commands of ordinary clients that only work on data. Whatever might be said against them is asked for once,
//! and then those of one command that follow each other are run in a loop that does nothing else.

use super::admit::Admission;
use super::ahead::{Ahead, AheadKeys, BATCH, Found};
use super::call::Run;
use super::input::{REPLY_MOVE_BYTES, Taken, is_chunk};
use super::obstacle::Obstacles;
use crate::catalog::CmdResult;
use crate::catalog::row::Command;
use crate::catalog::table::CmdRef;
use crate::commands::context::{DataFn, Want};
use crate::net::ClientId;
use crate::resp::{Args, Limits, Reply, RequestParser, Span};
use crate::server::Server;
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

/// Plain commands of a client may be run in its database, if what is to be asked before each call lets them.
#[derive(Clone, Copy)]
pub(super) struct PlainCalls {
    pub(super) db: usize,
    asked: Obstacles,
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
    /// The length of the reply buffer, and `dirty`, before the last.
    before: usize,
    dirty_before: u64,
}

impl Server {
    /// How plain commands of a client may be run right away, without asking for each what stands against it: nothing does, but
    /// for what is asked before each call.
    pub(super) fn plain_calls(&mut self, id: ClientId) -> Option<PlainCalls> {
        let c = self.clients.get(id)?;
        let obstacles = self.obstacles_of_client(c);
        if !obstacles.lets_plain_calls_run() {
            // As a rule when there are any: a transaction is being put together.
            return None;
        }
        let obstacles = obstacles | self.obstacles_of_server();
        if !obstacles.lets_plain_calls_run() {
            return None;
        }
        let calls = PlainCalls { db: c.db, asked: obstacles.of_each_call() };
        self.set_expire_policy(id);
        self.begin_effects();
        Some(calls)
    }

    /// Runs calls of a plain command: those at the beginning of `next`, of which there is one at least, for a client of which
    /// `plain_calls` said how. Takes out of `next` what was run.
    #[inline(never)]
    pub(super) fn run_plain(
        &mut self,
        (id, PlainCalls { db, asked }): (ClientId, PlainCalls),
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
        let is_gated = !asked.is_empty();
        self.push_before_reply(out);
        let mut stretch = Stretch::default();
        let Ahead { found, keys, .. } = ahead;
        let found = &*found;
        let mut want = None;
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
            let told = out.buf.len();
            if (!has_right_args || is_gated) && !self.admit_plain(id, cmd, args, has_right_args.then_some(asked), out) {
                self.end_calls_before((id, cmd), found, next.start, &query[..*pos], &mut stretch);
                next.start += 1;
                *pos += request.consumed;
                let reply = out.buf.get(told..).unwrap_or_default();
                *durable = *durable && (self.tells_only_durable(cmd, args) || self.refused_for_replicas(cmd, reply));
                return Ended::Disturbed;
            }
            self.begin_calls(&mut stretch);
            let most = if is_gated || *durable { 1 } else { most_calls - stretch.calls };
            let several = Several { found, query, spans, most };
            let ran = self.run_several((id, db), (row, run), args, several, keys, next, pos, out, &mut want);
            stretch.calls += ran.calls;
            let args = || found.args_before(next.start, &query[..*pos]);
            if *durable {
                *durable = self.tells_only_durable(cmd, args());
            }
            let room = if is_small { most_calls } else { 0 };
            if want.is_none() && self.ends_lightly(&ran, room, &stretch, out) {
                continue;
            }
            if let Some(why) = self.end_several((id, db, cmd), args(), ran, &mut want, &mut stretch, out) {
                return why;
            }
        }
        self.end_calls_before((id, cmd), found, next.start, &query[..*pos], &mut stretch);
        Ended::Done
    }

    #[inline(always)]
    fn begin_calls(&mut self, stretch: &mut Stretch) {
        if stretch.calls == 0 {
            stretch.since_us = self.clock.mono_us();
            self.ks.now_ms = self.clock.ms();
        }
    }

    /// Runs the call of the request `next` begins with, whose arguments are given and whose keys are expected, and those that
    /// follow it in the same form, as long as nothing came of the last one but a small reply.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn run_several<'a>(
        &mut self,
        (id, db): (ClientId, usize),
        (row, run): (&'static Command, DataFn),
        mut args: Args<'a>,
        Several { found, query, spans, most }: Several<'a>,
        keys: &mut AheadKeys,
        next: &mut Range<usize>,
        pos: &mut usize,
        out: &mut Reply,
        want: &mut Option<Want>,
    ) -> Ran {
        self.depth += 1;
        let mut calls = 0;
        let (result, before, dirty_before) = self.with_data((id, db), row, out, want, |ctx| {
            loop {
                let request = found.request(next.start);
                let before = ctx.out.buf.len();
                let dirty_before = ctx.ks.effects.dirty;
                let result = run(ctx, args);
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
                args = Args::new(&query[*pos..][..request.consumed], spans);
                keys.expect(request, args, ctx.ks);
            }
        });
        self.depth -= 1;
        Ran { calls, result, before, dirty_before }
    }

    /// Whether nothing came of calls that were run in one go but small replies. As long as there are less than `room` in the
    /// stretch they may then go uncounted.
    #[inline(always)]
    fn ends_lightly(&mut self, ran: &Ran, room: u32, stretch: &Stretch, out: &Reply) -> bool {
        let (ks, len) = (&mut self.ks, out.buf.len());
        let is_light = ran.result.is_ok()
            && stretch.calls < room
            && len - ran.before <= LIGHT_BYTES
            && len < REPLY_MOVE_BYTES
            && !out.has_lent()
            && ks.is_quiet()
            && !ks.effects.has_to_propagate(ran.dirty_before);
        if is_light {
            ks.effects.forget_command();
        }
        is_light
    }

    /// Sees to what calls left behind that were run in one go; `args` are those of the last. Gives why no more are to be run, if
    /// so.
    #[inline(always)]
    fn end_several(
        &mut self,
        (id, db, cmd): (ClientId, usize, CmdRef),
        args: Args<'_>,
        Ran { result, before, dirty_before, .. }: Ran,
        want: &mut Option<Want>,
        stretch: &mut Stretch,
        out: &mut Reply,
    ) -> Option<Ended> {
        if let Err(error) = result {
            self.write_call_error((cmd, args, db), out, error);
            self.commands.stats_mut(cmd).failed += 1;
        }
        let is_quiet = self.ks.is_quiet();
        let is_done = is_quiet && want.is_none() && !self.ks.effects.has_to_propagate(dirty_before);
        if is_done {
            self.ks.effects.forget_command();
        }
        self.end_stretch(id, cmd, args, stretch);
        if !is_done {
            self.end_plain(id, db, args, dirty_before);
        }
        if let Some(want) = want.take() {
            self.carry_out(want, id, args);
            return Some(Ended::Disturbed);
        }
        if !is_quiet {
            return Some(Ended::Disturbed);
        }
        (is_chunk(&out.buf, before) || out.is_full_of_lent()).then_some(Ended::Full)
    }

    /// Runs the plain commands that `query`, a piece of the log being loaded, begins with, as far as the log's reader would
    /// take them as they are. It may end anywhere. Gives how much of it was run; what comes next is anything else.
    pub(crate) fn run_plain_of_log(&mut self, id: ClientId, query: &[u8], ahead: &mut Ahead) -> usize {
        self.begin_effects();
        let Some(c) = self.clients.get(id) else { return 0 };
        let db = c.db;
        let effects = &self.ks.effects;
        if !self.obstacles(c).lets_plain_calls_of_log_run() || effects.has_sinks || effects.wants_modified {
            return 0;
        }
        self.set_expire_policy(id);
        let outer = self.clients.current.replace(id);
        let limits = Limits { max_bulk_len: self.cfg.proto_max_bulk_len as i64, unauthenticated: false };
        let (mut parser, mut out, mut pos) = (RequestParser::default(), Reply::default(), 0);
        let next = ahead.look(query, 0, &mut parser, limits, BATCH, (&self.commands, &self.ks, db));
        for index in next {
            ahead.keys.fetch(index, &ahead.found, &self.ks);
            let request = ahead.found.request(index);
            let args = ahead.found.args(request, &query[pos..]);
            let Some((cmd, Run::Plain(run))) = request.cmd.map(|cmd| (cmd, self.functions[cmd.0 as usize])) else {
                break;
            };
            let (least_args, most_args) = self.commands.get(cmd).arg_counts();
            if !(least_args..=most_args).contains(&args.len()) || !args.are_well_framed() {
                break;
            }
            ahead.keys.expect(request, args, &mut self.ks);
            self.run_one_of_log((id, db), (cmd, run), args, &mut out);
            out.buf.clear();
            pos += request.consumed;
        }
        ahead.clear();
        self.ks.hashes.clear();
        self.clients.current = outer;
        pos
    }

    #[inline(always)]
    fn run_one_of_log(
        &mut self,
        (id, db): (ClientId, usize),
        (cmd, run): (CmdRef, DataFn),
        args: Args<'_>,
        out: &mut Reply,
    ) {
        let mut want = None;
        self.depth += 1;
        let row = self.commands.get(cmd).row;
        let result = self.with_data((id, db), row, out, &mut want, |ctx| run(ctx, args));
        self.depth -= 1;
        self.ks.effects.forget_command();
        if result.is_ok() && want.is_none() && self.ks.is_quiet() {
            return;
        }
        if let Err(error) = result {
            if let Some(c) = self.clients.get_mut(id) {
                c.last_command = Some(row);
            }
            self.write_call_error((cmd, args, db), out, error);
        }
        if let Some(want) = want {
            self.carry_out(want, id, args);
        }
        self.drain_effects();
        self.check_link_reply(id, false, &out.buf);
        self.serve_ready_keys();
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

    /// Whether a plain call may be run, in view of what is asked before each; `None`: the number of its arguments is wrong.
    /// Otherwise it was refused.
    #[inline(never)]
    fn admit_plain(
        &mut self,
        id: ClientId,
        cmd: CmdRef,
        args: Args<'_>,
        asked: Option<Obstacles>,
        out: &mut Reply,
    ) -> bool {
        let (Some(asked), Some(c)) = (asked, self.clients.get(id)) else {
            self.run_resolved(id, cmd, args, out);
            return false;
        };
        let call = self.call_of(c, cmd, args);
        let admission = self.overcome(asked, id, &call);
        self.push_before_reply(out);
        match admission {
            Admission::Run => true,
            other => {
                self.carry_out_admission(other, id, cmd, args, out);
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
