//! From a parsed request to its reply and its consequences: the command table, admission, the call, transactions, blocked
//! and paused clients, propagation.

pub(crate) mod admit;
pub(crate) mod ahead;
pub(crate) mod blocked;
pub(crate) mod call;
pub(crate) mod input;
pub(crate) mod multi;
mod obstacle;
pub(crate) mod pause;
mod plain;
pub(crate) mod propagate;
#[cfg(test)]
mod touched_keys;
