//! A connection to a peer: TCP, plain or under TLS, or a Unix socket.

use super::tls::{self, ClientContext, Contexts, Session};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsConn>),
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
        }
    }

    /// Gives the registration another token.
    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Conn::Tcp(s) => registry.reregister(s, token, both),
            Conn::Unix(s) => registry.reregister(s, token, both),
            Conn::Tls(t) => registry.reregister(&mut t.tcp, token, both),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Conn::Tcp(s) => registry.deregister(s),
            Conn::Unix(s) => registry.deregister(s),
            Conn::Tls(t) => registry.deregister(&mut t.tcp),
        }
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // Sending one piece is cheaper than sending a list of one.
        if let [one] = slices {
            return self.write(one);
        }
        match self {
            Conn::Tcp(s) => s.write_vectored(slices),
            Conn::Unix(s) => s.write_vectored(slices),
            Conn::Tls(t) => t.session.write(t.tcp.as_fd(), slices),
        }
    }

    /// The connection with TLS over it; the handshake is yet to come.
    pub(crate) fn secure(self, contexts: Option<&Contexts>, whose: Secured) -> io::Result<Conn> {
        let Conn::Tcp(tcp) = self else { return Ok(self) };
        let context = |found: Option<Session>| found.ok_or_else(|| io::Error::other("TLS is not configured"));
        let session = context(match whose {
            Secured::Client => contexts.map(|c| Session::server(&c.server)).transpose()?,
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
        matches!(self, Conn::Tls(_))
    }

    /// Whether a read may give something without an event: text that was received already, or a socket that was not read to
    /// its end.
    pub(crate) fn holds_more(&self) -> bool {
        matches!(self, Conn::Tls(t) if t.session.holds_more())
    }

    /// Whether text waits that was received already, which no event tells of.
    pub(crate) fn holds_text(&self) -> bool {
        matches!(self, Conn::Tls(t) if t.session.holds_text())
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
            Conn::Tcp(_) | Conn::Unix(_) => Ok(true),
            Conn::Tls(t) => t.session.handshake(t.tcp.as_fd()),
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Conn::Unix(_))
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(s) => s.peer_addr().ok().map(unmapped),
            Conn::Tls(t) => t.tcp.peer_addr().ok().map(unmapped),
            Conn::Unix(_) => None,
        }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(s) => s.local_addr().ok().map(unmapped),
            Conn::Tls(t) => t.tcp.local_addr().ok().map(unmapped),
            Conn::Unix(_) => None,
        }
    }

    /// The error a non-blocking connect ended with, if any.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Conn::Tcp(s) => s.take_error(),
            Conn::Unix(s) => s.take_error(),
            Conn::Tls(t) => t.tcp.take_error(),
        }
    }

    pub(crate) fn set_nodelay(&self, on: bool) {
        // A peer that is gone already shows at the next read.
        let _ = match self {
            Conn::Tcp(s) => s.set_nodelay(on),
            Conn::Tls(t) => t.tcp.set_nodelay(on),
            Conn::Unix(_) => Ok(()),
        };
    }

    /// 0 leaves keepalive off.
    pub(crate) fn set_keepalive(&self, seconds: i64) {
        use nix::sys::socket::{setsockopt, sockopt};
        if seconds <= 0 || self.is_unix() {
            return;
        }
        let interval = (seconds / 3).max(1) as u32;
        let _ = setsockopt(&self.as_fd(), sockopt::KeepAlive, &true);
        let _ = setsockopt(&self.as_fd(), sockopt::TcpKeepIdle, &(seconds as u32));
        let _ = setsockopt(&self.as_fd(), sockopt::TcpKeepInterval, &interval);
        let _ = setsockopt(&self.as_fd(), sockopt::TcpKeepCount, &3);
    }
}

/// The IPv4 address of an IPv4 peer of a dual-stack listener; any other unchanged.
fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Conn {
    /// Reads into the spare capacity of `buf`, of which there must be some. Returns the number of bytes, 0 at the end.
    pub(crate) fn read_to_spare(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        if let Conn::Tls(t) = self {
            let room = buf.capacity() - buf.len();
            return t.session.read(t.tcp.as_fd(), room, &mut |piece| buf.extend_from_slice(piece));
        }
        Ok(rustix::net::recv(self.as_fd(), spare_capacity(buf), RecvFlags::empty())?.0)
    }
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Conn::Tls(t) = self {
            let mut at = 0;
            return t.session.read(t.tcp.as_fd(), buf.len(), &mut |piece| {
                buf[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            });
        }
        Ok(rustix::net::recv(self.as_fd(), buf, RecvFlags::empty())?.0)
    }
}

impl Write for Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Conn::Tls(t) = self {
            return t.session.write(t.tcp.as_fd(), &[IoSlice::new(buf)]);
        }
        Ok(rustix::net::send(self.as_fd(), buf, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Conn::Tcp(s) => s.as_fd(),
            Conn::Unix(s) => s.as_fd(),
            Conn::Tls(t) => t.tcp.as_fd(),
        }
    }
}

impl AsRawFd for Conn {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
