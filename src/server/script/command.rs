//! Commands that scripts call: what keeps one from running, in the order Redis checks it, and its call.

use crate::acl::check::Denied;
use crate::catalog::error;
use crate::catalog::row::{Command, flag};
use crate::catalog::table::{CmdRef, Resolved};
use crate::cluster::routing::Refusal;
use crate::keyspace::effects::target;
use crate::net::ClientId;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::server::clients::ClientFlags;

impl Server {
    /// Runs a command of the script. `Err`: it was refused, and the statistics know; the text begins with `-` and a code,
    /// or has none.
    pub(super) fn call_from_script(&mut self, args: Args<'_>, out: &mut Reply) -> Result<(), Vec<u8>> {
        let found = match self.commands.resolve(args.at(0), args.get(1)) {
            Resolved::Found(cmd) => Some(cmd),
            Resolved::Unknown | Resolved::UnknownSub => None,
        };
        if let Err(text) = self.check_script_command(found, args) {
            if let Some(cmd) = found {
                self.commands.stats_mut(cmd).rejected += 1;
            }
            let code = match text.strip_prefix(b"-") {
                Some(rest) => &rest[..memchr::memchr(b' ', rest).unwrap_or(rest.len())],
                None => b"ERR",
            };
            self.stats.count_error(code);
            return Err(text);
        }
        let (Some(cmd), Some(running)) = (found, self.script.running.as_ref()) else { return Ok(()) };
        let id = running.client;
        out.resp3 = running.resp3;
        self.ks.effects.withheld = target::ALL & !running.targets;
        self.call(id, cmd, args, out);
        self.ks.effects.withheld = 0;
        Ok(())
    }

    fn check_script_command(&mut self, cmd: Option<CmdRef>, args: Args<'_>) -> Result<(), Vec<u8>> {
        let Some(cmd) = cmd else { return Err(b"Unknown Redis command called from script".to_vec()) };
        let row = self.commands.get(cmd).row;
        if !row.accepts_arity(args.len()) || row.run.is_none() {
            return Err(b"Wrong number of args calling Redis command from script".to_vec());
        }
        if row.has(flag::NOSCRIPT) && !self.script.deny_disabled {
            return Err(b"This Redis command is not allowed from script".to_vec());
        }
        if !row.has(flag::STALE) && self.serves_nothing_stale() {
            return Err(b"Can not execute the command on a stale replica".to_vec());
        }
        self.check_script_acl(cmd, args)?;
        self.check_script_write(row)?;
        let Some(running) = self.script.running.as_mut() else { return Ok(()) };
        let short_of_memory = !running.allow_oom && !running.obeyed && !running.wrote;
        if short_of_memory && self.cfg.maxmemory != 0 && self.ks.eviction.out_of_memory && row.has(flag::DENYOOM) {
            return Err(with_code(&error::OOM.0));
        }
        running.wrote |= row.has(flag::WRITE);
        self.check_script_slot(cmd, args)
    }

    /// The rights are those of who called the script.
    fn check_script_acl(&mut self, cmd: CmdRef, args: Args<'_>) -> Result<(), Vec<u8>> {
        let Some((id, caller)) = self.script.running.as_ref().map(|r| (r.client, r.caller)) else { return Ok(()) };
        let obeyed = self.clients.get(caller).is_none_or(|c| c.is(ClientFlags::MASTER.union(ClientFlags::AOF)));
        let Some(c) = self.clients.get(id).filter(|_| !obeyed) else { return Ok(()) };
        let Err(denied) = self.acl.check(&c.user, &self.commands, cmd, args) else { return Ok(()) };
        let user = c.user.clone();
        let name = self.commands.get(cmd).row.name;
        let object = match &denied {
            Denied::Command => name.as_bytes().to_vec(),
            Denied::Key(name) | Denied::Channel(name) => name.clone(),
        };
        self.log_acl(caller, denied.reason(), "lua", object, &user);
        Err(format!("ACL failure in script: {}", denied.text(&user, name, false)).into_bytes())
    }

    fn check_script_write(&mut self, row: &Command) -> Result<(), Vec<u8>> {
        let Some(running) = self.script.running.as_ref() else { return Ok(()) };
        if running.read_only && row.has(flag::WRITE | flag::MAY_REPLICATE) {
            return Err(b"Write commands are not allowed from read-only scripts.".to_vec());
        }
        // Once it has written, a script is not stopped half-way.
        if !row.has(flag::WRITE) || running.wrote {
            return Ok(());
        }
        if self.is_read_only_replica() && !running.obeyed {
            return Err(with_code(&error::READONLY.0));
        }
        if let Some(error) = self.disk_error() {
            return Err(with_code(&error.0));
        }
        self.check_good_replicas(true).map_err(|error| with_code(&error.0))
    }

    /// Keys that were not declared must be here, too, and of the same slot unless the script says otherwise.
    fn check_script_slot(&mut self, cmd: CmdRef, args: Args<'_>) -> Result<(), Vec<u8>> {
        let Some(running) = self.script.running.as_ref().filter(|r| self.bus.is_some() && !r.obeyed) else {
            return Ok(());
        };
        let (id, caller, allow_cross_slot) = (running.client, running.caller, running.allow_cross_slot);
        self.copy_routing_flags(caller, id);
        let slot = match self.cluster_route(id, cmd, args) {
            Ok(slot) => slot,
            Err(refusal) => return Err(refused(refusal).to_vec()),
        };
        if let Some(slot) = slot {
            self.meter_key_of_script(slot);
        }
        let Some(running) = self.script.running.as_mut().filter(|_| !allow_cross_slot && slot.is_some()) else {
            return Ok(());
        };
        if running.slot.is_some() && running.slot != slot {
            return Err(b"Script attempted to access keys that do not hash to the same slot".to_vec());
        }
        running.slot = slot;
        Ok(())
    }

    fn copy_routing_flags(&mut self, caller: ClientId, id: ClientId) {
        let Some(flags) = self.clients.get(caller).map(|c| c.flags) else { return };
        let Some(c) = self.clients.get_mut(id) else { return };
        for flag in [ClientFlags::READONLY, ClientFlags::ASKING] {
            c.flags.set(flag, flags.has(flag));
        }
    }

    /// Whether the caller's user may run a command; `None`: there is no such command.
    pub(super) fn caller_may(&self, args: Args<'_>) -> Option<bool> {
        let Resolved::Found(cmd) = self.commands.resolve(args.at(0), args.get(1)) else { return None };
        let running = self.script.running.as_ref()?;
        let Some(caller) = self.clients.get(running.caller) else { return Some(true) };
        Some(self.acl.check(&caller.user, &self.commands, cmd, args).is_ok())
    }
}

fn with_code(text: &[u8]) -> Vec<u8> {
    [b"-", text].concat()
}

fn refused(refusal: Refusal) -> &'static [u8] {
    match refusal {
        Refusal::DownReadOnly => b"Script attempted to execute a write command while the cluster is down and readonly",
        Refusal::Down => b"Script attempted to execute a command while the cluster is down",
        Refusal::CrossSlot | Refusal::TryAgain | Refusal::Moved(..) | Refusal::Ask(..) | Refusal::Unbound => {
            b"Script attempted to access a non local key in a cluster node"
        }
    }
}
