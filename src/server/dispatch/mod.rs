//! From a parsed request to its reply and its consequences: the command table, admission, the call, transactions, blocked
//! and paused clients, propagation.

pub mod admit;
pub mod ahead;
pub mod blocked;
pub mod call;
pub mod input;
pub mod multi;
mod obstacle;
pub mod pause;
mod plain;
pub mod propagate;
#[cfg(test)]
mod touched_keys;

pub use call::Ctx;
