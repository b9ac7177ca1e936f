//! The RESP protocol, both ways: the request parser and the arguments it finds, the reply writer for RESP2 and RESP3, and
//! the reply reader of the tools. A leaf: it knows nothing of the server.

mod args;
pub(crate) mod encode;
mod reply;
pub(crate) mod reply_reader;
mod request;

pub(crate) use args::Args;
pub use args::{OwnedArgs, Span};
pub use reply::{Mark, Reply};
pub use request::{Limits, Parsed, ProtocolError, RequestParser, ShortCommands, count_of_form, split_args};
