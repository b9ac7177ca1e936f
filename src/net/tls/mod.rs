//! TLS: sessions, what they are made with, and connections over them. Nobody outside `net` sees more of it than bytes.

mod context;
mod names;
mod session;
mod verify;
mod x509;

pub(crate) use context::{Contexts, ToolOptions, files};
pub(crate) use session::Session;
pub(crate) use x509::CertificateFacts;

use rustls::pki_types::{IpAddr, ServerName};
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What connections to others are made with.
pub(crate) type ClientContext = rustls::ClientConfig;

/// A client's session: with `name` the server is told by what name it was asked for.
pub(super) fn client_session(context: &Arc<ClientContext>, name: Option<&str>) -> io::Result<Session> {
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
        // An address is not told.
        None => ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from([127, 0, 0, 1]))),
    };
    Session::client(context, name)
}

/// A connection that waits, for those who have nothing else to do.
#[derive(Debug)]
pub(crate) struct WaitingStream {
    pub(crate) tcp: TcpStream,
    session: Session,
}

impl WaitingStream {
    /// A handshake over a connection that stands, within `timeout` if there is one.
    pub(crate) fn connect(
        tcp: TcpStream,
        context: &Arc<ClientContext>,
        name: Option<&str>,
        timeout: Option<Duration>,
    ) -> io::Result<WaitingStream> {
        let mut session = client_session(context, name)?;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        // Each wait is for a while only, so that a peer that sends a byte now and then is noticed, too.
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tcp.set_read_timeout(left)?;
            tcp.set_write_timeout(left)?;
            session.blocking = left.is_none();
            match session.handshake(tcp.as_fd()) {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) => return Err(e),
            }
        }
        tcp.set_read_timeout(None)?;
        tcp.set_write_timeout(None)?;
        session.blocking = true;
        Ok(WaitingStream { tcp, session })
    }

    /// Whether text waits that was received already, which no poll tells of.
    pub(crate) fn holds_text(&self) -> bool {
        self.session.holds_text()
    }

    pub(crate) fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.session.blocking = !nonblocking;
        self.tcp.set_nonblocking(nonblocking)
    }
}

impl Read for WaitingStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        self.session.read(self.tcp.as_fd(), buf.len(), &mut |piece| {
            buf[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        })
    }
}

impl Write for WaitingStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.session.write(self.tcp.as_fd(), &[IoSlice::new(buf)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for WaitingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl Drop for WaitingStream {
    fn drop(&mut self) {
        self.session.say_goodbye(self.tcp.as_fd());
    }
}
