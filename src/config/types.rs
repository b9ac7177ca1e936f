//! The values a directive can have: enumerations with the names Redis gives them, and the small records of the
//! directives that take several words. How each is read and printed is in `value`.

pub(crate) use crate::sys::log::{LogFormat, LogLevel, LogTimestamp, SyslogFacility};
pub(crate) use crate::sys::process::OomScoreAdj;
pub(crate) use crate::sys::service::Supervised;

/// An enumeration whose variants are spelled in the configuration. `NAMES` is in the order error texts list them; a
/// variant may occur twice (an old spelling), the first is the one printed.
pub(crate) trait Named: Copy + PartialEq + 'static {
    /// Every accepted spelling with its value.
    const NAMES: &'static [(&'static str, Self)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("unknown", |(name, _)| *name)
    }
}

macro_rules! names {
    ($type:ident $($name:literal => $value:ident),+ $(,)?) => {
        impl Named for $type {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, $type::$value)),+];
        }
    };
}

macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($variant:ident),+ $(,)? } $($name:literal => $value:ident),+ $(,)?) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub(crate) enum $type { $($variant),+ }

        names! { $type $($name => $value),+ }
    };
}

named! {
    /// What is evicted when `maxmemory` is reached.
    MaxmemoryPolicy {
        VolatileLru, VolatileLfu, VolatileRandom, VolatileTtl, AllkeysLru, AllkeysLfu, AllkeysRandom, Noeviction,
    }
    "volatile-lru" => VolatileLru, "volatile-lfu" => VolatileLfu, "volatile-random" => VolatileRandom,
    "volatile-ttl" => VolatileTtl, "allkeys-lru" => AllkeysLru, "allkeys-lfu" => AllkeysLfu,
    "allkeys-random" => AllkeysRandom, "noeviction" => Noeviction,
}

impl MaxmemoryPolicy {
    /// Whether entries keep an LFU counter instead of an LRU clock.
    pub(crate) fn is_lfu(self) -> bool {
        matches!(self, Self::VolatileLfu | Self::AllkeysLfu)
    }
}

names! {
    SyslogFacility
    "user" => User, "local0" => Local0, "local1" => Local1, "local2" => Local2, "local3" => Local3,
    "local4" => Local4, "local5" => Local5, "local6" => Local6, "local7" => Local7,
}

names! {
    LogLevel
    "debug" => Debug, "verbose" => Verbose, "notice" => Notice, "warning" => Warning, "nothing" => Nothing,
}

names! {
    LogFormat
    "legacy" => Legacy, "logfmt" => Logfmt, "json" => Json, "text" => Legacy,
}

names! {
    LogTimestamp
    "legacy" => Legacy, "iso8601" => Iso8601, "milliseconds" => Milliseconds,
}

names! {
    Supervised
    "upstart" => Upstart, "systemd" => Systemd, "auto" => Auto, "no" => No,
}

named! {
    /// When the AOF is flushed to disk.
    AppendFsync { Everysec, Always, No }
    "everysec" => Everysec, "always" => Always, "no" => No,
}

named! {
    /// How a replica loads a full synchronisation: through a file, or straight from the socket.
    ReplDisklessLoad { Disabled, OnEmptyDb, Swapdb }
    "disabled" => Disabled, "on-empty-db" => OnEmptyDb, "swapdb" => Swapdb,
}

named! {
    /// Whether TLS clients have to present a certificate.
    TlsAuthClients { No, Yes, Optional }
    "no" => No, "yes" => Yes, "optional" => Optional,
}

names! {
    OomScoreAdj
    "no" => No, "yes" => Relative, "relative" => Relative, "absolute" => Absolute,
}

named! {
    /// The channels a new user may use.
    AclPubsubDefault { Allchannels, Resetchannels }
    "allchannels" => Allchannels, "resetchannels" => Resetchannels,
}

named! {
    /// Which payloads get a deep validation before they are used.
    SanitizeDumpPayload { No, Yes, Clients }
    "no" => No, "yes" => Yes, "clients" => Clients,
}

named! {
    /// Who may use a protected command or directive. `Local` is a connection over loopback or a unix socket.
    ProtectedAction { No, Yes, Local }
    "no" => No, "yes" => Yes, "local" => Local,
}

named! {
    /// How cluster redirections and CLUSTER SLOTS name a node.
    ClusterPreferredEndpointType { Ip, Hostname, UnknownEndpoint }
    "ip" => Ip, "hostname" => Hostname, "unknown-endpoint" => UnknownEndpoint,
}

named! {
    /// What happens when a replicated or AOF command fails.
    PropagationErrorBehavior { Ignore, Panic, PanicOnReplicas }
    "ignore" => Ignore, "panic" => Panic, "panic-on-replicas" => PanicOnReplicas,
}

/// How the server shuts down on a signal. All false is `default`: save if there are save points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShutdownOnSignal {
    /// Save even without save points.
    pub(crate) save: bool,
    /// Do not save.
    pub(crate) nosave: bool,
    /// Do not wait for replicas.
    pub(crate) now: bool,
    /// Ignore errors that would keep the server alive.
    pub(crate) force: bool,
    /// Have a replica take over first, in a cluster.
    pub(crate) failover: bool,
}

/// What is counted of each slot besides its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotStatsKinds {
    /// Time that commands on its keys took.
    pub(crate) cpu: bool,
    /// Bytes of requests and replies.
    pub(crate) net: bool,
    /// Memory of its keys: looked at when it is asked for.
    pub(crate) mem: bool,
}

impl SlotStatsKinds {
    /// Something is counted of each command.
    pub(crate) fn counts_commands(self) -> bool {
        self.cpu || self.net
    }
}

/// Save when at least `changes` writes happened within `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavePoint {
    /// Time since the last save.
    pub(crate) seconds: i64,
    /// Writes since the last save.
    pub(crate) changes: i64,
}

/// Limits of the output buffer of one class of clients; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObufLimit {
    /// Close at once when the buffer is larger.
    pub(crate) hard_bytes: u64,
    /// Close when the buffer stays larger for `soft_seconds`.
    pub(crate) soft_bytes: u64,
    pub(crate) soft_seconds: i64,
}

/// Index of each class of clients in `Config::client_output_buffer_limit`.
pub(crate) const OBUF_NORMAL: usize = 0;
/// See [`OBUF_NORMAL`].
pub(crate) const OBUF_REPLICA: usize = 1;
/// See [`OBUF_NORMAL`].
pub(crate) const OBUF_PUBSUB: usize = 2;

/// An amount of memory, absolute or a percentage of `maxmemory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryOrPercent {
    /// Bytes; 0 is no limit.
    Bytes(u64),
    /// Percent of `maxmemory`, 0 to 100.
    Percent(u8),
}

impl MemoryOrPercent {
    /// The limit in bytes under a given `maxmemory`; 0 is no limit.
    pub(crate) fn bytes(self, maxmemory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(maxmemory) * u128::from(percent) / 100) as u64,
        }
    }
}

/// The set of keyspace events that are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NotifyFlags(pub(crate) u32);

#[allow(missing_docs)]
impl NotifyFlags {
    pub(crate) const KEYSPACE: Self = Self(1 << 0); // K
    pub(crate) const KEYEVENT: Self = Self(1 << 1); // E
    pub(crate) const GENERIC: Self = Self(1 << 2); // g
    pub(crate) const STRING: Self = Self(1 << 3); // $
    pub(crate) const LIST: Self = Self(1 << 4); // l
    pub(crate) const SET: Self = Self(1 << 5); // s
    pub(crate) const HASH: Self = Self(1 << 6); // h
    pub(crate) const ZSET: Self = Self(1 << 7); // z
    pub(crate) const EXPIRED: Self = Self(1 << 8); // x
    pub(crate) const EVICTED: Self = Self(1 << 9); // e
    pub(crate) const STREAM: Self = Self(1 << 10); // t
    pub(crate) const KEY_MISS: Self = Self(1 << 11); // m, not part of A
    pub(crate) const MODULE: Self = Self(1 << 13); // d
    pub(crate) const NEW: Self = Self(1 << 14); // n, not part of A
    /// The classes `A` stands for.
    pub(crate) const ALL: Self = Self(
        Self::GENERIC.0
            | Self::STRING.0
            | Self::LIST.0
            | Self::SET.0
            | Self::HASH.0
            | Self::ZSET.0
            | Self::EXPIRED.0
            | Self::EVICTED.0
            | Self::STREAM.0
            | Self::MODULE.0,
    );

    /// Whether every flag of `other` is set.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for NotifyFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A line of the configuration that another room has to understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceLine {
    /// The words after the directive's name.
    pub(crate) words: Vec<Vec<u8>>,
    /// Its number in the file it stands in, from 1.
    pub(crate) number: usize,
    /// The line as written, without blanks around it.
    pub(crate) text: Vec<u8>,
}
