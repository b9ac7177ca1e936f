//! The commands that make a stream: what a rewritten log holds of it.

use crate::structs::entry::IntBuf;
use crate::structs::stream::{Group, Stream, StreamId};
use std::io;

/// Gives the commands that make the stream to `put`, one by one.
pub(crate) fn put_stream_commands(
    key: &[u8],
    stream: &Stream,
    put: &mut dyn FnMut(&[&[u8]]) -> io::Result<()>,
) -> io::Result<()> {
    let log = &stream.log;
    for entry in log.iter() {
        let id = entry.id.text();
        let fields: Vec<_> = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let mut command: Vec<&[u8]> = vec![b"XADD", key, &id];
        command.extend(fields.iter().flat_map(|(name, value)| [&name[..], &value[..]]));
        put(&command)?;
    }
    if log.is_empty() {
        // An entry that is trimmed at once leaves an empty stream.
        put(&[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"])?;
    }
    let mut added = IntBuf::new();
    put(&[
        b"XSETID",
        key,
        &log.counters.last_id.text(),
        b"ENTRIESADDED",
        added.format(log.counters.entries_added as i64),
        b"MAXDELETEDID",
        &log.counters.max_deleted_id.text(),
    ])?;
    stream.groups().try_for_each(|(name, group)| put_group(key, name, group, put))
}

fn put_group(
    key: &[u8],
    name: &[u8],
    group: &Group,
    put: &mut dyn FnMut(&[&[u8]]) -> io::Result<()>,
) -> io::Result<()> {
    let mut number = IntBuf::new();
    let last_id = group.last_id.text();
    put(&[b"XGROUP", b"CREATE", key, name, &last_id, b"ENTRIESREAD", number.format(group.entries_read)])?;
    for consumer in group.consumers() {
        if consumer.pending_len() == 0 {
            put(&[b"XGROUP", b"CREATECONSUMER", key, name, consumer.name()])?;
        }
        for id in consumer.pending_from(StreamId::MIN) {
            let Some(pending) = group.pending(id) else { continue };
            let (mut time, mut deliveries) = (IntBuf::new(), IntBuf::new());
            put(&[
                b"XCLAIM",
                key,
                name,
                consumer.name(),
                b"0",
                &id.text(),
                b"TIME",
                time.format(pending.time_ms),
                b"RETRYCOUNT",
                deliveries.format(pending.deliveries as i64),
                b"JUSTID",
                b"FORCE",
            ])?;
        }
    }
    Ok(())
}
