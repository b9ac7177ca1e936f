//! Upkeep of clients by the cron, a part of them each time and all of them about once a second: idle ones are closed,
//! buffers follow what is used of them, memory is counted.

use crate::catalog::CmdError;
use crate::net::upkeep::{Fit, MIN_CLIENTS_PER_RUN, fit_query_buffer, fit_reply_buffer};
use crate::net::{ClientFlags, ClientId};
use crate::server::Server;

impl Server {
    /// Looks after the next clients in turn.
    pub fn clients_cron(&mut self) {
        let now_ms = self.clock.ms();
        self.admin.client_memory.begin_second(now_ms);
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
        let exempt =
            ClientFlags::REPLICA.union(ClientFlags::MASTER).union(ClientFlags::BLOCKED).union(ClientFlags::PUBSUB);
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
        self.admin.client_memory.note_peaks(now_ms, input, output);
    }

    /// Closes a client on behalf of another one.
    pub fn kill_client(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::KILLED);
        }
        self.close_now(id);
    }

    /// Closes a client at once where that can be, at the end of the turn otherwise. It counts for nothing from now on.
    pub fn close_now(&mut self, id: ClientId) {
        // Within a long command of some client, that client and those above it must stay.
        if self.clients.current == Some(id) || self.is_nested_turn() {
            self.clients.close_later(id);
            self.update_client_memory(id);
        } else {
            self.free_client(id);
        }
    }

    /// Sends an error to a client that waits for a reply, and counts it.
    pub fn reply_error_to(&mut self, id: ClientId, error: &CmdError) {
        let mut reply = crate::resp::Reply::default();
        self.write_error(&mut reply, error);
        self.clients.reply(id, &reply.buf);
    }
}
