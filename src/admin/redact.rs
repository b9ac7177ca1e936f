//! Arguments that must not be shown: the slow log and MONITOR show `(redacted)` in their place.

use crate::catalog::row::Command;
use crate::resp::{Args, OwnedArgs};

const REDACTED: &[u8] = b"(redacted)";

/// Positions of the arguments of this command that hold secrets.
fn secrets(row: &Command, args: Args<'_>) -> Vec<usize> {
    let is = |i: usize, word: &str| args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()));
    match row.name {
        "auth" => (1..args.len()).collect(),
        "acl|setuser" => (2..args.len()).collect(),
        "acl|getuser" => (2..args.len()).collect(),
        "acl|deluser" => (2..args.len()).collect(),
        "hello" => {
            // HELLO proto AUTH user password
            (2..args.len())
                .filter(|i| is(*i, "auth"))
                .flat_map(|i| [i + 1, i + 2])
                .filter(|i| *i < args.len())
                .collect()
        }
        "config|set" => (2..args.len())
            .step_by(2)
            .filter(|i| *i + 1 < args.len() && crate::config::is_sensitive(args.at(*i)))
            .map(|i| i + 1)
            .collect(),
        "migrate" => {
            let mut found = Vec::new();
            let mut i = 6;
            while i < args.len() {
                if is(i, "auth") && i + 1 < args.len() {
                    found.push(i + 1);
                    i += 1;
                } else if is(i, "auth2") {
                    found.extend([i + 1, i + 2].into_iter().filter(|p| *p < args.len()));
                    i += 2;
                } else if is(i, "keys") {
                    break;
                }
                i += 1;
            }
            found
        }
        _ => Vec::new(),
    }
}

/// The arguments with secrets taken out.
pub(crate) fn redacted<'a>(row: &Command, args: Args<'a>) -> Redacted<'a> {
    let secrets = secrets(row, args);
    if secrets.is_empty() {
        return Redacted::Plain(args);
    }
    let mut out = OwnedArgs::default();
    for (i, arg) in args.iter().enumerate() {
        out.push(if secrets.contains(&i) { REDACTED } else { arg });
    }
    Redacted::Changed(out)
}

/// Arguments without secrets: those of the call, or a changed copy.
pub(crate) enum Redacted<'a> {
    Plain(Args<'a>),
    Changed(OwnedArgs),
}

impl Redacted<'_> {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        match self {
            Redacted::Plain(args) => args.iter(),
            Redacted::Changed(args) => args.as_args().iter(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &'static str, words: &[&str]) -> Vec<String> {
        let row = Command { name, ..Command::ROW };
        let args: OwnedArgs = words.iter().map(|w| w.as_bytes()).collect();
        let shown = redacted(&row, args.as_args());
        shown.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    }

    #[test]
    fn secrets_are_hidden() {
        assert_eq!(shown("auth", &["auth", "a", "b"]), ["auth", "(redacted)", "(redacted)"]);
        assert_eq!(
            shown("config|set", &["config", "set", "port", "1", "requirepass", "x"]),
            ["config", "set", "port", "1", "requirepass", "(redacted)"]
        );
        assert_eq!(
            shown("migrate", &["migrate", "h", "p", "key", "9", "5000", "AUTH2", "u", "p"])[6..],
            ["AUTH2", "(redacted)", "(redacted)"]
        );
        assert_eq!(shown("hello", &["hello", "3", "AUTH", "u", "p"])[3..], ["(redacted)", "(redacted)"]);
        assert_eq!(shown("get", &["get", "auth"]), ["get", "auth"]);
    }
}
