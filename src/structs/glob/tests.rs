//! Patterns with the answers of a 7.2 server, and a plain recursive matcher to compare with.

use proptest::prelude::*;

use super::*;

#[test]
fn patterns_match_as_documented() {
    for (pattern, text, want) in [
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h*llo", "heeeello", true),
        ("h*llo", "hllo", true),
        ("h[ae]llo", "hallo", true),
        ("h[ae]llo", "hillo", false),
        ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[a-c]llo", "hbllo", true),
        ("h[c-a]llo", "hbllo", true),
        ("h[a-c]llo", "hdllo", false),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("*.txt", "a.txt.txt", true),
        ("a*b*c", "a__b__b__c", true),
        ("a*b*c", "a__c__b", false),
        ("**a**", "bab", true),
        ("a**", "a", true),
        ("", "", true),
        ("", "a", false),
        ("*", "", false),
        ("a", "", false),
        ("[", "[", false),
        ("[a", "a", true),
        ("[^a", "b", true),
        ("[]a]", "]a]", false),
        ("[a\\]b]", "]", true),
        ("a\\", "a\\", true),
        ("[a-", "-", true),
        ("[a-]", "^", true),
    ] {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
    }
}

#[test]
fn case_is_ignored_on_request_except_behind_an_escape_in_a_class() {
    assert!(matches_nocase(b"HELLO*", b"hello world"));
    assert!(matches_nocase(b"[A-C]x", b"bX"));
    assert!(matches_nocase(b"\\A", b"a"));
    assert!(!matches_nocase(b"[\\A]", b"a"));
    assert!(!matches(b"HELLO", b"hello"));
}

#[test]
fn bytes_above_127_are_signed_in_ranges() {
    assert!(matches(b"[\x80-a]", b"\x90"));
    assert!(matches(b"[\x80-a]", b"A"));
    assert!(!matches(b"[a-\xff]", b"b"));
    assert!(!matches_nocase(b"[\xc0-z]", b"*"));
}

#[test]
fn abusive_patterns_take_no_time() {
    let text = vec![b'a'; 20_000];
    let mut pattern = b"a*".repeat(900);
    pattern.push(b'b');
    assert!(!matches(&pattern, &text));
    assert!(matches(&b"a*".repeat(1_001), &text));
    assert!(!matches(&b"a*".repeat(1_002), &text));
}

/// The obvious matcher, for patterns of plain bytes, `?` and `*`.
fn obvious(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'*', rest @ ..], text) => (0..=text.len()).any(|cut| obvious(rest, &text[cut..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, text @ ..]) => obvious(rest, text),
        ([plain, rest @ ..], [byte, text @ ..]) => plain == byte && obvious(rest, text),
    }
}

proptest! {
    #[test]
    fn stars_agree_with_the_obvious_matcher(pattern in "[ab?*]{0,8}", text in "[ab]{1,10}") {
        prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), obvious(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn nothing_panics(pattern in proptest::collection::vec(any::<u8>(), 0..40), text in any::<Vec<u8>>()) {
        matches(&pattern, &text);
        matches_nocase(&pattern, &text);
    }
}
