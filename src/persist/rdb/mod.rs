//! The RDB snapshot format, version 11 as Redis 7.2 writes it, versions 1 to 11 as it reads them.
//!
//! The format belongs to Redis (`src/rdb.h` and `src/rdb.c` of the 7.2 source are its definition). A file is the magic
//! `REDIS0011`, then a sequence of one-byte opcodes each with its operands, then `EOF` and, since version 5, a CRC64 of
//! everything before it. A value type byte (0..=21) introduces a key and its value.
//!
//! This room knows bytes only: it takes values to write and hands out values it read. Which keys to write, when, and
//! what to do with a key that was read is left to the callers.

mod decode;
mod dump;
mod encode;
mod error;
mod restore;
mod skip;
mod sliced;
mod source;
mod stream;

pub(crate) use decode::{Ahead, Item, KeyItem, Reader, StringValue, Value};
pub(crate) use dump::{
    DumpError, How as DumpHow, check_dump_footer, decode_dump, encode_dump, functions_from_newer, is_newer_dump,
    read_functions,
};
pub(crate) use encode::{AuxInfo, ReplInfo, ValueView, Writer, put_string, put_value};
pub(crate) use error::{Error, ErrorKind};
pub(crate) use restore::SlicedRestore;
pub(crate) use sliced::SlicedDump;
pub(crate) use source::{Feed, Source};

/// Version this server writes, and the highest that was known to 7.2.
pub(crate) const VERSION: u32 = 11;
/// The newest version that is read: that of Redis 8, which is taken as long as it holds nothing that 7.2 does not have.
pub(crate) const NEWEST_READ: u32 = 13;
/// A file being written is pushed to the disk each time this many bytes were added, so that the final fsync is short.
pub(crate) const AUTOSYNC_BYTES: u64 = 4 * 1024 * 1024;

/// Opcodes which are not value types.
pub(crate) mod opcode {
    /// Since version 12: a slot, its keys and those of them with a time to live, as a hint.
    pub(crate) const SLOT_INFO: u8 = 244;
    pub(crate) const FUNCTION2: u8 = 245;
    pub(crate) const FUNCTION_PRE_GA: u8 = 246;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQ: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZEDB: u8 = 251;
    pub(crate) const EXPIRETIME_MS: u8 = 252;
    pub(crate) const EXPIRETIME: u8 = 253;
    pub(crate) const SELECTDB: u8 = 254;
    pub(crate) const EOF: u8 = 255;
}

/// How a value is laid out in the file. The numbers are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum ValueType {
    String = 0,
    List = 1,
    Set = 2,
    /// Scores as decimal text.
    Zset = 3,
    Hash = 4,
    /// Scores as binary doubles.
    Zset2 = 5,
    ModulePreGa = 6,
    Module2 = 7,
    HashZipmap = 9,
    ListZiplist = 10,
    SetIntset = 11,
    ZsetZiplist = 12,
    HashZiplist = 13,
    /// A list of ziplists.
    ListQuicklist = 14,
    StreamListpacks = 15,
    HashListpack = 16,
    ZsetListpack = 17,
    /// A list of listpacks and plain nodes.
    ListQuicklist2 = 18,
    StreamListpacks2 = 19,
    SetListpack = 20,
    StreamListpacks3 = 21,
    /// As before, and after it who has added to it, so that the same is not added twice. Since version 13.
    StreamListpacks4 = 26,
}

/// What a byte stands for that newer versions have in place of a type of value, for people to read. Of streams, which can be
/// held, it is those that cannot.
pub(crate) fn newer_kind(byte: u8) -> Option<&'static str> {
    match byte {
        22..=25 => Some("a hash whose fields have a time to live"),
        26 => Some("a stream that remembers who has added to it"),
        243 => Some("metadata that a module keeps of keys"),
        _ => None,
    }
}

impl ValueType {
    /// The type a byte of the file stands for; `None` for opcodes and unassigned numbers.
    pub(crate) fn from_byte(byte: u8) -> Option<ValueType> {
        use ValueType::*;
        const ALL: [Option<ValueType>; 22] = [
            Some(String),
            Some(List),
            Some(Set),
            Some(Zset),
            Some(Hash),
            Some(Zset2),
            Some(ModulePreGa),
            Some(Module2),
            None,
            Some(HashZipmap),
            Some(ListZiplist),
            Some(SetIntset),
            Some(ZsetZiplist),
            Some(HashZiplist),
            Some(ListQuicklist),
            Some(StreamListpacks),
            Some(HashListpack),
            Some(ZsetListpack),
            Some(ListQuicklist2),
            Some(StreamListpacks2),
            Some(SetListpack),
            Some(StreamListpacks3),
        ];
        const STREAM_4: u8 = StreamListpacks4 as u8;
        if byte == STREAM_4 {
            return Some(StreamListpacks4);
        }
        ALL.get(usize::from(byte)).copied().flatten()
    }

    /// The name `redis-check-rdb` prints.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ValueType::String => "string",
            ValueType::List => "list-linked",
            ValueType::Set => "set-hashtable",
            ValueType::Zset => "zset-v1",
            ValueType::Hash => "hash-hashtable",
            ValueType::Zset2 => "zset-v2",
            ValueType::ModulePreGa => "module-pre-release",
            ValueType::Module2 => "module-value",
            ValueType::HashZipmap => "hash-zipmap",
            ValueType::ListZiplist => "list-ziplist",
            ValueType::SetIntset => "set-intset",
            ValueType::ZsetZiplist => "zset-ziplist",
            ValueType::HashZiplist => "hash-ziplist",
            ValueType::ListQuicklist => "quicklist",
            ValueType::StreamListpacks => "stream",
            ValueType::HashListpack => "hash-listpack",
            ValueType::ZsetListpack => "zset-listpack",
            ValueType::ListQuicklist2 => "quicklist-v2",
            ValueType::StreamListpacks2 => "stream-v2",
            ValueType::SetListpack => "set-listpack",
            ValueType::StreamListpacks3 => "stream-v3",
            ValueType::StreamListpacks4 => "stream-v4",
        }
    }
}

/// The nine characters a 64-bit module id spells, six bits each, the most significant first. The low ten bits are the
/// module's encoding version.
pub(crate) fn module_name(id: u64) -> String {
    const CHARSET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|i| char::from(CHARSET[(id >> (10 + 6 * (8 - i)) & 63) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_type_bytes_round_trip() {
        for byte in 0..=255u8 {
            match ValueType::from_byte(byte) {
                Some(t) => assert_eq!(t as u8, byte),
                None => assert!(byte == 8 || byte > 21),
            }
        }
    }
}
