//! Splitting a line into words and quoting a word so that it splits back: the rules of Redis's configuration files and
//! inline commands.
//!
//! Invariant: `split(quote(word)) == [word]` for every byte string.

use crate::resp::split_args;
use crate::structs::bytes::append_quoted;

/// The words of a line, as [`split_args`] finds them.
pub(crate) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    Some(split_args(line)?.as_args().iter().map(<[u8]>::to_vec).collect())
}

/// The word in double quotes, with everything escaped that is not printable ASCII.
pub(crate) fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(word.len() + 2);
    append_quoted(&mut quoted, word);
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split(line.as_bytes())?;
        Some(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    #[test]
    fn splits_at_blanks_and_quotes() {
        assert_eq!(words("  save 900  1\t"), Some(vec!["save".into(), "900".into(), "1".into()]));
        assert_eq!(words(r#"save """#), Some(vec!["save".into(), String::new()]));
        assert_eq!(words(r#"a "b c" 'd e'"#), Some(vec!["a".into(), "b c".into(), "d e".into()]));
        assert_eq!(words(r#""\x41\n\"""#), Some(vec!["A\n\"".into()]));
        assert_eq!(words(r"'it\'s \n'"), Some(vec![r"it's \n".into()]));
        assert_eq!(words(r#"ab"cd""#), Some(vec!["abcd".into()]));
        assert_eq!(words(""), Some(vec![]));
    }

    #[test]
    fn refuses_unbalanced_quotes() {
        for line in [r#"a "b"#, r#"a "b"c"#, "a 'b", "a 'b'c", r#""a\"#] {
            assert_eq!(words(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_word_splits_back(word: Vec<u8>) {
            prop_assert_eq!(split(&quote(&word)), Some(vec![word]));
        }

        #[test]
        fn any_line_is_split_or_refused(line: Vec<u8>) {
            let _ = split(&line);
        }
    }
}
