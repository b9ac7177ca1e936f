//! The interface of the server to the scripts it runs.

use super::Scripting;
use crate::resp::{Args, Reply};

pub(crate) trait Host {
    /// The state of this room, which the server keeps.
    fn scripting(&mut self) -> &mut Scripting;

    /// Reads the clock: monotonic, microseconds.
    fn tick_us(&mut self) -> i64;

    /// How long the script has run, ms.
    fn script_duration_ms(&self) -> i64;

    /// How long scripts may run before other clients are served meanwhile, ms; 0 or less: for ever.
    fn busy_reply_threshold_ms(&self) -> i64;

    /// Serves other clients if the script, started by this command, has run for long. False: it is to end.
    fn script_goes_on(&mut self, command: Args<'_>) -> bool;

    /// Runs a command of the script. `Err`: it was refused, which the statistics have counted; the text begins with `-`
    /// and a code, or has none.
    fn run_script_command(&mut self, args: Args<'_>, out: &mut Reply) -> Result<(), Vec<u8>>;

    /// Whether the caller's user may run a command; `None`: there is no such command.
    fn script_caller_may(&mut self, args: Args<'_>) -> Option<bool>;

    /// The protocol in which the script's commands reply.
    fn set_script_protocol(&mut self, resp3: bool);
}
