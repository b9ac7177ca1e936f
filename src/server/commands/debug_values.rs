//! What DEBUG tells of the inside of values.

use crate::keyspace::Entry;
use crate::keyspace::Object;
use crate::keyspace::hash::Hash;
use crate::keyspace::list::List;
use crate::keyspace::object::ValueLimits;
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::persist::rdb::put_value;
use crate::persist::snapshot::value_view;
use crate::structs::entry::{IntBuf, ValueRef};
use crate::structs::listpack::{Item, Listpack};
use crate::structs::quicklist::{BodyView, Quicklist};

/// The shape of the hash table that is a key's value; `None`: it is none.
pub(crate) fn table_stats(entry: &Entry) -> Option<String> {
    match entry.object()? {
        Object::Set(Set::Table(table)) | Object::Hash(Hash::Table(table)) => Some(table.stats()),
        Object::Zset(Zset::Ordered(set)) => Some(set.table_stats()),
        Object::Set(_) | Object::Hash(_) | Object::Zset(_) | Object::List(_) | Object::Stream(_) => None,
        Object::Damaged(_) => None,
    }
}

/// What DEBUG OBJECT adds about the value's structure.
pub(crate) fn object_details(entry: &Entry, limits: &ValueLimits) -> String {
    let Some(Object::List(List::Quick(list))) = entry.object() else { return String::new() };
    let raw: usize = list.bodies().map(|body| body.raw_len()).sum();
    format!(
        " ql_nodes:{} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} ql_uncompressed_size:{raw}",
        list.node_count(),
        list.len() as f64 / list.node_count() as f64,
        limits.list.fill,
        (limits.list.compress_depth != 0) as u8,
    )
}

/// The listpack that is a key's value; `None`: it is none.
pub(crate) fn listpack_of(entry: &Entry) -> Option<&Listpack> {
    match entry.object()? {
        Object::List(List::Packed(list))
        | Object::Set(Set::Packed(list))
        | Object::Hash(Hash::Packed(list))
        | Object::Zset(Zset::Packed(list)) => Some(list),
        _ => None,
    }
}

/// Text about a listpack: its size and its elements, one a line.
pub(crate) fn listpack_text(list: &Listpack) -> String {
    let mut text = format!("{{total bytes {}}} {{num entries {}}}\n", list.total_bytes(), list.len());
    for (i, item) in list.iter().enumerate() {
        let kind = if matches!(item, Item::Int(_)) { "int" } else { "str" };
        let shown = item.to_vec().escape_ascii().to_string();
        text.push_str(&format!("{{index: {i}, bytes: {}, {kind}: {shown}}}\n", item.encoded_len()));
    }
    text
}

/// Text about a quicklist: its nodes, and what is in them when `full`.
pub(crate) fn quicklist_text(list: &Quicklist, limits: &ValueLimits, full: bool) -> String {
    let mut text = format!(
        "{{count : {}}}\n{{len : {}}}\n{{fill : {}}}\n{{compress : {}}}\n",
        list.len(),
        list.node_count(),
        limits.list.fill,
        limits.list.compress_depth
    );
    for (i, body) in list.bodies().enumerate() {
        let container = if body.is_plain() { "PLAIN" } else { "PACKED" };
        let encoding = if matches!(body, BodyView::Lzf(_)) { "LZF" } else { "RAW" };
        text.push_str(&format!(
            "{{quicklist node({i}) container : {container}, encoding: {encoding}, size: {}}}\n",
            body.raw_len()
        ));
    }
    if full {
        list.walk(0).for_each(|item| {
            text.push_str(&item.to_vec().escape_ascii().to_string());
            text.push('\n');
        });
    }
    text
}

/// Length of the value in a snapshot, in bytes, uncompressed.
pub(crate) fn serialized_len(entry: &Entry) -> usize {
    if entry.object().is_some() {
        let (mut buf, mut passed) = (Vec::new(), 0);
        // Nothing is written anywhere, so nothing can fail.
        let _ = put_value(&mut buf, value_view(entry), false, &mut |buf| {
            passed += buf.len();
            buf.clear();
            Ok(())
        });
        return passed + buf.len();
    }
    let mut int = IntBuf::new();
    let len = entry.value_bytes(&mut int).map_or(0, <[u8]>::len);
    match entry.value() {
        ValueRef::Int(n) if i8::try_from(n).is_ok() => 2,
        ValueRef::Int(n) if i16::try_from(n).is_ok() => 3,
        ValueRef::Int(n) if i32::try_from(n).is_ok() => 5,
        _ => {
            let header = match len {
                0..=63 => 1,
                64..=16383 => 2,
                _ => 5,
            };
            header + len
        }
    }
}
