//! The payload of DUMP, put together in slices: of a large value it takes long.

use super::encode::{self, ValueView, put_len, put_value};
use super::stream::{self, put_stream};
use super::{VERSION, encode_dump};
use crate::keyspace::hash::Hash;
use crate::keyspace::list::List;
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::structs::crc64;
use crate::structs::listpack::Item;
use crate::structs::ordered::OrderedSet;
use crate::structs::quicklist::BodyView;
use crate::structs::stream::Stream;
use std::convert::Infallible;

/// Elements between two questions whether to go on.
const ELEMENTS: usize = 64;
/// Longer strings and elements are taken as they are, and the former in pieces of this size: to compress them would take long.
/// Bytes.
const LONG_STRING: usize = 256 * 1024;

/// How far a payload was put together. The value does not change meanwhile.
#[derive(Debug)]
pub(crate) struct SlicedDump {
    place: Place,
    /// The sum of what is there.
    crc: u64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Start,
    /// So many elements or bytes, or those before this cursor of a table.
    Elements(u64),
    Stream(stream::Place),
    Footer,
    Done,
}

impl Default for SlicedDump {
    fn default() -> SlicedDump {
        SlicedDump { place: Place::Start, crc: 0 }
    }
}

impl SlicedDump {
    /// Appends what comes next of the payload, until `goes_on` says no (it is told how much is there). Whether it is whole.
    pub(crate) fn go_on(
        &mut self,
        out: &mut Vec<u8>,
        value: ValueView<'_>,
        compress: bool,
        goes_on: &mut dyn FnMut(usize) -> bool,
    ) -> bool {
        let start = out.len();
        if matches!(self.place, Place::Start) {
            if !is_large(&value) {
                encode_dump(out, value, compress);
                self.place = Place::Done;
                return true;
            }
            out.push(value.value_type() as u8);
        }
        self.put_value(out, value, compress, goes_on);
        let is_whole = matches!(self.place, Place::Footer);
        if is_whole {
            out.extend_from_slice(&(VERSION as u16).to_le_bytes());
        }
        self.crc = crc64::crc64(self.crc, &out[start..]);
        if is_whole {
            out.extend_from_slice(&self.crc.to_le_bytes());
            self.place = Place::Done;
        }
        is_whole || matches!(self.place, Place::Done)
    }

    /// Appends the value from where it is on; the footer comes next once all of it is there.
    fn put_value(
        &mut self,
        out: &mut Vec<u8>,
        value: ValueView<'_>,
        compress: bool,
        goes_on: &mut dyn FnMut(usize) -> bool,
    ) {
        let (is_new, mut at) = match self.place {
            Place::Start => (true, 0),
            Place::Elements(at) => (false, at),
            Place::Stream(_) => (false, 0),
            Place::Footer | Place::Done => return,
        };
        let begin = |out: &mut Vec<u8>, len: usize| {
            if is_new {
                put_len(out, len as u64);
            }
        };
        let is_whole = match value {
            ValueView::Set(set) => {
                begin(out, set.len());
                put_table(out, &mut at, goes_on, |out, cursor| {
                    set.scan(cursor, ELEMENTS, &mut |member| put_item(out, member, compress))
                })
            }
            ValueView::Hash(hash) => {
                begin(out, hash.len());
                put_table(out, &mut at, goes_on, |out, cursor| {
                    hash.scan(cursor, ELEMENTS, &mut |field, value| {
                        put_item(out, field, compress);
                        put_item(out, value, compress);
                    })
                })
            }
            ValueView::Zset(Zset::Ordered(set)) => {
                begin(out, set.len());
                put_members(out, &mut at, goes_on, set, compress)
            }
            ValueView::List(List::Quick(list)) => {
                begin(out, list.node_count());
                let nodes =
                    list.bodies().skip(at as usize).map(|body| move |out: &mut Vec<u8>| put_node(out, body, compress));
                put_in_order(out, &mut at, 1, goes_on, nodes)
            }
            ValueView::Str(text) => {
                begin(out, text.len());
                put_text(out, &mut at, goes_on, text)
            }
            ValueView::Stream(stream) => return self.put_stream(out, stream, compress, goes_on),
            small => {
                let _ = put_value(out, small, false, &mut |_| Ok(()));
                true
            }
        };
        self.place = if is_whole { Place::Footer } else { Place::Elements(at) };
    }

    fn put_stream(
        &mut self,
        out: &mut Vec<u8>,
        stream: &Stream,
        compress: bool,
        goes_on: &mut dyn FnMut(usize) -> bool,
    ) {
        let mut place = if let Place::Stream(place) = self.place { place } else { stream::Place::Node(0) };
        let put: Result<(), Infallible> =
            put_stream(out, stream, most_compressed(compress), &mut place, &mut |out| Ok(goes_on(out.len())));
        let Ok(()) = put;
        self.place = if place == stream::Place::Done { Place::Footer } else { Place::Stream(place) };
    }
}

/// Whether it is of a kind that may take long.
fn is_large(value: &ValueView<'_>) -> bool {
    match value {
        ValueView::Str(text) => text.len() > LONG_STRING,
        ValueView::List(List::Packed(list))
        | ValueView::Set(Set::Packed(list))
        | ValueView::Hash(Hash::Packed(list))
        | ValueView::Zset(Zset::Packed(list)) => list.as_bytes().len() > LONG_STRING,
        ValueView::List(List::Quick(_))
        | ValueView::Set(Set::Table(_))
        | ValueView::Hash(Hash::Table(_))
        | ValueView::Zset(Zset::Ordered(_))
        | ValueView::Stream(_) => true,
        ValueView::Set(Set::Ints(_)) | ValueView::Int(_) | ValueView::Damaged(_) => false,
    }
}

/// No longer string is to be compressed, bytes.
fn most_compressed(compress: bool) -> usize {
    if compress { LONG_STRING } else { 0 }
}

fn put_string(out: &mut Vec<u8>, text: &[u8], compress: bool) {
    encode::put_string(out, text, text.len() <= most_compressed(compress));
}

fn put_item(out: &mut Vec<u8>, item: Item<'_>, compress: bool) {
    let is_short = matches!(item, Item::Str(text) if text.len() <= most_compressed(compress));
    encode::put_item(out, item, is_short);
}

fn put_node(out: &mut Vec<u8>, node: BodyView<'_>, compress: bool) {
    encode::put_node(out, node, node.raw_len() <= most_compressed(compress));
}

/// A string from a byte on. Whether that is all.
fn put_text(out: &mut Vec<u8>, at: &mut u64, goes_on: &mut dyn FnMut(usize) -> bool, text: &[u8]) -> bool {
    let pieces = text[(*at as usize).min(text.len())..].chunks(LONG_STRING);
    let mut count = 0;
    let is_whole =
        put_in_order(out, &mut count, 1, goes_on, pieces.map(|p| move |out: &mut Vec<u8>| out.extend_from_slice(p)));
    *at += count * LONG_STRING as u64;
    is_whole
}

/// The members of a sorted set with their scores, the highest first. Whether that is all.
fn put_members(
    out: &mut Vec<u8>,
    at: &mut u64,
    goes_on: &mut dyn FnMut(usize) -> bool,
    set: &OrderedSet,
    compress: bool,
) -> bool {
    let left = set.len().saturating_sub(*at as usize);
    let members = set.range(left.saturating_sub(1), left, true).map(|(member, score)| {
        move |out: &mut Vec<u8>| {
            put_string(out, member, compress);
            out.extend_from_slice(&score.to_le_bytes());
        }
    });
    put_in_order(out, at, ELEMENTS, goes_on, members)
}

/// The elements of a table from a cursor on. Whether that is all.
fn put_table(
    out: &mut Vec<u8>,
    cursor: &mut u64,
    goes_on: &mut dyn FnMut(usize) -> bool,
    scan: impl Fn(&mut Vec<u8>, u64) -> u64,
) -> bool {
    loop {
        *cursor = scan(out, *cursor);
        if *cursor == 0 || !goes_on(out.len()) {
            return *cursor == 0;
        }
    }
}

/// Elements in order, of which `at` counts those that went. Whether that is all.
fn put_in_order(
    out: &mut Vec<u8>,
    at: &mut u64,
    together: usize,
    goes_on: &mut dyn FnMut(usize) -> bool,
    elements: impl Iterator<Item = impl FnOnce(&mut Vec<u8>)>,
) -> bool {
    for put in elements {
        put(out);
        *at += 1;
        if at.is_multiple_of(together as u64) && !goes_on(out.len()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::persist::snapshot::value_view;

    #[test]
    fn in_slices_of_any_length_the_same_comes_out() {
        let mut bare = Bare::new();
        let items = |from: &str| (0..1000).map(|n| format!(" {from}{n}")).collect::<String>();
        let pairs = (0..1000).map(|n| format!(" {n} v{n}")).collect::<String>();
        for line in [
            format!("rpush list{}", items("e")),
            format!("sadd set{}", items("m")),
            format!("sadd ints{}", items("")),
            format!("hset hash{pairs}"),
            format!("zadd zset{pairs}"),
            format!("set string {}", "long ".repeat(300_000).replace(' ', "-")),
            "set number 7".into(),
            "hset few f v".into(),
        ] {
            bare.run(&line);
        }
        for n in 1..1000 {
            bare.run(&format!("xadd stream {n}-1 field {n}"));
        }
        for (group, consumers) in [("g", ["a", "b", "c"]), ("h", ["a", "d", "e"])] {
            bare.run(&format!("xgroup create stream {group} 0"));
            for consumer in consumers {
                bare.run(&format!("xreadgroup group {group} {consumer} count 70 streams stream >"));
            }
        }
        bare.run("xgroup create stream i $");
        for key in ["list", "set", "ints", "hash", "zset", "string", "number", "few", "stream"] {
            let view = value_view(bare.ks.dbs[0].get(key.as_bytes()).unwrap());
            for (every, compress) in [1, 3, 17, usize::MAX].into_iter().flat_map(|n| [(n, false), (n, true)]) {
                let mut whole = Vec::new();
                encode_dump(&mut whole, view, compress && key != "string");
                let (mut sliced, mut out, mut slices) = (SlicedDump::default(), Vec::new(), 1);
                let mut asked = 0;
                let mut goes_on = |_| {
                    asked += 1;
                    asked % every != 0
                };
                while !sliced.go_on(&mut out, view, compress, &mut goes_on) {
                    slices += 1;
                }
                assert!(out == whole, "{key} in {slices} slices");
                assert!(every != 1 || slices > 1 || ["list", "ints", "number", "few"].contains(&key), "{key}");
            }
        }
    }

    #[test]
    fn nothing_long_is_compressed() {
        let mut bare = Bare::new();
        let long = "a".repeat(LONG_STRING + 1);
        for line in
            ["hset hash f L", "sadd set L", "zadd zset 1 L", "rpush list L", "xadd stream 1-1 f L", "set string L"]
        {
            bare.run(&line.replace('L', &long));
        }
        for key in ["hash", "set", "zset", "list", "stream", "string"] {
            let view = value_view(bare.ks.dbs[0].get(key.as_bytes()).unwrap());
            let mut out = Vec::new();
            while !SlicedDump::default().go_on(&mut out, view, true, &mut |_| true) {}
            assert!(out.len() > LONG_STRING, "{key}");
        }
    }
}
