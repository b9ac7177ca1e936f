//! Scripts as the server runs them: what they may do, how long they may run, what their commands come to.

pub(crate) mod busy;
pub(crate) mod command;
pub(crate) mod debugger;
pub(crate) mod run;

use crate::admin::memory::ScriptMemory;
use crate::catalog::row::{Command, cat, flag};
use crate::net::ClientId;
use crate::resp::{Args, Reply};
use crate::script::{Host, Scripting, flags};
use crate::server::Server;

impl Host for Server {
    fn scripting(&mut self) -> &mut Scripting {
        &mut self.script
    }

    fn tick_us(&mut self) -> i64 {
        self.clock.tick_us()
    }

    fn script_duration_ms(&self) -> i64 {
        self.script.running.as_ref().map_or(0, |r| (self.clock.mono_us() - r.start_us).max(0) / 1000)
    }

    fn busy_reply_threshold_ms(&self) -> i64 {
        self.cfg.busy_reply_threshold
    }

    fn script_goes_on(&mut self, command: Args<'_>) -> bool {
        self.serve_beside_script(command)
    }

    fn run_script_command(&mut self, args: Args<'_>, out: &mut Reply) -> Result<(), Vec<u8>> {
        self.call_from_script(args, out)
    }

    fn script_caller_may(&mut self, args: Args<'_>) -> Option<bool> {
        self.caller_may(args)
    }

    fn set_script_protocol(&mut self, resp3: bool) {
        if let Some(running) = self.script.running.as_mut() {
            running.resp3 = resp3;
            let id = running.client;
            if let Some(c) = self.clients.get_mut(id) {
                c.resp = if resp3 { 3 } else { 2 };
            }
        }
    }
}

impl Server {
    /// The client that commands of this one are run for: for that of scripts, who called the script.
    pub(crate) fn caller_behind(&self, id: ClientId) -> ClientId {
        match &self.script.running {
            Some(running) if running.client == id => running.caller,
            _ => id,
        }
    }

    /// The flags of a command as its arguments make them: those that run scripts do what the script says it does.
    pub(crate) fn flags_of_call(&self, row: &Command, args: Args<'_>) -> u32 {
        if row.acl & cat::SCRIPTING == 0 {
            return row.flags;
        }
        let script_flags = match row.name {
            "eval" | "eval_ro" => args.get(1).and_then(|body| match self.script.cache.by_body(body) {
                Some(script) => Some(script.flags),
                None => flags::of_script(body).ok().map(|(flags, _)| flags),
            }),
            "evalsha" | "evalsha_ro" => args.get(1).and_then(|s| self.script.cache.by_sha(s)).map(|s| s.flags),
            "fcall" | "fcall_ro" => args.get(1).and_then(|n| self.script.libraries.function(n)).map(|f| f.flags),
            _ => return row.flags,
        };
        let Some(script_flags) = script_flags.filter(|f| f & flags::COMPAT == 0) else { return row.flags };
        let mut all = row.flags & !(flag::STALE | flag::DENYOOM | flag::WRITE | flag::MAY_REPLICATE);
        if script_flags & (flags::ALLOW_OOM | flags::NO_WRITES) == 0 {
            all |= flag::DENYOOM;
        }
        if script_flags & flags::NO_WRITES == 0 {
            all |= flag::WRITE;
        }
        if script_flags & flags::ALLOW_STALE != 0 {
            all |= flag::STALE;
        }
        all
    }

    /// What INFO and MEMORY say of scripts.
    pub(crate) fn script_memory(&self) -> ScriptMemory {
        let script = &self.script;
        ScriptMemory {
            vm_eval: script.eval.memory(),
            vm_functions: script.functions.memory(),
            eval_cache: script.cache.memory(),
            function_cache: script.libraries.memory(),
            cached_scripts: script.cache.len(),
            functions: script.libraries.function_count(),
            libraries: script.libraries.iter().len(),
        }
    }
}
