//! Scripts that take long: after `busy-reply-threshold` other clients are served, if only to be told so, and may kill the
//! script unless it has written.
//!
//! While a script is busy no timer runs and nothing of the keyspace moves: to the script it is as if nobody was there.

use crate::catalog::error::{CmdError, CmdResult};
use crate::resp::Args;
use crate::script::run::Running;
use crate::script::{Host, Kind};
use crate::server::Server;
use crate::server::clients::ClientFlags;

const BUSY_SCRIPT: CmdError =
    CmdError::of("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.");
const BUSY_FUNCTION: CmdError =
    CmdError::of("BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.");

impl Server {
    /// A script runs that others need not wait for.
    pub(crate) fn script_is_busy(&self) -> bool {
        self.script.running.as_ref().is_some_and(|r| r.busy)
    }

    /// What others are told while a script is busy.
    pub(crate) fn script_busy_error(&self) -> Option<CmdError> {
        let running = self.script.running.as_ref().filter(|r| r.busy)?;
        Some(match running.kind {
            Kind::Eval => BUSY_SCRIPT,
            Kind::Function => BUSY_FUNCTION,
        })
    }

    /// Serves others if the script has run for long. False: it is to end.
    pub(super) fn serve_beside_script(&mut self, command: Args<'_>) -> bool {
        self.clock.tick_us();
        let elapsed_ms = self.script_duration_ms();
        let threshold_ms = self.cfg.busy_reply_threshold;
        let Some(running) = self.script.running.as_mut() else { return true };
        if threshold_ms <= 0 {
            return true;
        }
        if !running.busy {
            if elapsed_ms < threshold_ms {
                return true;
            }
            let kill = match running.kind {
                Kind::Eval => "SCRIPT KILL",
                Kind::Function => "FUNCTION KILL",
            };
            log::warn!(
                "Slow script detected: still in execution after {elapsed_ms} milliseconds. You can try killing the script \
                 using the {kill} command. Script name is: {}.",
                String::from_utf8_lossy(&running.name)
            );
            running.busy = true;
            running.command = command.to_owned();
        }
        // Time moves on for TIME, so that a script that waits for it ends. Its view of keys stays as it is.
        let (now_ms, policy, no_touch) = (self.ks.now_ms, self.ks.expire_policy, self.ks.no_touch);
        let out_of_memory = self.ks.eviction.out_of_memory;
        self.serve_pending();
        self.ks.now_ms = now_ms;
        self.ks.expire_policy = policy;
        self.ks.no_touch = no_touch;
        self.ks.eviction.out_of_memory = out_of_memory;
        self.unit_us = self.clock.us();
        self.exit.is_none() && self.script.running.as_ref().is_some_and(|r| !r.killed)
    }

    /// A busy script is over.
    pub(super) fn end_busy(&mut self, running: &Running) {
        if self.exit.is_some() {
            // It did not come to its end: half of its effects are worse than none.
            self.ks.effects.props = Default::default();
        }
        if let Some(c) = self.clients.get_mut(running.client) {
            c.flags.remove(ClientFlags::READONLY.union(ClientFlags::ASKING));
        }
        // What the master sent meanwhile has waited.
        let master = self.clients.iter().find(|c| c.is(ClientFlags::MASTER)).map(|c| c.id);
        if let Some(id) = master {
            self.clients.want_read(id);
        }
    }

    /// SCRIPT KILL and FUNCTION KILL.
    pub(crate) fn kill_script(&mut self, kind: Kind) -> CmdResult {
        let Some(running) = self.script.running.as_mut() else {
            return Err(CmdError::of("NOTBUSY No scripts in execution right now."));
        };
        if running.obeyed {
            return Err(CmdError::of(
                "UNKILLABLE The busy script was sent by a master instance in the context of replication and cannot be \
                 killed.",
            ));
        }
        if running.wrote {
            return Err(CmdError::of(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
                 script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            ));
        }
        match (kind, running.kind) {
            (Kind::Eval, Kind::Function) => return Err(BUSY_FUNCTION),
            (Kind::Function, Kind::Eval) => return Err(BUSY_SCRIPT),
            _ => running.killed = true,
        }
        Ok(())
    }
}
