//! I/O threads: each has a reactor and links of its own; reading, finding requests, TLS and writing happen there, everything
//! else on the main thread.
//!
//! A link that lives on such a thread stands on the main thread as a [`Far`], a connection like any other: what is written
//! to it is carried over to the thread, what the thread read is carried back, and how much may be on its way is limited in
//! both directions, as it is by the buffers of a socket. Whoever uses a connection need not know where it lives.
//!
//! What is carried over goes in batches, from [`Batch`] to [`Batch`], and a side is woken only if it sleeps. Nothing is
//! shared but two mailboxes for each thread and, for each link, how much of its output was written.
//!
//! Invariants: the bytes of a link arrive in order and none is lost, also when the link moves to another thread; a thread
//! with nothing to do sleeps.

mod far;
mod finder;
mod mailbox;
mod pace;
#[cfg(test)]
mod tests;
mod thread;

pub(crate) use far::{Far, Home};
pub(crate) use finder::{Finder, FoundAt, FoundRequest, FoundRequests};
pub(crate) use mailbox::Batch;
pub(crate) use thread::{IoThread, Report, Secure};
