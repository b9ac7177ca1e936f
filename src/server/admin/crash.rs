//! What a crash report tells of the server: INFO, the clients, and the client whose command ran.

use crate::server::Server;
use crate::sys::crash::CrashDetails;

impl CrashDetails for Server {
    fn crash_details(&self, write: &mut dyn FnMut(&str)) {
        write("\n------ INFO OUTPUT ------\n");
        write(&self.info([&b"all"[..]].into_iter()));
        write("\n------ CLIENT LIST OUTPUT ------\n");
        write(&String::from_utf8_lossy(&self.client_lines(self.clients.iter().filter(|c| c.conn.is_some()), false)));
        if let Some(c) = self.clients.current.and_then(|id| self.clients.get(id)) {
            write("\n------ CURRENT CLIENT INFO ------\n");
            write(&(self.client_line(c) + "\n"));
        }
        write("\n------ CONFIG DEBUG OUTPUT ------\n");
        for name in [
            "lazyfree-lazy-eviction",
            "lazyfree-lazy-expire",
            "lazyfree-lazy-server-del",
            "lazyfree-lazy-user-del",
            "lazyfree-lazy-user-flush",
            "list-compress-depth",
            "repl-diskless-load",
            "repl-diskless-sync",
            "replica-read-only",
            "sanitize-dump-payload",
        ] {
            if let Some((row, _)) = crate::config::lookup(name.as_bytes()) {
                write(&format!("{name} {}\n", String::from_utf8_lossy(&row.print(&self.cfg))));
            }
        }
    }
}
