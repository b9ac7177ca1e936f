//! What a data command works with: the data, the limits on values, whom it runs for, and its reply. Nothing of the server
//! is in reach; what else a command needs done leaves as a [`Want`], which the server carries out when it has run.

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
    /// What is to be done when the command has run.
    pub(crate) want: &'a mut Option<Want>,
    /// The client's database, as SELECT last set it.
    pub(crate) db: usize,
    pub(crate) cmd: &'static Command,
}

/// What a command may ask of whom it runs for.
pub(crate) trait Session {
    /// The command comes from our master or from the AOF: it is obeyed, whatever it would be from a client.
    fn must_obey(&self) -> bool;
    /// The client may not be blocked: it is in a transaction, in a script, or no client at all.
    fn denies_blocking(&self) -> bool;
    /// The command is called by a script.
    fn is_script(&self) -> bool;
    /// The command is no part of a transaction or script.
    fn is_outermost(&self) -> bool;
    /// Keys are kept beyond their time until somebody else deletes them: the data set is being loaded, or a master's.
    fn keeps_past_keys(&self) -> bool;
    /// Bytes that a reply may have before the output limit ends the client: one that is longer need not be finished, but
    /// the client has to be closed, see [`Want::Close`].
    fn reply_room(&self) -> usize;
    /// Whether the user may read every key with this command.
    fn reads_all_keys(&self, args: Args<'_>) -> bool;
}

/// What a data command has the server do when it has run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The client waits and has no reply yet.
    Wait(Wait),
    /// The client is closed, since its reply passes the output limit.
    Close,
    /// All data is gone, and so is what a snapshot of it would be good for.
    Flushed,
}

/// Until when, and then with what a client's command runs again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) keys: Vec<Vec<u8>>,
    /// The type that one of the keys is to hold.
    pub(crate) wanted: &'static str,
    /// Also when one of the keys goes away or something else takes its place.
    pub(crate) or_gone: bool,
    /// Wall clock; `None`: never.
    pub(crate) deadline_ms: Option<i64>,
    /// The arguments to run with, if not those of the call.
    pub(crate) args: Option<OwnedArgs>,
}

impl Ctx<'_> {
    /// Counts a change: the command is propagated.
    pub(crate) fn dirty(&mut self, changes: u64) {
        self.ks.effects.dirty += changes;
    }

    /// The wall clock the command sees, ms.
    pub(crate) fn now_ms(&self) -> i64 {
        self.ks.now_ms
    }

    /// When values change their encoding, by the configuration of the moment.
    #[inline]
    pub(crate) fn limits(&self) -> ValueLimits {
        ValueLimits::of(self.cfg, self.ks)
    }

    /// Has the client wait until one of the keys holds a value of the type `wanted`.
    pub(crate) fn wait<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        wanted: &'static str,
        deadline_ms: Option<i64>,
    ) {
        let keys = keys.into_iter().map(<[u8]>::to_vec).collect();
        *self.want = Some(Want::Wait(Wait { keys, wanted, or_gone: false, deadline_ms, args: None }));
    }

    /// The reply became longer than `reply_room`.
    pub(crate) fn close_client(&mut self) {
        *self.want = Some(Want::Close);
    }
}
