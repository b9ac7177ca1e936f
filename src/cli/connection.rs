//! A blocking connection to a server: commands out, replies in.
//!
//! It knows bytes and replies only. Logging in, choosing a database, following redirections and handling a broken link
//! are left to the callers.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::net::tls::{ToolOptions, WaitingStream};
use crate::resp::encode::{put_arg, put_header};
use crate::resp::reply_reader::{Reply, ReplyError, ReplyReader};

/// Seconds of silence after which the kernel probes the peer, so that a dead server is noticed
/// while a long command runs.
const KEEPALIVE_S: u32 = 15;

/// Why a connection can not be used any further.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The socket reported an error.
    Io(io::Error),
    /// The server closed the connection.
    Closed,
    /// The server sent something that is not a reply.
    Protocol(ReplyError),
}

impl LinkError {
    /// Whether connecting again may help: the peer went away, rather than sent garbage.
    pub(crate) fn is_disconnect(&self) -> bool {
        match self {
            LinkError::Closed => true,
            LinkError::Io(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            LinkError::Protocol(_) => false,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Io(error) => f.write_str(&describe(error)),
            LinkError::Closed => f.write_str("Server closed the connection"),
            LinkError::Protocol(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        LinkError::Io(error)
    }
}

impl From<ReplyError> for LinkError {
    fn from(error: ReplyError) -> Self {
        LinkError::Protocol(error)
    }
}

/// An I/O error in the words of the C library, without Rust's error number.
pub(crate) fn describe(error: &io::Error) -> String {
    if let Some(code) = error.raw_os_error() {
        return Errno::from_raw(code).desc().to_string();
    }
    let text = error.to_string();
    match text.strip_prefix("failed to lookup address information: ") {
        Some(reason) => reason.to_string(),
        None => text,
    }
}

/// A command in the form servers read.
pub(crate) fn encode_command<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = Vec::with_capacity(args.iter().map(|arg| arg.as_ref().len() + 16).sum::<usize>() + 16);
    put_header(&mut out, args.len());
    args.iter().for_each(|arg| put_arg(&mut out, arg.as_ref()));
    out
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<WaitingStream>),
}

impl Stream {
    fn inner(&mut self) -> &mut dyn ReadWrite {
        match self {
            Stream::Tcp(s) => s,
            Stream::Unix(s) => s,
            Stream::Tls(s) => &mut **s,
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// See the module description.
pub(crate) struct Connection {
    stream: Stream,
    reader: ReplyReader,
}

impl Connection {
    /// Connects over TCP, IPv4 addresses of the host first. Each gets `timeout` to answer, if there is one.
    /// With `tls` a handshake follows.
    pub(crate) fn tcp(
        host: &str,
        port: u16,
        timeout: Option<Duration>,
        tls: Option<&ToolOptions>,
    ) -> io::Result<Connection> {
        let mut addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
        addresses.sort_by_key(|address| address.is_ipv6());
        let stream = match timeout {
            None => TcpStream::connect(addresses.as_slice())?,
            Some(timeout) => connect_within(&addresses, timeout)?,
        };
        stream.set_nodelay(true)?;
        let _ = setsockopt(&stream, sockopt::KeepAlive, &true);
        let _ = setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_S);
        let _ = setsockopt(&stream, sockopt::TcpKeepInterval, &(KEEPALIVE_S / 3));
        let _ = setsockopt(&stream, sockopt::TcpKeepCount, &3);
        let stream = match tls {
            None => Stream::Tcp(stream),
            Some(tls) => {
                let context = tls.context().map_err(io::Error::other)?;
                Stream::Tls(Box::new(WaitingStream::connect(stream, context, tls.sni.as_deref(), timeout)?))
            }
        };
        Ok(Connection { stream, reader: ReplyReader::new() })
    }

    /// Connects to a Unix domain socket.
    pub(crate) fn unix(path: &std::path::Path) -> io::Result<Connection> {
        Ok(Connection { stream: Stream::Unix(UnixStream::connect(path)?), reader: ReplyReader::new() })
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        Ok(self.stream.inner().write_all(bytes)?)
    }

    /// Sends one command.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), LinkError> {
        self.send_raw(&encode_command(args))
    }

    /// A reply that has already arrived.
    pub(crate) fn buffered(&mut self) -> Result<Option<Reply>, LinkError> {
        Ok(self.reader.next_reply()?)
    }

    /// Reads once from the socket into the parser.
    pub(crate) fn fill(&mut self) -> Result<(), LinkError> {
        let mut chunk = [0u8; 16 * 1024];
        loop {
            match self.read_some(&mut chunk) {
                Ok(n) => self.reader.feed(&chunk[..n]),
                // Half a record has come, or one without text.
                Err(LinkError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            // No poll tells of what the TLS session holds.
            if !matches!(&self.stream, Stream::Tls(s) if s.holds_text()) {
                return Ok(());
            }
        }
    }

    /// Reads once from the socket, bypassing the parser. End of stream is an error.
    fn read_some(&mut self, chunk: &mut [u8]) -> Result<usize, LinkError> {
        loop {
            match self.stream.inner().read(chunk) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the next reply.
    pub(crate) fn read(&mut self) -> Result<Reply, LinkError> {
        loop {
            if let Some(reply) = self.buffered()? {
                return Ok(reply);
            }
            self.fill()?;
        }
    }

    /// Sends a command and waits for its reply, dropping push messages that come first.
    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, LinkError> {
        self.send(args)?;
        loop {
            match self.read()? {
                Reply::Push(_) => {}
                reply => return Ok(reply),
            }
        }
    }

    /// As [`Connection::command`], with the words of a line (split at blanks) as arguments.
    pub(crate) fn words(&mut self, line: &str) -> Result<Reply, LinkError> {
        let args: Vec<&str> = line.split(' ').collect();
        self.command(&args)
    }

    /// Reads raw bytes, starting with those that the parser had not consumed.
    pub(crate) fn read_raw(&mut self, chunk: &mut [u8]) -> Result<usize, LinkError> {
        let rest = self.reader.take_rest();
        if rest.is_empty() {
            return self.read_some(chunk);
        }
        let n = rest.len().min(chunk.len());
        chunk[..n].copy_from_slice(&rest[..n]);
        self.reader.feed(&rest[n..]);
        Ok(n)
    }

    /// Switches the socket between blocking and non-blocking.
    pub(crate) fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tls(s) => s.set_nonblocking(nonblocking),
            Stream::Tcp(s) => s.set_nonblocking(nonblocking),
            Stream::Unix(s) => s.set_nonblocking(nonblocking),
        }
    }

    /// Writes as much as the socket takes now, and returns how much.
    pub(crate) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.inner().write(bytes)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
            Stream::Tls(s) => s.as_fd(),
        }
    }
}

fn connect_within(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(address, timeout) {
            Ok(stream) => return Ok(stream),
            // The standard library's own timeout has no error number.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => failure = Errno::ETIMEDOUT.into(),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(encode_command(&["SET", "k", ""]), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }

    #[test]
    fn errors_read_as_in_c() {
        let refused = io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
        assert_eq!(describe(&refused), "Connection refused");
    }
}
