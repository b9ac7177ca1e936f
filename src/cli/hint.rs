//! Which arguments of a command are still to be typed.
//!
//! The words typed so far are matched against the command's syntax, and the rest of the syntax is shown. Adjacent
//! optional arguments may come in any order; once the argument after them has begun, those left out can no longer come.
//! Words that fit nowhere end the hints.

use super::help::{Argument, Kind};

/// The syntax that remains after the words typed so far; empty when they do not fit.
pub(super) fn remaining(arguments: &[Argument], words: &[String]) -> String {
    let mut typed = blank(arguments);
    if read_all(arguments, &mut typed, words) != words.len() {
        return String::new();
    }
    show_all(arguments, &typed, " ")
}

/// How far an argument has been typed.
#[derive(Debug, Clone, Default)]
struct Typed {
    /// Words that belong to it.
    words: usize,
    token: bool,
    value: bool,
    /// Nothing of it is missing.
    whole: bool,
    parts: Vec<Typed>,
}

fn blank(arguments: &[Argument]) -> Vec<Typed> {
    arguments.iter().map(|a| Typed { parts: blank(&a.parts), ..Typed::default() }).collect()
}

/// Reads words against a list of arguments; returns how many fit, 0 if a mandatory one does not.
fn read_all(arguments: &[Argument], typed: &mut [Typed], words: &[String]) -> usize {
    let (mut at, mut used) = (0, 0);
    while at < arguments.len() && used < words.len() {
        if arguments[at].optional {
            let end = end_of_optional(arguments, at);
            used += read_optional(&arguments[at..end], &mut typed[at..end], &words[used..]);
            at = end;
        } else {
            match read(&arguments[at], &mut typed[at], &words[used..]) {
                0 => return 0,
                n => used += n,
            }
            at += 1;
        }
    }
    used
}

fn end_of_optional(arguments: &[Argument], from: usize) -> usize {
    arguments[from..].iter().position(|a| !a.optional).map_or(arguments.len(), |n| from + n)
}

/// Reads words against optional arguments in whatever order they come.
fn read_optional(arguments: &[Argument], typed: &mut [Typed], words: &[String]) -> usize {
    let mut used = 0;
    let mut last: Option<usize> = None;
    while used < words.len() {
        let next = (0..arguments.len()).find_map(|at| {
            if typed[at].words > 0 {
                return None;
            }
            let n = read(&arguments[at], &mut typed[at], &words[used..]);
            (n > 0).then_some((at, n))
        });
        let Some((at, n)) = next else { break };
        if let Some(last) = last.replace(at) {
            // Its optional last part can no longer come.
            typed[last].whole = true;
        }
        used += n;
    }
    used
}

/// Reads words against one argument, as often as it may be repeated.
fn read(argument: &Argument, typed: &mut Typed, words: &[String]) -> usize {
    let mut used = read_once(argument, typed, words, true);
    if !argument.multiple {
        return used;
    }
    while typed.whole && used < words.len() {
        *typed = Typed { parts: blank(&argument.parts), ..Typed::default() };
        let with_token = argument.token.is_none() || argument.multiple_token;
        used += read_once(argument, typed, &words[used..], with_token);
        if !with_token && typed.words > 0 {
            typed.token = true;
        }
    }
    // More may always come.
    typed.whole = false;
    used
}

fn read_once(argument: &Argument, typed: &mut Typed, words: &[String], with_token: bool) -> usize {
    let mut rest = words;
    if let Some(token) = argument.token.as_ref().filter(|_| with_token) {
        if !words.first().is_some_and(|word| word.eq_ignore_ascii_case(token)) {
            return 0;
        }
        typed.token = true;
        typed.words = 1;
        rest = &words[1..];
        if argument.kind == Kind::Token {
            typed.whole = true;
            return 1;
        }
        if rest.is_empty() {
            return 1;
        }
    }
    let fits = match argument.kind {
        Kind::Block => {
            let n = read_all(&argument.parts, &mut typed.parts, rest);
            typed.words += n;
            typed.whole = typed.parts.iter().all(|part| part.whole);
            typed.words > 0
        }
        Kind::OneOf => {
            let parts = argument.parts.iter().zip(typed.parts.iter_mut());
            for (part, state) in parts {
                let n = read(part, state, rest);
                if n > 0 {
                    typed.words += n;
                    typed.whole = state.whole;
                    break;
                }
            }
            typed.words > 0
        }
        Kind::Integer => begins_with_number(&rest[0], false),
        Kind::Double => begins_with_number(&rest[0], true),
        Kind::Value | Kind::Token => true,
    };
    if !fits {
        typed.words = 0;
        return 0;
    }
    if !matches!(argument.kind, Kind::Block | Kind::OneOf) {
        typed.words += 1;
        typed.value = true;
        typed.whole = true;
    }
    typed.words
}

fn begins_with_number(word: &str, fraction: bool) -> bool {
    let digits = word.trim_start().trim_start_matches(['-', '+']);
    let digits = if fraction { digits.trim_start_matches('.') } else { digits };
    digits.starts_with(|c: char| c.is_ascii_digit())
}

/// The syntax of a list of arguments, without what has been typed.
fn show_all(arguments: &[Argument], typed: &[Typed], separator: &str) -> String {
    let mut shown = Vec::new();
    let mut at = 0;
    while at < arguments.len() {
        if !arguments[at].optional {
            shown.push(show(&arguments[at], &typed[at]));
            at += 1;
            continue;
        }
        let end = end_of_optional(arguments, at);
        let begun = |i: &usize| typed[*i].words > 0 && !typed[*i].whole;
        shown.extend((at..end).filter(begun).map(|i| show(&arguments[i], &typed[i])));
        if end == arguments.len() || typed[end].words == 0 {
            let others = (at..end).filter(|i| !begun(i));
            shown.extend(others.map(|i| show(&arguments[i], &typed[i])));
        }
        at = end;
    }
    shown.retain(|text| !text.is_empty());
    shown.join(separator)
}

/// The syntax of one argument, without what has been typed.
fn show(argument: &Argument, typed: &Typed) -> String {
    if typed.whole {
        return String::new();
    }
    let token = argument.shown_token();
    let body = match argument.kind {
        Kind::Token => String::new(),
        Kind::OneOf if typed.words > 0 => {
            let parts = argument.parts.iter().zip(&typed.parts);
            parts.filter(|(_, state)| state.words > 0).map(|(part, state)| show(part, state)).collect()
        }
        Kind::OneOf => show_all(&argument.parts, &typed.parts, "|"),
        Kind::Block => show_all(&argument.parts, &typed.parts, " "),
        Kind::Value | Kind::Integer | Kind::Double if typed.value => String::new(),
        Kind::Value | Kind::Integer | Kind::Double => argument.name.clone(),
    };
    let mut pieces = Vec::new();
    pieces.extend(token.filter(|_| !typed.token).map(str::to_string));
    pieces.push(body);
    if argument.multiple {
        pieces.push(repetition(argument));
    }
    pieces.retain(|piece| !piece.is_empty());
    let text = pieces.join(" ");
    match argument.optional {
        true if typed.words == 0 => format!("[{text}]"),
        // Redis's redis-cli closes this bracket too.
        true if argument.multiple => format!("{text}]"),
        _ => text,
    }
}

/// `[TOKEN value ...]`: the end of an argument that may be repeated.
fn repetition(argument: &Argument) -> String {
    let untyped = blank(&argument.parts);
    let body = match argument.kind {
        Kind::Token => String::new(),
        Kind::OneOf => show_all(&argument.parts, &untyped, "|"),
        Kind::Block => show_all(&argument.parts, &untyped, " "),
        Kind::Value | Kind::Integer | Kind::Double => argument.name.clone(),
    };
    let token = argument.shown_token().filter(|_| argument.multiple_token).map(str::to_string);
    let mut pieces: Vec<String> = token.into_iter().chain([body]).collect();
    pieces.retain(|piece| !piece.is_empty());
    format!("[{} ...]", pieces.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Argument {
        Argument { name: name.into(), ..Argument::default() }
    }

    fn optional(token: &str, name: &str) -> Argument {
        let kind = if name.is_empty() { Kind::Token } else { Kind::Integer };
        Argument { name: name.into(), kind, token: Some(token.into()), optional: true, ..Argument::default() }
    }

    fn hint(arguments: &[Argument], line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        remaining(arguments, &words)
    }

    #[test]
    fn mandatory_and_optional() {
        let scan = [value("cursor"), optional("COUNT", "count"), optional("ASC", "")];
        assert_eq!(hint(&scan, ""), "cursor [COUNT count] [ASC]");
        assert_eq!(hint(&scan, "0"), "[COUNT count] [ASC]");
        assert_eq!(hint(&scan, "0 count"), "count [ASC]");
        assert_eq!(hint(&scan, "0 asc"), "[COUNT count]");
        assert_eq!(hint(&scan, "0 count x"), "");
        assert_eq!(hint(&scan, "0 nonsense"), "");
    }

    #[test]
    fn optional_before_mandatory() {
        let zadd = [value("key"), optional("CH", ""), value("score")];
        assert_eq!(hint(&zadd, "k"), "[CH] score");
        assert_eq!(hint(&zadd, "k ch"), "score");
        assert_eq!(hint(&zadd, "k 1"), "");
    }

    #[test]
    fn repetitions() {
        let mget = [Argument { multiple: true, ..value("key") }];
        assert_eq!(hint(&mget, ""), "key [key ...]");
        assert_eq!(hint(&mget, "a b"), "[key ...]");
        let get = Argument {
            token: Some("GET".into()),
            kind: Kind::Block,
            optional: true,
            multiple: true,
            multiple_token: true,
            parts: vec![value("encoding"), value("offset")],
            ..Argument::default()
        };
        let bitfield = [value("key"), get];
        assert_eq!(hint(&bitfield, "k"), "[GET encoding offset [GET encoding offset ...]]");
        assert_eq!(hint(&bitfield, "k GET x"), "offset [GET encoding offset ...]]");
    }
}
