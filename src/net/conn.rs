//! A connection to a peer: TCP or a Unix socket.

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

#[derive(Debug)]
pub(crate) enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Conn {
    /// Registers for both directions at once; readiness is edge-triggered, so this is done once in a connection's life.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Conn::Tcp(s) => registry.register(s, token, both),
            Conn::Unix(s) => registry.register(s, token, both),
        }
    }

    /// Gives the registration another token.
    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Conn::Tcp(s) => registry.reregister(s, token, both),
            Conn::Unix(s) => registry.reregister(s, token, both),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Conn::Tcp(s) => registry.deregister(s),
            Conn::Unix(s) => registry.deregister(s),
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
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Conn::Unix(_))
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(s) => s.peer_addr().ok().map(unmapped),
            Conn::Unix(_) => None,
        }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(s) => s.local_addr().ok().map(unmapped),
            Conn::Unix(_) => None,
        }
    }

    /// The error a non-blocking connect ended with, if any.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Conn::Tcp(s) => s.take_error(),
            Conn::Unix(s) => s.take_error(),
        }
    }

    pub(crate) fn set_nodelay(&self, on: bool) {
        if let Conn::Tcp(s) = self {
            // If the peer is gone already, the next read will show it.
            let _ = s.set_nodelay(on);
        }
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
        Ok(rustix::net::recv(self.as_fd(), spare_capacity(buf), RecvFlags::empty())?.0)
    }
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.as_fd(), buf, RecvFlags::empty())?.0)
    }
}

impl Write for Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
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
        }
    }
}

impl AsRawFd for Conn {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
