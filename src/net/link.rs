//! A link: a connection with the bytes that came in and are not used up yet, and those that are to go out. Whose they
//! are and what they mean is decided in `server`.

use super::io::Far;
use super::{Conn, Output};
use crate::resp::RequestParser;
use std::net::SocketAddr;

/// Laid out as it is declared: what is asked of all links stands first, what hardly any has last.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Link {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// `None` for clients of the server's own, without a connection.
    pub(crate) conn: Option<Conn>,
    pub(crate) query: Vec<u8>,
    /// Where unprocessed input begins in `query`.
    pub(crate) query_pos: usize,
    pub(crate) parser: RequestParser,
    /// The largest fill of the query buffer since the cron last looked.
    pub(crate) query_peak: usize,
    /// Length and capacity of the query buffer while it is taken out for requests to run.
    pub(crate) taken_query: (usize, usize),
    /// Bytes of arguments of the running request in the query buffer (CLIENT LIST's `argv-mem`).
    pub(crate) argv_bytes: usize,
    pub(crate) out: Output,
    /// The Unix socket's path, shown where there is no socket address.
    pub(crate) path: Option<String>,
}

impl Link {
    pub(crate) fn new(conn: Option<Conn>) -> Link {
        Link {
            peer: conn.as_ref().and_then(Conn::peer),
            local: conn.as_ref().and_then(Conn::local),
            conn,
            ..Link::default()
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.conn.as_ref().is_some_and(Conn::is_unix)
    }

    /// `ip:port`, or `path:0` of a unix socket.
    pub(crate) fn addr(&self) -> String {
        shown_addr(self.peer, self.path.as_deref())
    }

    pub(crate) fn laddr(&self) -> String {
        shown_addr(self.local, self.path.as_deref())
    }

    /// Appends what `addr` gives.
    pub(crate) fn write_addr(&self, out: &mut Vec<u8>) {
        write_addr(self.peer, self.path.as_deref(), out);
    }

    /// Appends what `laddr` gives.
    pub(crate) fn write_laddr(&self, out: &mut Vec<u8>) {
        write_addr(self.local, self.path.as_deref(), out);
    }

    /// Length and capacity of the query buffer, taken out or not.
    pub(crate) fn query_room(&self) -> (usize, usize) {
        if self.taken_query.1 > 0 { self.taken_query } else { (self.query.len(), self.query.capacity()) }
    }

    /// The same as CLIENT LIST shows it, and bytes of arguments: what comes before a large argument that is still
    /// arriving counts as arguments.
    pub(crate) fn shown_query(&self) -> (usize, usize, usize) {
        let (len, capacity) = self.query_room();
        let before = match self.parser.big_arg_start() {
            Some(start) if self.taken_query.1 == 0 => (self.query_pos + start).min(len),
            _ => 0,
        };
        let args = if before > 0 { self.parser.spans().iter().map(|s| s.len).sum() } else { self.argv_bytes };
        (len - before, capacity - before, args)
    }

    /// Whether more bytes of output than that are on their way to an I/O thread or wait there.
    pub(crate) fn has_far_output(&self, most: usize) -> bool {
        matches!(&self.conn, Some(Conn::Far(far)) if far.unwritten_beyond(most) > 0)
    }

    /// How much of its memory is gone in a moment, bytes: output that was given to an I/O thread of late. `period` grows by the time.
    pub(crate) fn leaving_mem(&mut self, period: u64) -> usize {
        let Some(Conn::Far(far)) = &mut self.conn else { return 0 };
        let lasting = far.lasting(period);
        output_mem(far, &self.out).saturating_sub(lasting)
    }

    /// Memory of its buffers, in bytes.
    pub(crate) fn mem_bytes(&self) -> usize {
        let far = match &self.conn {
            Some(Conn::Far(far)) => far.received_mem() + output_mem(far, &self.out),
            _ => 0,
        };
        self.query_room().1 + self.argv_bytes + self.out.mem_bytes() + far
    }
}

/// Memory of output that is with an I/O thread, bytes. What the reply buffer held costs nothing of its own: the buffer counts as a
/// whole.
fn output_mem(far: &Far, out: &Output) -> usize {
    far.unwritten_beyond(out.buffer_size())
}

/// An address as clients are shown it: `ip:port`, or `path:0` of a unix socket.
pub(crate) fn shown_addr(addr: Option<SocketAddr>, path: Option<&str>) -> String {
    let mut text = Vec::with_capacity(24);
    write_addr(addr, path, &mut text);
    String::from_utf8(text).expect("parts that are text")
}

fn write_addr(addr: Option<SocketAddr>, path: Option<&str>, out: &mut Vec<u8>) {
    match (addr, path) {
        (Some(SocketAddr::V4(a)), _) => {
            let mut number = itoa::Buffer::new();
            for (i, octet) in a.ip().octets().into_iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"." } else { b"" });
                out.extend_from_slice(number.format(octet).as_bytes());
            }
            out.push(b':');
            out.extend_from_slice(number.format(a.port()).as_bytes());
        }
        (Some(SocketAddr::V6(a)), _) => out.extend_from_slice(format!("[{}]:{}", a.ip(), a.port()).as_bytes()),
        (None, path) => {
            out.extend_from_slice(path.unwrap_or("?").as_bytes());
            out.extend_from_slice(b":0");
        }
    }
}
