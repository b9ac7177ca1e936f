//! A connection to a peer: TCP, plain or under TLS, or a Unix socket; or one of these that lives on an I/O thread.

use super::io::Far;
use super::tls::{self, ClientContext, Contexts, Session};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(crate) enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsConn>),
    Far(Box<Far>),
}

/// Whose connection under TLS it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secured {
    /// That of a client of ours.
    Client,
    /// A link of the cluster bus that another node opened.
    Bus,
    /// One that we opened.
    Opened,
    /// That of an operator.
    Operator,
}

#[derive(Debug)]
pub(crate) struct TlsConn {
    tcp: TcpStream,
    session: Session,
}

impl Drop for TlsConn {
    fn drop(&mut self) {
        self.session.say_goodbye(self.tcp.as_fd());
    }
}

impl Conn {
    /// Registers for both directions at once; readiness is edge-triggered, so this is done once in a connection's life.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Conn::Tcp(s) => registry.register(s, token, both),
            Conn::Unix(s) => registry.register(s, token, both),
            Conn::Tls(t) => registry.register(&mut t.tcp, token, both),
            Conn::Far(_) => Ok(()),
        }
    }

    /// Gives the registration another token.
    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Conn::Tcp(s) => registry.reregister(s, token, both),
            Conn::Unix(s) => registry.reregister(s, token, both),
            Conn::Tls(t) => registry.reregister(&mut t.tcp, token, both),
            Conn::Far(_) => Ok(()),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Conn::Tcp(s) => registry.deregister(s),
            Conn::Unix(s) => registry.deregister(s),
            Conn::Tls(t) => registry.deregister(&mut t.tcp),
            Conn::Far(_) => Ok(()),
        }
    }

    #[inline]
    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // Sending one piece is cheaper than sending a list of one.
        if let [one] = slices {
            return self.write(one);
        }
        match self {
            Conn::Tcp(s) => s.write_vectored(slices),
            Conn::Unix(s) => s.write_vectored(slices),
            Conn::Tls(t) => t.session.write(t.tcp.as_fd(), slices),
            Conn::Far(far) => far.write_vectored(slices),
        }
    }

    /// The connection with TLS over it; the handshake is yet to come.
    pub(crate) fn secure(self, contexts: Option<&Contexts>, whose: Secured) -> io::Result<Conn> {
        let Conn::Tcp(tcp) = self else { return Ok(self) };
        let context = |found: Option<Session>| found.ok_or_else(|| io::Error::other("TLS is not configured"));
        let session = context(match whose {
            Secured::Client | Secured::Operator => contexts.map(|c| Session::server(&c.server)).transpose()?,
            Secured::Bus => contexts.and_then(|c| c.bus.as_ref()).map(Session::server).transpose()?,
            Secured::Opened => {
                contexts.and_then(|c| c.client.as_ref()).map(|c| tls::client_session(c, None)).transpose()?
            }
        })?;
        Ok(Conn::Tls(Box::new(TlsConn { tcp, session })))
    }

    /// A connection of a tool's own making, with TLS over it; the handshake is yet to come.
    pub(crate) fn of_tool(tcp: TcpStream, context: &Arc<ClientContext>, name: Option<&str>) -> io::Result<Conn> {
        let session = tls::client_session(context, name)?;
        Ok(Conn::Tls(Box::new(TlsConn { tcp, session })))
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Conn::Tls(_)) || matches!(self, Conn::Far(far) if far.is_tls())
    }

    /// Whether a read may give something without an event: text that was received already, or a socket that was not read to
    /// its end.
    #[inline]
    pub(crate) fn holds_more(&self) -> bool {
        match self {
            Conn::Tcp(_) | Conn::Unix(_) => false,
            Conn::Tls(t) => t.session.holds_more(),
            Conn::Far(far) => far.holds_input() || far.has_ended(),
        }
    }

    /// Whether text waits that was received already, which no event tells of.
    pub(crate) fn holds_text(&self) -> bool {
        match self {
            Conn::Tcp(_) | Conn::Unix(_) => false,
            Conn::Tls(t) => t.session.holds_text(),
            Conn::Far(far) => far.holds_input(),
        }
    }

    /// Goes on with a connection that is being made, and its handshake. Whether it stands.
    pub(crate) fn finish_connecting(&mut self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        if self.peer().is_none() {
            return Ok(false);
        }
        match self {
            Conn::Tcp(_) | Conn::Unix(_) | Conn::Far(_) => Ok(true),
            Conn::Tls(t) => t.session.handshake(t.tcp.as_fd()),
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Conn::Unix(_)) || matches!(self, Conn::Far(far) if far.is_unix())
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(s) => s.peer_addr().ok().map(unmapped),
            Conn::Tls(t) => t.tcp.peer_addr().ok().map(unmapped),
            Conn::Unix(_) => None,
            Conn::Far(far) => far.peer(),
        }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(s) => s.local_addr().ok().map(unmapped),
            Conn::Tls(t) => t.tcp.local_addr().ok().map(unmapped),
            Conn::Unix(_) => None,
            Conn::Far(far) => far.local(),
        }
    }

    /// The error a non-blocking connect ended with, if any.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Conn::Tcp(s) => s.take_error(),
            Conn::Unix(s) => s.take_error(),
            Conn::Tls(t) => t.tcp.take_error(),
            Conn::Far(_) => Ok(None),
        }
    }

    pub(crate) fn set_nodelay(&self, on: bool) {
        // A peer that is gone already shows at the next read.
        let _ = match self {
            Conn::Tcp(s) => s.set_nodelay(on),
            Conn::Tls(t) => t.tcp.set_nodelay(on),
            Conn::Unix(_) => Ok(()),
            Conn::Far(far) => {
                far.set_nodelay(on);
                Ok(())
            }
        };
    }

    /// Makes it block, with a limit for sending, or takes that back. Not for one that lives on an I/O thread.
    pub(crate) fn set_blocking(&mut self, blocks: bool, send_timeout: Duration) {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        use nix::sys::socket::{setsockopt, sockopt};
        use nix::sys::time::TimeVal;
        if let Conn::Tls(t) = self {
            t.session.blocking = blocks;
        }
        let Some(fd) = self.fd() else { return };
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_truncate);
        let flags = if blocks { flags - OFlag::O_NONBLOCK } else { flags | OFlag::O_NONBLOCK };
        // What does not work shows at the next read or write.
        let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
        let seconds = if blocks { send_timeout.as_secs() as i64 } else { 0 };
        let _ = setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(seconds, 0));
    }

    /// A child process goes on with it: nothing is said to the peer when it is closed here.
    pub(crate) fn leave_to_child(&mut self) {
        if let Conn::Tls(t) = self {
            t.session.fall_silent();
        }
    }

    /// 0 leaves keepalive off. Not for one that lives on an I/O thread.
    pub(crate) fn set_keepalive(&self, seconds: i64) {
        use nix::sys::socket::{setsockopt, sockopt};
        let Some(fd) = self.fd().filter(|_| seconds > 0 && !self.is_unix()) else { return };
        let interval = (seconds / 3).max(1) as u32;
        let _ = setsockopt(&fd, sockopt::KeepAlive, &true);
        let _ = setsockopt(&fd, sockopt::TcpKeepIdle, &(seconds as u32));
        let _ = setsockopt(&fd, sockopt::TcpKeepInterval, &interval);
        let _ = setsockopt(&fd, sockopt::TcpKeepCount, &3);
    }
}

/// The IPv4 address of an IPv4 peer of a dual-stack listener; any other unchanged.
fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Conn {
    /// Reads into the spare capacity of `buf`, of which there must be some. Returns the number of bytes, 0 at the end.
    #[inline]
    pub(crate) fn read_to_spare(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let room = buf.capacity() - buf.len();
        match self {
            Conn::Tcp(s) => Ok(rustix::net::recv(s, spare_capacity(buf), RecvFlags::empty())?.0),
            Conn::Unix(s) => Ok(rustix::net::recv(s, spare_capacity(buf), RecvFlags::empty())?.0),
            Conn::Tls(t) => t.session.read(t.tcp.as_fd(), room, &mut |piece| buf.extend_from_slice(piece)),
            Conn::Far(far) => far.read(room, &mut |piece| buf.extend_from_slice(piece)),
        }
    }
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        let room = buf.len();
        let mut take = |piece: &[u8]| {
            buf[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        };
        match self {
            Conn::Tls(t) => t.session.read(t.tcp.as_fd(), room, &mut take),
            Conn::Far(far) => far.read(room, &mut take),
            Conn::Tcp(s) => Ok(rustix::net::recv(s, buf, RecvFlags::empty())?.0),
            Conn::Unix(s) => Ok(rustix::net::recv(s, buf, RecvFlags::empty())?.0),
        }
    }
}

impl Write for Conn {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Conn::Tcp(s) => Ok(rustix::net::send(s, buf, SendFlags::NOSIGNAL)?),
            Conn::Unix(s) => Ok(rustix::net::send(s, buf, SendFlags::NOSIGNAL)?),
            Conn::Tls(t) => t.session.write(t.tcp.as_fd(), &[IoSlice::new(buf)]),
            Conn::Far(far) => far.write_vectored(&[IoSlice::new(buf)]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Conn {
    /// Appends some of what has come. Whether there was anything; that nothing more will come is an error.
    pub(crate) fn read_some(&mut self, input: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            input.reserve(4096);
            match self.read_to_spare(input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Tells the peer that nothing more comes; it may still send. Not for those on I/O threads.
    pub(crate) fn end_output(&mut self) {
        if let Conn::Tls(t) = self {
            t.session.say_goodbye(t.tcp.as_fd());
        }
        if let Some(fd) = self.fd() {
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
        }
    }

    /// Its descriptor, unless that belongs to an I/O thread.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Conn::Tcp(s) => Some(s.as_fd()),
            Conn::Unix(s) => Some(s.as_fd()),
            Conn::Tls(t) => Some(t.tcp.as_fd()),
            Conn::Far(_) => None,
        }
    }

    /// The number of its descriptor, to be shown.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        match self {
            Conn::Far(far) => far.raw_fd(),
            _ => self.fd().map_or(-1, |fd| fd.as_raw_fd()),
        }
    }
}
