//! Words and quotes as configuration files and manifests have them.

/// Splits a line into words. `"..."` knows the escapes `\n \r \t \b \a \xHH`, `'...'` only `\'`; a closing quote ends the
/// word. `None` when quotes do not close or text follows a closing quote.
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest
            .iter()
            .position(|b| !is_space(*b))
            .unwrap_or(rest.len());
        rest = &rest[start..];
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [b, ..] if is_space(*b) => break,
                [quote @ (b'"' | b'\''), tail @ ..] => {
                    rest = quoted(*quote, tail, &mut word)?;
                    if rest.first().is_some_and(|b| !is_space(*b)) {
                        return None;
                    }
                    break;
                }
                [b, tail @ ..] => {
                    word.push(*b);
                    rest = tail;
                }
            }
        }
        words.push(word);
    }
}

/// Reads up to the closing quote and returns what follows it.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b, tail @ ..] if *b == quote => return Some(tail),
            [b'\\', b'x', hi, lo, tail @ ..]
                if quote == b'"' && hi.is_ascii_hexdigit() && lo.is_ascii_hexdigit() =>
            {
                let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
                word.push(digit(*hi) << 4 | digit(*lo));
                rest = tail;
            }
            [b'\\', b, tail @ ..] if quote == b'"' => {
                word.push(match b {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = tail;
            }
            [b, tail @ ..] => {
                word.push(*b);
                rest = tail;
            }
        }
    }
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t'..=b'\r')
}

/// Whether a word has to be quoted to be read back as it is.
pub fn needs_quotes(word: &[u8]) -> bool {
    word.iter()
        .any(|b| !b.is_ascii_graphic() || matches!(b, b'\\' | b'"'))
}

/// The word in double quotes, with escapes.
pub fn quote(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &b in word {
        match b {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(b),
            _ => out.extend_from_slice(format!("\\x{b:02x}").as_bytes()),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words() {
        let split = |s: &str| {
            split_args(s.as_bytes()).map(|w| {
                w.into_iter()
                    .map(|w| String::from_utf8(w).unwrap())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            split("  a  bc\td "),
            Some(vec!["a".into(), "bc".into(), "d".into()])
        );
        assert_eq!(
            split(r#"file "a b\x41\n" '' x"y""#),
            Some(vec!["file".into(), "a bA\n".into(), "".into(), "xy".into()])
        );
        assert_eq!(
            split(r#"'it\'s' '\n'"#),
            Some(vec!["it's".into(), "\\n".into()])
        );
        assert_eq!(split(r#""open"#), None);
        assert_eq!(split(r#""a"b"#), None);
        assert_eq!(split(""), Some(vec![]));
    }

    proptest! {
        #[test]
        fn quoted_words_read_back(word in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(split_args(&quote(&word)), Some(vec![word]));
        }
    }
}
