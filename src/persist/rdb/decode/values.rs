//! Reading values: what the bytes of each layout become.
//!
//! Elements of large collections are read some at a time and then added together, so that what is touched of the tables is
//! brought near for all of them at once.

use super::{Ahead, Cursor, Result, Value};
use crate::keyspace::damaged::{Damaged, Kind};
use crate::keyspace::hash::Hash;
use crate::keyspace::set::Set;
use crate::keyspace::zset::{self, Zset};
use crate::persist::rdb::encode::{CONTAINER_PACKED, CONTAINER_PLAIN, put_len, put_string};
use crate::persist::rdb::{ErrorKind, ValueType, module_name};
use crate::structs::entry::IntBuf;
use crate::structs::intset::Intset;
use crate::structs::listpack::{Item as Packed, Listpack};
use crate::structs::numbers::parse_f64;
use crate::structs::quicklist::Body;
use crate::structs::table::TOGETHER;
use crate::structs::ziplist;
use std::collections::HashSet;
use std::io::BufRead;

/// Elements that stand one by one are gathered in nodes of this size, bytes.
const NODE_BYTES: usize = 8192;

/// How many of the elements left are read together.
fn together(left: u64) -> usize {
    left.min(TOGETHER as u64) as usize
}

impl<S: BufRead> Cursor<'_, S> {
    /// Reads a value of the given layout. Each type the server can hold has its arm here.
    pub(crate) fn value(&mut self, value_type: ValueType) -> Result<Value> {
        match value_type {
            ValueType::String => {
                let spare = std::mem::take(&mut self.r.spare_value);
                Ok(Value::String(self.string_with(spare)?))
            }
            ValueType::ModulePreGa => Err(self.corrupt("Pre-release module format not supported")),
            ValueType::Module2 => {
                let name = module_name(self.len()?);
                Err(self.err(ErrorKind::Module { name, aux: false }))
            }
            ValueType::List => self.list(),
            ValueType::ListZiplist => self.ziplist_list(),
            ValueType::ListQuicklist => self.quicklist(false),
            ValueType::ListQuicklist2 => self.quicklist(true),
            ValueType::Set => self.set(),
            ValueType::SetIntset => {
                let bytes = self.string()?.into_bytes();
                let read = if self.r.deep { Intset::from_bytes } else { Intset::from_unordered };
                let ints = read(bytes).map_err(|_| self.corrupt("Intset integrity check failed."))?;
                Ok(if ints.is_empty() { Value::Empty } else { Value::Ints(ints) })
            }
            ValueType::SetListpack => self.listpack(value_type, "Set listpack", |c, list, what| {
                if c.r.deep {
                    c.refuse_twice(list.iter(), what)?;
                }
                Ok(if list.is_empty() { Value::Empty } else { Value::PackedSet(list) })
            }),
            ValueType::Hash => self.hash(),
            ValueType::HashZipmap => self.zipmap(),
            ValueType::HashZiplist => {
                let list = self.ziplist("Hash ziplist")?;
                self.packed_hash(list, true, "Hash ziplist")
            }
            ValueType::HashListpack => {
                self.listpack(value_type, "Hash listpack", |c, list, what| c.packed_hash(list, c.r.deep, what))
            }
            ValueType::Zset => self.zset(Self::text_double),
            ValueType::Zset2 => self.zset(|c| Ok(f64::from_le_bytes(c.array()?))),
            ValueType::ZsetZiplist => {
                let list = self.ziplist("Zset ziplist")?;
                self.packed_zset(list, true, "Zset ziplist")
            }
            ValueType::ZsetListpack => {
                self.listpack(value_type, "Zset listpack", |c, list, what| c.packed_zset(list, c.r.deep, what))
            }
            ValueType::StreamListpacks | ValueType::StreamListpacks2 | ValueType::StreamListpacks3 => {
                self.stream(value_type)
            }
        }
    }

    /// Refuses a collection, `what`, that names something twice.
    fn refuse_twice<'a>(&self, items: impl Iterator<Item = Packed<'a>>, what: &str) -> Result<()> {
        let mut seen = HashSet::new();
        for item in items {
            // An integer may also stand there as text.
            let item = match item {
                Packed::Str(text) => Packed::of(text),
                Packed::Int(_) => item,
            };
            if !seen.insert(item) {
                return Err(self.corrupt(format!("{what} integrity check failed.")));
            }
        }
        Ok(())
    }

    fn set(&mut self) -> Result<Value> {
        let count = self.len()?;
        if count == 0 {
            return Ok(Value::Empty);
        }
        let limits = self.r.limits.set;
        self.with_scratch(|c, [members, _]| {
            let mut ahead = Ahead::new(count);
            let mut set = Set::new();
            let mut done = 0;
            while done < count {
                let members = &mut members[..together(count - done)];
                for member in &mut *members {
                    c.text_into(member)?;
                }
                if done == 0 {
                    set = Set::for_members(&members[0], ahead.first(), &limits);
                } else if let Some(len) = ahead.next(done) {
                    set.reserve(len);
                }
                if !set.add_together(members, &limits) {
                    return Err(c.corrupt("Duplicate set members detected"));
                }
                done += members.len() as u64;
            }
            Ok(Value::Set(set))
        })
    }

    fn hash(&mut self) -> Result<Value> {
        let count = self.len()?;
        if count == 0 {
            return Ok(Value::Empty);
        }
        let limits = self.r.limits.hash;
        self.with_scratch(|c, [fields, values]| {
            let mut ahead = Ahead::new(count);
            let mut hash = Hash::for_fields(ahead.first(), &limits);
            let mut done = 0;
            while done < count {
                if let Some(len) = ahead.next(done) {
                    hash.reserve(len);
                }
                let here = together(count - done);
                let (fields, values) = (&mut fields[..here], &mut values[..here]);
                for (field, value) in fields.iter_mut().zip(&mut *values) {
                    c.text_into(field)?;
                    c.text_into(value)?;
                }
                if !hash.add_together(fields, values, &limits) {
                    return Err(c.corrupt("Duplicate hash fields detected"));
                }
                done += here as u64;
            }
            Ok(Value::Hash(hash))
        })
    }

    /// Members with scores that `score` reads.
    fn zset(&mut self, score: fn(&mut Self) -> Result<f64>) -> Result<Value> {
        let count = self.len()?;
        if count == 0 {
            return Ok(Value::Empty);
        }
        let limits = self.r.limits.zset;
        self.with_scratch(|c, [members, _]| {
            let mut ahead = Ahead::new(count);
            let mut zset = Zset::new();
            let mut scores = [0.0; TOGETHER];
            let mut done = 0;
            while done < count {
                let members = &mut members[..together(count - done)];
                for (member, at) in members.iter_mut().zip(&mut scores) {
                    c.text_into(member)?;
                    *at = score(c)?;
                    if at.is_nan() {
                        return Err(c.corrupt("Zset with NAN score detected"));
                    }
                }
                if done == 0 {
                    zset = Zset::for_members(ahead.first(), members[0].len(), &limits);
                } else if let Some(len) = ahead.next(done) {
                    zset.reserve(len);
                }
                if !zset.add_together(members, &scores, &limits) {
                    return Err(c.corrupt("Duplicate zset fields detected"));
                }
                done += members.len() as u64;
            }
            Ok(Value::Zset(zset))
        })
    }

    /// A score as text: one length byte, of which the three highest values stand for NaN and the infinities.
    fn text_double(&mut self) -> Result<f64> {
        match self.byte()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            len => {
                let text = self.bytes(u64::from(len))?;
                parse_f64(&text).ok_or_else(|| self.err(ErrorKind::Eof))
            }
        }
    }

    fn packed_zset(&self, list: Listpack, deep: bool, what: &str) -> Result<Value> {
        if list.is_empty() {
            return Ok(Value::Empty);
        }
        if deep {
            self.refuse_twice(list.iter().step_by(2), what)?;
        }
        let list = zset::checked(list).ok_or_else(|| self.corrupt(format!("{what} integrity check failed.")))?;
        Ok(Value::PackedZset(list))
    }

    fn zipmap(&mut self) -> Result<Value> {
        let bytes = self.string()?.into_bytes();
        let Some(strings) = ziplist::read_zipmap(&bytes) else {
            return Err(self.corrupt("Zipmap integrity check failed."));
        };
        self.refuse_twice(strings.iter().step_by(2).map(|text| Packed::Str(text)), "Hash zipmap")?;
        let mut hash = Hash::new();
        hash.will_grow(strings.iter().copied(), &self.r.limits.hash);
        for [field, value] in strings.as_chunks::<2>().0 {
            hash.set(field, value, &self.r.limits.hash);
        }
        Ok(if hash.is_empty() { Value::Empty } else { Value::Hash(hash) })
    }

    fn packed_hash(&self, list: Listpack, deep: bool, what: &str) -> Result<Value> {
        if !list.len().is_multiple_of(2) {
            return Err(self.corrupt(format!("{what} integrity check failed.")));
        }
        if deep {
            self.refuse_twice(list.iter().step_by(2), what)?;
        }
        Ok(if list.is_empty() { Value::Empty } else { Value::PackedHash(list) })
    }

    /// A list whose elements stand there one by one.
    fn list(&mut self) -> Result<Value> {
        let mut nodes = Vec::new();
        let mut node = Listpack::new();
        for _ in 0..self.len()? {
            let text = self.string()?.into_bytes();
            if text.len() >= NODE_BYTES {
                if !node.is_empty() {
                    nodes.push(Body::Packed(std::mem::take(&mut node)));
                }
                nodes.push(Body::Plain(text));
                continue;
            }
            if node.total_bytes() + text.len() > NODE_BYTES {
                nodes.push(Body::Packed(std::mem::take(&mut node)));
            }
            node.push_back(&text);
        }
        if !node.is_empty() {
            nodes.push(Body::Packed(node));
        }
        Ok(if nodes.is_empty() { Value::Empty } else { Value::List(nodes) })
    }

    fn ziplist_list(&mut self) -> Result<Value> {
        let list = self.ziplist("List ziplist")?;
        Ok(if list.is_empty() { Value::Empty } else { Value::List(vec![Body::Packed(list)]) })
    }

    /// A list of nodes: of ziplists, or (`with_containers`) of listpacks and elements that stand alone.
    fn quicklist(&mut self, with_containers: bool) -> Result<Value> {
        let mut nodes = Vec::new();
        for left in (0..self.len()?).rev() {
            let container = if with_containers { self.len()? } else { CONTAINER_PACKED };
            match container {
                CONTAINER_PLAIN => match self.string()?.into_bytes() {
                    bytes if bytes.is_empty() => return Err(self.err(ErrorKind::Eof)),
                    bytes => nodes.push(Body::Plain(bytes)),
                },
                CONTAINER_PACKED => {
                    let list = if with_containers {
                        match Listpack::from_bytes_or_back(self.string()?.into_bytes()) {
                            Ok(list) => list,
                            Err((bad, bytes)) => return self.damaged_list(&nodes, &bytes, left, bad.reason),
                        }
                    } else {
                        self.ziplist("Ziplist")?
                    };
                    // Redis, too, passes over empty nodes.
                    if !list.is_empty() {
                        nodes.push(Body::Packed(list));
                    }
                }
                _ => return Err(self.corrupt("Quicklist integrity check failed.")),
            }
        }
        Ok(if nodes.is_empty() { Value::Empty } else { Value::List(nodes) })
    }

    /// A list of which `nodes` were read, then a broken one, behind which `left` more follow.
    fn damaged_list(&mut self, nodes: &[Body], broken: &[u8], left: u64, reason: &'static str) -> Result<Value> {
        const REFUSAL: &str = "Listpack integrity check failed.";
        if !self.keeps_damaged(broken) {
            return Err(self.corrupt(REFUSAL));
        }
        let mut raw = Vec::new();
        put_len(&mut raw, nodes.len() as u64 + 1 + left);
        for node in nodes {
            let (container, bytes) = match node {
                Body::Packed(list) => (CONTAINER_PACKED, list.as_bytes()),
                Body::Plain(bytes) => (CONTAINER_PLAIN, &bytes[..]),
            };
            put_len(&mut raw, container);
            put_string(&mut raw, bytes, false);
        }
        put_len(&mut raw, CONTAINER_PACKED);
        put_string(&mut raw, broken, false);
        self.record(raw);
        for _ in 0..left {
            let is_packed = match self.len()? {
                CONTAINER_PACKED => true,
                CONTAINER_PLAIN => false,
                _ => return Err(self.corrupt("Quicklist integrity check failed.")),
            };
            let bytes = self.string()?.into_bytes();
            if is_packed && !Listpack::is_framed(&bytes) {
                return Err(self.corrupt(REFUSAL));
            }
        }
        Ok(self.recorded_value(ValueType::ListQuicklist2, reason))
    }

    /// Whether a listpack that cannot be walked is no reason to refuse the value it is of.
    pub(in crate::persist::rdb) fn keeps_damaged(&self, listpack: &[u8]) -> bool {
        !self.r.deep && Listpack::is_framed(listpack)
    }

    /// Whether what contradicts itself is refused rather than taken as well as can be.
    pub(in crate::persist::rdb) fn is_deep(&self) -> bool {
        self.r.deep
    }

    /// Begins to keep what is read of a damaged value, of which `before` was read.
    pub(in crate::persist::rdb) fn record(&mut self, before: Vec<u8>) {
        self.r.recorded = Some(before);
    }

    /// Keeps a damaged value whose last byte was read.
    pub(in crate::persist::rdb) fn recorded_value(&mut self, layout: ValueType, flaw: &'static str) -> Value {
        damaged(layout, self.r.recorded.take().unwrap_or_default(), flaw)
    }

    /// A value, `what`, that is one listpack, of which `value` makes it.
    fn listpack(
        &mut self,
        layout: ValueType,
        what: &str,
        value: fn(&Self, Listpack, &str) -> Result<Value>,
    ) -> Result<Value> {
        match Listpack::from_bytes_or_back(self.string()?.into_bytes()) {
            Ok(list) => value(self, list, what),
            Err((bad, bytes)) if self.keeps_damaged(&bytes) => {
                let mut raw = Vec::new();
                put_string(&mut raw, &bytes, false);
                Ok(damaged(layout, raw, bad.reason))
            }
            Err(_) => Err(self.corrupt(format!("{what} integrity check failed."))),
        }
    }

    /// A string that is a ziplist, of the value `what`; as a listpack.
    fn ziplist(&mut self, what: &str) -> Result<Listpack> {
        let bytes = self.string()?.into_bytes();
        let Some(items) = ziplist::read_ziplist(&bytes) else {
            return Err(self.corrupt(format!("{what} integrity check failed.")));
        };
        let mut list = Listpack::with_capacity(bytes.len());
        for item in items {
            // Text that reads as an integer is one in a listpack.
            list.push_item(Packed::of(item.bytes(&mut IntBuf::new())));
        }
        Ok(list)
    }
}

fn damaged(layout: ValueType, bytes: Vec<u8>, flaw: &'static str) -> Value {
    let kind = match layout {
        ValueType::SetListpack => Kind::Set,
        ValueType::HashListpack => Kind::Hash,
        ValueType::ZsetListpack => Kind::Zset,
        ValueType::ListQuicklist2 => Kind::List,
        _ => Kind::Stream,
    };
    Value::Damaged(Box::new(Damaged { kind, layout: layout as u8, bytes: bytes.into_boxed_slice(), flaw }))
}
