//! Reading a directive's words into its typed value and printing it back: the forms CONFIG GET shows and configuration
//! files contain, with Redis's error texts.

use std::borrow::Cow;

use super::table::{Kind, TextRule};
use super::types::*;
use crate::structs::numbers::{parse_f64, split_sign};

/// Why a value was refused: the text Redis shows after "CONFIG SET failed" or in the startup error.
pub(crate) type ValueError = Cow<'static, str>;

/// A type a directive can have.
pub(crate) trait Setting: Clone + PartialEq + 'static {
    /// Reads the value from a directive's words. `self` is the value so far, for directives that change only a part.
    fn parse(&self, kind: Kind, words: &[&[u8]]) -> Result<Self, ValueError>;

    /// The value as CONFIG GET shows it.
    fn print(&self, kind: Kind) -> Vec<u8>;

    /// The words there are to choose from; none: any may be given.
    fn choices() -> Vec<&'static str> {
        Vec::new()
    }
}

const WRONG_NUMBER: ValueError = Cow::Borrowed("wrong number of arguments");

/// The only word, for directives that take one.
fn one<'a>(words: &[&'a [u8]]) -> Result<&'a [u8], ValueError> {
    match words {
        [word] => Ok(word),
        _ => Err(WRONG_NUMBER),
    }
}

fn text(word: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(word).map_err(|_| Cow::Borrowed("argument must be valid UTF-8"))
}

impl Setting for bool {
    fn parse(&self, kind: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        let word = one(words)?;
        let value = match word.to_ascii_lowercase().as_slice() {
            b"yes" => true,
            b"no" => false,
            _ => return Err("argument must be 'yes' or 'no'".into()),
        };
        match kind {
            Kind::BoolNo(reason) if value => Err(reason.into()),
            _ => Ok(value),
        }
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }

    fn choices() -> Vec<&'static str> {
        vec!["yes", "no"]
    }
}

/// A decimal integer in its one canonical spelling: no sign but `-`, no leading zeros or blanks.
fn canonical_int(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let canonical = match digits {
        [] => false,
        [b'0'] => digits.len() == word.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// An integer as C's `strtoll` reads it, the whole word: leading blanks and a sign are accepted, an empty word is 0, and
/// a value out of range saturates.
fn lenient_int(word: &[u8]) -> Option<i64> {
    if word.is_empty() {
        return Some(0);
    }
    let start = word.iter().position(|b| !matches!(b, b' ' | 9..=13))?;
    let (negative, digits) = split_sign(&word[start..]);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |n, b| n.saturating_mul(10).saturating_add(i64::from(b - b'0')));
    Some(if negative { -magnitude } else { magnitude })
}

/// An amount of memory: digits and an optional unit in any case. `k`, `m`, `g` are powers of 1000; `kb`, `mb`, `gb` powers
/// of 1024. Wraps around like Redis where the product exceeds 64 bits.
pub(crate) fn parse_memory(word: &[u8]) -> Option<u64> {
    let split = word.iter().position(|b| !b.is_ascii_digit()).unwrap_or(word.len());
    let (digits, unit) = word.split_at(split);
    let multiplier: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    if digits.len() >= 128 {
        return None;
    }
    let amount = digits.iter().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0')));
    Some(amount.wrapping_mul(multiplier))
}

fn parse_number(kind: Kind, word: &[u8]) -> Result<i128, ValueError> {
    let between = |min: &dyn std::fmt::Display, max: &dyn std::fmt::Display| -> ValueError {
        format!("argument must be between {min} and {max} inclusive").into()
    };
    match kind {
        Kind::Int(min, max) => {
            let value = canonical_int(word).ok_or("argument couldn't be parsed into an integer")?;
            if (min..=max).contains(&value) { Ok(value.into()) } else { Err(between(&min, &max)) }
        }
        Kind::Memory(min, max) => {
            let value = parse_memory(word).ok_or("argument must be a memory value")?;
            if (min..=max).contains(&value) { Ok(value.into()) } else { Err(between(&min, &max)) }
        }
        Kind::Octal(min, max) => {
            let value = std::str::from_utf8(word)
                .ok()
                .and_then(|word| i64::from_str_radix(word, 8).ok())
                .ok_or("argument couldn't be parsed as an octal number")?;
            if (i64::from(min)..=i64::from(max)).contains(&value) {
                Ok(value.into())
            } else {
                Err(format!("argument must be between {min:o} and {max:o} inclusive").into())
            }
        }
        _ => unreachable!("a number's row has a numeric kind"),
    }
}

macro_rules! number_settings {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn parse(&self, kind: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
                let number = parse_number(kind, one(words)?)?;
                <$type>::try_from(number).map_err(|_| "argument couldn't be parsed into an integer".into())
            }

            fn print(&self, kind: Kind) -> Vec<u8> {
                match kind {
                    Kind::Octal(..) => format!("{self:o}").into_bytes(),
                    _ => self.to_string().into_bytes(),
                }
            }
        }
    )*};
}

number_settings!(u16, u32, i32, i64, u64, usize);

impl Setting for MemoryOrPercent {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        let word = one(words)?;
        if let Some(bytes) = parse_memory(word) {
            // Redis keeps this in a signed word, where a percentage is the negative range.
            return if bytes <= i64::MAX as u64 {
                Ok(Self::Bytes(bytes))
            } else {
                Err(format!("argument must be between -100 and {} inclusive", i64::MAX).into())
            };
        }
        match word.strip_suffix(b"%").and_then(canonical_int) {
            Some(0) => Ok(Self::Bytes(0)),
            Some(percent @ 1..=100) => Ok(Self::Percent(percent as u8)),
            Some(101..) => Err("percentage argument must be less or equal to 100".into()),
            _ => Err("argument must be a memory or percent value".into()),
        }
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_string().into_bytes(),
            Self::Percent(percent) => format!("{percent}%").into_bytes(),
        }
    }
}

fn parse_named<T: Named>(words: &[&[u8]]) -> Result<T, ValueError> {
    let found = match words {
        [word] => T::NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())),
        _ => None,
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
        one_of(&names)
    })
}

fn one_of(names: &[&str]) -> ValueError {
    format!("argument(s) must be one of the following: {}", names.join(", ")).into()
}

macro_rules! named_settings {
    ($($type:ty),* $(,)?) => {$(
        impl Setting for $type {
            fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
                parse_named(words)
            }

            fn print(&self, _: Kind) -> Vec<u8> {
                self.name().as_bytes().to_vec()
            }

            fn choices() -> Vec<&'static str> {
                Self::NAMES.iter().map(|(name, _)| *name).collect()
            }
        }
    )*};
}

named_settings!(
    MaxmemoryPolicy,
    SyslogFacility,
    LogFormat,
    LogLevel,
    LogTimestamp,
    Supervised,
    AppendFsync,
    ReplDisklessLoad,
    TlsAuthClients,
    OomScoreAdj,
    AclPubsubDefault,
    SanitizeDumpPayload,
    ProtectedAction,
    ClusterPreferredEndpointType,
    PropagationErrorBehavior,
);

impl Setting for ShutdownOnSignal {
    fn choices() -> Vec<&'static str> {
        vec!["default", "save", "nosave", "now", "force", "failover"]
    }

    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        let mut how = Self::default();
        if words.is_empty() {
            return Err(one_of(&Self::choices()));
        }
        for word in words {
            match word.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => how.save = true,
                b"nosave" => how.nosave = true,
                b"now" => how.now = true,
                b"force" => how.force = true,
                b"failover" => how.failover = true,
                _ => return Err(one_of(&Self::choices())),
            }
        }
        if how.save && how.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        Ok(how)
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        let set = [
            (self.save, "save"),
            (self.nosave, "nosave"),
            (self.now, "now"),
            (self.force, "force"),
            (self.failover, "failover"),
        ];
        let names: Vec<&str> = set.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        if names.is_empty() { b"default".to_vec() } else { names.join(" ").into_bytes() }
    }
}

impl Setting for SlotStatsKinds {
    fn choices() -> Vec<&'static str> {
        vec!["no", "cpu", "net", "mem", "yes"]
    }

    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        let mut kinds = Self::default();
        if words.is_empty() {
            return Err(one_of(&Self::choices()));
        }
        for word in words {
            match word.to_ascii_lowercase().as_slice() {
                b"no" => {}
                b"cpu" => kinds.cpu = true,
                b"net" => kinds.net = true,
                b"mem" => kinds.mem = true,
                b"yes" => kinds = Self { cpu: true, net: true, mem: true },
                _ => return Err(one_of(&Self::choices())),
            }
        }
        Ok(kinds)
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        let names: &[&str] = match (self.cpu, self.net, self.mem) {
            (false, false, false) => &["no"],
            (true, true, true) => &["yes"],
            _ => &[],
        };
        let set = [(self.cpu, "cpu"), (self.net, "net"), (self.mem, "mem")];
        let some = set.iter().filter(|(on, _)| *on && names.is_empty()).map(|(_, name)| *name);
        names.iter().copied().chain(some).collect::<Vec<_>>().join(" ").into_bytes()
    }
}

/// Bytes of a host name with its NUL: `cluster-announce-hostname` takes one byte less.
const HOSTNAME_LEN: usize = 256;

/// The longest name a cluster node may announce, in bytes.
const NODE_NAME_LEN: usize = 255;
/// The longest name of a cluster, and the shortest secret, bytes.
const CLUSTER_NAME_LEN: usize = 64;
const LEAST_SECRET_LEN: usize = 16;
/// The longest address that packets of the cluster bus have room for, bytes.
pub(super) const NODE_IP_LEN: usize = 45;
/// The longest host name, bytes.
pub(super) const HOST_LEN: usize = 255;

/// Whether a name can be read back from a line of CLUSTER NODES and `nodes.conf`, which has commas, equals signs and
/// blanks. Redis takes more names, some of which break its own file.
pub(crate) fn is_node_name(name: &[u8]) -> bool {
    name.len() <= NODE_NAME_LEN && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._/`".contains(b))
}

/// Whether all bytes may occur in IP addresses, zones and host names.
pub(crate) fn is_address(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_alphanumeric() || b".:-_%".contains(b))
}

fn check_text(rule: TextRule, word: &[u8]) -> Result<(), ValueError> {
    let is_path = || word.iter().any(|b| matches!(b, b'/' | b'\\'));
    let refusal = match rule {
        TextRule::Any | TextRule::Unset => None,
        TextRule::Hostname if word.len() >= HOSTNAME_LEN => Some("Hostnames must be less than 256 characters"),
        TextRule::Hostname => (!word.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')))
            .then_some("Hostnames may only contain alphanumeric characters, hyphens or dots"),
        TextRule::Nodename if word.len() > NODE_NAME_LEN => {
            Some("Announced human node names must be less than 256 characters")
        }
        TextRule::Nodename => (!is_node_name(word)).then_some("Announced human node name contained invalid character"),
        TextRule::Address(longest) => (word.len() > longest || !is_address(word))
            .then_some("argument must be an address or a host name that is not too long"),
        TextRule::DbFilename => is_path().then_some("dbfilename can't be a path, just a filename"),
        TextRule::AofFilename if word.is_empty() => Some("appendfilename can't be empty"),
        TextRule::AofFilename => is_path().then_some("appendfilename can't be a path, just a filename"),
        TextRule::AofDirname if word.is_empty() => Some("appenddirname can't be empty"),
        TextRule::AofDirname => is_path().then_some("appenddirname can't be a path, just a dirname"),
        TextRule::ClusterNames => {
            let is_name = |name: &[u8]| name.len() <= CLUSTER_NAME_LEN && is_node_name(name);
            (!word.split(|b| *b == b' ').all(is_name))
                .then_some("argument must be names of letters, digits and -._/ with at most 64 characters each")
        }
        TextRule::ClusterSecrets => {
            let is_secret = |s: &[u8]| s == b"-" || s.len() >= LEAST_SECRET_LEN && s.iter().all(u8::is_ascii_graphic);
            let mut words = word.split(|b| *b == b' ').filter(|s| !s.is_empty());
            (!words.all(is_secret)).then_some("argument must be secrets of at least 16 printable characters each, or -")
        }
        TextRule::ProcTitle => {
            (!title_is_valid(word)).then_some("template format is invalid or contains unknown variables")
        }
    };
    match refusal {
        Some(reason) => Err(reason.into()),
        None => Ok(()),
    }
}

/// The variables `proc-title-template` may contain.
pub(crate) const TITLE_VARIABLES: [&str; 7] =
    ["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];

/// Puts values in place of `{variable}`; `{{` is a brace. `None`: a variable has no value, or no end.
pub(crate) fn expand_title(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut title = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        title.push_str(before);
        if let Some(after) = after.strip_prefix('{') {
            title.push('{');
            rest = after;
            continue;
        }
        let (variable, after) = after.split_once('}')?;
        title.push_str(&value(variable)?);
        rest = after;
    }
    title.push_str(rest);
    Some(title)
}

fn title_is_valid(template: &[u8]) -> bool {
    let sample = |variable: &str| TITLE_VARIABLES.contains(&variable).then(|| String::from("x"));
    let title = std::str::from_utf8(template).ok().and_then(|template| expand_title(template, sample));
    title.is_some_and(|title| !title.trim().is_empty())
}

impl Setting for String {
    fn parse(&self, kind: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        let word = one(words)?;
        if let Kind::Text(rule) = kind {
            check_text(rule, word)?;
        }
        Ok(text(word)?.to_owned())
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Setting for Vec<u8> {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        one(words).map(<[u8]>::to_vec)
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        self.clone()
    }
}

/// Joins printed parts with blanks.
fn join(parts: impl Iterator<Item = String>) -> Vec<u8> {
    parts.collect::<Vec<_>>().join(" ").into_bytes()
}

impl Setting for Vec<SavePoint> {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        const INVALID: ValueError = Cow::Borrowed("Invalid save parameters");
        if let [b""] = words {
            return Ok(Vec::new());
        }
        if !words.len().is_multiple_of(2) {
            return Err(INVALID);
        }
        words
            .chunks_exact(2)
            .map(|pair| {
                let seconds = lenient_int(pair[0]).filter(|n| *n >= 1).ok_or(INVALID)?;
                let changes = lenient_int(pair[1]).filter(|n| *n >= 0).ok_or(INVALID)?;
                Ok(SavePoint { seconds, changes })
            })
            .collect()
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        join(self.iter().map(|point| format!("{} {}", point.seconds, point.changes)))
    }
}

impl Setting for [ObufLimit; 3] {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        if !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        let mut limits = *self;
        for limit in words.chunks_exact(4) {
            let class = match limit[0].to_ascii_lowercase().as_slice() {
                b"normal" => OBUF_NORMAL,
                b"slave" | b"replica" => OBUF_REPLICA,
                b"pubsub" => OBUF_PUBSUB,
                _ => {
                    return Err("Invalid client class specified in buffer limit configuration.".into());
                }
            };
            let hard = parse_memory(limit[1]);
            let soft = parse_memory(limit[2]);
            let seconds = lenient_int(limit[3]).filter(|n| *n >= 0);
            let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) = (hard, soft, seconds) else {
                return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".into());
            };
            limits[class] = ObufLimit { hard_bytes, soft_bytes, soft_seconds };
        }
        Ok(limits)
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        join(
            ["normal", "slave", "pubsub"].iter().zip(self).map(|(class, limit)| {
                format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
            }),
        )
    }
}

impl Setting for [i32; 3] {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        if words.len() != 3 {
            return Err(WRONG_NUMBER);
        }
        let mut values = [0; 3];
        for (value, word) in values.iter_mut().zip(words) {
            *value = lenient_int(word)
                .filter(|n| (-2000..=2000).contains(n))
                .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")?
                as i32;
        }
        Ok(values)
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        join(self.iter().map(i32::to_string))
    }
}

/// Letter and flag in the order Redis prints them; the first [`NOTIFY_CLASSES`] are left out when all of `A` is set.
const NOTIFY_LETTERS: [(u8, NotifyFlags); 14] = [
    (b'g', NotifyFlags::GENERIC),
    (b'$', NotifyFlags::STRING),
    (b'l', NotifyFlags::LIST),
    (b's', NotifyFlags::SET),
    (b'h', NotifyFlags::HASH),
    (b'z', NotifyFlags::ZSET),
    (b'x', NotifyFlags::EXPIRED),
    (b'e', NotifyFlags::EVICTED),
    (b't', NotifyFlags::STREAM),
    (b'd', NotifyFlags::MODULE),
    (b'n', NotifyFlags::NEW),
    (b'K', NotifyFlags::KEYSPACE),
    (b'E', NotifyFlags::KEYEVENT),
    (b'm', NotifyFlags::KEY_MISS),
];
const NOTIFY_CLASSES: usize = 11;

impl Setting for NotifyFlags {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        one(words)?.iter().try_fold(Self(0), |flags, letter| {
            if *letter == b'A' {
                return Ok(flags | Self::ALL);
            }
            match NOTIFY_LETTERS.iter().find(|(known, _)| known == letter) {
                Some((_, flag)) => Ok(flags | *flag),
                None => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
            }
        })
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        let mut letters = Vec::new();
        let mut rest = &NOTIFY_LETTERS[..];
        if self.contains(Self::ALL) {
            letters.push(b'A');
            rest = &NOTIFY_LETTERS[NOTIFY_CLASSES..];
        }
        letters.extend(rest.iter().filter(|(_, flag)| self.contains(*flag)).map(|(letter, _)| letter));
        letters
    }
}

/// How many addresses `bind` takes.
const BIND_MAX: usize = 16;

impl Setting for Vec<String> {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        if words.len() > BIND_MAX {
            return Err("Too many bind addresses specified.".into());
        }
        if let [b""] = words {
            return Ok(Vec::new());
        }
        words.iter().map(|word| text(word).map(str::to_owned)).collect()
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        self.join(" ").into_bytes()
    }
}

impl Setting for Option<(String, u16)> {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        let [host, port] = words else {
            return Err(WRONG_NUMBER);
        };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            return Ok(None);
        }
        let port = lenient_int(port).and_then(|port| u16::try_from(port).ok()).ok_or("Invalid master port")?;
        Ok(Some((text(host)?.to_owned(), port)))
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        match self {
            Some((host, port)) => format!("{host} {port}").into_bytes(),
            None => Vec::new(),
        }
    }
}

/// A number with six decimals, without trailing zeros.
fn print_percentile(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Setting for Vec<f64> {
    fn parse(&self, _: Kind, words: &[&[u8]]) -> Result<Self, ValueError> {
        if let [b""] = words {
            return Ok(Vec::new());
        }
        words
            .iter()
            .map(|word| {
                let value = parse_f64(word).ok_or("Invalid latency-tracking-info-percentiles parameters")?;
                if (0.0..=100.0).contains(&value) {
                    Ok(value)
                } else {
                    Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into())
                }
            })
            .collect()
    }

    fn print(&self, _: Kind) -> Vec<u8> {
        join(self.iter().map(|value| print_percentile(*value)))
    }
}
