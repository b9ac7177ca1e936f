//! What a data command works with: the data, the limits on values, the session, and its reply. It cannot reach the
//! server; what else it needs done leaves as a [`Want`], which the server carries out after the command.

use crate::catalog::CmdResult;
use crate::catalog::row::Command;
use crate::config::Config;
use crate::keyspace::Keyspace;
use crate::keyspace::object::ValueLimits;
use crate::resp::{Args, OwnedArgs, Reply};

/// The function of a data command: reads its arguments (the name included, as argument 0), writes exactly one reply to
/// `ctx.out` unless it waits or returns an error, and records what it changed in `ctx.ks.effects`.
pub(crate) type DataFn = fn(&mut Ctx<'_>, Args<'_>) -> CmdResult;

pub(crate) struct Ctx<'a> {
    pub(crate) ks: &'a mut Keyspace,
    pub(crate) cfg: &'a Config,
    pub(crate) out: &'a mut Reply,
    pub(crate) session: &'a dyn Session,
    /// What the server is to do after the command.
    pub(crate) want: &'a mut Option<Want>,
    /// The client's database, as SELECT last set it.
    pub(crate) db: usize,
    pub(crate) cmd: &'static Command,
}

/// What a command may ask about the client it runs for.
pub(crate) trait Session {
    /// The command comes from our master or from the AOF: checks on clients do not apply.
    fn must_obey(&self) -> bool;
    /// The client may not be blocked: it is in a transaction, in a script, or not a client at all.
    fn denies_blocking(&self) -> bool;
    /// The command is called by a script.
    fn is_script(&self) -> bool;
    /// The command is not part of a transaction or script.
    fn is_outermost(&self) -> bool;
    /// Expired keys are kept until a DEL comes: the data set is being loaded, or is a master's.
    fn keeps_past_keys(&self) -> bool;
    /// Bytes that a reply may have under the output limit. A longer reply need not be finished, but the client has to
    /// be closed, see [`Want::Close`].
    fn reply_room(&self) -> usize;
    /// Whether the user may read every key with this command.
    fn reads_all_keys(&self, args: Args<'_>) -> bool;
}

/// What the server is to do after a data command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The client waits and has no reply yet.
    Wait(Wait),
    /// The client is to be closed, since its reply exceeds the output limit.
    Close,
    /// All data was deleted, so a snapshot under way is of no use.
    Flushed,
}

/// What a client waits for, and with which arguments its command then runs again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) keys: Vec<Vec<u8>>,
    /// The type, as TYPE prints it, that one of the keys is to hold.
    pub(crate) wanted: &'static str,
    /// The wait also ends when one of the keys is deleted or replaced.
    pub(crate) or_gone: bool,
    /// When the wait times out, wall clock ms; `None`: never.
    pub(crate) deadline_ms: Option<i64>,
    /// The arguments to run with, if not those of the call.
    pub(crate) args: Option<OwnedArgs>,
}

impl Ctx<'_> {
    /// Counts changes, so that the command is propagated.
    pub(crate) fn dirty(&mut self, changes: u64) {
        self.ks.effects.dirty += changes;
    }

    /// Notes that a value was changed in place: watchers and caches, subscribers of its event, and the count of changes.
    #[inline]
    pub(crate) fn changed(&mut self, class: u32, event: &'static str, key: &[u8], changes: u64) {
        self.ks.signal_modified(self.db, key);
        self.ks.effects.notify(class, event, key, self.db);
        self.dirty(changes);
    }

    /// The wall clock the command sees, ms.
    pub(crate) fn now_ms(&self) -> i64 {
        self.ks.now_ms
    }

    /// The limits at which values change their encoding, by the current configuration.
    #[inline]
    pub(crate) fn limits(&self) -> ValueLimits {
        ValueLimits::of(self.cfg, self.ks)
    }

    /// Makes the client wait until one of the keys holds a value of the type `wanted`.
    pub(crate) fn wait<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        wanted: &'static str,
        deadline_ms: Option<i64>,
    ) {
        let keys = keys.into_iter().map(<[u8]>::to_vec).collect();
        *self.want = Some(Want::Wait(Wait { keys, wanted, or_gone: false, deadline_ms, args: None }));
    }

    /// To be called when the reply became longer than `reply_room`.
    pub(crate) fn close_client(&mut self) {
        *self.want = Some(Want::Close);
    }
}
