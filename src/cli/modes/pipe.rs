//! `--pipe`: raw protocol from standard input to the server, replies counted.
//!
//! Reading and writing go on at the same time, as a server whose replies are not read stops reading. An ECHO of random
//! bytes after the input marks the last reply.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::connection::{Connection, describe, encode_command};
use crate::cli::session::Session;
use crate::cli::term::{complain, say};
use crate::resp::reply_reader::Reply;

/// Bytes written in a row before replies are looked at again.
const WRITE_SHARE: usize = 128 * 1024;
/// Bytes of the input that are read at once.
const READ_SIZE: usize = 16 * 1024;

/// Transfers everything and returns 1 if any command failed.
pub(crate) fn run(session: &mut Session) -> i32 {
    let timeout = Duration::from_secs(session.opts.pipe_timeout_s);
    let Some(conn) = session.conn.as_mut() else {
        return 1;
    };
    if let Err(error) = conn.set_nonblocking(true) {
        complain!("Can't set the socket in non blocking mode: {}\n", describe(&error));
        return 1;
    }
    let mut transfer = Transfer::new();
    if let Err(complaint) = transfer.run(conn, timeout) {
        complain!("{complaint}\n");
        return 1;
    }
    let Transfer { errors, replies, .. } = transfer;
    say!("errors: {errors}, replies: {replies}\n");
    i32::from(errors > 0)
}

struct Transfer {
    /// What marks the last reply.
    magic: Vec<u8>,
    /// Bytes that were read; those before `sent` are written.
    pending: Vec<u8>,
    sent: usize,
    /// All of the input was read.
    ended: bool,
    errors: u64,
    replies: u64,
    last_reply: Instant,
}

/// Why a transfer ends early, for the user.
type Run<T> = Result<T, String>;

impl Transfer {
    fn new() -> Transfer {
        Transfer {
            magic: (0..20).map(|_| fastrand::u8(..)).collect(),
            pending: Vec::new(),
            sent: 0,
            ended: false,
            errors: 0,
            replies: 0,
            last_reply: Instant::now(),
        }
    }

    fn run(&mut self, conn: &mut Connection, timeout: Duration) -> Run<()> {
        loop {
            let mut events = PollFlags::POLLIN;
            if !self.ended || self.sent < self.pending.len() {
                events |= PollFlags::POLLOUT;
            }
            let mut fds = [PollFd::new(conn.as_fd(), events)];
            let _ = poll(&mut fds, PollTimeout::from(1000u16));
            let ready = fds[0].revents().unwrap_or(PollFlags::empty());
            if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) && self.receive(conn)? {
                say!("Last reply received from server.\n");
                return Ok(());
            }
            if ready.contains(PollFlags::POLLOUT) {
                self.send(conn)?;
            }
            if self.ended && !timeout.is_zero() && self.last_reply.elapsed() > timeout {
                complain!("No replies for {} seconds: exiting.\n", timeout.as_secs());
                self.errors += 1;
                return Ok(());
            }
        }
    }

    /// Counts the replies that are there. Whether the last one is.
    fn receive(&mut self, conn: &mut Connection) -> Run<bool> {
        let filled = conn.fill();
        loop {
            match conn.buffered() {
                Err(_) => return Err("Error reading replies from server".into()),
                Ok(None) => break,
                Ok(Some(Reply::Bulk(text))) if self.ended && text == self.magic => return Ok(true),
                Ok(Some(reply)) => {
                    self.last_reply = Instant::now();
                    self.replies += 1;
                    if let Some(reason) = reply.error() {
                        complain!("{}\n", String::from_utf8_lossy(reason));
                        self.errors += 1;
                    }
                }
            }
        }
        filled.map(|_| false).map_err(|error| format!("Error reading from the server: {error}"))
    }

    /// Writes for a while.
    fn send(&mut self, conn: &mut Connection) -> Run<()> {
        let mut share = 0;
        while share < WRITE_SHARE {
            if self.sent == self.pending.len() {
                if self.ended {
                    break;
                }
                self.read_input().map_err(|error| format!("Error reading from stdin: {}", describe(&error)))?;
            }
            match conn.write_some(&self.pending[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    share += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("Error writing to the server: {}", describe(&error))),
            }
        }
        Ok(())
    }

    fn read_input(&mut self) -> io::Result<()> {
        self.sent = 0;
        self.pending.resize(READ_SIZE, 0);
        let read = io::stdin().lock().read(&mut self.pending);
        self.pending.truncate(*read.as_ref().unwrap_or(&0));
        if read? == 0 {
            self.ended = true;
            // The line end closes an inline command that garbage may have begun.
            self.pending.extend_from_slice(b"\r\n");
            self.pending.extend(encode_command(&[b"ECHO", self.magic.as_slice()]));
            say!("All data transferred. Waiting for the last reply...\n");
        }
        Ok(())
    }
}
