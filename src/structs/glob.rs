//! Glob patterns as KEYS, SCAN, PSUBSCRIBE and ACL rules use them: `*`, `?`, `[abc]`, `[^a-z]` and `\x`.
//!
//! Inside a class, an escaped byte matches itself in its own case only, and ranges order bytes as signed ones, all as
//! in Redis 7.2. Matching takes at most time proportional to pattern times text: only the last `*` is tried again.

/// Whether `text` matches `pattern`, bytes compared as they are.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    glob::<false>(pattern, text)
}

/// Whether `text` matches `pattern`, ASCII letters in either case.
pub(crate) fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    glob::<true>(pattern, text)
}

#[inline]
fn fold<const NOCASE: bool>(byte: u8) -> u8 {
    if NOCASE { byte.to_ascii_lowercase() } else { byte }
}

/// A pattern in which more stars than this are reached matches nothing.
const MAX_STARS: usize = 1000;

fn glob<const NOCASE: bool>(pattern: &[u8], text: &[u8]) -> bool {
    // Not even a star matches an empty text, as in Redis 7.2.
    if text.is_empty() {
        return pattern.is_empty();
    }
    // Most texts that do not match already differ in the plain bytes at the start of the pattern.
    let is_plain = |byte: u8| !matches!(byte, b'*' | b'?' | b'[' | b'\\');
    let alike = |(want, got): &(&u8, &u8)| is_plain(**want) && fold::<NOCASE>(**want) == fold::<NOCASE>(**got);
    let mut p = pattern.iter().zip(text).take_while(alike).count();
    if p < text.len() && pattern.get(p).is_none_or(|byte| is_plain(*byte)) {
        return false;
    }
    let mut t = p;
    let mut stars = 0;
    // The last star: the index after it in the pattern, and where the text it has not matched begins.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            while p < pattern.len() && pattern[p] == b'*' {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            stars += 1;
            if stars > MAX_STARS {
                return false;
            }
            star = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        let step = if p < pattern.len() { one::<NOCASE>(&pattern[p..], text[t]) } else { None };
        match (step, star) {
            (Some(len), _) => {
                p += len;
                t += 1;
            }
            (None, Some((behind, from))) => {
                star = Some((behind, from + 1));
                p = behind;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte against the element that `pattern` begins with. The element's length, or `None`.
fn one<const NOCASE: bool>(pattern: &[u8], byte: u8) -> Option<usize> {
    let folded = fold::<NOCASE>(byte);
    match pattern[0] {
        b'?' => Some(1),
        b'[' => {
            let (hit, len) = class::<NOCASE>(pattern, byte);
            hit.then_some(len)
        }
        b'\\' if pattern.len() >= 2 => (fold::<NOCASE>(pattern[1]) == folded).then_some(2),
        plain => (fold::<NOCASE>(plain) == folded).then_some(1),
    }
}

/// The order of a byte in a range: signed, but unsigned if folded (except for the one that C takes for EOF).
fn order<const NOCASE: bool>(byte: u8) -> i32 {
    match byte {
        0xff => -1,
        byte if NOCASE => i32::from(byte.to_ascii_lowercase()),
        byte => i32::from(byte as i8),
    }
}

/// Matches a byte against a class. Returns whether it is in the class, and the class's length. A class that is not
/// closed ends with the pattern.
fn class<const NOCASE: bool>(pattern: &[u8], byte: u8) -> (bool, usize) {
    let mut i = 1;
    let not = pattern.get(i) == Some(&b'^');
    if not {
        i += 1;
    }
    let folded = fold::<NOCASE>(byte);
    let mut hit = false;
    loop {
        match &pattern[i.min(pattern.len())..] {
            [] => return (hit != not, pattern.len()),
            [b'\\', escaped, ..] => {
                hit |= *escaped == byte;
                i += 2;
            }
            [b']', ..] => return (hit != not, i + 1),
            [from, b'-', to, ..] => {
                let (from, to) = (*from as i8, *to as i8);
                let range = order::<NOCASE>(from.min(to) as u8)..=order::<NOCASE>(from.max(to) as u8);
                hit |= range.contains(&order::<NOCASE>(byte));
                i += 3;
            }
            [plain, ..] => {
                hit |= fold::<NOCASE>(*plain) == folded;
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
