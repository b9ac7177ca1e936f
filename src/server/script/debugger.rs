//! Sessions of the debugger of scripts: who asks for one, the process it runs in, and the connection it takes.

use crate::catalog::error::{CmdError, CmdResult};
use crate::net::ClientId;
use crate::resp::Args;
use crate::script::debugger::SEND_TIMEOUT;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::call::Ctx;
use crate::sys::{fork, signals};
use std::io::Write;

/// Runs a script under the debugger: `run` does what EVAL does.
pub(crate) fn debug(ctx: &mut Ctx<'_>, args: Args<'_>, run: impl FnOnce(&mut Ctx<'_>) -> CmdResult) -> CmdResult {
    let id = ctx.client;
    let is_forked = !ctx.c().is(ClientFlags::SCRIPT_DEBUG_SYNC);
    if is_forked {
        match fork::fork_process() {
            Err(e) => {
                ctx.srv.disable_debugging(id);
                let reason = crate::net::listener::reason(&e);
                return Err(CmdError::text(format!("ERR Fork() failed: can't run EVAL in debugging mode: {reason}")));
            }
            Ok(fork::Side::Parent(pid)) => {
                // The connection is the child's now.
                ctx.srv.script.debugger.children.push(pid);
                ctx.srv.disable_debugging(id);
                if let Some(conn) = &mut ctx.c_mut().conn {
                    conn.leave_to_child();
                }
                ctx.srv.clients.close_later(id);
                return Ok(());
            }
            Ok(fork::Side::Child) => {
                signals::ignore_stop();
                ctx.srv.release_in_child();
                log::info!("Redis forked for debugging eval");
            }
        }
    } else {
        log::info!("Redis synchronous debugging eval session started");
    }
    let mark = ctx.out.buf.len();
    ctx.srv.open_session(id, args.at(1));
    let result = run(ctx);
    let debugger = &mut ctx.srv.script.debugger;
    debugger.log("<endsession>");
    debugger.send_logs();
    let conn = debugger.conn.take();
    debugger.source.clear();
    if is_forked {
        if let Err(error) = result {
            ctx.out.error(&error.0);
        }
        let _ = conn.map(|mut conn| conn.write_all(&ctx.out.buf[mark..]));
        // A peer with TLS was told that this is the end.
        log::info!("Lua debugging session child exiting");
        fork::exit_child(0);
    }
    if let Some(mut conn) = conn {
        conn.set_blocking(false, SEND_TIMEOUT);
        ctx.c_mut().link.conn = Some(conn);
    }
    log::info!("Redis synchronous debugging eval session ended");
    // The end of the connection is the end of the session.
    ctx.c_mut().flags.add(ClientFlags::CLOSE_AFTER_REPLY);
    result
}

impl Server {
    /// SCRIPT DEBUG YES and SYNC.
    pub(crate) fn enable_debugging(&mut self, id: ClientId, sync: bool) {
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::SCRIPT_DEBUG);
            if sync {
                c.flags.add(ClientFlags::SCRIPT_DEBUG_SYNC);
            }
        }
        self.script.debugger.begin();
    }

    /// SCRIPT DEBUG NO.
    pub(crate) fn disable_debugging(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.remove(ClientFlags::SCRIPT_DEBUG.union(ClientFlags::SCRIPT_DEBUG_SYNC));
        }
    }

    /// Takes note of forked sessions that ended.
    pub(crate) fn reap_debug_sessions(&mut self) {
        self.script.debugger.children.retain(|pid| matches!(fork::reap(*pid, false), Ok(None)));
    }

    /// Ends forked sessions.
    pub(crate) fn kill_debug_sessions(&mut self) {
        for pid in self.script.debugger.children.drain(..) {
            log::info!("Killing debugging session {pid}");
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Server {
    fn open_session(&mut self, id: ClientId, script: &[u8]) {
        // The client has it back when the session is over.
        let mut conn = self.clients.get_mut(id).and_then(|c| c.link.conn.take());
        if let Some(conn) = &mut conn {
            conn.set_blocking(true, SEND_TIMEOUT);
        }
        let end = script.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |i| i + 1);
        let debugger = &mut self.script.debugger;
        debugger.conn = conn;
        debugger.source = script[..end].split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    }
}
