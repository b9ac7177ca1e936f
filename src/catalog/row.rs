//! What a command row says: the one description of a command that admission, COMMAND, ACL, cluster routing and the tools
//! all read. Rows are static data and stand beside the functions they name, in `commands/` and `server/commands/`.
//!
//! Flags, categories and key specifications carry the names and meanings that COMMAND of Redis 7.2 reports.

use crate::resp::Args;
use crate::structs::numbers::parse_i64;

/// Finds the keys of a call: argument positions with flags. For commands whose key specification cannot tell where the
/// keys are or what is done with them. It shares the code with which the command reads its arguments, so that both
/// always agree. For arguments with which the command fails, the result does not matter.
pub(crate) type GetKeysFn = fn(Args<'_>) -> Option<Vec<KeyPos>>;

/// Where a key stands in the arguments, and what the command does with it (`key` flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyPos {
    pub(crate) index: usize,
    pub(crate) flags: u16,
}

/// Command flags, one bit each.
pub mod flag {
    pub(crate) const WRITE: u32 = 1 << 0;
    pub(crate) const READONLY: u32 = 1 << 1;
    pub(crate) const DENYOOM: u32 = 1 << 2;
    pub(crate) const ADMIN: u32 = 1 << 3;
    pub(crate) const PUBSUB: u32 = 1 << 4;
    pub(crate) const NOSCRIPT: u32 = 1 << 5;
    pub(crate) const BLOCKING: u32 = 1 << 6;
    pub(crate) const LOADING: u32 = 1 << 7;
    pub(crate) const STALE: u32 = 1 << 8;
    pub(crate) const SKIP_MONITOR: u32 = 1 << 9;
    pub(crate) const SKIP_SLOWLOG: u32 = 1 << 10;
    pub(crate) const ASKING: u32 = 1 << 11;
    pub(crate) const FAST: u32 = 1 << 12;
    pub(crate) const NO_AUTH: u32 = 1 << 13;
    pub(crate) const MAY_REPLICATE: u32 = 1 << 14;
    pub(crate) const NO_MANDATORY_KEYS: u32 = 1 << 15;
    pub(crate) const PROTECTED: u32 = 1 << 16;
    pub(crate) const NO_ASYNC_LOADING: u32 = 1 << 17;
    pub(crate) const NO_MULTI: u32 = 1 << 18;
    pub(crate) const ALLOW_BUSY: u32 = 1 << 19;
    pub(crate) const SENTINEL: u32 = 1 << 20;
    /// Documentation flag `syscmd`: an internal command.
    pub const SYSCMD: u32 = 1 << 23;

    /// The names COMMAND INFO prints, in its order.
    pub const NAMES: &[(u32, &str)] = &[
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (PUBSUB, "pubsub"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_MONITOR, "skip_monitor"),
        (SKIP_SLOWLOG, "skip_slowlog"),
        (ASKING, "asking"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MANDATORY_KEYS, "no_mandatory_keys"),
        (NO_ASYNC_LOADING, "no_async_loading"),
        (NO_MULTI, "no_multi"),
        (ALLOW_BUSY, "allow_busy"),
    ];
}

/// ACL categories, one bit each.
pub mod cat {
    pub(crate) const KEYSPACE: u32 = 1 << 0;
    pub(crate) const READ: u32 = 1 << 1;
    pub(crate) const WRITE: u32 = 1 << 2;
    pub(crate) const SET: u32 = 1 << 3;
    pub(crate) const SORTEDSET: u32 = 1 << 4;
    pub(crate) const LIST: u32 = 1 << 5;
    pub(crate) const HASH: u32 = 1 << 6;
    pub(crate) const STRING: u32 = 1 << 7;
    pub(crate) const BITMAP: u32 = 1 << 8;
    pub(crate) const HYPERLOGLOG: u32 = 1 << 9;
    pub(crate) const GEO: u32 = 1 << 10;
    pub(crate) const STREAM: u32 = 1 << 11;
    pub(crate) const PUBSUB: u32 = 1 << 12;
    pub(crate) const ADMIN: u32 = 1 << 13;
    pub(crate) const FAST: u32 = 1 << 14;
    pub(crate) const SLOW: u32 = 1 << 15;
    pub(crate) const BLOCKING: u32 = 1 << 16;
    pub(crate) const DANGEROUS: u32 = 1 << 17;
    pub(crate) const CONNECTION: u32 = 1 << 18;
    pub(crate) const TRANSACTION: u32 = 1 << 19;
    pub(crate) const SCRIPTING: u32 = 1 << 20;

    pub const NAMES: &[(u32, &str)] = &[
        (KEYSPACE, "keyspace"),
        (READ, "read"),
        (WRITE, "write"),
        (SET, "set"),
        (SORTEDSET, "sortedset"),
        (LIST, "list"),
        (HASH, "hash"),
        (STRING, "string"),
        (BITMAP, "bitmap"),
        (HYPERLOGLOG, "hyperloglog"),
        (GEO, "geo"),
        (STREAM, "stream"),
        (PUBSUB, "pubsub"),
        (ADMIN, "admin"),
        (FAST, "fast"),
        (SLOW, "slow"),
        (BLOCKING, "blocking"),
        (DANGEROUS, "dangerous"),
        (CONNECTION, "connection"),
        (TRANSACTION, "transaction"),
        (SCRIPTING, "scripting"),
    ];
}

/// Key flags: how the command uses a key.
pub mod key {
    pub(crate) const RO: u16 = 1 << 0;
    pub(crate) const RW: u16 = 1 << 1;
    pub(crate) const OW: u16 = 1 << 2;
    pub(crate) const RM: u16 = 1 << 3;
    pub(crate) const ACCESS: u16 = 1 << 4;
    pub(crate) const UPDATE: u16 = 1 << 5;
    pub(crate) const INSERT: u16 = 1 << 6;
    pub(crate) const DELETE: u16 = 1 << 7;
    pub(crate) const NOT_KEY: u16 = 1 << 8;
    pub(crate) const INCOMPLETE: u16 = 1 << 9;
    pub(crate) const VARIABLE_FLAGS: u16 = 1 << 10;

    pub const NAMES: &[(u16, &str)] = &[
        (RO, "RO"),
        (RW, "RW"),
        (OW, "OW"),
        (RM, "RM"),
        (ACCESS, "access"),
        (UPDATE, "update"),
        (INSERT, "insert"),
        (DELETE, "delete"),
        (NOT_KEY, "not_key"),
        (INCOMPLETE, "incomplete"),
        (VARIABLE_FLAGS, "variable_flags"),
    ];
}

/// Where the keys of a specification begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Index(usize),
    /// After this keyword, searched from the given argument on (negative: from the end, backwards).
    Keyword(&'static str, i32),
    Unknown,
}

/// How the keys go on from where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// `last`: relative to the first key, or to the last argument when negative; `limit`: with last = -1, the 1/limit
    /// part of the remaining arguments.
    Range {
        last: i32,
        step: i32,
        limit: i32,
    },
    KeyNum {
        keynum: usize,
        first: usize,
        step: usize,
    },
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub flags: u16,
    pub begin: Begin,
    pub find: Find,
    /// Further text that COMMAND shows; empty: none.
    pub notes: &'static str,
}

impl KeySpec {
    /// Keys by position: from argument `first` to `last` (relative to `first`, or negative from the end), every `step`.
    pub(crate) const fn range(flags: u16, first: usize, last: i32, step: i32) -> KeySpec {
        KeySpec::new(flags, Begin::Index(first), Find::Range { last, step, limit: 0 })
    }

    /// Keys after their number, which is argument `at`.
    pub(crate) const fn numbered(flags: u16, at: usize) -> KeySpec {
        KeySpec::new(flags, Begin::Index(at), Find::KeyNum { keynum: 0, first: 1, step: 1 })
    }

    pub(crate) const fn new(flags: u16, begin: Begin, find: Find) -> KeySpec {
        KeySpec { flags, begin, find, notes: "" }
    }

    pub(crate) const fn notes(mut self, notes: &'static str) -> KeySpec {
        self.notes = notes;
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Pubsub,
    Transactions,
    Connection,
    Server,
    Scripting,
    Hyperloglog,
    Cluster,
    Geo,
    Stream,
    Bitmap,
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::Pubsub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Scripting => "scripting",
            Group::Hyperloglog => "hyperloglog",
            Group::Cluster => "cluster",
            Group::Geo => "geo",
            Group::Stream => "stream",
            Group::Bitmap => "bitmap",
        }
    }

    /// The ACL category of this group's commands, if they have one.
    const fn category(self) -> u32 {
        match self {
            Group::Generic => cat::KEYSPACE,
            Group::String => cat::STRING,
            Group::List => cat::LIST,
            Group::Set => cat::SET,
            Group::SortedSet => cat::SORTEDSET,
            Group::Hash => cat::HASH,
            Group::Transactions => cat::TRANSACTION,
            Group::Connection => cat::CONNECTION,
            Group::Scripting => cat::SCRIPTING,
            Group::Hyperloglog => cat::HYPERLOGLOG,
            Group::Geo => cat::GEO,
            Group::Stream => cat::STREAM,
            Group::Bitmap => cat::BITMAP,
            // Those of the first have theirs by a flag.
            Group::Pubsub | Group::Server | Group::Cluster => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl ArgKind {
    pub fn name(self) -> &'static str {
        match self {
            ArgKind::String => "string",
            ArgKind::Integer => "integer",
            ArgKind::Double => "double",
            ArgKind::Key => "key",
            ArgKind::Pattern => "pattern",
            ArgKind::UnixTime => "unix-time",
            ArgKind::PureToken => "pure-token",
            ArgKind::OneOf => "oneof",
            ArgKind::Block => "block",
        }
    }
}

/// One argument as COMMAND DOCS describes it.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub name: &'static str,
    pub kind: ArgKind,
    /// The name that is shown, if another.
    pub(crate) display: Option<&'static str>,
    pub token: Option<&'static str>,
    pub key_spec: Option<u8>,
    pub since: Option<&'static str>,
    pub deprecated_since: Option<&'static str>,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub args: &'static [Arg],
}

impl Arg {
    const fn new(name: &'static str, kind: ArgKind) -> Arg {
        Arg {
            name,
            kind,
            display: None,
            token: None,
            key_spec: None,
            since: None,
            deprecated_since: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            args: &[],
        }
    }

    /// A key, of the key specification with this index.
    pub(crate) const fn key(name: &'static str, spec: u8) -> Arg {
        Arg::new(name, ArgKind::Key).spec(spec)
    }
    pub(crate) const fn string(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::String)
    }
    pub(crate) const fn integer(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Integer)
    }
    pub(crate) const fn double(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Double)
    }
    pub(crate) const fn pattern(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Pattern)
    }
    pub(crate) const fn unix_time(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::UnixTime)
    }
    /// A word that stands for itself.
    pub(crate) const fn word(name: &'static str, token: &'static str) -> Arg {
        Arg::new(name, ArgKind::PureToken).token(token)
    }
    /// One of some arguments, see `of`.
    pub(crate) const fn one_of(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::OneOf)
    }
    /// Arguments that stand together, see `of`.
    pub(crate) const fn block(name: &'static str) -> Arg {
        Arg::new(name, ArgKind::Block)
    }

    pub(crate) const fn token(mut self, token: &'static str) -> Arg {
        self.token = Some(token);
        self
    }
    pub(crate) const fn display(mut self, text: &'static str) -> Arg {
        self.display = Some(text);
        self
    }
    pub(crate) const fn spec(mut self, index: u8) -> Arg {
        self.key_spec = Some(index);
        self
    }
    pub(crate) const fn since(mut self, version: &'static str) -> Arg {
        self.since = Some(version);
        self
    }
    pub(crate) const fn deprecated_since(mut self, version: &'static str) -> Arg {
        self.deprecated_since = Some(version);
        self
    }
    pub(crate) const fn optional(mut self) -> Arg {
        self.optional = true;
        self
    }
    pub(crate) const fn multiple(mut self) -> Arg {
        self.multiple = true;
        self
    }
    pub(crate) const fn multiple_token(mut self) -> Arg {
        self.multiple_token = true;
        self
    }
    pub(crate) const fn of(mut self, args: &'static [Arg]) -> Arg {
        self.args = args;
        self
    }

    /// The smallest and the largest number of words that it may be.
    fn counts(&self) -> (usize, usize) {
        let parts = self.args.iter().map(Arg::counts);
        let (mut least, mut most) = match self.kind {
            ArgKind::OneOf => parts.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default(),
            ArgKind::Block => total(parts),
            ArgKind::PureToken => (0, 0),
            _ => (1, 1),
        };
        if self.token.is_some() {
            (least, most) = total([(least, most), (1, 1)]);
        }
        (if self.optional { 0 } else { least }, if self.multiple { usize::MAX } else { most })
    }
}

fn total(counts: impl IntoIterator<Item = (usize, usize)>) -> (usize, usize) {
    counts.into_iter().fold((0, 0), |sum, (least, most)| (sum.0 + least, sum.1.saturating_add(most)))
}

/// A command, or a subcommand (named `container|sub`). `F` is the type of function that it runs; without one, the row
/// is what everybody but the caller of the command needs.
#[derive(Debug)]
pub struct Command<F: 'static = ()> {
    pub name: &'static str,
    /// `None` for a container, which needs a subcommand.
    pub(crate) run: Option<F>,
    /// Number of arguments with the name; negative: at least that many. 0 in a row: as `args` says.
    pub arity: i32,
    pub flags: u32,
    /// Categories beyond those that the flags imply (`Command::categories` gives all).
    pub(crate) acl: u32,
    /// Where the keys are, as far as that can be said without the arguments.
    pub keys: &'static [KeySpec],
    /// Finds the keys exactly, in place of `keys`.
    pub(crate) get_keys: Option<GetKeysFn>,
    pub group: Group,
    pub since: &'static str,
    pub(crate) complexity: &'static str,
    pub summary: &'static str,
    pub tips: &'static [&'static str],
    /// Versions that changed the command.
    pub history: &'static [&'static str],
    /// Since when it is deprecated, and by what it is replaced.
    pub deprecated: Option<(&'static str, &'static str)>,
    pub args: &'static [Arg],
    pub(crate) subcommands: &'static [Command<F>],
}

/// The row of a command of a group, which is `O(1)` and has been there since 1.0.0 if the methods say nothing else.
impl<F: Copy> Command<F> {
    pub(crate) const ROW: Command<F> = Command {
        name: "",
        run: None,
        arity: 0,
        flags: 0,
        acl: 0,
        keys: &[],
        get_keys: None,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "",
        tips: &[],
        history: &[],
        deprecated: None,
        args: &[],
        subcommands: &[],
    };

    pub(crate) const fn new(group: Group, name: &'static str, run: F) -> Self {
        Command { name, run: Some(run), group, acl: group.category(), ..Self::ROW }
    }

    /// A command that does nothing without a subcommand.
    pub(crate) const fn container(group: Group, name: &'static str) -> Self {
        Command { name, group, arity: -2, complexity: "Depends on the subcommand.", ..Self::ROW }
    }

    /// The row of the same command under another name.
    pub(crate) const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
    pub(crate) const fn run(mut self, run: F) -> Self {
        self.run = Some(run);
        self
    }
    /// Where the arguments as they are described do not tell it.
    pub(crate) const fn arity(mut self, arity: i32) -> Self {
        self.arity = arity;
        self
    }
    pub(crate) const fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }
    /// In place of the group's category.
    pub(crate) const fn acl(mut self, categories: u32) -> Self {
        self.acl = categories;
        self
    }
    pub(crate) const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.keys = keys;
        self
    }
    pub(crate) const fn get_keys(mut self, find: GetKeysFn) -> Self {
        self.get_keys = Some(find);
        self
    }
    pub(crate) const fn since(mut self, version: &'static str) -> Self {
        self.since = version;
        self
    }
    pub(crate) const fn complexity(mut self, text: &'static str) -> Self {
        self.complexity = text;
        self
    }
    pub(crate) const fn summary(mut self, text: &'static str) -> Self {
        self.summary = text;
        self
    }
    pub(crate) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }
    pub(crate) const fn history(mut self, versions: &'static [&'static str]) -> Self {
        self.history = versions;
        self
    }
    pub(crate) const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.deprecated = Some((since, replaced_by));
        self
    }
    pub(crate) const fn args(mut self, args: &'static [Arg]) -> Self {
        self.args = args;
        self
    }
    pub(crate) const fn subcommands(mut self, rows: &'static [Self]) -> Self {
        self.subcommands = rows;
        self
    }

    /// The name without its container: `set` of `config|set`.
    pub(crate) fn sub_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }

    fn arity_of_args(&self) -> i32 {
        let names = if self.name.contains('|') { 2 } else { 1 };
        match total(self.args.iter().map(Arg::counts)) {
            (least, most) if least == most => names + least as i32,
            (least, _) => -(names + least as i32),
        }
    }

    /// These rows without their functions. The memory is never freed: call it once for each list of rows.
    pub(crate) fn described(rows: &'static [Command<F>]) -> &'static [Command] {
        let described = |row: &Command<F>| Command {
            name: row.name,
            run: row.run.as_ref().map(|_| ()),
            arity: if row.arity == 0 { row.arity_of_args() } else { row.arity },
            flags: row.flags,
            acl: row.acl,
            keys: row.keys,
            get_keys: row.get_keys,
            group: row.group,
            since: row.since,
            complexity: row.complexity,
            summary: row.summary,
            tips: row.tips,
            history: row.history,
            deprecated: row.deprecated,
            args: row.args,
            subcommands: Command::described(row.subcommands),
        };
        rows.iter().map(described).collect::<Vec<_>>().leak()
    }
}

impl Command {
    pub fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    /// All ACL categories: the row's and those that the flags imply.
    pub fn categories(&self) -> u32 {
        let mut c = self.acl;
        if self.has(flag::WRITE) {
            c |= cat::WRITE;
        }
        if self.has(flag::READONLY) && c & cat::SCRIPTING == 0 {
            c |= cat::READ;
        }
        if self.has(flag::ADMIN) {
            c |= cat::ADMIN | cat::DANGEROUS;
        }
        if self.has(flag::PUBSUB) {
            c |= cat::PUBSUB;
        }
        if self.has(flag::BLOCKING) {
            c |= cat::BLOCKING;
        }
        c | if self.has(flag::FAST) { cat::FAST } else { cat::SLOW }
    }

    /// The smallest and the largest number of arguments, name included.
    pub(crate) fn arg_counts(&self) -> (usize, usize) {
        let least = self.arity.unsigned_abs() as usize;
        (least, if self.arity >= 0 { least } else { usize::MAX })
    }

    pub(crate) fn accepts_arity(&self, argc: usize) -> bool {
        let (least, largest) = self.arg_counts();
        (least..=largest).contains(&argc)
    }

    /// First key, last key and step as COMMAND has always reported them: the span of the specifications that are plain
    /// positions right after one another. `(0, 0, 0)` when there is none.
    pub fn legacy_range(&self) -> (i32, i32, i32) {
        self.range_and_movable().0
    }

    /// True when the legacy range alone does not give the keys.
    pub fn has_movable_keys(&self) -> bool {
        self.range_and_movable().1
    }

    fn range_and_movable(&self) -> ((i32, i32, i32), bool) {
        if let [KeySpec { flags, begin: Begin::Index(first), find: Find::Range { last, step, .. }, .. }] = *self.keys {
            let first = first as i32;
            let last = if last >= 0 { first + last } else { last };
            return ((first, last, step), flags & key::INCOMPLETE != 0);
        }
        // The first and last position of the plain ranges so far; a negative last counts from the end.
        let mut span: Option<(i32, i32)> = None;
        let mut movable = false;
        for spec in self.keys {
            let (Begin::Index(first), Find::Range { last, step: 1, .. }) = (spec.begin, spec.find) else {
                movable = true;
                continue;
            };
            let first = first as i32;
            let last = if last >= 0 { first + last } else { last };
            movable |= spec.flags & key::INCOMPLETE != 0;
            span = match span {
                None => Some((first, last)),
                Some((from, to)) if to == first - 1 => Some((from, last)),
                Some(joined) => {
                    movable = true;
                    Some(joined)
                }
            };
        }
        (span.map_or((0, 0, 0), |(first, last)| (first, last, 1)), movable)
    }

    /// The keys of a call with these arguments, in order. `None`: the arguments do not name keys as they should. Shard
    /// channels, which are routed like keys, are among them with the flag `NOT_KEY`.
    pub(crate) fn keys_of(&self, args: Args<'_>) -> Option<Vec<KeyPos>> {
        if let Some(get_keys) = self.get_keys {
            return get_keys(args);
        }
        let mut out = Vec::new();
        for spec in self.keys {
            spec.collect(args, &mut out)?;
        }
        Some(out)
    }

    /// Calls `f` for every key with its position, without allocating for the usual single range.
    pub(crate) fn each_key(&self, args: Args<'_>, mut f: impl FnMut(KeyPos)) -> bool {
        if let [KeySpec { flags, begin: Begin::Index(first), find: Find::Range { last: 0, .. }, .. }] = self.keys
            && self.get_keys.is_none()
        {
            if *first >= args.len() {
                return false;
            }
            f(KeyPos { index: *first, flags: *flags });
            return true;
        }
        match self.keys_of(args) {
            Some(keys) => {
                keys.into_iter().for_each(f);
                true
            }
            None => false,
        }
    }
}

impl KeySpec {
    fn collect(&self, args: Args<'_>, out: &mut Vec<KeyPos>) -> Option<()> {
        let argc = args.len() as i64;
        let first = match self.begin {
            Begin::Index(i) => i as i64,
            Begin::Keyword(word, from) => match find_keyword(args, word, from) {
                Some(at) => at as i64 + 1,
                None => return Some(()),
            },
            Begin::Unknown => return None,
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let last = match last {
                    l if l >= 0 => first + i64::from(l),
                    l if limit == 0 => argc + i64::from(l),
                    l => first + (argc - first) / i64::from(limit) + i64::from(l),
                };
                (first, last, i64::from(step))
            }
            Find::KeyNum { keynum, first: offset, step } => {
                let count = args.get(first as usize + keynum).and_then(parse_i64)?;
                let start = first + offset as i64;
                match count {
                    0 => return Some(()),
                    // More keys than arguments saturate, and so are out of bounds.
                    1.. => (start, start.saturating_add((count - 1).saturating_mul(step as i64)), step as i64),
                    _ => return None,
                }
            }
            Find::Unknown => return None,
        };
        // All arguments after the fixed ones: there may be none.
        if last == first - 1 && first == argc {
            return Some(());
        }
        if last >= argc || last < first || first >= argc {
            return None;
        }
        let keys = (first..=last).step_by(step.max(1) as usize);
        out.extend(keys.map(|i| KeyPos { index: i as usize, flags: self.flags }));
        Some(())
    }
}

/// Where a keyword is, searched from an argument on (negative: counted from the end, and backwards). The last argument
/// has nothing after it, so it is not looked at.
fn find_keyword(args: Args<'_>, word: &str, from: i32) -> Option<usize> {
    let is_word = |i: &usize| args[*i].eq_ignore_ascii_case(word.as_bytes());
    let argc = args.len();
    if from > 0 {
        return (from as usize..argc.saturating_sub(1)).find(is_word);
    }
    let start = argc.checked_sub(from.unsigned_abs() as usize)?;
    (2..=start.min(argc - 1)).rev().find(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::OwnedArgs;

    fn positions(keys: &'static [KeySpec], line: &str) -> Option<Vec<usize>> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let args = OwnedArgs::from_iter(words);
        let row: Command = Command { keys, ..Command::ROW };
        row.keys_of(args.as_args()).map(|keys| keys.iter().map(|k| k.index).collect())
    }

    #[test]
    fn keys_are_found_by_every_kind_of_specification() {
        const ALL: &[KeySpec] = &[KeySpec::range(key::RO, 1, -1, 1)];
        const TARGET_AND_SOURCES: &[KeySpec] = &[KeySpec::range(key::RW, 1, 0, 1), KeySpec::range(key::RO, 2, -1, 1)];
        const PAIRS: &[KeySpec] = &[KeySpec::range(key::OW, 1, -1, 2)];
        const STREAMS: &[KeySpec] =
            &[KeySpec::new(key::RO, Begin::Keyword("STREAMS", 1), Find::Range { last: -1, step: 1, limit: 2 })];
        const COUNTED: &[KeySpec] = &[KeySpec::numbered(key::RO, 1)];
        const FROM_END: &[KeySpec] =
            &[KeySpec::new(key::RO, Begin::Keyword("KEYS", -2), Find::Range { last: -1, step: 1, limit: 0 })];
        assert_eq!(positions(ALL, "del a b"), Some(vec![1, 2]));
        assert_eq!(positions(ALL, "del"), Some(vec![]));
        assert_eq!(positions(TARGET_AND_SOURCES, "pfmerge a"), Some(vec![1]));
        assert_eq!(positions(TARGET_AND_SOURCES, "pfmerge a b"), Some(vec![1, 2]));
        assert_eq!(positions(TARGET_AND_SOURCES, "pfmerge"), None);
        assert_eq!(positions(PAIRS, "mset a 1 b 2"), Some(vec![1, 3]));
        assert_eq!(positions(STREAMS, "xread count 1 streams a b 0 0"), Some(vec![4, 5]));
        assert_eq!(positions(STREAMS, "xread count 1"), Some(vec![]));
        assert_eq!(positions(COUNTED, "zunion 2 a b weights 1 2"), Some(vec![2, 3]));
        assert_eq!(positions(COUNTED, "zunion 3 a b"), None);
        assert_eq!(positions(COUNTED, "zunion 9223372036854775807 a b"), None);
        assert_eq!(positions(COUNTED, "zunion -1 a b"), None);
        assert_eq!(positions(COUNTED, "zunion x a b"), None);
        assert_eq!(positions(COUNTED, "eval 0"), Some(vec![]));
        assert_eq!(positions(FROM_END, "migrate h p x 0 5 keys a b"), Some(vec![7, 8]));
    }
}
