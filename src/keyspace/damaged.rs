//! Values of a data set whose insides are broken: in a snapshot whose outer form is right, a listpack cannot be gone
//! through, or says what the rest contradicts.
//!
//! Redis loads such a value and dies as soon as a command comes to the damage. Here it is kept byte for byte and the rest of
//! the data is served: the value can be saved, copied, renamed, replicated, replaced and deleted, and any command that wants
//! to look into it gets an error. RESTORE from a client refuses such a value.

/// What a damaged value would be.
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

    /// The number of the type in digests and the like.
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
    /// The number of its layout in snapshots.
    pub(crate) layout: u8,
    /// As it lies in a snapshot, behind that number.
    pub(crate) bytes: Box<[u8]>,
    /// What is wrong with it.
    pub(crate) flaw: &'static str,
}

impl Damaged {
    /// Reports a value that was taken in.
    pub(crate) fn warn(&self, key: &[u8]) {
        let (name, key, flaw) = (self.kind.type_name(), key.escape_ascii(), self.flaw);
        log::warn!("The {name} of key '{key}' is damaged: {flaw}. It is kept, but cannot be used.");
    }

    /// Bytes of memory beside its pointer.
    pub(crate) fn mem_bytes(&self) -> usize {
        size_of::<Damaged>() + self.bytes.len()
    }
}
