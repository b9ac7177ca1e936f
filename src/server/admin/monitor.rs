//! MONITOR: shows every command to those who ask.

use crate::admin::redact::redacted;
use crate::catalog::row::{Command, flag};
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::structs::bytes::append_quoted;

impl Server {
    /// Sends a line about a command that ran to every monitor. A command that is run again is shown once.
    pub(crate) fn feed_monitors(&mut self, id: ClientId, row: &Command, args: Args<'_>) {
        if !row.has(flag::SKIP_MONITOR | flag::ADMIN) {
            self.show_to_monitors(id, row, args);
        }
    }

    /// The same of commands that see to it themselves.
    pub(crate) fn show_to_monitors(&mut self, id: ClientId, row: &Command, args: Args<'_>) {
        if self.clients.monitors.is_empty() || self.is_loading() {
            return;
        }
        let Some(c) = self.clients.get(id).filter(|c| !c.is(ClientFlags::REPROCESSING)) else { return };
        let args = redacted(row, args);
        let us = self.clock.us();
        let from = if c.is(ClientFlags::SCRIPT) { "lua".to_string() } else { c.addr() };
        let mut line = format!("+{}.{:06} [{} {}]", us / 1_000_000, us % 1_000_000, c.db, from).into_bytes();
        for arg in args.iter() {
            line.push(b' ');
            append_quoted(&mut line, arg);
        }
        line.extend_from_slice(b"\r\n");
        for at in 0..self.clients.monitors.len() {
            let monitor = self.clients.monitors[at];
            self.clients.reply(monitor, &line);
            self.check_output_limit(monitor);
        }
    }
}
