//! Listening sockets: TCP on every `bind` address, for plain clients and for those with TLS, and the Unix socket.

use super::Conn;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// Whoever connects is to begin with a handshake.
    Tls(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(l) | Listener::Tls(l) => registry.register(l, token, Interest::READABLE),
            Listener::Unix(l) => registry.register(l, token, Interest::READABLE),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Tcp(l) | Listener::Tls(l) => registry.deregister(l),
            Listener::Unix(l) => registry.deregister(l),
        }
    }

    /// The descriptor, for a child process to close.
    pub(crate) fn raw_fd(&self) -> std::os::fd::RawFd {
        match self {
            Listener::Tcp(l) | Listener::Tls(l) => l.as_raw_fd(),
            Listener::Unix(l) => l.as_raw_fd(),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Listener::Tls(_))
    }

    /// The same listening socket, for clients with TLS.
    pub(crate) fn for_tls(self) -> Listener {
        match self {
            Listener::Tcp(l) => Listener::Tls(l),
            other => other,
        }
    }

    /// A connection as it comes, without TLS. The error is `WouldBlock` when none waits.
    pub(crate) fn accept(&self) -> io::Result<Conn> {
        match self {
            Listener::Tcp(l) | Listener::Tls(l) => l.accept().map(|(s, _)| Conn::Tcp(s)),
            Listener::Unix(l) => l.accept().map(|(s, _)| Conn::Unix(s)),
        }
    }
}

/// The addresses of the host names in `bind`.
pub(crate) type BindNames = HashMap<String, IpAddr>;

/// A word of `bind`, and whether it may be absent, as a leading `-` says.
fn without_mark(word: &str) -> (&str, bool) {
    word.strip_prefix('-').map_or((word, false), |rest| (rest, true))
}

/// The host names among the words of `bind`: they have to be looked up before listening.
pub(crate) fn names_to_look_up(bind: &[String]) -> impl Iterator<Item = &str> {
    bind.iter().map(|word| without_mark(word).0).filter(|name| socket_address(name, 0).is_none())
}

/// Which of a name's addresses to listen on: the first IPv4 address, as in Redis, else the first.
pub(crate) fn address_to_bind(found: &[IpAddr]) -> Option<IpAddr> {
    found.iter().find(|a| a.is_ipv4()).or(found.first()).copied()
}

/// The address of a word that needs no look-up: `*`, `::*` or an address, with a zone or without.
fn socket_address(text: &str, port: u16) -> Option<SocketAddr> {
    match text {
        "*" => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        "::*" => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        _ => match text.split_once('%') {
            None => text.parse().ok().map(|address| SocketAddr::new(address, port)),
            Some((address, zone)) => {
                let index = zone.parse().ok().or_else(|| nix::net::if_::if_nametoindex(zone).ok())?;
                Some(SocketAddrV6::new(address.parse().ok()?, port, 0, index).into())
            }
        },
    }
}

/// Listens on every address of `bind` (`*` and `::*` mean all of IPv4 and of IPv6; a leading `-` makes an address that
/// is not there no error). No listener at all is an error too. Nothing is looked up: the addresses of host names are in
/// `names`.
pub(crate) fn listen_tcp(bind: &[String], port: u16, backlog: i32, names: &BindNames) -> io::Result<Vec<Listener>> {
    let mut out = Vec::new();
    for word in bind {
        let (addr, optional) = without_mark(word);
        let at = socket_address(addr, port).or_else(|| names.get(addr).map(|found| SocketAddr::new(*found, port)));
        let listening = match at {
            Some(at) => listen_one(at, backlog),
            None => Err(io::Error::other("Name or service not known")),
        };
        match listening {
            Ok(l) => out.push(Listener::Tcp(l)),
            Err(error) => {
                let at_bind =
                    matches!(error.raw_os_error(), Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL | libc::EACCES));
                log::warn!(
                    "Warning: Could not create server TCP listening socket {addr}:{port}: {}{}",
                    if at_bind { "bind: " } else { "" },
                    reason(&error)
                );
                let absent = matches!(
                    error.raw_os_error(),
                    Some(
                        libc::EADDRNOTAVAIL
                            | libc::EAFNOSUPPORT
                            | libc::EPROTONOSUPPORT
                            | libc::ESOCKTNOSUPPORT
                            | libc::EPFNOSUPPORT
                            | libc::ENOPROTOOPT
                    )
                );
                if optional && absent {
                    continue;
                }
                return Err(error);
            }
        }
    }
    Ok(out)
}

/// The system's words for an error, without Rust's suffix.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_string(),
        None => {
            let text = error.to_string();
            text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
        }
    }
}

fn listen_one(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket::socket(family, SockType::Stream, flags, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if addr.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    listen(&fd, backlog)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(fd)))
}

/// Listens on a unix socket, in place of any file at `path`; `perm` as for chmod, 0 leaves it.
pub(crate) fn listen_unix(path: &str, perm: u32, backlog: i32) -> io::Result<Listener> {
    let fd = bind_unix(path, perm)?;
    listen(&fd, backlog)?;
    let listener = std::os::unix::net::UnixListener::from(fd);
    Ok(Listener::Unix(UnixListener::from_std(listener)))
}

/// Makes a Unix socket with its permissions. Nobody can connect yet, so it never takes connections that the permissions
/// forbid.
fn bind_unix(path: &str, perm: u32) -> io::Result<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::remove_file(path);
    let fd =
        socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    socket::bind(fd.as_raw_fd(), &socket::UnixAddr::new(path)?)?;
    if perm != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(perm))?;
    }
    Ok(fd)
}

fn listen(fd: &OwnedFd, backlog: i32) -> io::Result<()> {
    socket::listen(fd, Backlog::new(backlog.clamp(0, Backlog::MAXCONN.into())).unwrap_or(Backlog::MAXCONN))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn nobody_connects_to_a_unix_socket_before_its_permissions_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let name = path.to_str().unwrap();
        let fd = bind_unix(name, 0o600).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600, "with the permissions in place");
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "nobody gets in");
        listen(&fd, 5).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(fd);
        // The same in one go, in place of what stands there.
        let _listener = listen_unix(name, 0o640, 5).unwrap();
        assert_eq!(mode(), 0o640);
        UnixStream::connect(&path).unwrap();
    }
}
