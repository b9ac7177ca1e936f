//! Splitting a line into words and quoting a word so that it splits back: the rules of Redis's configuration files and
//! inline commands.
//!
//! Invariant: `split(quote(word)) == [word]` for every byte string.

/// Splits a line at blanks. `"..."` understands `\xHH`, `\n`, `\r`, `\t`, `\b`, `\a` and an escaped character; `'...'` only `\'`.
/// A closing quote must be followed by a blank or the end. `None`: quotes are not balanced.
pub(crate) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [blank, tail @ ..] = rest
            && is_blank(*blank)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, tail) = next_word(rest)?;
        words.push(word);
        rest = tail;
    }
}

/// What C's `isspace` accepts.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The word at the start of `rest` and what follows it.
fn next_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => {
                return Some((word, rest.get(1..).unwrap_or_default()));
            }
            [b'"', tail @ ..] => return finish_quoted(double_quoted(tail, &mut word)?, word),
            [b'\'', tail @ ..] => return finish_quoted(single_quoted(tail, &mut word)?, word),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Checks what follows a closing quote: a quoted part always ends its word.
fn finish_quoted(tail: &[u8], word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    match tail {
        [] => Some((word, tail)),
        [blank, ..] if is_blank(*blank) => Some((word, tail)),
        _ => None,
    }
}

/// Reads up to the closing `"` and returns what follows it.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) * 16 + hex_digit(*low));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Reads up to the closing `'` and returns what follows it.
fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// The word in double quotes, with everything escaped that is not printable ASCII.
pub(crate) fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(word.len() + 2);
    quoted.push(b'"');
    for byte in word {
        match byte {
            b'\\' | b'"' => quoted.extend([b'\\', *byte]),
            b'\n' => quoted.extend(b"\\n"),
            b'\r' => quoted.extend(b"\\r"),
            b'\t' => quoted.extend(b"\\t"),
            7 => quoted.extend(b"\\a"),
            8 => quoted.extend(b"\\b"),
            b' '..=b'~' => quoted.push(*byte),
            _ => quoted.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
    quoted.push(b'"');
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
