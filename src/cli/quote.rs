//! How arguments are written at the prompt.
//!
//! The line syntax is that of Redis configuration files and of the inline protocol: words separated by blanks, `"..."`
//! with escapes (`\n \r \t \b \a \xHH`), `'...'` with only `\'`.

use crate::config::words;

/// The line can not be split: a quote is open, or text follows a closing quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unbalanced;

pub(crate) fn split_args(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
    words::split(line).ok_or(Unbalanced)
}

/// Reads text that must be exactly one argument.
pub(crate) fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let mut args = split_args(text).ok()?;
    match args.len() {
        1 => args.pop(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str) -> Result<Vec<String>, Unbalanced> {
        let text = |arg: Vec<u8>| String::from_utf8_lossy(&arg).into_owned();
        Ok(split_args(line.as_bytes())?.into_iter().map(text).collect())
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(split("  set  key\tval \n").unwrap(), ["set", "key", "val"]);
        assert_eq!(split("").unwrap(), Vec::<String>::new());
        assert_eq!(split(r#"set k " bar ""#).unwrap(), ["set", "k", " bar "]);
        assert_eq!(split(r#""\"bar\"" '\'x\n'"#).unwrap(), ["\"bar\"", r"'x\n"]);
        assert_eq!(split(r#"key"" bar"#).unwrap(), ["key", "bar"]);
        assert_eq!(split(r#""\n\r\t\x41\x4z\q""#).unwrap(), ["\n\r\tAx4zq"]);
        assert_eq!(split_args(br#""\x00\xFf""#).unwrap(), vec![vec![0u8, 0xff]]);
    }

    #[test]
    fn unbalanced_quotes() {
        for line in [r#"get ""key"#, r#"get "key"x"#, r#""open"#, "'open", r#"'a'b"#] {
            assert_eq!(split(line), Err(Unbalanced), "{line}");
        }
    }

    #[test]
    fn unquote_takes_one_argument() {
        assert_eq!(unquote(br#""\x41""#), Some(b"A".to_vec()));
        assert_eq!(unquote(br#""a" "b""#), None);
        assert_eq!(unquote(b""), None);
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(text in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(unquote(&words::quote(&text)), Some(text));
        }
    }
}
