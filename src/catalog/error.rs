//! Errors that commands return: the exact text of the reply, code first.

use std::borrow::Cow;
use std::fmt;

/// The text of an error reply without its `-`, beginning with its code (`ERR`, `WRONGTYPE`, ...).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CmdError(pub(crate) Cow<'static, [u8]>);

pub(crate) type CmdResult = Result<(), CmdError>;

impl CmdError {
    pub(crate) const fn of(text: &'static str) -> CmdError {
        CmdError(Cow::Borrowed(text.as_bytes()))
    }

    pub(crate) fn text(text: impl Into<String>) -> CmdError {
        CmdError(Cow::Owned(text.into().into_bytes()))
    }

    pub(crate) fn bytes(text: Vec<u8>) -> CmdError {
        CmdError(Cow::Owned(text))
    }

    pub(crate) fn wrong_arity(name: &str) -> CmdError {
        CmdError::text(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// The code, as counted in INFO errorstats: up to the first blank.
    pub(crate) fn code(&self) -> &[u8] {
        let end = memchr::memchr(b' ', &self.0).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

impl fmt::Display for CmdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

pub(crate) const SYNTAX: CmdError = CmdError::of("ERR syntax error");
pub(crate) const WRONG_TYPE: CmdError =
    CmdError::of("WRONGTYPE Operation against a key holding the wrong kind of value");
pub(crate) const DAMAGED: CmdError =
    CmdError::of("ERR The value of the key is damaged: it can be dumped, replaced or deleted, but not used");
pub(crate) const NOT_AN_INTEGER: CmdError = CmdError::of("ERR value is not an integer or out of range");
pub(crate) const NOT_A_FLOAT: CmdError = CmdError::of("ERR value is not a valid float");
pub(crate) const NO_SUCH_KEY: CmdError = CmdError::of("ERR no such key");
pub(crate) const OUT_OF_RANGE: CmdError = CmdError::of("ERR index out of range");
pub(crate) const SAME_OBJECT: CmdError = CmdError::of("ERR source and destination objects are the same");
pub(crate) const NO_AUTH: CmdError = CmdError::of("NOAUTH Authentication required.");
pub(crate) const OOM: CmdError = CmdError::of("OOM command not allowed when used memory > 'maxmemory'.");
pub(crate) const LOADING: CmdError = CmdError::of("LOADING Redis is loading the dataset in memory");
pub(crate) const BUSY_KEY: CmdError = CmdError::of("BUSYKEY Target key name already exists.");
pub(crate) const EXEC_ABORT: CmdError = CmdError::of("EXECABORT Transaction discarded because of previous errors.");
pub(crate) const READONLY: CmdError = CmdError::of("READONLY You can't write against a read only replica.");
pub(crate) const MASTER_DOWN: CmdError =
    CmdError::of("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
pub(crate) const NO_REPLICAS: CmdError = CmdError::of("NOREPLICAS Not enough good replicas to write.");
