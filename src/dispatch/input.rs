//! From bytes read to commands run: the loop over a client's query buffer.

use super::admit::Admission;
use super::command::{Group, flag};
use super::error::CmdError;
use super::table::{CmdRef, Resolved};
use crate::net::{ClientFlags, ClientId};
use crate::resp::{Args, Limits, Parsed, Reply, RequestParser};
use crate::server::Server;
use std::mem::take;

/// Commands one client may run before others get their turn.
const COMMANDS_PER_TURN: usize = 1000;
/// Query buffers larger than this give their memory back as soon as they are empty; the cron looks after the others. In
/// bytes.
const QUERY_KEEP_BYTES: usize = 1024 * 1024;
/// Replies are set aside as chunks from this size on while a client's requests run, in bytes.
const REPLY_CHUNK_BYTES: usize = 16 * 1024;
/// Room for an argument longer than this is made as soon as its length is known, in bytes.
const BIG_ARG_BYTES: usize = 32 * 1024;

/// Whether the client's next command may run.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

impl Server {
    /// Runs the commands that stand in a client's query buffer, until it is used up, the client blocks or closes, or its
    /// share of the turn is over.
    pub fn process_input(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let mut query = take(&mut c.query);
        let mut parser = take(&mut c.parser);
        let mut out = take(&mut c.out.cur);
        let mut pos = take(&mut c.query_pos);
        c.taken_query = (query.len(), query.capacity());
        c.query_peak = c.query_peak.max(query.len());
        // A long operation may serve other clients from within a command: what is pushed to that command's client waits.
        let outer = self.clients.current.replace(id);
        let outer_push = take(&mut self.clients.self_push);

        let mut share = COMMANDS_PER_TURN;
        while self.may_process(id) == Flow::Go {
            if let Some((cmd, args)) = self.clients.get_mut(id).and_then(|c| c.resume.take()) {
                self.run_resumed(id, cmd, args.as_args(), &mut out);
                self.finish_command(id, &mut out);
                continue;
            }
            if pos >= query.len() {
                break;
            }
            if share == 0 {
                self.clients.want_read(id);
                break;
            }
            share -= 1;
            let limits = self.request_limits(id);
            match parser.parse(&query[pos..], limits) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Empty { consumed }) => {
                    pos += consumed;
                    self.note_empty_request(id);
                    self.input_consumed(id, &query[pos - consumed..pos]);
                }
                Ok(Parsed::Command { consumed }) => {
                    let args = Args::new(&query[pos..pos + consumed], parser.spans());
                    self.run_request(id, args, &mut out);
                    parser.reset();
                    if self.is_held_back(id) {
                        break;
                    }
                    pos += consumed;
                    self.finish_command(id, &mut out);
                    self.input_consumed(id, &query[pos - consumed..pos]);
                }
                Ok(Parsed::Inline { consumed, args }) => {
                    self.run_request(id, args.as_args(), &mut out);
                    if self.is_held_back(id) {
                        break;
                    }
                    pos += consumed;
                    self.finish_command(id, &mut out);
                    self.input_consumed(id, &query[pos - consumed..pos]);
                }
                Err(error) => {
                    self.refuse_protocol(id, &error.0, &query[pos..], &mut out);
                    pos = query.len();
                    break;
                }
            }
        }

        self.clients.current = outer;
        let push = std::mem::replace(&mut self.clients.self_push, outer_push);
        give_back_input(&mut query, &mut pos, &mut parser);
        if let Some(wanted) = parser.wanted_len().filter(|n| *n > BIG_ARG_BYTES) {
            query.reserve_exact((pos + wanted).saturating_sub(query.len()));
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
        c.out.cur = out;
        c.out.roll();
        if c.conn.is_none() {
            c.out.clear();
        } else if !c.out.is_empty() || c.is(ClientFlags::CLOSE_AFTER_REPLY) {
            self.clients.want_write(id);
        }
        self.check_output_limit(id);
        self.update_client_memory(id);
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

    fn may_process(&self, id: ClientId) -> Flow {
        let Some(c) = self.clients.get(id) else { return Flow::Stop };
        if c.is_closing() || c.is(ClientFlags::BLOCKED) {
            return Flow::Stop;
        }
        Flow::Go
    }

    fn request_limits(&self, id: ClientId) -> Limits {
        let unauthenticated = self.clients.get(id).is_some_and(|c| self.must_authenticate(c));
        Limits { max_bulk_len: self.cfg.proto_max_bulk_len as i64, unauthenticated }
    }

    /// Looks the command up, admits it, and runs, queues, postpones or refuses it.
    pub fn run_request(&mut self, id: ClientId, args: Args<'_>, out: &mut Reply) {
        let Some(name) = args.get(0) else { return };
        match self.commands.resolve(name, args.get(1)) {
            Resolved::Found(cmd) => self.run_resolved(id, cmd, args, out),
            Resolved::Unknown => {
                let error = unknown_command(args);
                self.reject(id, None, error, out);
            }
            Resolved::UnknownSub(container) => {
                let name = String::from_utf8_lossy(&args[1][..args[1].len().min(128)]).into_owned();
                let parent = self.commands.get(container).row.name.to_ascii_uppercase();
                let error = CmdError::text(format!("ERR unknown subcommand '{name}'. Try {parent} HELP."));
                self.reject(id, None, error, out);
            }
        }
    }

    pub(super) fn run_resolved(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, out: &mut Reply) {
        match self.admit(id, cmd, args) {
            Admission::Run => self.call_outermost(id, cmd, args, out),
            Admission::Queue => {
                let flags = self.commands.get(cmd).row.flags;
                if let Some(c) = self.clients.get_mut(id) {
                    c.multi.queue(cmd, flags, args.to_owned());
                }
                if !self.is_silent(id) {
                    out.simple("QUEUED");
                }
            }
            Admission::Postpone => self.postpone(id, cmd, args),
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
            c.last_command = Some(row);
            c.argv_bytes = args.total_len();
            self.ks.no_touch = c.is(ClientFlags::NO_TOUCH);
        }
        let mark = out.buf.len();
        self.set_expire_policy(id);
        let old_offset = self.repl_offset();
        let was_replica = self.clients.get(id).is_some_and(|c| c.is(ClientFlags::REPLICA));
        self.call(id, cmd, args, out);
        self.drain_effects();
        self.check_link_reply(id, was_replica, &out.buf[mark..]);
        let new_offset = self.repl_offset();
        let Some(c) = self.clients.get_mut(id) else { return };
        if new_offset != old_offset {
            c.write_offset = new_offset;
        }
        // What subscribing answers are pushes: they come even when replies are off.
        let pushes = row.has(flag::PUBSUB) && row.group == Group::Pubsub && row.name.ends_with("subscribe");
        if was_replica || (self.is_silent(id) && !pushes) {
            out.buf.truncate(mark);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        let asking_now = row.name == "asking";
        if !asking_now && c.is(ClientFlags::ASKING) {
            c.flags.remove(ClientFlags::ASKING);
        }
        self.serve_ready_keys();
    }

    /// Nobody reads the replies of this client: it asked for none, or it is another server or no client at all.
    fn is_silent(&self, id: ClientId) -> bool {
        let silent = ClientFlags::REPLY_OFF.union(ClientFlags::REPLY_SKIP).union(ClientFlags::MASTER);
        self.clients.get(id).is_none_or(|c| c.is(silent) || c.conn.is_none())
    }

    /// Per-command flags that end with the command.
    pub(super) fn finish_command(&mut self, id: ClientId, out: &mut Reply) {
        if !self.clients.self_push.is_empty() {
            let push = take(&mut self.clients.self_push);
            out.raw(&push);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        c.argv_bytes = 0;
        c.flags.remove(ClientFlags::REPLY_SKIP);
        if c.is(ClientFlags::REPLY_SKIP_NEXT) {
            c.flags.remove(ClientFlags::REPLY_SKIP_NEXT);
            c.flags.add(ClientFlags::REPLY_SKIP);
        }
        let buffer_size = c.out.buffer_size();
        c.reply_peak = c.reply_peak.max(out.buf.len().min(buffer_size));
        if out.buf.len() >= REPLY_CHUNK_BYTES || self.admin.debug.enforce_reply_list {
            c.out.set_aside(out, 1);
            self.check_output_limit(id);
            self.update_client_memory(id);
        }
    }

    /// Refuses a command: the reply, the statistics, and the transaction it would have been part of.
    pub fn reject(&mut self, id: ClientId, cmd: Option<CmdRef>, error: CmdError, out: &mut Reply) {
        if let Some(cmd) = cmd {
            self.commands.stats_mut(cmd).rejected += 1;
        }
        let mut error = error;
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.is(ClientFlags::MULTI) {
            let is_exec = cmd.is_some_and(|cmd| self.commands.get(cmd).row.name == "exec");
            let redirected = matches!(error.code(), b"MOVED" | b"ASK" | b"CROSSSLOT" | b"TRYAGAIN" | b"CLUSTERDOWN");
            if is_exec && redirected {
                // Clients follow a redirection only if they see it as it is.
                self.discard_transaction(id);
                return self.write_error(out, &error);
            }
            if is_exec {
                self.discard_transaction(id);
                let text = String::from_utf8_lossy(&error.0).into_owned();
                error = CmdError::text(format!("EXECABORT Transaction discarded because of: {text}"));
            } else {
                c.flags.add(ClientFlags::DIRTY_EXEC);
            }
        }
        let link = ClientFlags::MASTER.union(ClientFlags::AOF).union(ClientFlags::REPLICA);
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

/// Drops what was processed, and memory that is not needed.
fn give_back_input(query: &mut Vec<u8>, pos: &mut usize, parser: &mut RequestParser) {
    if *pos >= query.len() {
        query.clear();
        *pos = 0;
        if query.capacity() > QUERY_KEEP_BYTES && !parser.in_multibulk() {
            *query = Vec::new();
        }
    } else if *pos > 0 {
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
