//! From bytes read to commands run: the loop over a client's query buffer.

use super::admit::Admission;
use super::ahead::{Ahead, BATCH, CLIENTS};
use super::call::Run;
use super::plain::{Ended, PlainCalls};
use crate::catalog::error::CmdError;
use crate::catalog::row::{Group, flag};
use crate::catalog::table::{CmdRef, Resolved};
use crate::commands::context::DataFn;
use crate::net::{ClientId, Link};
use crate::resp::{Args, Limits, Parsed, Reply, RequestParser};
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags, FOUND_FAR, ToRun};
use crate::server::net::serve::room_for_argument;
use std::mem::take;
use std::ops::Range;

/// Commands one client may run before others get their turn.
const COMMANDS_PER_TURN: usize = 1000;
/// The source of slots runs commands for so long before others get their turn, microseconds: what it sends is much, and each
/// command of a large value takes long.
pub(crate) const IMPORT_SLICE_US: i64 = 500;
/// Query buffers larger than this give their memory back as soon as they are empty; the cron looks after the others. In
/// bytes.
const QUERY_KEEP_BYTES: usize = 1024 * 1024;
/// Replies are set aside as chunks from this size on while a client's requests run, in bytes.
const REPLY_CHUNK_BYTES: usize = 16 * 1024;
/// From this size on they are set aside, too, when another reply like the last one would have to move them, in bytes.
pub(super) const REPLY_MOVE_BYTES: usize = 8 * 1024;
/// Replies of this size leave as soon as the client's requests have run, if they need not wait for anything: what was
/// written last is sent while it is in the cache, and its memory takes the next client's replies. In bytes.
const EARLY_WRITE_BYTES: usize = 4 * 1024;
/// Room for an argument longer than this is made as soon as its length is known, in bytes.
const BIG_ARG_BYTES: usize = 32 * 1024;

/// Whether replies are to be set aside; `before` is how many bytes there were without the last one.
pub(super) fn is_chunk(buf: &Vec<u8>, before: usize) -> bool {
    let len = buf.len();
    len >= REPLY_MOVE_BYTES && (len >= REPLY_CHUNK_BYTES || buf.capacity() - len < len - before)
}

/// Whether the client's next command may run.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

/// The input of a client as its requests run.
struct Input {
    id: ClientId,
    taken: Taken,
    /// Requests that were found, those at the beginning of what is unprocessed.
    next: Range<usize>,
    /// How many more requests the client may run in this turn.
    share: usize,
    /// Its share is over at this time, too.
    until_us: i64,
    /// Where its unprocessed input began.
    start: usize,
    /// What the plain calls that ran last were of, if nobody was told yet.
    last_plain: Option<CmdRef>,
    /// While nothing keeps plain commands from being run right away.
    plain: Option<PlainCalls>,
}

/// The buffers of a client whose requests run.
pub(super) struct Taken {
    pub(crate) query: Vec<u8>,
    /// Where unprocessed input begins in `query`.
    pub(crate) pos: usize,
    parser: RequestParser,
    pub(crate) out: Reply,
    /// The client whose command the loop was in the middle of, and what waits to be pushed to that one.
    outer: Option<ClientId>,
    outer_push: Vec<u8>,
    /// All that the client is told in this run, and was told before, is durable.
    pub(crate) durable: bool,
}

impl Server {
    /// Runs what stands in the query buffers of the clients of the batch, `CLIENTS` at most: group by group, as many clients
    /// in each as it takes for `BATCH` requests. Those are found, and the memory of their keys is asked for, before any of
    /// them runs.
    pub(crate) fn process_batch(&mut self, ahead: &mut Ahead) {
        self.clients.batch_at = 0;
        let count = self.clients.batch.len();
        let is_found = |client: &ToRun| client.found.is_some();
        if count < 2 && !self.clients.batch.first().is_some_and(is_found) {
            return self.process_rest_of_batch(ahead);
        }
        let mut ends = [0; CLIENTS];
        let mut group = 0..0;
        while group.end < count {
            self.ahead_serial += 1;
            let serial = self.ahead_serial;
            group.start = group.end;
            while group.end < count && ahead.mark() < BATCH {
                let room = BATCH - ahead.mark();
                self.look_ahead(self.clients.batch[group.end], ahead, room, serial);
                ends[group.end] = ahead.mark();
                group.end += 1;
            }
            let mut start = 0;
            for at in group.clone() {
                self.clients.batch_at = at + 1;
                self.run_input(self.clients.batch[at].id, ahead, start..ends[at], serial);
                start = ends[at];
            }
            ahead.clear();
        }
    }

    /// Runs the input of those of the batch who have not begun. Within a long command these are the clients that were to have
    /// their turn after the one whose command it is.
    pub(crate) fn process_rest_of_batch(&mut self, ahead: &mut Ahead) {
        while let Some(ToRun { id, .. }) = self.clients.batch.get(self.clients.batch_at).copied() {
            self.clients.batch_at += 1;
            self.process_input(ahead, id);
        }
    }

    /// Runs the commands that stand in a client's query buffer, until it is used up, the client blocks or closes, or its
    /// share of the turn is over.
    pub(crate) fn process_input(&mut self, ahead: &mut Ahead, id: ClientId) {
        self.run_input(id, ahead, 0..0, 0);
        ahead.clear();
    }

    /// Finds requests of a client that may run them now, under a serial number.
    fn look_ahead(&mut self, client: ToRun, ahead: &mut Ahead, count: usize, serial: u64) {
        let ToRun { id, found, .. } = client;
        let limits = self.request_limits(id);
        let Server { clients, commands, ks, .. } = self;
        let Some(c) = clients.get(id) else { return };
        if c.is_closing() || c.is(ClientFlags::BLOCKED) || c.resume.is_some() {
            return;
        }
        if found.is_some() && c.ahead == FOUND_FAR && !limits.unauthenticated {
            debug_assert_eq!(c.link.query_pos, 0);
            let found = ahead.take_over(clients.found.at(found), &c.link.query, count, (commands, ks, c.db));
            if let Some(c) = clients.get_mut(id).filter(|_| !found.is_empty()) {
                c.ahead = serial;
            }
            return;
        }
        let Some(c) = clients.get_mut(id).filter(|c| matches!(c.ahead, 0 | FOUND_FAR)) else { return };
        let found =
            ahead.look(&c.link.query, c.link.query_pos, &mut c.link.parser, limits, count, (commands, ks, c.db));
        if !found.is_empty() {
            c.ahead = serial;
        }
    }

    /// `next`: requests at the beginning of the unprocessed input that were found before, under this serial number.
    fn run_input(&mut self, id: ClientId, ahead: &mut Ahead, next: Range<usize>, serial: u64) {
        let Some(mut input) = self.begin_input(id, next, serial) else { return };
        let others = ahead.mark();
        while self.run_next(&mut input, ahead, others) == Flow::Go {}
        self.ks.hashes.clear();
        let Input { mut taken, next, mut last_plain, until_us, start, .. } = input;
        if until_us != i64::MAX {
            self.note_import_run(id, taken.pos - start);
        }
        self.set_last_command(id, &mut last_plain);
        if !next.is_empty() {
            // They are found anew when the client may go on.
            taken.parser.reset();
        }
        ahead.truncate(others);
        if taken.out.has_lent() {
            self.send_lent(id, &mut taken.out);
        }
        taken.out.stop_borrowing();
        self.put_buffers_back(id, taken);
    }

    fn begin_input(&mut self, id: ClientId, mut next: Range<usize>, serial: u64) -> Option<Input> {
        let c = self.clients.get_mut(id)?;
        if c.ahead != serial || next.is_empty() {
            // Somebody else ran the requests that were found, or is about to, and we run them first.
            next = 0..0;
            if c.ahead != 0 {
                c.parser.reset();
            }
        }
        c.ahead = 0;
        let is_import = c.is(ClientFlags::IMPORT);
        // Of what it was told before, part may wait in the buffer that is about to be taken.
        let durable = self.may_tell_durable(id);
        let mut taken = self.take_buffers(id)?;
        let plain = self.plain_calls(id);
        taken.out.borrows = plain.is_some() && self.may_send_at_once(id);
        taken.durable = durable;
        self.clock.tick_us();
        let until_us = if is_import { self.clock.mono_us() + IMPORT_SLICE_US } else { i64::MAX };
        let start = taken.pos;
        Some(Input { id, taken, next, share: COMMANDS_PER_TURN, until_us, start, last_plain: None, plain })
    }

    /// Runs what comes next in the input: plain calls that follow each other, or one request. The requests found from `others`
    /// on are the client's own.
    fn run_next(&mut self, input: &mut Input, ahead: &mut Ahead, others: usize) -> Flow {
        let id = input.id;
        if input.plain.is_none() {
            input.taken.out.stop_borrowing();
            if !self.clients.get(id).is_some_and(|c| self.takes_requests(c)) {
                return Flow::Stop;
            }
            if let Some((cmd, args)) = self.clients.get_mut(id).and_then(|c| c.resume.take()) {
                self.run_resumed(id, cmd, args.as_args(), &mut input.taken.out);
                self.finish_command(id, &mut input.taken.out);
                return Flow::Go;
            }
        }
        if input.next.is_empty() {
            if input.taken.pos >= input.taken.query.len() {
                return Flow::Stop;
            }
            if input.share == 0 {
                self.clients.want_read(id);
                return Flow::Stop;
            }
            ahead.truncate(others);
            self.find_requests(input, ahead);
            if input.next.is_empty() {
                return self.run_unusual(input);
            }
        }
        let cmd = ahead.found.request(input.next.start).cmd;
        match (input.plain, cmd.map(|cmd| (cmd, self.functions[cmd.0 as usize]))) {
            (Some(plain), Some((cmd, Run::Plain(run)))) => {
                self.run_plain_requests(input, ahead, plain, (cmd, run));
                Flow::Go
            }
            _ => self.run_found(input, ahead),
        }
    }

    fn find_requests(&self, input: &mut Input, ahead: &mut Ahead) {
        let limits = self.request_limits(input.id);
        let db = match input.plain {
            Some(plain) => plain.db,
            None => self.clients.get(input.id).map_or(0, |c| c.db),
        };
        let Taken { query, pos, parser, .. } = &mut input.taken;
        input.next = ahead.look(query, *pos, parser, limits, BATCH.min(input.share), (&self.commands, &self.ks, db));
    }

    fn run_plain_requests(
        &mut self,
        input: &mut Input,
        ahead: &mut Ahead,
        plain: PlainCalls,
        (cmd, run): (CmdRef, DataFn),
    ) {
        let Input { id, taken, next, share, last_plain, .. } = input;
        let first = next.start;
        let ended = self.run_plain((*id, plain), (cmd, run), ahead, next, taken);
        *share = share.saturating_sub(next.start - first);
        *last_plain = Some(cmd);
        if ended != Ended::Done {
            if taken.out.has_lent() {
                self.send_lent(*id, &mut taken.out);
            }
            self.set_last_command(*id, last_plain);
            self.finish_command(*id, &mut taken.out);
            input.plain = self.plain_calls(input.id);
        }
    }

    /// Runs the request that was found next.
    fn run_found(&mut self, input: &mut Input, ahead: &mut Ahead) -> Flow {
        let Input { id, taken: Taken { query, out, pos, durable, .. }, next, share, last_plain, .. } = input;
        let index = next.start;
        next.start += 1;
        *share = share.saturating_sub(1);
        ahead.keys.fetch(index, &ahead.found, &self.ks);
        let request = ahead.found.request(index);
        let args = ahead.found.args(request, &query[*pos..]);
        ahead.keys.expect(request, args, &mut self.ks);
        let (was_durable, told) = (*durable, out.buf.len());
        *durable = false;
        out.stop_borrowing();
        self.slot_meter.request_bytes = request.consumed;
        self.set_last_command(*id, last_plain);
        match request.cmd {
            Some(cmd) => self.run_resolved(*id, cmd, args, out),
            None => self.run_request(*id, args, out),
        }
        if was_durable {
            // Looked at afterwards: a key may have gone by being looked up.
            let reply = out.buf.get(told..).unwrap_or_default();
            let tells_no_data = |cmd| self.tells_no_data(cmd) || self.refused_for_replicas(cmd, reply);
            *durable = request.cmd.is_some_and(|cmd| tells_no_data(cmd) || self.tells_only_durable(cmd, args));
        }
        self.ks.hashes.clear();
        if self.is_held_back(*id) {
            next.start = index;
            return Flow::Stop;
        }
        let consumed = request.consumed;
        if input.until_us != i64::MAX && self.clock.mono_us() >= input.until_us {
            *share = 0;
        }
        self.end_request(input, consumed);
        Flow::Go
    }

    /// Sees to input that does not begin with a whole command in RESP.
    fn run_unusual(&mut self, input: &mut Input) -> Flow {
        let Input { id, taken: Taken { query, parser, out, pos, durable, .. }, share, last_plain, .. } = input;
        out.stop_borrowing();
        let limits = self.request_limits(*id);
        match parser.parse(&query[*pos..], limits) {
            Ok(Parsed::Incomplete) => return Flow::Stop,
            // Found once more, by look-ahead.
            Ok(Parsed::Command { .. }) => parser.reset(),
            Ok(Parsed::Empty { consumed }) => {
                *pos += consumed;
                self.note_empty_request(*id);
                if let Some(c) = self.clients.get_mut(*id) {
                    c.end_request(None);
                }
                self.input_consumed(*id, &query[*pos - consumed..*pos]);
            }
            Ok(Parsed::Inline { .. }) if self.clients.get(*id).is_some_and(|c| c.is(ClientFlags::MASTER)) => {
                // Blank lines keep the link alive. More than that is no stream of commands any more.
                log::warn!(
                    "WARNING: Receiving inline protocol from master, master stream corruption? Closing the master \
                     connection and discarding the cached master."
                );
                self.refuse_protocol(*id, "Master using the inline protocol. Desync?", &query[*pos..], out);
                *pos = query.len();
                return Flow::Stop;
            }
            Ok(Parsed::Inline { consumed, args }) => {
                *share -= 1;
                *durable = false;
                self.slot_meter.request_bytes = consumed;
                self.set_last_command(*id, last_plain);
                self.run_request(*id, args.as_args(), out);
                if self.is_held_back(*id) {
                    return Flow::Stop;
                }
                self.end_request(input, consumed);
            }
            Err(error) => {
                *durable = false;
                self.refuse_protocol(*id, &error.0, &query[*pos..], out);
                *pos = query.len();
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    /// A request that may have been anything is done with.
    fn end_request(&mut self, input: &mut Input, consumed: usize) {
        let Input { id, taken: Taken { query, pos, out, .. }, .. } = input;
        *pos += consumed;
        self.finish_command(*id, out);
        self.input_consumed(*id, &query[*pos - consumed..*pos]);
        input.plain = self.plain_calls(input.id);
    }

    /// Takes a client's buffers out of it, for as long as its requests run.
    fn take_buffers(&mut self, id: ClientId) -> Option<Taken> {
        let c = self.clients.get_mut(id)?;
        let query = take(&mut c.query);
        c.taken_query = (query.len(), query.capacity());
        c.query_peak = c.query_peak.max(query.len());
        let (parser, out, pos) = (take(&mut c.parser), c.out.take_cur(), take(&mut c.query_pos));
        // A long operation may serve other clients from within a command: what is pushed to that command's client waits.
        let outer = self.clients.current.replace(id);
        let outer_push = take(&mut self.clients.self_push);
        Some(Taken { query, pos, parser, out, outer, outer_push, durable: false })
    }

    fn put_buffers_back(&mut self, id: ClientId, taken: Taken) {
        let Taken { mut query, mut pos, mut parser, mut out, outer, outer_push, durable } = taken;
        self.clients.current = outer;
        let push = std::mem::replace(&mut self.clients.self_push, outer_push);
        give_back_input(&mut query, &mut pos, &mut parser);
        if let Some(wanted) = parser.wanted_len().filter(|n| *n > BIG_ARG_BYTES) {
            query.reserve_exact(room_for_argument((pos + wanted).saturating_sub(query.len())));
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        c.taken_query = (0, 0);
        // Nothing is read into the buffer while commands run, so what was taken is what there is.
        c.query = query;
        c.query_pos = pos;
        c.parser = parser;
        out.raw(&push);
        let pushed_meanwhile = take(&mut c.out.cur.buf);
        out.raw(&pushed_meanwhile);
        c.reply_peak = c.reply_peak.max(out.buf.len().min(c.out.buffer_size()));
        c.out.cur = out;
        c.out.roll();
        if durable && c.out.pending() > c.out.released() {
            c.out.release_all();
            self.persist.gate.note_read(self.clock.mono_us());
        }
        if c.conn.is_none() || c.is(ClientFlags::CLOSE_ASAP) {
            // Nobody reads it, and its memory may be wanted before the turn ends.
            c.out.clear();
        }
        let (waiting, ends) = (c.out.pending(), c.is(ClientFlags::CLOSE_AFTER_REPLY) && c.conn.is_some());
        let is_short = waiting > 0 && c.out.chunk_count() == 0;
        if waiting >= EARLY_WRITE_BYTES && self.may_answer_at_once() {
            return self.write_now(id);
        }
        if waiting > 0 || ends {
            self.clients.want_write(id);
        }
        if is_short {
            // What it costs is looked at when that was sent.
            return;
        }
        self.check_output_limit(id);
        self.update_client_memory(id);
    }

    /// Whether replies may be sent now rather than at the end of the turn: nothing that ran in it has to reach a disk or a
    /// replica first.
    fn may_answer_at_once(&self) -> bool {
        !self.is_nested_turn() && self.is_all_written() && !self.has_replicas()
    }

    /// Whether what the client is told can be sent as soon as it is known, as nothing is to go before.
    fn may_send_at_once(&self, id: ClientId) -> bool {
        self.may_answer_at_once()
            && self.clients.self_push.is_empty()
            && self.clients.get(id).is_some_and(|c| c.out.is_empty() && c.conn.is_some() && !c.is_closing())
    }

    /// Sends a reply that strings were lent to, as far as the client takes it now, and ends the loans.
    fn send_lent(&mut self, id: ClientId, out: &mut Reply) {
        if !self.may_send_at_once(id) {
            return out.own_lent();
        }
        let Some(c) = self.clients.get_mut(id) else { return out.own_lent() };
        let Some(conn) = c.conn.as_mut() else { return out.own_lent() };
        // What cannot be sent now waits as any reply does, and a lasting error shows when it is sent.
        if let Ok(sent) = out.send_lent(|slices| conn.write_vectored(slices)) {
            c.out.note_sent(sent);
            self.stats.net_output_bytes += sent as u64;
            self.stats.writes_processed += 1;
        }
    }

    fn set_last_command(&mut self, id: ClientId, last: &mut Option<CmdRef>) {
        if let Some(cmd) = last.take()
            && let Some(c) = self.clients.get_mut(id)
        {
            c.last_command = Some(self.commands.get(cmd).row);
        }
    }

    /// What the client sent last is no command.
    fn forget_last_command(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.last_command = None;
        }
    }

    /// Whether the request was put off by a pause: then it stays in the query buffer, as if it had just arrived, and is
    /// read again when the pause is over. For our master's stream it does not count as applied until then.
    fn is_held_back(&mut self, id: ClientId) -> bool {
        use super::blocked::BlockKind;
        match self.clients.get_mut(id).and_then(|c| c.block.as_mut()) {
            Some(block) if block.kind == BlockKind::Postponed => {
                block.command = None;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn request_limits(&self, id: ClientId) -> Limits {
        let unauthenticated = self.clients.get(id).is_some_and(|c| self.must_authenticate(c));
        Limits { max_bulk_len: self.cfg.proto_max_bulk_len as i64, unauthenticated }
    }

    /// Looks the command up, admits it, and runs, queues, postpones or refuses it.
    pub(crate) fn run_request(&mut self, id: ClientId, args: Args<'_>, out: &mut Reply) {
        let Some(name) = args.get(0) else { return };
        match self.commands.resolve(name, args.get(1)) {
            Resolved::Found(cmd) => self.run_resolved(id, cmd, args, out),
            Resolved::Unknown => {
                self.forget_last_command(id);
                if is_of_http(name) {
                    return self.refuse_http(id);
                }
                let error = unknown_command(args);
                self.reject(id, None, error, out);
            }
            Resolved::UnknownSub => {
                self.forget_last_command(id);
                let name = String::from_utf8_lossy(&args[1][..args[1].len().min(128)]).into_owned();
                let parent = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
                let error = CmdError::text(format!("ERR unknown subcommand '{name}'. Try {parent} HELP."));
                self.reject(id, None, error, out);
            }
        }
    }

    pub(super) fn run_resolved(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, out: &mut Reply) {
        // What is refused is, too, what the client sent last.
        let row = self.commands.get(cmd).row;
        if let Some(c) = self.clients.get_mut(id) {
            c.last_command = Some(row);
        }
        let admission = self.admit(id, cmd, args);
        self.push_before_reply(out);
        self.carry_out_admission(admission, id, cmd, args, out);
    }

    pub(super) fn carry_out_admission(
        &mut self,
        admission: Admission,
        id: ClientId,
        cmd: CmdRef,
        args: Args<'_>,
        out: &mut Reply,
    ) {
        match admission {
            Admission::Run => self.call_outermost(id, cmd, args, out),
            Admission::Queue => {
                let flags = self.flags_of_call(self.commands.get(cmd).row, args);
                let is_doomed = ClientFlags::DIRTY_CAS.union(ClientFlags::DIRTY_EXEC);
                // What will not run need not be kept.
                if let Some(c) = self.clients.get_mut(id).filter(|c| !c.is(is_doomed)) {
                    c.multi.queue(cmd, flags, args);
                }
                if self.meters_slots() {
                    self.meter_queued(cmd, args);
                }
                if !self.is_silent(id) {
                    out.simple("QUEUED");
                }
            }
            Admission::Postpone => self.postpone(id, cmd, args),
            Admission::Drop => {}
            Admission::Reject(error) => self.reject(id, Some(cmd), error, out),
        }
    }

    /// A command that waited is admitted anew: things may have changed.
    fn run_resumed(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, out: &mut Reply) {
        self.run_resolved(id, cmd, args, out);
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.remove(ClientFlags::REPROCESSING);
        }
    }

    fn call_outermost(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, out: &mut Reply) {
        let row = self.commands.get(cmd).row;
        if let Some(c) = self.clients.get_mut(id) {
            c.argv_bytes = args.total_len();
            self.ks.no_touch = c.is(ClientFlags::NO_TOUCH);
        }
        let mark = out.buf.len();
        self.set_expire_policy(id);
        let old_offset = self.repl_offset();
        let was_replica = self.clients.get(id).is_some_and(|c| c.is(ClientFlags::REPLICA));
        let metered = self.meters_slots().then(|| self.begin_metering(id, cmd, args));
        self.call(id, cmd, args, out);
        self.drain_effects();
        self.check_link_reply(id, was_replica, &out.buf[mark..]);
        let new_offset = self.repl_offset();
        // What subscribing answers are pushes: they come even when replies are off.
        let pushes = row.has(flag::PUBSUB) && row.group == Group::Pubsub && row.name.ends_with("subscribe");
        if was_replica || (self.is_silent(id) && !pushes) {
            out.buf.truncate(mark);
        }
        if let Some(outer) = metered {
            self.end_metering(id, out.buf.len().saturating_sub(mark), outer);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        if new_offset != old_offset {
            c.write_offset = new_offset;
        }
        self.serve_ready_keys();
    }

    /// Nobody reads the replies of this client: it asked for none, or it is another server or no client at all.
    fn is_silent(&self, id: ClientId) -> bool {
        let links = ClientFlags::MASTER.union(ClientFlags::IMPORT).union(ClientFlags::EXPORT);
        let silent = ClientFlags::REPLY_OFF.union(ClientFlags::REPLY_SKIP).union(links);
        self.clients.get(id).is_none_or(|c| c.is(silent) || c.conn.is_none())
    }

    /// What making room for a command had to tell its client comes before its reply.
    pub(super) fn push_before_reply(&mut self, out: &mut Reply) {
        if !self.clients.self_push.is_empty() {
            out.raw(&take(&mut self.clients.self_push));
        }
    }

    /// Per-command flags that end with the command.
    pub(super) fn finish_command(&mut self, id: ClientId, out: &mut Reply) {
        if !self.clients.self_push.is_empty() {
            let push = take(&mut self.clients.self_push);
            out.raw(&push);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        c.argv_bytes = 0;
        c.end_request(c.last_command);
        let buffer_size = c.out.buffer_size();
        c.reply_peak = c.reply_peak.max(out.buf.len().min(buffer_size));
        if is_chunk(&out.buf, 0) || self.admin.debug.enforce_reply_list {
            c.out.set_aside(out, 1);
            self.check_output_limit(id);
            self.update_client_memory(id);
        }
    }

    /// Refuses a command: the reply, the statistics, and the transaction it would have been part of.
    pub(crate) fn reject(&mut self, id: ClientId, cmd: Option<CmdRef>, error: CmdError, out: &mut Reply) {
        if let Some(cmd) = cmd {
            self.commands.stats_mut(cmd).rejected += 1;
        }
        let mut error = error;
        let Some(c) = self.clients.get_mut(id) else { return };
        // It may have waited before, but it does not run again.
        c.blocked_call = None;
        if cmd.is_some_and(|cmd| self.commands.get(cmd).row.name == "exec") {
            self.discard_transaction(id);
            if matches!(error.code(), b"MOVED" | b"ASK" | b"CROSSSLOT" | b"TRYAGAIN" | b"CLUSTERDOWN") {
                // Clients follow a redirection only if they see it as it is.
                return self.write_error(out, &error);
            }
            let reason = String::from_utf8_lossy(error.0.strip_prefix(b"ERR ").unwrap_or(&error.0)).into_owned();
            error = CmdError::text(format!("EXECABORT Transaction discarded because of: {reason}"));
        } else if c.is(ClientFlags::MULTI) {
            c.flags.add(ClientFlags::DIRTY_EXEC);
        }
        let others = ClientFlags::REPLICA.union(ClientFlags::IMPORT);
        let link = ClientFlags::MASTER.union(ClientFlags::AOF).union(others);
        if self.clients.get(id).is_some_and(|c| c.is(link)) {
            self.stats.count_error(error.code());
            let was_replica = true;
            return self.check_link_reply(id, was_replica, format!("-{error}").as_bytes());
        }
        if self.is_silent(id) {
            self.stats.count_error(error.code());
        } else {
            self.write_error(out, &error);
        }
    }

    /// Somebody has a browser or the like send what we would take for commands: the client is closed without a reply.
    fn refuse_http(&mut self, id: ClientId) {
        /// Attempts are logged once in this time, seconds.
        const LOG_EVERY_S: i64 = 60;
        self.clients.close_later(id);
        let now_s = self.clock.ms() / 1000;
        let noted_s = &mut self.admin.http_noted_s;
        if (now_s - *noted_s).abs() <= LOG_EVERY_S {
            return;
        }
        *noted_s = now_s;
        let from = match self.clients.get(id) {
            Some(c) if c.is(ClientFlags::UNIX_SOCKET) => "Connection from /unixsocket:0 aborted".to_string(),
            Some(Client { link: Link { peer: Some(addr), .. }, .. }) => {
                format!("Connection from {}:{} aborted", addr.ip(), addr.port())
            }
            _ => "Connection aborted".to_string(),
        };
        log::warn!(
            "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. This is \
             likely due to an attacker attempting to use Cross Protocol Scripting to compromise your Redis instance. {from}."
        );
    }

    fn refuse_protocol(&mut self, id: ClientId, text: &str, rest: &[u8], out: &mut Reply) {
        if !self.is_silent(id) {
            self.write_error(out, &CmdError::text(format!("ERR {text}")));
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
        c.flags.add(ClientFlags::PROTOCOL_ERROR);
        let from_master = c.is(ClientFlags::MASTER);
        let shown: String =
            rest.iter().take(128).map(|b| if b.is_ascii_graphic() || *b == b' ' { *b as char } else { '.' }).collect();
        let info = self.describe_client(id);
        let line =
            format!("Protocol error ({text}) from client: {info}. Query buffer during protocol error: '{shown}'");
        if from_master {
            log::warn!("{line}");
            self.clients.close_later(id);
        } else {
            log::debug!("{line}");
        }
    }
}

/// A word that lines of an HTTP request begin with which posts something.
fn is_of_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Drops what was processed, and memory that is not needed.
fn give_back_input(query: &mut Vec<u8>, pos: &mut usize, parser: &mut RequestParser) {
    if *pos >= query.len() {
        query.clear();
        *pos = 0;
        if query.capacity() > QUERY_KEEP_BYTES && !parser.in_multibulk() {
            *query = Vec::new();
        }
    } else if *pos > 0 && (*pos >= query.len() - *pos || query.len() <= QUERY_KEEP_BYTES) {
        // Of very much input not each time: what is left would be moved again and again.
        query.drain(..*pos);
        *pos = 0;
    }
}

fn unknown_command(args: Args<'_>) -> CmdError {
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(&args[0][..args[0].len().min(128)]);
    text.extend_from_slice(b"', with args beginning with: ");
    let mut room = 128usize;
    for arg in args.iter().skip(1) {
        if room == 0 {
            break;
        }
        let shown = &arg[..arg.len().min(room)];
        text.push(b'\'');
        text.extend_from_slice(shown);
        text.extend_from_slice(b"' ");
        room = room.saturating_sub(shown.len() + 3);
    }
    CmdError::bytes(text)
}
