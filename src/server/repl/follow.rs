//! The connection to the master, until it becomes a client: sockets and files for what the machine decides.
//!
//! Once the stream is followed, the master is a client with the MASTER flag: its commands run like any other's.

use crate::net::listener::reason;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Source};
use crate::repl::{LinkId, Repl, ReplId};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::sys::os_error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::task::Poll;

/// Bytes asked for by one read.
const READ_BYTES: usize = 64 * 1024;
/// Bytes read in one turn.
const READ_BYTES_PER_TURN: usize = 4 << 20;
/// Bytes of a received file after which it is handed to the disk.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// The connection until it becomes a client's.
#[derive(Debug, Default)]
pub(crate) struct MasterSocket {
    /// What the machine calls it.
    pub(super) link: LinkId,
    pub(super) conn: Option<Conn>,
    /// It is up.
    connected: bool,
    /// Bytes the connection did not take yet.
    outbox: Vec<u8>,
    /// The dataset is received into this.
    pub(super) file: Option<TempFile>,
    /// It sent something while a script ran, in the middle of which no dataset may be replaced; that is read afterwards.
    pub(super) held_back: bool,
}

/// A file that is removed unless it is kept.
#[derive(Debug)]
pub(super) struct TempFile {
    /// Open for writing.
    pub(super) file: File,
    /// Where it is.
    pub(super) path: PathBuf,
    written: u64,
    /// So many bytes were handed to the disk.
    synced: u64,
    /// It has been moved to where it belongs.
    pub(super) kept: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing depends on the removal.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Server {
    // ---- connecting

    /// Starts connecting; what becomes of it is seen in [`on_master_link_ready`](Self::on_master_link_ready).
    pub(super) fn connect_to_master(&mut self, link: LinkId, host: &str, port: u16) {
        if !self.repl.is_current(link) {
            return;
        }
        let Poll::Ready(ends) = self.connection_ends(host, port) else {
            return self.repl.on_look_up();
        };
        let connected = ends.and_then(|ends| self.connect(ends, self.cfg.tls_replication, Source::MasterLink));
        match connected {
            Ok(conn) => {
                self.repl_io.master = MasterSocket { link, conn: Some(conn), ..MasterSocket::default() };
                self.with_repl(Repl::on_connecting);
                // Nearby, the connection is up by now.
                self.finish_connecting();
            }
            Err(e) => self.with_repl(|repl, env| repl.on_connect_failed(&reason(&e), env)),
        }
    }

    /// Opens a connection to another server, from a certain address if one is given; readiness shows as `watched`.
    pub(crate) fn connect(
        &self,
        (target, source): (SocketAddr, Option<SocketAddr>),
        is_secured: bool,
        watched: Source,
    ) -> io::Result<Conn> {
        let mut conn = self.secure(open_connection(target, source)?, is_secured)?;
        conn.register(self.reactor.registry(), watched.token())?;
        Ok(conn)
    }

    /// The address of a host, and the one to connect from if the configuration names one. Pending while a name is looked
    /// up.
    pub(crate) fn connection_ends(
        &mut self,
        host: &str,
        port: u16,
    ) -> Poll<io::Result<(SocketAddr, Option<SocketAddr>)>> {
        let source = self.cfg.bind_source_addr.as_str();
        let mut sources = if source.is_empty() { Poll::Ready(Ok(Vec::new())) } else { self.resolver.addresses(source) };
        let targets = match self.resolver.addresses(host) {
            Poll::Ready(Ok(targets)) => targets,
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending => return Poll::Pending,
        };
        let Poll::Ready(sources) = &mut sources else { return Poll::Pending };
        let target = targets[0];
        let ends = std::mem::replace(sources, Ok(Vec::new())).and_then(|sources| {
            let same_family = sources.iter().find(|s| s.is_ipv4() == target.is_ipv4());
            if same_family.is_none() && !source.is_empty() {
                return Err(io::Error::from_raw_os_error(nix::libc::EADDRNOTAVAIL));
            }
            Ok((SocketAddr::new(target, port), same_family.map(|s| SocketAddr::new(*s, 0))))
        });
        Poll::Ready(ends)
    }

    fn finish_connecting(&mut self) {
        let Some(conn) = &mut self.repl_io.master.conn else { return };
        match conn.finish_connecting() {
            Ok(true) => {}
            Ok(false) => return, // Not yet.
            Err(e) => return self.with_repl(|repl, env| repl.on_connection_error(&reason(&e), env)),
        }
        self.repl_io.master.connected = true;
        self.with_repl(Repl::on_connected);
    }

    /// Closes the connection, and removes what was received.
    pub(super) fn close_master_link(&mut self, link: LinkId) {
        if self.repl_io.master.link != link {
            return;
        }
        let socket = std::mem::take(&mut self.repl_io.master);
        if let Some(mut conn) = socket.conn {
            // It is closed right away, which takes it out of the poll as well.
            let _ = conn.deregister(self.reactor.registry());
        }
    }

    // ---- bytes

    /// The link's connection is ready for something.
    pub(crate) fn on_master_link_ready(&mut self, event: Ready) {
        if self.repl_io.is_loading() || self.repl_io.master.conn.is_none() {
            return;
        }
        if !self.repl_io.master.connected {
            self.finish_connecting();
        } else if self.script_is_busy() {
            self.repl_io.master.held_back = true;
        } else {
            if event.writable {
                self.flush_master_outbox();
            }
            self.read_master_link();
        }
    }

    /// Asks for what was held back to be told of again.
    pub(super) fn release_master_link(&mut self) {
        if std::mem::take(&mut self.repl_io.master.held_back) {
            self.rearm_master_link();
        }
    }

    fn rearm_master_link(&mut self) {
        let registry = self.reactor.registry();
        if let Some(conn) = &mut self.repl_io.master.conn
            && let Err(e) = conn.reregister(registry, Source::MasterLink.token())
        {
            log::warn!("Can't create readable event for SYNC: {}", reason(&e));
            self.restart_sync();
        }
    }

    /// Gives up what is going on with the master short of following its stream, and starts anew at once.
    pub(super) fn restart_sync(&mut self) {
        self.with_repl(|repl, _| repl.restart_sync());
    }

    pub(super) fn send_to_master(&mut self, link: LinkId, bytes: &[u8]) {
        if !self.repl.is_current(link) {
            return;
        }
        match self.repl.master_client() {
            Some(client) => self.clients.push(client, bytes),
            None => {
                self.repl_io.master.outbox.extend_from_slice(bytes);
                self.flush_master_outbox();
            }
        }
    }

    fn flush_master_outbox(&mut self) {
        let MasterSocket { conn: Some(conn), outbox, .. } = &mut self.repl_io.master else { return };
        while !outbox.is_empty() {
            match conn.write(outbox) {
                Ok(sent) => drop(outbox.drain(..sent)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.with_repl(|repl, env| repl.on_write_failed(&reason(&e), env)),
            }
        }
    }

    fn read_master_link(&mut self) {
        let link = self.repl_io.master.link;
        let mut buffer = vec![0u8; READ_BYTES];
        let mut total = 0;
        // What was read may have ended the link, made it a client's, or begun a dataset that is read by whoever loads it.
        while self.repl_io.master.link == link && !self.repl_io.is_loading() {
            if total >= READ_BYTES_PER_TURN && !self.repl_io.master.conn.as_ref().is_some_and(Conn::holds_text) {
                // The edge is used up: ask to be told again.
                return self.rearm_master_link();
            }
            let Some(conn) = &mut self.repl_io.master.conn else { return };
            match conn.read(&mut buffer) {
                Ok(0) => return self.with_repl(|repl, env| repl.on_master_closed(None, env)),
                Ok(count) => {
                    total += count;
                    self.stats.note_input(count, true);
                    self.with_repl(|repl, env| repl.on_master_bytes(&buffer[..count], env));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.with_repl(|repl, env| repl.on_master_closed(Some(&reason(&e)), env)),
            }
        }
    }

    // ---- the file a dataset is received into

    pub(super) fn open_received_file(&mut self, link: LinkId) {
        if !self.repl.is_current(link) {
            return;
        }
        let path = PathBuf::from(format!("temp-{}.{}.rdb", self.now_s(), std::process::id()));
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => {
                self.repl_io.master.file = Some(TempFile { file, path, written: 0, synced: 0, kept: false });
            }
            Err(e) => self.with_repl(|repl, env| repl.on_open_failed(&os_error(&e), env)),
        }
    }

    pub(super) fn store_received(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(target) = self.repl_io.master.file.as_mut().filter(|_| self.repl.is_current(link)) else { return };
        if let Err(e) = target.file.write_all(bytes) {
            return self.with_repl(|repl, _| repl.on_store_failed(&os_error(&e)));
        }
        target.written += bytes.len() as u64;
        // Spread over the transfer, so that the end does not wait for everything at once.
        if target.written - target.synced >= SYNC_EVERY_BYTES {
            target.synced = target.written;
            if let Ok(file) = target.file.try_clone() {
                // A failure shows again, and is dealt with, at the end.
                self.background.fsync.submit(move || drop(file.sync_data()));
            }
        }
    }

    // ---- what loading a dataset needs of the machine

    /// The dataset at hand is another one: nobody can continue what was here.
    pub(super) fn adopt_new_dataset(&mut self) {
        self.with_repl(Repl::adopt_new_dataset);
    }

    /// The dataset is in memory: follows the stream after it, which begins with `rest`.
    pub(super) fn finish_full_sync(&mut self, stream_db: usize, rest: &[u8]) {
        self.with_repl(|repl, env| repl.finish_full_sync(stream_db, rest, env));
    }

    /// Uses the history a dataset was saved with.
    pub(crate) fn restore_history(&mut self, id: ReplId, offset: i64, stream_db: usize) {
        self.with_repl(|repl, env| repl.restore_history(id, offset, stream_db, env));
    }

    /// Shows the master that this server is alive while it is busy with a dataset; at most once a second.
    pub(super) fn keep_master_link_alive(&mut self) {
        let now_s = self.now_s();
        let io = &mut self.repl_io;
        if io.keepalive_sent_s == now_s {
            return;
        }
        if let Some(conn) = &mut io.master.conn {
            io.keepalive_sent_s = now_s;
            // One byte either goes or does not; nothing depends on it.
            let _ = conn.write(b"\n");
        }
    }

    // ---- following the stream

    /// Turns the connection into the client that runs the master's commands.
    pub(super) fn adopt_master_link(&mut self, link: LinkId, db: usize, rest: &[u8]) {
        if !self.repl.is_current(link) {
            return;
        }
        let Some(conn) = std::mem::take(&mut self.repl_io.master).conn else { return };
        conn.set_nodelay(true);
        conn.set_keepalive(self.cfg.tcp_keepalive);
        let client = self.clients.add(Some(conn), self.clock.ms());
        let Some(c) = self.clients.get_mut(client) else { return };
        c.flags.add(ClientFlags::MASTER.union(ClientFlags::AUTHENTICATED));
        c.db = db;
        c.query.extend_from_slice(rest);
        let registry = self.reactor.registry();
        let moved = c.conn.as_mut().map(|conn| conn.reregister(registry, Source::Client(client).token()));
        self.repl.on_adopted(client);
        if let Some(Err(e)) = moved {
            log::warn!("Error resurrecting the cached master, impossible to add the readable handler: {}", reason(&e));
            self.clients.close_later(client);
            return;
        }
        self.clients.want_read(client);
    }

    /// So many bytes of the stream were read.
    pub(crate) fn note_master_read(&mut self, bytes: usize) {
        self.repl.note_master_read(bytes, self.now_s());
    }

    /// The client's request that consisted of `bytes` was processed.
    pub(crate) fn input_consumed(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(c) = self.clients.get(id) else { return };
        if !c.is(ClientFlags::MASTER) {
            return;
        }
        let is_pending = c.is(ClientFlags::MULTI.union(ClientFlags::BLOCKED));
        self.repl.on_consumed(id, bytes, is_pending);
        self.act_for_repl();
    }

    /// Tells the master how far its stream was processed.
    pub(crate) fn acknowledge_to_master(&mut self) {
        self.with_repl(|repl, env| repl.acknowledge_to_master(env));
    }
}

/// A connection being made to an address, from another one if it is given.
pub(crate) fn open_connection(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<Conn> {
    let Some(source) = source else {
        return mio::net::TcpStream::connect(target).map(Conn::Tcp);
    };
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
    use std::os::fd::{AsRawFd, OwnedFd};
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket::socket(family, SockType::Stream, flags, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(Conn::Tcp(mio::net::TcpStream::from_std(std::net::TcpStream::from(fd))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::repl::RoleView;
    use crate::sys::resolve::Resolver;
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    fn state(server: &Server) -> &'static str {
        match server.repl.role() {
            RoleView::Replica { state, .. } => state,
            RoleView::Primary { .. } => "primary",
        }
    }

    #[test]
    fn a_name_that_takes_long_to_look_up_holds_up_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (release, held) = channel();
        let (woken, wakes) = channel();
        let held = Mutex::new(held);
        let look_up = move |name: &str| {
            assert_eq!(name, "master.invalid");
            held.lock().unwrap().recv().unwrap()
        };
        let mut server = Server::new(Config::default(), String::new()).unwrap();
        server.resolver = Resolver::with(look_up, move || woken.send(()).unwrap());
        server.set_master("master.invalid", port);
        for _ in 0..3 {
            server.repl_timers();
            server.with_repl(Repl::cron);
            assert!(server.repl.is_due(0) && state(&server) == "connect");
        }
        // It is not there: that is an attempt that failed, and the next one is planned.
        release.send(Err(io::Error::other("no such name"))).unwrap();
        wakes.recv().unwrap();
        server.repl_timers();
        assert!(!server.repl.is_due(0) && server.repl.next_deadline_ms().is_some());
        server.with_repl(Repl::cron);
        release.send(Ok(vec![listener.local_addr().unwrap().ip()])).unwrap();
        wakes.recv().unwrap();
        server.repl_timers();
        assert!(["connecting", "handshake"].contains(&state(&server)));
        // An address does not wait for what is looked up.
        server.set_master("master.invalid", port);
        server.set_master("127.0.0.1", port);
        assert!(["connecting", "handshake"].contains(&state(&server)));
        // Other tests watch how much memory this process uses.
        std::mem::forget(server);
    }
}
