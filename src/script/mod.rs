//! Scripts and functions in Lua: the interpreters, what they have loaded, and the script that runs.
//!
//! EVAL and its like have one interpreter, functions another. A script calls commands as a client of its own that has no
//! connection; what it changes gathers in the effects until the command that runs it is over, as with a transaction. What
//! Lua itself does not bring is in `lib`; the commands are in `commands/scripting` and `commands/function`.

pub mod busy;
pub mod debugger;
pub mod flags;
pub mod lib;
pub mod library;
pub mod run;
pub mod scripts;

mod api;
mod base;
mod command;
mod convert;
mod engine;
mod inspect;
mod load;
mod memory;
mod register;
mod sandbox;

pub use api::sha1_text;
pub use engine::{Engine, Kind};

use crate::admin::memory::ScriptMemory;
use crate::catalog::row::{Command, cat, flag};
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use library::{Function, Libraries, RestorePolicy};
use run::Running;
use scripts::Cache;
use std::rc::Rc;
use std::time::Duration;

/// How long the program of a library may run when it is loaded.
const LOAD_TIMEOUT: Duration = Duration::from_millis(500);

/// The room's state.
pub struct Scripting {
    eval: Engine,
    functions: Engine,
    pub cache: Cache,
    pub libraries: Libraries,
    /// Libraries of a data set that is being loaded beside the one that is served.
    pub aside: Option<Libraries>,
    pub running: Option<Running>,
    /// The client that commands of scripts run as.
    client: Option<ClientId>,
    pub debugger: debugger::Debugger,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS: scripts may call what is not for scripts.
    pub deny_disabled: bool,
}

impl Default for Scripting {
    fn default() -> Scripting {
        Scripting {
            eval: Engine::new(Kind::Eval),
            functions: Engine::new(Kind::Function),
            cache: Cache::default(),
            libraries: Libraries::default(),
            aside: None,
            running: None,
            client: None,
            debugger: Default::default(),
            deny_disabled: false,
        }
    }
}

impl Scripting {
    fn engine(&mut self, kind: Kind) -> &mut Engine {
        match kind {
            Kind::Eval => &mut self.eval,
            Kind::Function => &mut self.functions,
        }
    }

    /// The script of this text, compiled if it is new. `Err` is the text of the reply, without `ERR`.
    pub fn load_script(&mut self, body: &[u8]) -> Result<Rc<scripts::Script>, Vec<u8>> {
        self.cache.load(&mut self.eval, body)
    }

    /// Forgets all EVAL scripts, with the interpreter they ran in.
    pub fn flush_scripts(&mut self) {
        self.cache.clear();
        // One that is in use stays.
        if self.running.is_none() {
            self.eval = Engine::new(Kind::Eval);
        }
    }

    /// Loads a library and gives its name. `limited`: its program may only run for a while.
    pub fn load_library(&mut self, code: &[u8], replace: bool, limited: bool) -> Result<Vec<u8>, Vec<u8>> {
        let libraries = self.aside.as_mut().unwrap_or(&mut self.libraries);
        libraries.load(&mut self.functions, code, replace, limited.then_some(LOAD_TIMEOUT))
    }

    /// Restores what FUNCTION DUMP gave.
    pub fn restore_libraries(
        &mut self,
        payload: &[u8],
        policy: RestorePolicy,
        skip_checksum: bool,
    ) -> Result<(), Vec<u8>> {
        let restored = Libraries::restore(&mut self.functions, payload, skip_checksum)?;
        if policy == RestorePolicy::Flush {
            self.libraries = restored;
            return Ok(());
        }
        self.libraries.join(restored, policy == RestorePolicy::Replace)
    }
}

/// Numbers of the code of scripts in their interpreters.
impl scripts::Script {
    pub fn to_run<'a>(&self, read_only: bool, command: Args<'a>, key_count: usize) -> run::Script<'a> {
        let name = self.sha.clone();
        run::Script { kind: Kind::Eval, name, flags: self.flags, read_only, code: self.code.id, command, key_count }
    }
}

impl Function {
    pub fn to_run<'a>(&self, read_only: bool, command: Args<'a>, key_count: usize) -> run::Script<'a> {
        let (name, code) = (self.name.clone(), self.code.id);
        run::Script { kind: Kind::Function, name, flags: self.flags, read_only, code, command, key_count }
    }
}

impl Server {
    /// Who called the script that runs, if one does.
    pub fn script_caller(&self) -> Option<ClientId> {
        self.script.running.as_ref().map(|r| r.caller)
    }

    /// The client that commands of this one are run for: for that of scripts, who called the script.
    pub fn caller_behind(&self, id: ClientId) -> ClientId {
        match &self.script.running {
            Some(running) if running.client == id => running.caller,
            _ => id,
        }
    }

    /// The flags of a command as its arguments make them: those that run scripts do what the script says it does.
    pub fn flags_of_call(&self, row: &Command, args: Args<'_>) -> u32 {
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
    pub fn script_memory(&self) -> ScriptMemory {
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
