//! A client in one line, as CLIENT LIST and the log show it.

use crate::net::ClientId;
use crate::net::Conn;
use crate::pubsub::Kind;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::server::dispatch::blocked::BlockKind;
use std::collections::BTreeSet;

/// Letters of the `flags` field, in its order.
const LETTERS: &[(ClientFlags, u8)] = &[
    (ClientFlags::MASTER, b'M'),
    (ClientFlags::PUBSUB, b'P'),
    (ClientFlags::MULTI, b'x'),
    (ClientFlags::BLOCKED, b'b'),
    (ClientFlags::TRACKING, b't'),
    (ClientFlags::DIRTY_CAS, b'd'),
    (ClientFlags::CLOSE_AFTER_REPLY, b'c'),
    (ClientFlags::UNBLOCKED, b'u'),
    (ClientFlags::CLOSE_ASAP, b'A'),
    (ClientFlags::UNIX_SOCKET, b'U'),
    (ClientFlags::READONLY, b'r'),
    (ClientFlags::NO_EVICT, b'e'),
    (ClientFlags::NO_TOUCH, b'T'),
    (ClientFlags::IMPORT, b'i'),
    (ClientFlags::EXPORT, b'E'),
];

/// What a line takes, about, in bytes.
const LINE_BYTES: usize = 400;

/// A line in the making.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn text(&mut self, name: &str, value: &[u8]) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(value);
    }

    fn number(&mut self, value: i64) {
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn int(&mut self, name: &str, value: i64) {
        self.text(name, b"");
        self.number(value);
    }

    fn size(&mut self, name: &str, value: usize) {
        self.int(name, value as i64);
    }
}

fn write_flags(c: &Client, out: &mut Vec<u8>) {
    let start = out.len();
    if c.is(ClientFlags::MONITOR) {
        out.push(b'O');
    } else if c.is(ClientFlags::REPLICA) {
        out.push(b'S');
    }
    for (flag, letter) in LETTERS.iter().filter(|(flag, _)| c.is(*flag)) {
        out.push(*letter);
        if *flag == ClientFlags::TRACKING
            && let Some(tracking) = &c.tracking
        {
            out.extend_from_slice(if tracking.broken_redirect { b"R" } else { b"" });
            out.extend_from_slice(if tracking.bcast { b"B" } else { b"" });
        }
    }
    if out.len() == start {
        out.push(b'N');
    }
}

/// The `flags` field of a client.
pub(crate) fn flags_of(c: &Client) -> Vec<u8> {
    let mut out = Vec::new();
    write_flags(c, &mut out);
    out
}

/// Whether the `flags` field of a client may have this letter.
pub(crate) fn is_flag(letter: u8) -> bool {
    b"OSRBN".contains(&letter) || LETTERS.iter().any(|(_, known)| *known == letter)
}

/// Whole seconds, as `age` and `idle` count them.
pub(crate) fn seconds_since(then_ms: i64, now_ms: i64) -> i64 {
    (now_ms / 1000 - then_ms / 1000).max(0)
}

/// What the loop waits for on the client's behalf.
fn events(c: &Client) -> &'static str {
    match &c.conn {
        None => "",
        // Output that is not about to be written by itself waits for the socket.
        Some(_) if !c.out.is_empty() && !c.is(ClientFlags::PENDING_WRITE) => "rw",
        Some(_) => "r",
    }
}

/// The number of the thread that a client's link lives on; 0 is the main thread.
fn home_of(c: &Client) -> usize {
    match &c.conn {
        Some(Conn::Far(far)) => far.home() + 1,
        _ => 0,
    }
}

impl Server {
    /// The line about a client; empty if it is gone.
    pub(crate) fn describe_client(&self, id: ClientId) -> String {
        self.clients.get(id).map(|c| self.client_line(c)).unwrap_or_default()
    }

    /// The line about a client, without a line break.
    pub(crate) fn client_line(&self, c: &Client) -> String {
        let mut line = Vec::with_capacity(LINE_BYTES);
        self.write_client_line(c, &mut line);
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Appends the line about a client, without a line break.
    pub(crate) fn write_client_line(&self, c: &Client, out: &mut Vec<u8>) {
        let now = self.clock.ms();
        let mut line = Line(out);
        line.0.extend_from_slice(b"id=");
        line.number(c.number as i64);
        line.text(" addr=", b"");
        c.write_addr(line.0);
        line.text(" laddr=", b"");
        c.write_laddr(line.0);
        line.int(" fd=", c.conn.as_ref().map_or(-1, |conn| i64::from(conn.as_raw_fd())));
        line.text(" name=", &c.name);
        line.int(" age=", seconds_since(c.created_ms, now));
        line.int(" idle=", seconds_since(c.last_interaction_ms, now));
        line.text(" flags=", b"");
        write_flags(c, line.0);
        line.size(" db=", c.db);
        let (channels, patterns, shard_channels) = self.subscription_counts(c);
        line.size(" sub=", channels);
        line.size(" psub=", patterns);
        line.size(" ssub=", shard_channels);
        line.int(" multi=", if c.is(ClientFlags::MULTI) { c.multi.queued.len() as i64 } else { -1 });
        let (query_len, query_cap, arg_bytes) = c.shown_query();
        line.size(" qbuf=", query_len);
        line.size(" qbuf-free=", query_cap - query_len);
        line.size(" argv-mem=", arg_bytes);
        line.size(" multi-mem=", c.multi.arg_bytes());
        line.size(" rbs=", c.out.buffer_size());
        line.size(" rbp=", c.reply_peak);
        line.size(" obl=", c.out.cur_len());
        line.size(" oll=", c.out.chunk_count());
        line.size(" omem=", self.output_bytes(c));
        line.size(" tot-mem=", c.mem_bytes());
        line.text(" events=", events(c).as_bytes());
        line.text(" cmd=", c.last_command.map_or("NULL", |row| row.name).as_bytes());
        line.text(" user=", &c.user);
        line.int(" redir=", self.tracking_redirection(c));
        line.int(" resp=", i64::from(c.resp));
        line.text(" lib-name=", &c.lib_name);
        line.text(" lib-ver=", &c.lib_ver);
        if self.io.are_there() {
            line.size(" io-thread=", home_of(c));
        }
    }

    /// Lines of these clients: as they come if they are `in_order`, or else in the order of their ids.
    pub(crate) fn client_lines<'c>(&self, clients: impl Iterator<Item = &'c Client>, in_order: bool) -> Vec<u8> {
        let mut chosen: Vec<&Client> = clients.collect();
        if !in_order {
            chosen.sort_unstable_by_key(|c| c.number);
        }
        let mut text = Vec::with_capacity(chosen.len() * LINE_BYTES);
        for c in chosen {
            self.write_client_line(c, &mut text);
            text.push(b'\n');
        }
        text
    }
}

/// What other rooms know of a client.
impl Server {
    // pubsub
    fn subscription_counts(&self, c: &Client) -> (usize, usize, usize) {
        c.subscriptions.as_ref().map_or((0, 0, 0), |s| {
            (s.names(Kind::Channel).len(), s.names(Kind::Pattern).len(), s.names(Kind::Shard).len())
        })
    }
    // tracking
    pub(crate) fn tracking_redirection(&self, c: &Client) -> i64 {
        c.tracking.as_ref().map_or(-1, |t| t.redirect as i64)
    }
    // repl
    /// Clients with a connection that are no replicas; the link to our master is one.
    pub(crate) fn clients_but_replicas(&self) -> usize {
        self.clients.connected + usize::from(self.repl.master_client().is_some())
    }
    /// Keys that clients wait for, and those among them whose disappearance releases clients.
    pub(crate) fn blocking_key_counts(&self) -> (usize, usize) {
        if !self.blocked.any_for_gone() {
            return (self.blocked.key_count(), 0);
        }
        let mut for_gone = BTreeSet::new();
        for id in &self.blocked.clients {
            let state = self.clients.get(*id).and_then(|c| c.block.as_ref());
            if let Some(BlockKind::Keys { db, keys, or_gone: true, .. }) = state.map(|s| &s.kind) {
                for_gone.extend(keys.iter().map(|key| (*db, key)));
            }
        }
        (self.blocked.key_count(), for_gone.len())
    }
}
