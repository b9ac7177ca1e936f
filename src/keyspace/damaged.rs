//! Values that are damaged inside a well-formed snapshot: a listpack that cannot be walked, or that contradicts the
//! rest.
//!
//! Redis loads such a value and crashes when a command reads the damage. Here it is kept byte for byte: it can be
//! saved, copied, renamed, replicated, replaced and deleted, and a command that wants to read it gets an error. RESTORE
//! from a client refuses such a value.

/// The type of a damaged value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    List,
    Set,
    Hash,
    Zset,
    Stream,
}

impl Kind {
    /// The name TYPE prints.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::Zset => "zset",
            Kind::Stream => "stream",
        }
    }

    /// Redis's number of the type, as digests have it.
    pub(crate) fn type_number(self) -> u32 {
        match self {
            Kind::List => 1,
            Kind::Set => 2,
            Kind::Zset => 3,
            Kind::Hash => 4,
            Kind::Stream => 6,
        }
    }

    /// The name OBJECT ENCODING prints.
    pub(crate) fn encoding_name(self) -> &'static str {
        match self {
            Kind::List => "quicklist",
            Kind::Set | Kind::Hash | Kind::Zset => "listpack",
            Kind::Stream => "stream",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub(crate) kind: Kind,
    /// The number of its encoding in RDB files.
    pub(crate) layout: u8,
    /// The bytes that follow that number in an RDB file.
    pub(crate) bytes: Box<[u8]>,
    /// What is wrong with it.
    pub(crate) flaw: &'static str,
}

impl Damaged {
    /// Logs that the value was loaded.
    pub(crate) fn warn(&self, key: &[u8]) {
        let (name, key, flaw) = (self.kind.type_name(), key.escape_ascii(), self.flaw);
        log::warn!("The {name} of key '{key}' is damaged: {flaw}. It is kept, but cannot be used.");
    }

    /// Bytes of memory besides its pointer.
    pub(crate) fn mem_bytes(&self) -> usize {
        size_of::<Damaged>() + self.bytes.len()
    }
}
