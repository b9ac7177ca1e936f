//! Walking over the value of a module, which only that module could read: what the offline checker does with it.

use super::{Error, Reader, Source};

const MODULE_EOF: u64 = 0;
const MODULE_SINT: u64 = 1;
const MODULE_UINT: u64 = 2;
const MODULE_FLOAT: u64 = 3;
const MODULE_DOUBLE: u64 = 4;
const MODULE_STRING: u64 = 5;

impl<S: Source> Reader<S> {
    /// Reads past the value of this module, a list of parts that each say what they are.
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
    use super::*;

    fn skip(bytes: &[u8]) -> Result<u64, Error> {
        let mut reader = Reader::new(bytes, false);
        reader.skip_module_value("m")?;
        Ok(reader.offset())
    }

    #[test]
    fn parts_of_every_kind() {
        let bytes = b"\x02\x07\x01\x01\x05\x01x\x03ffff\x04dddddddd\x00";
        assert_eq!(skip(bytes).unwrap(), bytes.len() as u64);
        for n in 0..bytes.len() {
            assert!(skip(&bytes[..n]).is_err(), "cut at {n}");
        }
        assert!(skip(b"\x09").is_err());
    }
}
