//! CONFIG GET and CONFIG SET on a [`Config`], without a server.

use std::fmt;

use super::lookup;
use super::table::{Apply, Config, Row, TABLE, flag};
use super::value::ValueError;

/// What decides whether a directive may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetContext {
    /// The data set is being loaded.
    pub(crate) loading: bool,
    /// `enable-protected-configs` lets this client set protected directives.
    pub(crate) protected_allowed: bool,
}

/// Directives that were set, and how they were before.
#[derive(Debug)]
pub(crate) struct Change {
    /// What has to be applied, each once, with the directive it is related to. Applying stops at the first failure, which
    /// is answered with [`SetError::Failed`] after [`Change::roll_back`].
    pub(crate) apply: Vec<(Apply, &'static str)>,
    rows: Vec<&'static Row>,
    before: Box<Config>,
}

impl Change {
    /// Puts the old values back. Whatever was in `apply` has to be applied again.
    pub(crate) fn roll_back(self, config: &mut Config) -> Vec<Apply> {
        for row in &self.rows {
            row.copy(config, &self.before);
        }
        self.apply.into_iter().map(|(apply, _)| apply).collect()
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Why CONFIG SET was refused; nothing was changed.
#[derive(Debug, PartialEq)]
pub(crate) enum SetError {
    /// No such directive; its name as it was given.
    Unknown(Vec<u8>),
    /// One of them cannot be set while loading.
    Loading,
    /// A value or directive was refused.
    Failed {
        /// The directive's name, as it was given.
        name: Vec<u8>,
        /// Redis's words.
        reason: ValueError,
    },
}

impl SetError {
    /// The error reply, without the leading `-`.
    pub(crate) fn reply(&self) -> Vec<u8> {
        match self {
            Self::Unknown(name) => {
                [b"ERR Unknown option or number of arguments for CONFIG SET - '", name.as_slice(), b"'"].concat()
            }
            Self::Loading => b"LOADING Redis is loading the dataset in memory".to_vec(),
            Self::Failed { name, reason } => {
                [b"ERR CONFIG SET failed (possibly related to argument '", name.as_slice(), b"') - ", reason.as_bytes()]
                    .concat()
            }
        }
    }
}

/// Sets all of `pairs` (name and value), or none of them.
pub(crate) fn set_many(config: &mut Config, pairs: &[(&[u8], &[u8])], context: SetContext) -> Result<Change, SetError> {
    let found = find_all(pairs, context)?;
    let before = Box::new(config.clone());
    let mut change = Change { apply: Vec::new(), rows: found.iter().map(|(row, _)| *row).collect(), before };
    for ((row, name), (_, value)) in found.iter().zip(pairs) {
        let words: Vec<&[u8]> = match row.has(flag::MULTI_ARG) {
            true if value.is_empty() => Vec::new(),
            true => value.split(|b| *b == b' ').collect(),
            false => vec![value],
        };
        match row.set(config, &words) {
            Ok(changed) => {
                let is_new = change.apply.iter().all(|(apply, _)| *apply != row.apply);
                if (changed || row.has(flag::VOLATILE)) && row.apply != Apply::None && is_new {
                    change.apply.push((row.apply, name));
                }
            }
            Err(reason) => {
                change.roll_back(config);
                return Err(SetError::Failed { name: name.as_bytes().to_vec(), reason });
            }
        }
    }
    Ok(change)
}

/// Looks all directives up and checks that each may be set. The order of the checks is Redis's.
fn find_all(pairs: &[(&[u8], &[u8])], context: SetContext) -> Result<Vec<(&'static Row, &'static str)>, SetError> {
    let mut found: Vec<(&'static Row, &'static str)> = Vec::with_capacity(pairs.len());
    for (given, _) in pairs {
        let refuse = |reason: &'static str| Err(SetError::Failed { name: given.to_vec(), reason: reason.into() });
        let Some((row, name)) = lookup(given) else {
            return Err(SetError::Unknown(given.to_vec()));
        };
        if row.has(flag::IMMUTABLE) {
            return refuse("can't set immutable config");
        }
        if row.has(flag::PROTECTED) && !context.protected_allowed {
            return refuse("can't set protected config");
        }
        if row.has(flag::DENY_LOADING) && context.loading {
            return Err(SetError::Loading);
        }
        // An alias and its directive are two names to Redis, so only the same name twice is refused.
        if found.iter().any(|(_, other)| *other == name) {
            return refuse("duplicate parameter");
        }
        found.push((row, name));
    }
    Ok(found)
}

/// Whether the value of this directive must not be shown in logs.
pub(crate) fn is_sensitive(name: &[u8]) -> bool {
    lookup(name).is_some_and(|(row, _)| row.has(flag::SENSITIVE))
}

/// The names and values CONFIG GET answers for some patterns, each name once. `matches(pattern, name)` is Redis's glob
/// without regard to case. A name that is given without a pattern is answered as it was spelled, hidden or not.
pub(crate) fn get(
    config: &Config,
    patterns: &[&[u8]],
    matches: impl Fn(&[u8], &[u8]) -> bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let is_new =
        |found: &[(Vec<u8>, Vec<u8>)], name: &[u8]| !found.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    for pattern in patterns {
        if !pattern.iter().any(|b| matches!(b, b'[' | b'*' | b'?')) {
            if let Some((row, _)) = lookup(pattern)
                && is_new(&found, pattern)
            {
                found.push((pattern.to_vec(), row.print(config)));
            }
            continue;
        }
        for row in TABLE.iter().filter(|row| !row.has(flag::HIDDEN)) {
            for name in std::iter::once(&row.name).chain(row.aliases) {
                if is_new(&found, name.as_bytes()) && matches(pattern, name.as_bytes()) {
                    found.push((name.as_bytes().to_vec(), row.print(config)));
                }
            }
        }
    }
    found
}
