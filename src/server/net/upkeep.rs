//! Upkeep of clients by the cron, a part of them each time and all of them about once a second: idle ones are closed,
//! buffers follow what is used of them, memory is counted.

use crate::catalog::CmdError;
use crate::net::ClientId;
use crate::net::output::{MAX_BUFFER_BYTES, MIN_BUFFER_BYTES};
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};

/// Fewest clients looked at in one cron run.
const MIN_CLIENTS_PER_RUN: usize = 5;
/// Unused room of a query buffer that is left alone, bytes.
const QUERY_SPARE_BYTES: usize = 4 * 1024;
/// Query buffers up to this size shrink only when their client is idle, bytes.
const QUERY_BIG_BYTES: usize = 32 * 1024;
/// A client is idle after this, seconds.
const IDLE_SECONDS: i64 = 2;

impl Server {
    /// Looks after the next clients in turn.
    pub(crate) fn clients_cron(&mut self) {
        let now_ms = self.clock.ms();
        self.client_memory.begin_second(now_ms);
        let count = self.clients.len();
        let share = (count / self.hz() as usize).max(MIN_CLIENTS_PER_RUN).min(count);
        for id in self.clients.next_in_turn(share) {
            if self.is_idle_too_long(id, now_ms) {
                log::debug!("Closing idle client");
                self.clients.close_later(id);
                continue;
            }
            self.fit_buffers(id, now_ms);
            self.update_client_memory(id);
            self.check_output_limit(id);
        }
    }

    fn is_idle_too_long(&self, id: ClientId, now_ms: i64) -> bool {
        let links =
            ClientFlags::REPLICA.union(ClientFlags::MASTER).union(ClientFlags::IMPORT).union(ClientFlags::EXPORT);
        let exempt = links.union(ClientFlags::BLOCKED).union(ClientFlags::PUBSUB);
        let limit = self.cfg.timeout;
        self.clients.get(id).is_some_and(|c| {
            limit > 0 && c.conn.is_some() && !c.is(exempt) && now_ms / 1000 - c.last_interaction_ms / 1000 > limit
        })
    }

    fn fit_buffers(&mut self, id: ClientId, now_ms: i64) {
        let debug = &self.admin.debug;
        let (resizing, reset_ms) = (debug.reply_buffer_resizing, debug.reply_buffer_peak_reset_ms);
        let Some(c) = self.clients.get_mut(id) else { return };
        fit_query_buffer(c, now_ms);
        if resizing {
            match fit_reply_buffer(c, now_ms, reset_ms) {
                Some(Fit::Shrunk) => self.stats.reply_buffer_shrinks += 1,
                Some(Fit::Grown) => self.stats.reply_buffer_expands += 1,
                None => {}
            }
        }
        let Some(c) = self.clients.get(id) else { return };
        let (input, output) = (c.query_room().1 + c.argv_bytes, self.output_bytes(c));
        self.client_memory.note_peaks(now_ms, input, output);
    }

    /// Closes a client on behalf of another one.
    pub(crate) fn kill_client(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::KILLED);
        }
        self.close_now(id);
    }

    /// Closes a client at once where that can be, at the end of the turn otherwise. It counts for nothing from now on.
    pub(crate) fn close_now(&mut self, id: ClientId) {
        // Within a long command of some client, that client and those above it must stay.
        if self.clients.current == Some(id) || self.is_nested_turn() {
            self.clients.close_later(id);
            self.update_client_memory(id);
        } else {
            self.free_client(id);
        }
    }

    /// Sends an error to a client that waits for a reply, and counts it.
    pub(crate) fn reply_error_to(&mut self, id: ClientId, error: &CmdError) {
        let mut reply = crate::resp::Reply::default();
        self.write_error(&mut reply, error);
        self.clients.reply(id, &reply.buf);
    }
}

fn fit_query_buffer(c: &mut Client, now_ms: i64) {
    let wanted = c.parser.wanted_len().map_or(0, |n| c.query_pos + n);
    let capacity = c.query.capacity();
    if capacity - c.query.len() > QUERY_SPARE_BYTES {
        if now_ms / 1000 - c.last_interaction_ms / 1000 > IDLE_SECONDS {
            c.query.shrink_to_fit();
        } else if capacity > QUERY_BIG_BYTES && capacity / 2 > c.query_peak {
            let peak = c.query_peak;
            c.query.shrink_to(peak.max(wanted));
        }
    }
    // The next run looks at what is used from here on.
    c.query_peak = c.query.len().max(wanted);
}

enum Fit {
    Shrunk,
    Grown,
}

fn fit_reply_buffer(c: &mut Client, now_ms: i64, reset_ms: i64) -> Option<Fit> {
    let size = c.out.buffer_size();
    let (new, fit) = if size / 2 >= MIN_BUFFER_BYTES && c.reply_peak < size / 2 {
        (MIN_BUFFER_BYTES.max(c.reply_peak + 1), Some(Fit::Shrunk))
    } else if size < MAX_BUFFER_BYTES && c.reply_peak >= size {
        (MAX_BUFFER_BYTES.min(size * 2), Some(Fit::Grown))
    } else {
        (size, None)
    };
    if reset_ms >= 0 && now_ms - c.reply_peak_at_ms >= reset_ms {
        c.reply_peak = c.out.cur_len();
        c.reply_peak_at_ms = now_ms;
    }
    if fit.is_some() {
        c.out.resize(new);
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Link;

    fn client() -> Client {
        Client::new(ClientId { index: 0, generation: 0 }, 1, Link::default(), 0)
    }

    #[test]
    fn reply_buffers_follow_their_use() {
        let mut c = client();
        for expected in [2048, 4096, 8192, 16384, 16384] {
            c.reply_peak = c.out.buffer_size();
            fit_reply_buffer(&mut c, 0, -1);
            assert_eq!(c.out.buffer_size(), expected);
        }
        c.reply_peak = 10;
        fit_reply_buffer(&mut c, 0, -1);
        assert_eq!(c.out.buffer_size(), MIN_BUFFER_BYTES);
    }

    #[test]
    fn query_buffers_shrink_when_idle_or_far_too_large() {
        let mut c = client();
        c.query = Vec::with_capacity(400_000);
        c.query_peak = 100;
        fit_query_buffer(&mut c, 1000);
        assert!(c.query.capacity() < 32 * 1024);
        c.query = Vec::with_capacity(16 * 1024);
        fit_query_buffer(&mut c, 2000);
        assert!(c.query.capacity() >= 16 * 1024);
        fit_query_buffer(&mut c, 3000);
        assert_eq!(c.query.capacity(), 0);
    }
}
