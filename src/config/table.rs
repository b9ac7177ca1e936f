//! The table of directives: one row each, and the [`Config`] struct made from the same rows.
//!
//! Invariant: a row's default passes its own checks, and its printed form reads back as the same value (tested).

use super::types::*;
use super::value::{HOST_LEN, NODE_IP_LEN, Setting, ValueError};

/// The type that a directive's words are read as. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `yes` or `no`.
    Bool,
    /// `yes` or `no`; CONFIG SET refuses `yes` with this reason. At start it only has no effect.
    BoolNo(&'static str),
    /// A decimal integer.
    Int(i64, i64),
    /// An amount of bytes, with an optional unit.
    Memory(u64, u64),
    /// An amount of bytes, or a percentage such as `5%`.
    MemoryOrPercent,
    /// File permissions.
    Octal(u32, u32),
    /// One name of the field's [`Named`] type.
    Enum,
    /// One string.
    Text(TextRule),
    /// A working directory.
    Dir,
    /// Pairs of seconds and changes, or `""`.
    Save,
    /// Client class, hard bytes, soft bytes, soft seconds; any number of times.
    ObufLimit,
    /// Three values: master, replica, child.
    OomScoreAdjValues,
    /// A string of event class letters.
    NotifyKeyspaceEvents,
    /// Any number of addresses or host names.
    Bind,
    /// Host and port, or `no one`.
    ReplicaOf,
    /// Any number of percentiles.
    Percentiles,
    /// Any of save, nosave, now, force; or default.
    ShutdownOnSignal,
    /// Any of cpu, net, mem; or no, or yes.
    SlotStats,
}

/// What a string has to satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextRule {
    /// Anything.
    Any,
    /// Anything; the empty string means "not set", which is also how it is written into a file: not at all.
    Unset,
    /// A host name, or not set.
    Hostname,
    /// Characters that may stand in `nodes.conf`, or not set.
    Nodename,
    /// An address or host name of at most so many characters, or not set.
    Address(usize),
    /// A file name without directory.
    DbFilename,
    /// The same, not empty.
    AofFilename,
    /// The same, for the AOF directory.
    AofDirname,
    /// A process title with known variables.
    ProcTitle,
    /// Any number of names of clusters.
    ClusterNames,
    /// Any number of secrets, or `-`.
    ClusterSecrets,
}

/// Properties of a directive; a set of these bits.
pub(crate) mod flag {
    /// Cannot be changed by CONFIG SET.
    pub(crate) const IMMUTABLE: u16 = 1;
    /// The value must not appear in logs or the slow log.
    pub(crate) const SENSITIVE: u16 = 2;
    /// CONFIG GET shows it only when asked by its full name.
    pub(crate) const HIDDEN: u16 = 4;
    /// Takes several words; CONFIG SET splits its value.
    pub(crate) const MULTI_ARG: u16 = 8;
    /// CONFIG SET is refused while the data set is loaded.
    pub(crate) const DENY_LOADING: u16 = 16;
    /// CONFIG SET needs `enable-protected-configs`.
    pub(crate) const PROTECTED: u16 = 32;
    /// CONFIG SET applies it even if the value is the same.
    pub(crate) const VOLATILE: u16 = 64;
    /// Accepted and kept, but without effect in this server.
    pub(crate) const NO_EFFECT: u16 = 128;
}

/// What has to happen in the server after CONFIG SET changed a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Apply {
    /// Nothing: code that uses the value reads it from [`Config`] each time.
    None,
    Admin,
    AofAutoGc,
    Appendfsync,
    Appendonly,
    Bind,
    ClusterAnnounceHostname,
    ClusterAnnounceHumanNodename,
    ClusterAnnounceIp,
    ClusterAnnouncePort,
    ClusterFlags,
    CrashLog,
    Dir,
    GoodReplicas,
    Hz,
    JemallocBgThread,
    LocaleCollate,
    LogFormat,
    LogLevel,
    Maxclients,
    Maxmemory,
    NotifyKeyspaceEvents,
    OomScoreAdj,
    Port,
    ProcTitle,
    ReplBacklogSize,
    Requirepass,
    Tls,
    TlsPort,
    WatchdogPeriod,
}

pub(crate) struct Row {
    /// In lower case.
    pub(crate) name: &'static str,
    /// Other accepted names (the spelling of older versions).
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: Kind,
    /// A set of bits of [`flag`].
    pub(crate) flags: u16,
    /// What the server does when it changed.
    pub(crate) apply: Apply,
    field: fn(&Config) -> &dyn Slot,
    field_mut: fn(&mut Config) -> &mut dyn Slot,
}

impl Row {
    /// Whether a bit of [`flag`] is set.
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The value as CONFIG GET prints it.
    pub(crate) fn print(&self, config: &Config) -> Vec<u8> {
        (self.field)(config).print(self.kind)
    }

    /// Reads `words` into the field and says whether the value changed. On an error the field is untouched.
    pub(crate) fn set(&self, config: &mut Config, words: &[&[u8]]) -> Result<bool, ValueError> {
        (self.field_mut)(config).set(self.kind, words)
    }

    /// As `set`, at start: a [`Kind::BoolNo`] may be `yes` then, as the file of another server has it.
    pub(crate) fn set_at_start(&self, config: &mut Config, words: &[&[u8]]) -> Result<bool, ValueError> {
        let kind = if matches!(self.kind, Kind::BoolNo(_)) { Kind::Bool } else { self.kind };
        (self.field_mut)(config).set(kind, words)
    }

    /// Whether this directive is set to something that has no effect.
    pub(crate) fn is_idle(&self, config: &Config) -> bool {
        self.has(flag::NO_EFFECT) && !self.same(config, &Config::default())
    }

    /// Copies this directive's value from another configuration.
    pub(crate) fn copy(&self, to: &mut Config, from: &Config) {
        (self.field_mut)(to).copy_from((self.field)(from));
    }

    /// The words there are to choose from; none: any may be given.
    pub(crate) fn choices(&self) -> Vec<&'static str> {
        (self.field)(&Config::default()).choices()
    }

    /// What may be given, for people to read.
    pub(crate) fn values(&self) -> String {
        let bytes = |max: u64| max >= LONG_MAX;
        match self.kind {
            Kind::Bool | Kind::BoolNo(_) | Kind::Enum => self.choices().join(", "),
            Kind::ShutdownOnSignal | Kind::SlotStats => format!("any of {}", self.choices().join(", ")),
            Kind::Int(min, i64::MAX) => format!("an integer from {min}"),
            Kind::Int(INT_MIN, INT_MAX) => "an integer".into(),
            Kind::Int(min, INT_MAX) => format!("an integer from {min}"),
            Kind::Int(min, max) => format!("an integer from {min} to {max}"),
            Kind::Memory(min, max) if bytes(max) && min <= 1 => "bytes".into(),
            Kind::Memory(min, max) if bytes(max) => format!("bytes, at least {min}"),
            Kind::Memory(min, max) => format!("bytes from {min} to {max}"),
            Kind::MemoryOrPercent => "bytes, or a percentage".into(),
            Kind::Octal(..) => "permissions, octal".into(),
            Kind::Text(TextRule::Hostname) => "a host name".into(),
            Kind::Text(TextRule::Address(_)) => "an address or host name".into(),
            Kind::Text(TextRule::DbFilename | TextRule::AofFilename | TextRule::AofDirname) => {
                "a name without a folder".into()
            }
            Kind::Text(TextRule::ProcTitle) => "text with variables".into(),
            Kind::Text(TextRule::ClusterNames) => "names".into(),
            Kind::Text(TextRule::ClusterSecrets) => "secrets, or -".into(),
            Kind::Text(TextRule::Any | TextRule::Unset | TextRule::Nodename) => "text".into(),
            Kind::Dir => "a folder".into(),
            Kind::Save => "pairs of seconds and changes, or \"\"".into(),
            Kind::ObufLimit => "class, hard bytes, soft bytes, soft seconds".into(),
            Kind::OomScoreAdjValues => "three integers from -2000 to 2000".into(),
            Kind::NotifyKeyspaceEvents => "letters".into(),
            Kind::Bind => "addresses or host names".into(),
            Kind::ReplicaOf => "host and port, or no one".into(),
            Kind::Percentiles => "numbers from 0 to 100".into(),
        }
    }

    /// Whether two configurations agree in this directive.
    pub(crate) fn same(&self, a: &Config, b: &Config) -> bool {
        (self.field)(a).same((self.field)(b))
    }
}

/// The field of [`Config`] that a row describes, whatever its type.
trait Slot: std::any::Any {
    fn set(&mut self, kind: Kind, words: &[&[u8]]) -> Result<bool, ValueError>;
    fn print(&self, kind: Kind) -> Vec<u8>;
    fn choices(&self) -> Vec<&'static str>;
    fn copy_from(&mut self, other: &dyn Slot);
    fn same(&self, other: &dyn Slot) -> bool;
    fn as_any(&self) -> &dyn std::any::Any;
}

impl<T: Setting> Slot for T {
    fn set(&mut self, kind: Kind, words: &[&[u8]]) -> Result<bool, ValueError> {
        let new = self.parse(kind, words)?;
        let changed = new != *self;
        *self = new;
        Ok(changed)
    }

    fn print(&self, kind: Kind) -> Vec<u8> {
        Setting::print(self, kind)
    }

    fn choices(&self) -> Vec<&'static str> {
        T::choices()
    }

    fn copy_from(&mut self, other: &dyn Slot) {
        if let Some(other) = other.as_any().downcast_ref::<T>() {
            self.clone_from(other);
        }
    }

    fn same(&self, other: &dyn Slot) -> bool {
        other.as_any().downcast_ref::<T>() == Some(self)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

const INT_MAX: i64 = i32::MAX as i64;
const INT_MIN: i64 = i32::MIN as i64;
const UINT_MAX: i64 = u32::MAX as i64;
const LONG_MAX: u64 = i64::MAX as u64;

const NO_DEFRAG: &str = "Active defragmentation cannot be enabled: it requires a Redis server compiled with a modified \
     Jemalloc like the one shipped by default with the Redis source distribution";

const DEFAULT_OBUF_LIMITS: [ObufLimit; 3] = [
    ObufLimit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 },
    ObufLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_seconds: 60 },
    ObufLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
];

fn default_save_points() -> Vec<SavePoint> {
    [(3600, 1), (300, 100), (60, 10000)].map(|(seconds, changes)| SavePoint { seconds, changes }).to_vec()
}

macro_rules! directives {
    ($($(#[$doc:meta])* $name:literal $(| $alias:literal)* =>
        $field:ident: $type:ty = $default:expr, $kind:expr, [$($flag:ident),*], $apply:ident;)*) => {
        /// Every directive's value. A field is named like its directive, with `_` for `-`; what a value means is in
        /// `conf/redis.conf`. An empty string is "not set".
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct Config {
            $($(#[$doc])* pub(crate) $field: $type,)*
            /// The absolute path of the file this was read from, if any; CONFIG REWRITE writes there.
            pub(crate) config_file: Option<std::path::PathBuf>,
            /// `rename-command` lines: old and new name (empty: the command is removed). The command table is not in
            /// this room, so the server renames, checks the names and reports through `ConfigError::at`.
            pub(crate) rename_command: Vec<SourceLine>,
            /// `user` lines: name and ACL rules, to be checked by the ACL in the same way.
            pub(crate) user: Vec<SourceLine>,
            /// `loadmodule` lines: path and arguments.
            pub(crate) loadmodule: Vec<SourceLine>,
            /// Lines whose name has a dot: directives of modules, with their values.
            pub(crate) module_config: Vec<SourceLine>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    config_file: None,
                    rename_command: Vec::new(),
                    user: Vec::new(),
                    loadmodule: Vec::new(),
                    module_config: Vec::new(),
                }
            }
        }

        /// Every directive that has a value of its own, in the order of this file.
        pub(crate) static TABLE: &[Row] = {
            use Kind::*;
            use TextRule::*;
            use flag::*;
            &[$(Row {
                name: $name,
                aliases: &[$($alias),*],
                kind: $kind,
                flags: 0 $(| $flag)*,
                apply: Apply::$apply,
                field: |config| &config.$field,
                field_mut: |config| &mut config.$field,
            }),*]
        };
    };
}

directives! {
    // network
    "bind" => bind: Vec<String> = vec![String::from("*"), String::from("-::*")], Bind, [MULTI_ARG, VOLATILE], Bind;
    "bind-source-addr" => bind_source_addr: String = String::new(), Text(Unset), [], None;
    "client-output-buffer-limit" => client_output_buffer_limit: [ObufLimit; 3] = DEFAULT_OBUF_LIMITS, ObufLimit, [MULTI_ARG], None;
    "client-query-buffer-limit" => client_query_buffer_limit: u64 = 1 << 30, Memory(1 << 20, LONG_MAX), [], None;
    "io-threads" => io_threads: usize = 1, Int(1, 128), [IMMUTABLE], None;
    /// Not in Redis 7.2: links live on the I/O threads even if few clients are busy.
    "io-threads-always-active" => io_threads_always_active: bool = false, Bool, [IMMUTABLE, HIDDEN], None;
    /// Reading always moves to the threads.
    "io-threads-do-reads" => io_threads_do_reads: bool = false, Bool, [IMMUTABLE], None;
    /// Not in Redis, and without effect; kept so that files that have it still load.
    "loop-coalesce-usec" => loop_coalesce_usec: i64 = 0, Int(0, 1000), [HIDDEN, NO_EFFECT], None;
    /// Not in Redis 7.2, and without effect: a reply is copied once on its way to an I/O thread.
    "min-io-threads-avoid-copy-reply" => min_io_threads_avoid_copy_reply: i64 = 7, Int(0, INT_MAX), [HIDDEN, NO_EFFECT], None;
    "maxclients" => maxclients: u32 = 10000, Int(1, UINT_MAX), [], Maxclients;
    "port" => port: u16 = 6379, Int(0, 65535), [], Port;
    "protected-mode" => protected_mode: bool = true, Bool, [], None;
    "proto-max-bulk-len" => proto_max_bulk_len: u64 = 512 << 20, Memory(1 << 20, LONG_MAX), [], None;
    "socket-mark-id" => socket_mark_id: u32 = 0, Int(0, UINT_MAX), [IMMUTABLE, NO_EFFECT], None;
    "tcp-backlog" => tcp_backlog: i32 = 511, Int(0, INT_MAX), [IMMUTABLE], None;
    "tcp-keepalive" => tcp_keepalive: i64 = 300, Int(0, INT_MAX), [], None;
    "timeout" => timeout: i64 = 0, Int(0, INT_MAX), [], None;
    "unixsocket" => unixsocket: String = String::new(), Text(Unset), [IMMUTABLE], None;
    "unixsocketperm" => unixsocketperm: u32 = 0, Octal(0, 0o777), [IMMUTABLE], None;

    // the port for operators, not in Redis
    /// Where it listens. Names are not looked up.
    "admin-bind" => admin_bind: Vec<String> = vec![String::from("127.0.0.1")], Bind, [MULTI_ARG, HIDDEN], Admin;
    /// The names it may be called by, besides addresses and `localhost`; `*`: any.
    "admin-hosts" => admin_hosts: Vec<String> = Vec::new(), Bind, [MULTI_ARG, HIDDEN], None;
    "admin-max-connections" => admin_max_connections: usize = 32, Int(1, 1024), [HIDDEN], None;
    /// 0: there is none.
    "admin-port" => admin_port: u16 = 0, Int(0, 65535), [HIDDEN], Admin;
    /// With the certificate of `tls-port`.
    "admin-tls" => admin_tls: bool = false, Bool, [HIDDEN], Admin;

    // TLS
    "tls-auth-clients" => tls_auth_clients: TlsAuthClients = TlsAuthClients::Yes, Enum, [], Tls;
    /// Not in Redis: how often to look whether the files have changed, in seconds; 0: never.
    "tls-auto-reload-interval" => tls_auto_reload_interval: i64 = 0, Int(0, INT_MAX), [HIDDEN], None;
    "tls-ca-cert-dir" => tls_ca_cert_dir: String = String::new(), Text(Unset), [VOLATILE], Tls;
    "tls-ca-cert-file" => tls_ca_cert_file: String = String::new(), Text(Unset), [VOLATILE], Tls;
    "tls-cert-file" => tls_cert_file: String = String::new(), Text(Unset), [VOLATILE], Tls;
    "tls-ciphers" => tls_ciphers: String = String::new(), Text(Unset), [], Tls;
    "tls-ciphersuites" => tls_ciphersuites: String = String::new(), Text(Unset), [], Tls;
    "tls-client-cert-file" => tls_client_cert_file: String = String::new(), Text(Unset), [VOLATILE], Tls;
    "tls-client-key-file" => tls_client_key_file: String = String::new(), Text(Unset), [VOLATILE], Tls;
    "tls-client-key-file-pass" => tls_client_key_file_pass: String = String::new(), Text(Unset), [], Tls;
    "tls-cluster" => tls_cluster: bool = false, Bool, [], Tls;
    "tls-dh-params-file" => tls_dh_params_file: String = String::new(), Text(Unset), [VOLATILE, NO_EFFECT], Tls;
    "tls-key-file" => tls_key_file: String = String::new(), Text(Unset), [VOLATILE], Tls;
    "tls-key-file-pass" => tls_key_file_pass: String = String::new(), Text(Unset), [], Tls;
    "tls-port" => tls_port: u16 = 0, Int(0, 65535), [], TlsPort;
    "tls-prefer-server-ciphers" => tls_prefer_server_ciphers: bool = false, Bool, [], Tls;
    "tls-protocols" => tls_protocols: String = String::new(), Text(Unset), [], Tls;
    "tls-replication" => tls_replication: bool = false, Bool, [], Tls;
    "tls-session-cache-size" => tls_session_cache_size: i32 = 20 << 10, Int(0, INT_MAX), [], Tls;
    "tls-session-cache-timeout" => tls_session_cache_timeout: i64 = 300, Int(0, INT_MAX), [], Tls;
    "tls-session-caching" => tls_session_caching: bool = true, Bool, [], Tls;

    // process, log and operating system
    "activerehashing" => activerehashing: bool = true, Bool, [], None;
    "always-show-logo" => always_show_logo: bool = false, Bool, [IMMUTABLE], None;
    "aof_rewrite_cpulist" => aof_rewrite_cpulist: String = String::new(), Text(Unset), [IMMUTABLE], None;
    "bgsave_cpulist" => bgsave_cpulist: String = String::new(), Text(Unset), [IMMUTABLE], None;
    "bio_cpulist" => bio_cpulist: String = String::new(), Text(Unset), [IMMUTABLE], None;
    "busy-reply-threshold" | "lua-time-limit" => busy_reply_threshold: i64 = 5000, Int(0, i64::MAX), [], None;
    "crash-log-enabled" => crash_log_enabled: bool = true, Bool, [], CrashLog;
    "crash-memcheck-enabled" => crash_memcheck_enabled: bool = true, Bool, [NO_EFFECT], None;
    "daemonize" => daemonize: bool = false, Bool, [IMMUTABLE], None;
    "databases" => databases: usize = 16, Int(1, INT_MAX), [IMMUTABLE], None;
    "dir" => dir: String = String::new(), Dir, [PROTECTED, DENY_LOADING, VOLATILE], Dir;
    "disable-thp" => disable_thp: bool = true, Bool, [IMMUTABLE], None;
    "dynamic-hz" => dynamic_hz: bool = true, Bool, [], None;
    "enable-debug-command" => enable_debug_command: ProtectedAction = ProtectedAction::No, Enum, [IMMUTABLE], None;
    "enable-module-command" => enable_module_command: ProtectedAction = ProtectedAction::No, Enum, [IMMUTABLE], None;
    "enable-protected-configs" => enable_protected_configs: ProtectedAction = ProtectedAction::No, Enum, [IMMUTABLE], None;
    "hz" => hz: i64 = 10, Int(0, INT_MAX), [], Hz;
    "ignore-warnings" => ignore_warnings: String = String::new(), Text(Any), [NO_EFFECT], None;
    "jemalloc-bg-thread" => jemalloc_bg_thread: bool = true, Bool, [], JemallocBgThread;
    "locale-collate" => locale_collate: String = String::new(), Text(Any), [], LocaleCollate;
    /// Not in Redis: the layout of lines, of which Valkey has the first two; `text` is `legacy`.
    "log-format" => log_format: LogFormat = LogFormat::Legacy, Enum, [HIDDEN], LogFormat;
    /// As Valkey has it.
    "log-timestamp-format" => log_timestamp_format: LogTimestamp = LogTimestamp::Legacy, Enum, [HIDDEN], LogFormat;
    "logfile" => logfile: String = String::new(), Text(Any), [IMMUTABLE], None;
    "loglevel" => loglevel: LogLevel = LogLevel::Notice, Enum, [], LogLevel;
    "oom-score-adj" => oom_score_adj: OomScoreAdj = OomScoreAdj::No, Enum, [], OomScoreAdj;
    "oom-score-adj-values" => oom_score_adj_values: [i32; 3] = [0, 200, 800], OomScoreAdjValues, [MULTI_ARG], OomScoreAdj;
    "pidfile" => pidfile: String = String::new(), Text(Unset), [IMMUTABLE], None;
    "proc-title-template" => proc_title_template: String = String::from("{title} {listen-addr} {server-mode}"), Text(ProcTitle), [], ProcTitle;
    "server_cpulist" => server_cpulist: String = String::new(), Text(Unset), [IMMUTABLE], None;
    "set-proc-title" => set_proc_title: bool = true, Bool, [IMMUTABLE], None;
    "shutdown-on-sigint" => shutdown_on_sigint: ShutdownOnSignal = ShutdownOnSignal::default(), ShutdownOnSignal, [MULTI_ARG], None;
    "shutdown-on-sigterm" => shutdown_on_sigterm: ShutdownOnSignal = ShutdownOnSignal::default(), ShutdownOnSignal, [MULTI_ARG], None;
    "shutdown-timeout" => shutdown_timeout: i64 = 10, Int(0, INT_MAX), [], None;
    "supervised" => supervised: Supervised = Supervised::No, Enum, [IMMUTABLE], None;
    "syslog-enabled" => syslog_enabled: bool = false, Bool, [IMMUTABLE], None;
    "syslog-facility" => syslog_facility: SyslogFacility = SyslogFacility::Local0, Enum, [IMMUTABLE], None;
    "syslog-ident" => syslog_ident: String = String::from("redis"), Text(Any), [IMMUTABLE], None;
    "use-exit-on-panic" => use_exit_on_panic: bool = false, Bool, [HIDDEN, NO_EFFECT], None;
    "watchdog-period" => watchdog_period: i64 = 0, Int(0, INT_MAX), [HIDDEN], WatchdogPeriod;

    // RDB
    "dbfilename" => dbfilename: String = String::from("dump.rdb"), Text(DbFilename), [PROTECTED], None;
    "key-load-delay" => key_load_delay: i64 = 0, Int(INT_MIN, INT_MAX), [HIDDEN], None;
    "loading-process-events-interval-bytes" => loading_process_events_interval_bytes: i64 = 2 << 20, Int(1024, INT_MAX), [HIDDEN], None;
    "rdb-del-sync-files" => rdb_del_sync_files: bool = false, Bool, [], None;
    "replica-full-sync-buffer-limit" => replica_full_sync_buffer_limit: u64 = 0, Memory(0, LONG_MAX), [HIDDEN], None;
    "rdb-key-save-delay" => rdb_key_save_delay: i64 = 0, Int(INT_MIN, INT_MAX), [HIDDEN], None;
    "rdb-save-incremental-fsync" => rdb_save_incremental_fsync: bool = true, Bool, [], None;
    "rdbchecksum" => rdbchecksum: bool = true, Bool, [IMMUTABLE], None;
    "rdbcompression" => rdbcompression: bool = true, Bool, [], None;
    "sanitize-dump-payload" => sanitize_dump_payload: SanitizeDumpPayload = SanitizeDumpPayload::No, Enum, [], None;
    "save" => save: Vec<SavePoint> = default_save_points(), Save, [MULTI_ARG], None;
    "stop-writes-on-bgsave-error" => stop_writes_on_bgsave_error: bool = true, Bool, [], None;

    // AOF
    "aof-disable-auto-gc" => aof_disable_auto_gc: bool = false, Bool, [HIDDEN], AofAutoGc;
    "aof-load-truncated" => aof_load_truncated: bool = true, Bool, [], None;
    "aof-rewrite-incremental-fsync" => aof_rewrite_incremental_fsync: bool = true, Bool, [], None;
    "aof-timestamp-enabled" => aof_timestamp_enabled: bool = false, Bool, [], None;
    "aof-use-rdb-preamble" => aof_use_rdb_preamble: bool = true, Bool, [], None;
    "appenddirname" => appenddirname: String = String::from("appendonlydir"), Text(AofDirname), [IMMUTABLE], None;
    "appendfilename" => appendfilename: String = String::from("appendonly.aof"), Text(AofFilename), [IMMUTABLE], None;
    "appendfsync" => appendfsync: AppendFsync = AppendFsync::Everysec, Enum, [], Appendfsync;
    "appendonly" => appendonly: bool = false, Bool, [DENY_LOADING], Appendonly;
    "auto-aof-rewrite-min-size" => auto_aof_rewrite_min_size: u64 = 64 << 20, Memory(0, LONG_MAX), [], None;
    "auto-aof-rewrite-percentage" => auto_aof_rewrite_percentage: i64 = 100, Int(0, INT_MAX), [], None;
    "no-appendfsync-on-rewrite" => no_appendfsync_on_rewrite: bool = false, Bool, [], None;

    // replication
    "masterauth" => masterauth: Vec<u8> = Vec::new(), Text(Unset), [SENSITIVE], None;
    "masteruser" => masteruser: Vec<u8> = Vec::new(), Text(Unset), [SENSITIVE], None;
    "min-replicas-max-lag" | "min-slaves-max-lag" => min_replicas_max_lag: i64 = 10, Int(0, INT_MAX), [], GoodReplicas;
    "min-replicas-to-write" | "min-slaves-to-write" => min_replicas_to_write: i64 = 0, Int(0, INT_MAX), [], GoodReplicas;
    "propagation-error-behavior" => propagation_error_behavior: PropagationErrorBehavior = PropagationErrorBehavior::Ignore, Enum, [], None;
    "repl-backlog-size" => repl_backlog_size: u64 = 1 << 20, Memory(1, LONG_MAX), [], ReplBacklogSize;
    "repl-backlog-ttl" => repl_backlog_ttl: i64 = 3600, Int(0, i64::MAX), [], None;
    "repl-disable-tcp-nodelay" => repl_disable_tcp_nodelay: bool = false, Bool, [], None;
    "repl-diskless-load" => repl_diskless_load: ReplDisklessLoad = ReplDisklessLoad::Disabled, Enum, [DENY_LOADING], None;
    "repl-diskless-sync" => repl_diskless_sync: bool = true, Bool, [], None;
    "repl-diskless-sync-delay" => repl_diskless_sync_delay: i64 = 5, Int(0, INT_MAX), [], None;
    "repl-diskless-sync-max-replicas" => repl_diskless_sync_max_replicas: i64 = 0, Int(0, INT_MAX), [], None;
    "repl-ping-replica-period" | "repl-ping-slave-period" => repl_ping_replica_period: i64 = 10, Int(1, INT_MAX), [], None;
    "repl-timeout" => repl_timeout: i64 = 60, Int(1, INT_MAX), [], None;
    "replica-announce-ip" | "slave-announce-ip" => replica_announce_ip: String = String::new(), Text(Address(HOST_LEN)), [], None;
    "replica-announce-port" | "slave-announce-port" => replica_announce_port: u16 = 0, Int(0, 65535), [], None;
    "replica-announced" => replica_announced: bool = true, Bool, [], None;
    "replica-ignore-disk-write-errors" => replica_ignore_disk_write_errors: bool = false, Bool, [], None;
    "replica-ignore-maxmemory" | "slave-ignore-maxmemory" => replica_ignore_maxmemory: bool = true, Bool, [], None;
    "replica-lazy-flush" | "slave-lazy-flush" => replica_lazy_flush: bool = false, Bool, [], None;
    "replica-priority" | "slave-priority" => replica_priority: i64 = 100, Int(0, INT_MAX), [], None;
    "replica-read-only" | "slave-read-only" => replica_read_only: bool = true, Bool, [], None;
    "replica-serve-stale-data" | "slave-serve-stale-data" => replica_serve_stale_data: bool = true, Bool, [], None;
    "replicaof" | "slaveof" => replicaof: Option<(String, u16)> = None, ReplicaOf, [IMMUTABLE, MULTI_ARG], None;

    // cluster
    "availability-zone" => availability_zone: String = String::new(), Text(Nodename), [HIDDEN], None;
    "auto-failover-on-shutdown" => auto_failover_on_shutdown: bool = true, Bool, [HIDDEN], None;
    "cluster-allow-pubsubshard-when-down" => cluster_allow_pubsubshard_when_down: bool = true, Bool, [], None;
    "cluster-allow-reads-when-down" => cluster_allow_reads_when_down: bool = false, Bool, [], None;
    "cluster-allow-replica-migration" => cluster_allow_replica_migration: bool = true, Bool, [], None;
    "cluster-announce-bus-port" => cluster_announce_bus_port: u16 = 0, Int(0, 65535), [], ClusterAnnouncePort;
    "cluster-announce-hostname" => cluster_announce_hostname: String = String::new(), Text(Hostname), [], ClusterAnnounceHostname;
    "cluster-announce-human-nodename" => cluster_announce_human_nodename: String = String::new(), Text(Nodename), [], ClusterAnnounceHumanNodename;
    "cluster-announce-ip" => cluster_announce_ip: String = String::new(), Text(Address(NODE_IP_LEN)), [], ClusterAnnounceIp;
    "cluster-announce-port" => cluster_announce_port: u16 = 0, Int(0, 65535), [], ClusterAnnouncePort;
    "cluster-announce-tls-port" => cluster_announce_tls_port: u16 = 0, Int(0, 65535), [], ClusterAnnouncePort;
    "cluster-config-file" => cluster_config_file: String = String::from("nodes.conf"), Text(Any), [IMMUTABLE], None;
    "cluster-durable-acks" => cluster_durable_acks: u32 = 0, Int(0, 100), [HIDDEN], None;
    "cluster-durable-acks-default" => cluster_durable_acks_default: bool = true, Bool, [HIDDEN], None;
    "cluster-enabled" => cluster_enabled: bool = false, Bool, [IMMUTABLE], None;
    "cluster-form-masters" => cluster_form_masters: u16 = 0, Int(0, 1000), [HIDDEN], None;
    "cluster-form-replicas" => cluster_form_replicas: u16 = 1, Int(0, 100), [HIDDEN], None;
    "cluster-link-sendbuf-limit" => cluster_link_sendbuf_limit: u64 = 0, Memory(0, u64::MAX), [], None;
    "cluster-manual-failover-timeout" => cluster_manual_failover_timeout: i64 = 5000, Int(1, INT_MAX), [HIDDEN], None;
    "cluster-migration-barrier" => cluster_migration_barrier: i64 = 1, Int(0, INT_MAX), [], None;
    "cluster-name" => cluster_name: String = String::new(), Text(ClusterNames), [HIDDEN], None;
    "cluster-node-timeout" => cluster_node_timeout: i64 = 15000, Int(0, i64::MAX), [], None;
    "cluster-ping-interval" => cluster_ping_interval: i64 = 0, Int(0, i64::MAX), [HIDDEN], None;
    "cluster-port" => cluster_port: u16 = 0, Int(0, 65535), [IMMUTABLE], None;
    "cluster-preferred-endpoint-type" => cluster_preferred_endpoint_type: ClusterPreferredEndpointType = ClusterPreferredEndpointType::Ip, Enum, [], None;
    "cluster-replica-no-failover" | "cluster-slave-no-failover" => cluster_replica_no_failover: bool = false, Bool, [], ClusterFlags;
    "cluster-replica-validity-factor" | "cluster-slave-validity-factor" => cluster_replica_validity_factor: i64 = 10, Int(0, INT_MAX), [], None;
    "cluster-slot-migration-log-max-len" => cluster_slot_migration_log_max_len: u64 = 1000, Int(0, i64::MAX), [HIDDEN], None;
    "cluster-slot-migration-handoff-max-lag-bytes" => cluster_slot_migration_handoff_max_lag_bytes: u64 = 1 << 20, Memory(0, LONG_MAX), [HIDDEN], None;
    "cluster-slot-migration-write-pause-timeout" => cluster_slot_migration_write_pause_timeout: i64 = 10_000, Int(0, i64::MAX), [HIDDEN], None;
    "cluster-slot-migration-sync-buffer-drain-timeout" => cluster_slot_migration_sync_buffer_drain_timeout: i64 = 60_000, Int(0, i64::MAX), [HIDDEN], None;
    "cluster-slot-stats-enabled" => cluster_slot_stats_enabled: SlotStatsKinds = SlotStatsKinds::default(), SlotStats, [MULTI_ARG, HIDDEN], None;
    "slot-migration-max-failover-repl-bytes" => slot_migration_max_failover_repl_bytes: i64 = 0, Int(-1, i64::MAX), [HIDDEN], None;
    "cluster-require-full-coverage" => cluster_require_full_coverage: bool = true, Bool, [], None;
    "cluster-seeds" => cluster_seeds: Vec<String> = Vec::new(), Bind, [MULTI_ARG, HIDDEN], None;
    "cluster-secret" => cluster_secret: String = String::new(), Text(ClusterSecrets), [SENSITIVE, HIDDEN], None;

    // users
    "acl-pubsub-default" => acl_pubsub_default: AclPubsubDefault = AclPubsubDefault::Resetchannels, Enum, [], None;
    "aclfile" => aclfile: String = String::new(), Text(Any), [IMMUTABLE], None;
    "acllog-max-len" => acllog_max_len: usize = 128, Int(0, i64::MAX), [], None;
    "requirepass" => requirepass: Vec<u8> = Vec::new(), Text(Unset), [SENSITIVE], Requirepass;

    // memory
    "active-defrag-cycle-max" => active_defrag_cycle_max: i32 = 25, Int(1, 99), [NO_EFFECT], None;
    "active-defrag-cycle-min" => active_defrag_cycle_min: i32 = 1, Int(1, 99), [NO_EFFECT], None;
    "active-defrag-ignore-bytes" => active_defrag_ignore_bytes: u64 = 100 << 20, Memory(1, LONG_MAX), [NO_EFFECT], None;
    "active-defrag-max-scan-fields" => active_defrag_max_scan_fields: usize = 1000, Int(1, i64::MAX), [NO_EFFECT], None;
    "active-defrag-threshold-lower" => active_defrag_threshold_lower: i32 = 10, Int(0, 1000), [NO_EFFECT], None;
    "active-defrag-threshold-upper" => active_defrag_threshold_upper: i32 = 100, Int(0, 1000), [NO_EFFECT], None;
    "active-expire-effort" => active_expire_effort: i64 = 1, Int(1, 10), [], None;
    "activedefrag" => activedefrag: bool = false, BoolNo(NO_DEFRAG), [NO_EFFECT], None;
    "lazyfree-lazy-eviction" => lazyfree_lazy_eviction: bool = false, Bool, [], None;
    "lazyfree-lazy-expire" => lazyfree_lazy_expire: bool = false, Bool, [], None;
    "lazyfree-lazy-server-del" => lazyfree_lazy_server_del: bool = false, Bool, [], None;
    "lazyfree-lazy-user-del" => lazyfree_lazy_user_del: bool = false, Bool, [], None;
    "lazyfree-lazy-user-flush" => lazyfree_lazy_user_flush: bool = false, Bool, [], None;
    "lfu-decay-time" => lfu_decay_time: i64 = 1, Int(0, INT_MAX), [], None;
    "lfu-log-factor" => lfu_log_factor: i64 = 10, Int(0, INT_MAX), [], None;
    "maxmemory" => maxmemory: u64 = 0, Memory(0, u64::MAX), [], Maxmemory;
    "maxmemory-clients" => maxmemory_clients: MemoryOrPercent = MemoryOrPercent::Bytes(0), MemoryOrPercent, [], None;
    "maxmemory-eviction-tenacity" => maxmemory_eviction_tenacity: i64 = 10, Int(0, 100), [], None;
    "maxmemory-policy" => maxmemory_policy: MaxmemoryPolicy = MaxmemoryPolicy::Noeviction, Enum, [], None;
    "maxmemory-samples" => maxmemory_samples: i64 = 5, Int(1, INT_MAX), [], None;
    "tracking-table-max-keys" => tracking_table_max_keys: usize = 1000000, Int(0, i64::MAX), [], None;

    // statistics and notifications
    "latency-monitor-threshold" => latency_monitor_threshold: i64 = 0, Int(0, i64::MAX), [], None;
    "latency-tracking" => latency_tracking: bool = true, Bool, [], None;
    "latency-tracking-info-percentiles" => latency_tracking_info_percentiles: Vec<f64> = vec![50.0, 99.0, 99.9], Percentiles, [MULTI_ARG], None;
    "notify-keyspace-events" => notify_keyspace_events: NotifyFlags = NotifyFlags(0), NotifyKeyspaceEvents, [], NotifyKeyspaceEvents;
    "slowlog-log-slower-than" => slowlog_log_slower_than: i64 = 10000, Int(-1, i64::MAX), [], None;
    "slowlog-max-len" => slowlog_max_len: usize = 128, Int(0, i64::MAX), [], None;

    // encodings
    "hash-max-listpack-entries" | "hash-max-ziplist-entries" => hash_max_listpack_entries: usize = 512, Int(0, i64::MAX), [], None;
    "hash-max-listpack-value" | "hash-max-ziplist-value" => hash_max_listpack_value: usize = 64, Memory(0, LONG_MAX), [], None;
    "hll-sparse-max-bytes" => hll_sparse_max_bytes: usize = 3000, Memory(0, LONG_MAX), [], None;
    "list-compress-depth" => list_compress_depth: usize = 0, Int(0, INT_MAX), [], None;
    "list-max-listpack-size" | "list-max-ziplist-size" => list_max_listpack_size: i32 = -2, Int(INT_MIN, INT_MAX), [], None;
    "set-max-intset-entries" => set_max_intset_entries: usize = 512, Int(0, i64::MAX), [], None;
    "set-max-listpack-entries" => set_max_listpack_entries: usize = 128, Int(0, i64::MAX), [], None;
    "set-max-listpack-value" => set_max_listpack_value: usize = 64, Int(0, i64::MAX), [], None;
    "stream-node-max-bytes" => stream_node_max_bytes: u64 = 4096, Memory(0, LONG_MAX), [], None;
    "stream-node-max-entries" => stream_node_max_entries: i64 = 100, Int(0, i64::MAX), [], None;
    "zset-max-listpack-entries" | "zset-max-ziplist-entries" => zset_max_listpack_entries: usize = 128, Int(0, i64::MAX), [], None;
    "zset-max-listpack-value" | "zset-max-ziplist-value" => zset_max_listpack_value: usize = 64, Memory(0, LONG_MAX), [], None;
}
