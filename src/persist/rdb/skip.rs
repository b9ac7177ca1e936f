//! Walking over values without building them: what the offline checker does with every type.
//!
//! Values that the server can hold are read as it reads them, so that what is inside packed blobs is checked too; of
//! others (modules) the layout is: lengths, string encodings, ends.

use super::decode::{Cursor, Value};
use super::{Error, ValueType, module_name};
use std::io::BufRead;

/// What was found where a value should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    Value,
    /// A collection without elements, which no server stores.
    Empty,
}

const MODULE_EOF: u64 = 0;
const MODULE_SINT: u64 = 1;
const MODULE_UINT: u64 = 2;
const MODULE_FLOAT: u64 = 3;
const MODULE_DOUBLE: u64 = 4;
const MODULE_STRING: u64 = 5;

const STREAM_ID_LEN: u64 = 16;
const MILLIS_LEN: u64 = 8;

impl<S: BufRead> Cursor<'_, S> {
    /// Reads past one value.
    pub(crate) fn skip_value(&mut self, value_type: ValueType) -> Result<Skipped, Error> {
        match value_type {
            ValueType::String
            | ValueType::List
            | ValueType::ListZiplist
            | ValueType::ListQuicklist
            | ValueType::ListQuicklist2
            | ValueType::Set
            | ValueType::SetIntset
            | ValueType::SetListpack
            | ValueType::Hash
            | ValueType::HashZipmap
            | ValueType::HashZiplist
            | ValueType::HashListpack
            | ValueType::Zset
            | ValueType::Zset2
            | ValueType::ZsetZiplist
            | ValueType::ZsetListpack => Ok(match self.value(value_type)? {
                Value::Empty => Skipped::Empty,
                _ => Skipped::Value,
            }),
            ValueType::StreamListpacks | ValueType::StreamListpacks2 | ValueType::StreamListpacks3 => {
                self.skip_stream(value_type)?;
                Ok(Skipped::Value)
            }
            ValueType::ModulePreGa => Err(self.corrupt("Pre-release module format not supported")),
            ValueType::Module2 => {
                let name = module_name(self.len()?);
                self.skip_module_value(&name)?;
                Ok(Skipped::Value)
            }
        }
    }

    fn each(&mut self, mut one: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<Skipped, Error> {
        let len = self.len()?;
        for _ in 0..len {
            one(self)?;
        }
        Ok(if len == 0 { Skipped::Empty } else { Skipped::Value })
    }

    fn skip_stream(&mut self, layout: ValueType) -> Result<(), Error> {
        let with_counters = layout != ValueType::StreamListpacks;
        let with_active_time = layout == ValueType::StreamListpacks3;
        self.each(|c| {
            if c.string()?.into_bytes().len() as u64 != STREAM_ID_LEN {
                return Err(c.corrupt("Stream node key entry is not the size of a stream ID"));
            }
            c.string().map(drop)
        })?;
        // Length and last id; then first id, highest deleted id and entries added.
        for _ in 0..if with_counters { 8 } else { 3 } {
            self.number()?;
        }
        self.each(|c| {
            c.string()?;
            for _ in 0..if with_counters { 3 } else { 2 } {
                c.number()?;
            }
            c.each(|c| {
                c.skip(STREAM_ID_LEN + MILLIS_LEN)?;
                c.number().map(drop)
            })?;
            c.each(|c| {
                c.string()?;
                c.skip(if with_active_time { 2 * MILLIS_LEN } else { MILLIS_LEN })?;
                c.each(|c| c.skip(STREAM_ID_LEN)).map(drop)
            })
            .map(drop)
        })
        .map(drop)
    }

    /// A module's value is self-describing: opcode and operand, until the end opcode.
    pub(crate) fn skip_module_value(&mut self, name: &str) -> Result<(), Error> {
        loop {
            match self.len()? {
                MODULE_EOF => return Ok(()),
                MODULE_SINT | MODULE_UINT => drop(self.len()?),
                MODULE_FLOAT => self.skip(4)?,
                MODULE_DOUBLE => self.skip(8)?,
                MODULE_STRING => drop(self.string()?),
                other => {
                    return Err(self.corrupt(format!("Unknown opcode {other} in the value of module {name}")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;
    use std::ops::ControlFlow;

    fn skip(value_type: ValueType, bytes: &[u8]) -> Result<(Skipped, u64), Error> {
        let mut reader = Reader::new(bytes, false, 0);
        let mut go_on = |_| ControlFlow::Continue(());
        let mut cursor = reader.cursor(&mut go_on);
        let skipped = cursor.skip_value(value_type)?;
        Ok((skipped, cursor.offset()))
    }

    #[test]
    fn collections() {
        use ValueType::*;
        for (t, bytes) in [
            (Hash, &b"\x01\x01f\x01v"[..]),
            (Zset, b"\x02\x01a\x031.5\x01b\xFF"),
            (Zset2, b"\x01\x01a12345678"),
            (ListQuicklist2, b"\x02\x01\x01a\x02\x01b"),
            (ListQuicklist, b"\x01\x01z"),
            (Module2, b"\x05\x02\x07\x05\x01x\x03ffff\x00"),
        ] {
            assert_eq!(skip(t, bytes).unwrap(), (Skipped::Value, bytes.len() as u64), "{t:?}");
            for n in 0..bytes.len() {
                assert!(skip(t, &bytes[..n]).is_err(), "{t:?} cut at {n}");
            }
        }
        assert_eq!(skip(Set, b"\x00").unwrap().0, Skipped::Empty);
        assert!(skip(ListQuicklist2, b"\x01\x03\x01a").is_err());
    }

    #[test]
    fn streams() {
        // One node, length 1, last id 1-1, one group with one pending entry of one consumer.
        let mut v1 = b"\x01\x10iiiiiiiijjjjjjjj\x02lp\x01\x01\x01".to_vec();
        let group = b"\x01\x01g\x01\x01";
        let pending = b"\x01iiiiiiiijjjjjjjjmmmmmmmm\x01";
        let consumer = b"\x01\x01cssssssss";
        let owned = b"\x01iiiiiiiijjjjjjjj";
        let mut v3 = v1.clone();
        for part in [&group[..], pending, consumer, owned] {
            v1.extend_from_slice(part);
        }
        assert_eq!(skip(ValueType::StreamListpacks, &v1).unwrap().1, v1.len() as u64);
        for part in [&b"\x01\x01\x00\x00\x01"[..], group, b"\x01", pending, consumer, b"aaaaaaaa", owned] {
            v3.extend_from_slice(part);
        }
        assert_eq!(skip(ValueType::StreamListpacks3, &v3).unwrap().1, v3.len() as u64);
    }
}
