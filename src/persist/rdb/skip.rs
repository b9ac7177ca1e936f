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
            | ValueType::ZsetListpack
            | ValueType::StreamListpacks
            | ValueType::StreamListpacks2
            | ValueType::StreamListpacks3 => Ok(match self.value(value_type)? {
                Value::Empty => Skipped::Empty,
                _ => Skipped::Value,
            }),
            ValueType::ModulePreGa => Err(self.corrupt("Pre-release module format not supported")),
            ValueType::Module2 => {
                let name = module_name(self.len()?);
                self.skip_module_value(&name)?;
                Ok(Skipped::Value)
            }
        }
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
            (ListQuicklist2, b"\x01\x01\x01a"),
            (ListQuicklist, b"\x01\x0e\x0e\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x01a\xff"),
            (Module2, b"\x05\x02\x07\x05\x01x\x03ffff\x00"),
        ] {
            assert_eq!(skip(t, bytes).unwrap(), (Skipped::Value, bytes.len() as u64), "{t:?}");
            for n in 0..bytes.len() {
                assert!(skip(t, &bytes[..n]).is_err(), "{t:?} cut at {n}");
            }
        }
        assert_eq!(skip(Set, b"\x00").unwrap().0, Skipped::Empty);
        assert!(skip(ListQuicklist2, b"\x01\x03\x01a").is_err());
        assert!(skip(HashListpack, b"\x03abc").is_err(), "what is in a blob is looked at");
    }
}
