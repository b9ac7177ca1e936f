//! The edge: the reactor, listeners, connections, and links with their input and output. Nothing here knows what the
//! bytes mean.

pub(crate) mod conn;
pub(crate) mod handshakes;
pub(crate) mod io;
pub(crate) mod link;
pub(crate) mod listener;
pub(crate) mod output;
pub(crate) mod reactor;
pub(crate) mod tls;
pub(crate) mod token;

pub(crate) use conn::Conn;
pub(crate) use conn::Secured;
pub(crate) use link::Link;
pub(crate) use output::Output;
pub(crate) use reactor::Reactor;
pub(crate) use token::{ClientId, Source};
