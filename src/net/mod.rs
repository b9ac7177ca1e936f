//! The edge: the reactor, listeners, connections, and the links over them with what came in and what is to go out. Nothing
//! here knows what the bytes mean to whom.

pub mod conn;
pub mod link;
pub mod listener;
pub mod output;
pub mod reactor;
pub(crate) mod tls;
pub mod token;

pub use conn::Conn;
pub(crate) use conn::Secured;
pub use link::Link;
pub use output::Output;
pub use reactor::Reactor;
pub use token::{ClientId, Source};
