//! The poll, and a waker for other threads.

use super::Source;
use mio::event::Event;
use mio::{Events, Poll, Waker};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// One readiness event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer closed its side, or the descriptor failed: read until the end shows.
    pub(crate) closed: bool,
}

pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// Events of the turn, urgent ones first.
    ready: Vec<Ready>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
        Ok(Reactor { poll, events: Events::with_capacity(1024), waker, ready: Vec::new() })
    }

    pub(crate) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Lets another thread end the sleep of the loop.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Sleeps until something is ready, at most `timeout`. Returns the events, urgent ones first. Give the vector back
    /// with `recycle` after the turn.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // A signal: the loop checks its flag.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(e) => return Err(e),
        }
        let mut ready = self.nothing();
        let mut any_urgent = false;
        for event in &self.events {
            let Some(event) = to_ready(event) else { continue };
            any_urgent |= event.source.is_urgent();
            ready.push(event);
        }
        if any_urgent {
            ready.sort_by_key(|event| !event.source.is_urgent());
        }
        Ok(ready)
    }

    /// What `poll` gives if nothing is ready.
    pub(crate) fn nothing(&mut self) -> Vec<Ready> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        ready
    }

    pub(crate) fn recycle(&mut self, ready: Vec<Ready>) {
        self.ready = ready;
    }
}

fn to_ready(e: &Event) -> Option<Ready> {
    Some(Ready {
        source: Source::of(e.token())?,
        readable: e.is_readable() || e.is_read_closed() || e.is_error(),
        writable: e.is_writable() || e.is_write_closed() || e.is_error(),
        closed: e.is_read_closed() || e.is_write_closed() || e.is_error(),
    })
}
