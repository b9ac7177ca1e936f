//! Values as snapshots and as commands: how each is shown to the encoder, and the commands that make it anew.

use super::rdb::{AUTOSYNC_BYTES, ReplInfo, ValueView, encode_dump};
use super::stream_commands::put_stream_commands;
use crate::keyspace::list::List;
use crate::keyspace::zset::Zset;
use crate::keyspace::{Entry, Object};
use crate::structs::entry::{IntBuf, ValueRef};
use crate::structs::listpack::Item;
use crate::structs::numbers::f64_text_grisu;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Commands gather up to this size before they are passed on, bytes.
pub(crate) const FLUSH_AT: usize = 64 * 1024;

/// What goes into a snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct SnapshotOptions {
    /// It is the base of an append-only log.
    pub(crate) aof_base: bool,
    /// Replication position to store in it.
    pub(crate) repl: Option<ReplInfo>,
    /// Function libraries only.
    pub(crate) exclude_data: bool,
    pub(crate) exclude_functions: bool,
    /// The file will be read again soon: its pages are worth keeping.
    pub(crate) keep_cache: bool,
}

/// A file which is pushed to the disk as it grows, so that the sync at its end does not stall everyone else.
pub(crate) struct FileSink {
    file: File,
    auto_sync: bool,
    unsynced: u64,
}

impl FileSink {
    pub(crate) fn new(file: File, auto_sync: bool) -> FileSink {
        FileSink { file, auto_sync, unsynced: 0 }
    }

    /// Makes everything durable. Unless `keep_cache`, its pages make room for others: it will not be read soon.
    pub(crate) fn finish(self, keep_cache: bool) -> io::Result<()> {
        self.file.sync_all()?;
        if !keep_cache {
            drop_page_cache(self.file.as_fd());
        }
        Ok(())
    }
}

/// Tells the system that a file's pages will not be needed. Only a hint: a failure is worth a line and nothing else.
pub(crate) fn drop_page_cache(fd: impl AsFd) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    if let Err(e) = posix_fadvise(fd, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        log::info!("Unable to reclaim page cache: {}", e.desc());
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.unsynced += n as u64;
        if self.auto_sync && self.unsynced >= AUTOSYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A value in the form the snapshot writer takes.
pub(crate) fn value_view(entry: &Entry) -> ValueView<'_> {
    match entry.value() {
        ValueRef::Int(v) => ValueView::Int(v),
        ValueRef::Str { bytes, .. } => ValueView::Str(bytes),
        ValueRef::Object(Object::List(list)) => ValueView::List(list),
        ValueRef::Object(Object::Set(set)) => ValueView::Set(set),
        ValueRef::Object(Object::Hash(hash)) => ValueView::Hash(hash),
        ValueRef::Object(Object::Zset(zset)) => ValueView::Zset(zset),
        ValueRef::Object(Object::Stream(stream)) => ValueView::Stream(stream),
        ValueRef::Object(Object::Damaged(damaged)) => ValueView::Damaged(damaged),
    }
}

/// `rdb-key-save-delay` and `key-load-delay`: microseconds to sleep after each key. A negative number asks for one
/// microsecond after one of so many keys, since the shortest sleep is longer than that.
pub(crate) fn debug_delay(us: i64) {
    match us {
        0 => {}
        1.. => std::thread::sleep(Duration::from_micros(us.unsigned_abs())),
        _ => {
            if fastrand::u64(..us.unsigned_abs()) == 0 {
                std::thread::sleep(Duration::from_micros(1));
            }
        }
    }
}

pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Elements that one command of a rewritten log adds, as far as they are told apart (pairs count once).
const ITEMS_PER_COMMAND: usize = 64;

/// Appends the commands that make a collection of `len` times `width` items, and passes on what has gathered.
fn put_collection<'a, W: Write>(
    buf: &mut Vec<u8>,
    out: &mut W,
    verb: &[u8],
    key: &[u8],
    mut items: impl Iterator<Item = Item<'a>>,
    len: usize,
    width: usize,
) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        let here = left.min(ITEMS_PER_COMMAND);
        put_header(buf, 2 + here * width);
        put_arg(buf, verb);
        put_arg(buf, key);
        items.by_ref().take(here * width).for_each(|item| put_arg(buf, item.bytes(&mut IntBuf::new())));
        left -= here;
        if buf.len() >= FLUSH_AT {
            out.write_all(buf)?;
            buf.clear();
        }
    }
    Ok(())
}

/// As `put_collection` for a list.
fn put_list<W: Write>(buf: &mut Vec<u8>, out: &mut W, key: &[u8], list: &List) -> io::Result<()> {
    let mut walk = list.walk(0);
    let mut left = list.len();
    while left > 0 {
        let here = left.min(ITEMS_PER_COMMAND);
        put_header(buf, 2 + here);
        put_arg(buf, b"RPUSH");
        put_arg(buf, key);
        for _ in 0..here {
            let Some(item) = walk.step() else { break };
            put_arg(buf, item.bytes(&mut IntBuf::new()));
        }
        left -= here;
        if buf.len() >= FLUSH_AT {
            out.write_all(buf)?;
            buf.clear();
        }
    }
    Ok(())
}

/// Appends the commands that make a sorted set, and passes on what has gathered.
fn put_zset<W: Write>(buf: &mut Vec<u8>, out: &mut W, key: &[u8], zset: &Zset) -> io::Result<()> {
    let mut members = zset.iter();
    let mut left = zset.len();
    while left > 0 {
        let here = left.min(ITEMS_PER_COMMAND);
        put_header(buf, 2 + here * 2);
        put_arg(buf, b"ZADD");
        put_arg(buf, key);
        for (member, score) in members.by_ref().take(here) {
            put_arg(buf, &f64_text_grisu(score));
            put_arg(buf, member.bytes(&mut IntBuf::new()));
        }
        left -= here;
        if buf.len() >= FLUSH_AT {
            out.write_all(buf)?;
            buf.clear();
        }
    }
    Ok(())
}

fn put_header(buf: &mut Vec<u8>, args: usize) {
    buf.push(b'*');
    buf.extend_from_slice(itoa::Buffer::new().format(args).as_bytes());
    buf.extend_from_slice(b"\r\n");
}

fn put_arg(buf: &mut Vec<u8>, arg: &[u8]) {
    buf.push(b'$');
    buf.extend_from_slice(itoa::Buffer::new().format(arg.len()).as_bytes());
    buf.extend_from_slice(b"\r\n");
    buf.extend_from_slice(arg);
    buf.extend_from_slice(b"\r\n");
}

/// Appends a command in the form of the request protocol.
pub(crate) fn put_command(buf: &mut Vec<u8>, args: &[&[u8]]) {
    put_header(buf, args.len());
    args.iter().for_each(|arg| put_arg(buf, arg));
}

/// Appends the commands that make a key; what has gathered in the buffer may go to `out` before that.
pub(crate) fn put_entry<W: Write>(buf: &mut Vec<u8>, out: &mut W, entry: &Entry) -> io::Result<()> {
    match entry.value() {
        ValueRef::Int(v) => {
            put_command(buf, &[b"SET", entry.key(), itoa::Buffer::new().format(v).as_bytes()]);
        }
        ValueRef::Str { bytes, .. } => put_command(buf, &[b"SET", entry.key(), bytes]),
        ValueRef::Object(Object::Set(set)) => {
            put_collection(buf, out, b"SADD", entry.key(), set.iter(), set.len(), 1)?;
        }
        ValueRef::Object(Object::Hash(hash)) => {
            let items = hash.iter().flat_map(|(field, value)| [field, value]);
            put_collection(buf, out, b"HMSET", entry.key(), items, hash.len(), 2)?;
        }
        ValueRef::Object(Object::Zset(zset)) => put_zset(buf, out, entry.key(), zset)?,
        ValueRef::Object(Object::Stream(stream)) => {
            put_stream_commands(entry.key(), stream, &mut |command| {
                put_command(buf, command);
                if buf.len() >= FLUSH_AT {
                    out.write_all(buf)?;
                    buf.clear();
                }
                Ok(())
            })?;
        }
        ValueRef::Object(Object::Damaged(damaged)) => {
            let mut payload = Vec::new();
            encode_dump(&mut payload, ValueView::Damaged(damaged), false);
            put_command(buf, &[b"RESTORE", entry.key(), b"0", &payload]);
        }
        ValueRef::Object(Object::List(list)) => {
            put_list(buf, out, entry.key(), list)?;
        }
    }
    if let Some(at_ms) = entry.expire_ms() {
        let at_ms = at_ms.to_string();
        put_command(buf, &[b"PEXPIREAT", entry.key(), at_ms.as_bytes()]);
    }
    Ok(())
}
