//! Scripts and functions in Lua: the interpreters, what they have loaded, and the script that runs.
//!
//! EVAL and its like have one interpreter, functions another. A script calls commands as a client of its own that has
//! no connection. What it changes gathers in the effects until the command that runs it ends, as with a transaction.
//! Libraries that Lua lacks are in `lib`; the commands are in `server/commands/scripting.rs` and `function.rs`.

pub(crate) mod busy;
pub(crate) mod debugger;
pub(crate) mod flags;
pub(crate) mod host;
pub(crate) mod lib;
pub(crate) mod library;
pub(crate) mod run;
pub(crate) mod scripts;

mod api;
mod base;
mod convert;
mod engine;
mod inspect;
mod load;
mod memory;
mod register;
mod sandbox;

pub(crate) use engine::{Engine, Kind};
pub(crate) use host::Host;

use crate::net::ClientId;
use crate::resp::Args;
use library::{Function, Libraries, RestorePolicy};
use run::Running;
use scripts::Cache;
use std::rc::Rc;
use std::time::Duration;

/// How long the program of a library may run when it is loaded.
const LOAD_TIMEOUT: Duration = Duration::from_millis(500);

/// The room's state.
pub(crate) struct Scripting {
    pub(crate) eval: Engine,
    pub(crate) functions: Engine,
    pub(crate) cache: Cache,
    pub(crate) libraries: Libraries,
    /// Libraries of a data set that is loaded while the old one is served.
    pub(crate) aside: Option<Libraries>,
    pub(crate) running: Option<Running>,
    /// The client that commands of scripts run as.
    pub(crate) client: Option<ClientId>,
    pub(crate) debugger: debugger::Debugger,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS: scripts may call commands with the flag `noscript`.
    pub(crate) deny_disabled: bool,
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
    pub(crate) fn engine(&mut self, kind: Kind) -> &mut Engine {
        match kind {
            Kind::Eval => &mut self.eval,
            Kind::Function => &mut self.functions,
        }
    }

    /// The script of this text, compiled if it is new. `Err` is the text of the reply, without `ERR`.
    pub(crate) fn load_script(&mut self, body: &[u8]) -> Result<Rc<scripts::Script>, Vec<u8>> {
        self.cache.load(&mut self.eval, body)
    }

    /// Forgets all EVAL scripts, with the interpreter they ran in.
    pub(crate) fn flush_scripts(&mut self) {
        self.cache.clear();
        // An interpreter that is in use stays.
        if self.running.is_none() {
            self.eval = Engine::new(Kind::Eval);
        }
    }

    /// Loads a library and returns its name. `limited`: its program may run for [`LOAD_TIMEOUT`] at most.
    pub(crate) fn load_library(&mut self, code: &[u8], replace: bool, limited: bool) -> Result<Vec<u8>, Vec<u8>> {
        let libraries = self.aside.as_mut().unwrap_or(&mut self.libraries);
        libraries.load(&mut self.functions, code, replace, limited.then_some(LOAD_TIMEOUT))
    }

    /// Restores what FUNCTION DUMP gave.
    pub(crate) fn restore_libraries(
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

impl scripts::Script {
    pub(crate) fn to_run<'a>(&self, read_only: bool, command: Args<'a>, key_count: usize) -> run::Script<'a> {
        let name = self.sha.clone();
        run::Script { kind: Kind::Eval, name, flags: self.flags, read_only, code: self.code.id, command, key_count }
    }
}

impl Function {
    pub(crate) fn to_run<'a>(&self, read_only: bool, command: Args<'a>, key_count: usize) -> run::Script<'a> {
        let (name, code) = (self.name.clone(), self.code.id);
        run::Script { kind: Kind::Function, name, flags: self.flags, read_only, code, command, key_count }
    }
}
