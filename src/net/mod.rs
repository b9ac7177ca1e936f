//! The edge: the reactor, listeners, connections, clients and their output.

pub mod client;
pub mod clients;
pub mod conn;
pub mod listener;
pub mod output;
pub mod reactor;
pub mod token;
pub mod upkeep;

pub use client::{Client, ClientFlags, ClientId};
pub use clients::Clients;
pub use conn::Conn;
pub use output::Output;
pub use reactor::Reactor;
pub use token::Source;
