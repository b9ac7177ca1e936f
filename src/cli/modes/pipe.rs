//! `--pipe`: raw protocol from standard input to the server, replies counted.
//!
//! Reading and writing go on at the same time, as a server whose replies are not read stops reading. An ECHO of random
//! bytes after the input marks the last reply.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::connection::{describe, encode_command};
use crate::cli::session::Session;
use crate::cli::term::{complain, say};
use crate::resp::reply_reader::Reply;

/// Bytes written in a row before replies are looked at again.
const WRITE_SHARE: usize = 128 * 1024;

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
    let magic: Vec<u8> = (0..20).map(|_| fastrand::u8(..)).collect();
    let mut stdin = io::stdin().lock();
    let mut chunk = [0u8; 16 * 1024];
    let mut pending: Vec<u8> = Vec::new();
    let mut sent = 0;
    let mut ended = false;
    let (mut errors, mut replies) = (0u64, 0u64);
    let mut last_reply = Instant::now();
    'transfer: loop {
        let mut events = PollFlags::POLLIN;
        if !ended || sent < pending.len() {
            events |= PollFlags::POLLOUT;
        }
        let mut fds = [PollFd::new(conn.as_fd(), events)];
        let _ = poll(&mut fds, PollTimeout::from(1000u16));
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());

        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            let filled = conn.fill();
            loop {
                match conn.buffered() {
                    Err(_) => {
                        complain!("Error reading replies from server\n");
                        return 1;
                    }
                    Ok(None) => break,
                    Ok(Some(Reply::Bulk(text))) if ended && text == magic => {
                        say!("Last reply received from server.\n");
                        break 'transfer;
                    }
                    Ok(Some(reply)) => {
                        last_reply = Instant::now();
                        replies += 1;
                        if let Some(reason) = reply.error() {
                            complain!("{}\n", String::from_utf8_lossy(reason));
                            errors += 1;
                        }
                    }
                }
            }
            if let Err(error) = filled {
                complain!("Error reading from the server: {error}\n");
                return 1;
            }
        }

        if ready.contains(PollFlags::POLLOUT) {
            let mut share = 0;
            while share < WRITE_SHARE {
                if sent == pending.len() {
                    if ended {
                        break;
                    }
                    sent = 0;
                    pending.clear();
                    match stdin.read(&mut chunk) {
                        Ok(0) => {
                            ended = true;
                            // The line end closes an inline command that garbage may have begun.
                            pending.extend_from_slice(b"\r\n");
                            pending.extend(encode_command(&[b"ECHO", magic.as_slice()]));
                            say!("All data transferred. Waiting for the last reply...\n");
                        }
                        Ok(n) => pending.extend_from_slice(&chunk[..n]),
                        Err(error) => {
                            complain!("Error reading from stdin: {}\n", describe(&error));
                            return 1;
                        }
                    }
                }
                match conn.write_some(&pending[sent..]) {
                    Ok(n) => {
                        sent += n;
                        share += n;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        complain!("Error writing to the server: {}\n", describe(&error));
                        return 1;
                    }
                }
            }
        }

        if ended && !timeout.is_zero() && last_reply.elapsed() > timeout {
            complain!("No replies for {} seconds: exiting.\n", timeout.as_secs());
            errors += 1;
            break;
        }
    }
    say!("errors: {errors}, replies: {replies}\n");
    i32::from(errors > 0)
}
