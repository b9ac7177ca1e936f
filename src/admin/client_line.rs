//! A client in one line, as CLIENT LIST and the log show it.

use crate::dispatch::blocked::BlockKind;
use crate::net::{Client, ClientFlags, ClientId};
use crate::pubsub::Kind;
use crate::server::Server;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::fd::AsRawFd;

/// Letters of the `flags` field, in its order.
const LETTERS: &[(ClientFlags, char)] = &[
    (ClientFlags::MASTER, 'M'),
    (ClientFlags::PUBSUB, 'P'),
    (ClientFlags::MULTI, 'x'),
    (ClientFlags::BLOCKED, 'b'),
    (ClientFlags::TRACKING, 't'),
    (ClientFlags::DIRTY_CAS, 'd'),
    (ClientFlags::CLOSE_AFTER_REPLY, 'c'),
    (ClientFlags::UNBLOCKED, 'u'),
    (ClientFlags::CLOSE_ASAP, 'A'),
    (ClientFlags::UNIX_SOCKET, 'U'),
    (ClientFlags::READONLY, 'r'),
    (ClientFlags::NO_EVICT, 'e'),
    (ClientFlags::NO_TOUCH, 'T'),
];

fn flags(c: &Client) -> String {
    let mut text = String::new();
    if c.is(ClientFlags::MONITOR) {
        text.push('O');
    } else if c.is(ClientFlags::REPLICA) {
        text.push('S');
    }
    for (flag, letter) in LETTERS.iter().filter(|(flag, _)| c.is(*flag)) {
        text.push(*letter);
        if *flag == ClientFlags::TRACKING
            && let Some(tracking) = &c.tracking
        {
            text.push_str(if tracking.broken_redirect { "R" } else { "" });
            text.push_str(if tracking.bcast { "B" } else { "" });
        }
    }
    if text.is_empty() {
        text.push('N');
    }
    text
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

impl Server {
    /// The line about a client; empty if it is gone.
    pub fn describe_client(&self, id: ClientId) -> String {
        self.clients.get(id).map(|c| self.client_line(c)).unwrap_or_default()
    }

    /// The line about a client, without a line break.
    pub fn client_line(&self, c: &Client) -> String {
        let now = self.clock.ms();
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut s = String::with_capacity(400);
        let _ = write!(s, "id={} addr={} laddr={}", c.number, c.addr(), c.laddr());
        match &c.conn {
            Some(conn) => {
                let _ = write!(s, " fd={}", conn.as_raw_fd());
            }
            None => s.push_str(" fd=-1"),
        }
        let _ = write!(
            s,
            " name={} age={} idle={} flags={} db={}",
            lossy(&c.name),
            (now / 1000 - c.created_ms / 1000).max(0),
            (now / 1000 - c.last_interaction_ms / 1000).max(0),
            flags(c),
            c.db
        );
        let (channels, patterns, shard_channels) = self.subscription_counts(c);
        let multi = if c.is(ClientFlags::MULTI) { c.multi.queued.len() as i64 } else { -1 };
        let (query_len, query_cap, arg_bytes) = c.shown_query();
        let _ = write!(
            s,
            " sub={channels} psub={patterns} ssub={shard_channels} multi={multi} qbuf={query_len} qbuf-free={}",
            query_cap - query_len
        );
        let output = self.output_bytes(c);
        let _ = write!(
            s,
            " argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll={} omem={output} tot-mem={}",
            arg_bytes,
            c.multi.arg_bytes(),
            c.out.buffer_size(),
            c.reply_peak,
            c.out.cur_len(),
            c.out.chunk_count(),
            c.mem_bytes(),
        );
        let _ = write!(
            s,
            " events={} cmd={} user={} redir={} resp={} lib-name={} lib-ver={}",
            events(c),
            c.last_command.map_or("NULL", |row| row.name),
            lossy(&c.user),
            self.tracking_redirection(c),
            c.resp,
            lossy(&c.lib_name),
            lossy(&c.lib_ver)
        );
        s
    }

    /// Lines of all clients that `keep` keeps, in the order of their ids.
    pub fn client_lines(&self, mut keep: impl FnMut(&Client) -> bool) -> String {
        let mut chosen: Vec<&Client> = self.clients.iter().filter(|c| c.conn.is_some() && keep(c)).collect();
        chosen.sort_unstable_by_key(|c| c.number);
        let mut text = String::new();
        for c in chosen {
            text += &self.client_line(c);
            text.push('\n');
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
    pub fn tracking_redirection(&self, c: &Client) -> i64 {
        c.tracking.as_ref().map_or(-1, |t| t.redirect as i64)
    }
    /// Keys that clients wait for, and those among them whose disappearance releases clients.
    pub fn blocking_key_counts(&self) -> (usize, usize) {
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
