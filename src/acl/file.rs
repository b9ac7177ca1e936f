//! Users as lines of the configuration file and of the file that `aclfile` names: reading and checking them.

use super::user::{RuleError, Rules, User, has_blanks, join_selectors};
use crate::config::{ConfigError, SourceLine};
use std::collections::HashSet;

/// Reads `user NAME RULE...` lines; the error lists all mistakes. Words are separated by single spaces and nothing is
/// quoted, as in Redis: no name, pattern or hash contains a blank.
pub(crate) fn parse_users(text: &[u8], path: &str, rules: Rules<'_>) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut names = HashSet::new();
    let mut errors = String::new();
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        let number = i + 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        if words.len() < 2 || words[0] != b"user" {
            errors += &format!("{path}:{number} should start with user keyword followed by the username. ");
            continue;
        }
        let name = words[1];
        if has_blanks(name) {
            let name = String::from_utf8_lossy(name);
            errors += &format!("'{path}:{number}: username '{name}' contains invalid characters. ");
            continue;
        }
        if names.contains(name) {
            let name = String::from_utf8_lossy(name);
            errors += &format!("WARNING: Duplicate user '{name}' found on line {number}. ");
            continue;
        }
        let mut user = User::new(name, rules);
        errors += &apply_line(&mut user, &words[2..], &format!("{path}:{number}"), rules);
        names.insert(name.to_vec());
        users.push(user);
    }
    if errors.is_empty() {
        return Ok(users);
    }
    Err(format!("{errors}WARNING: ACL errors detected, no change to the previously active ACL rules was performed"))
}

/// Applies the rules of one line of a file, and returns what was wrong with them: every unknown command, as its name is
/// no secret, and the first mistake of another kind.
fn apply_line(user: &mut User, words: &[&[u8]], place: &str, rules: Rules<'_>) -> String {
    let mut errors = String::new();
    let words = match join_selectors(words) {
        Ok(words) => words,
        Err(_) => return format!("{place}: Unmatched parenthesis in selector definition."),
    };
    let mut other_mistake = false;
    for word in &words {
        let word = word.trim_ascii();
        match user.apply(word, rules) {
            Ok(()) => {}
            Err(e @ RuleError::UnknownCommand) => {
                let word = String::from_utf8_lossy(word);
                errors += &format!("{place}: Error in applying operation '{word}': {}. ", e.text());
            }
            Err(e) if !other_mistake => {
                errors += &format!("{place}: {}. ", e.text());
                other_mistake = true;
            }
            Err(_) => {}
        }
    }
    errors
}

/// Checks a `user` line of the configuration, except for the names of commands, which are checked when the user is
/// made. The word that the error names is the one Redis names: it counts rules where it means words.
pub(crate) fn check_declaration(
    line: &SourceLine,
    earlier: &[SourceLine],
    rules: Rules<'_>,
) -> Result<(), ConfigError> {
    let refuse = |at: usize, reason: &str| {
        let word = if at == 0 { "user".into() } else { String::from_utf8_lossy(&line.words[at - 1]) };
        Err(ConfigError::at(line, format!("Error in user declaration '{word}': {reason}")))
    };
    let name = &line.words[0];
    if earlier.iter().any(|other| other.words[0] == *name) {
        return refuse(1, "Duplicate user found. A user can only be defined once in config files");
    }
    let words = match line.rules() {
        Ok(words) => words,
        Err(at) => return refuse(at, "Wrong format"),
    };
    let mut user = User::new(name, rules);
    for (at, word) in words.iter().enumerate() {
        match user.apply(word, rules) {
            Ok(()) | Err(RuleError::UnknownCommand) => {}
            Err(e) => return refuse(at, e.text()),
        }
    }
    Ok(())
}

impl SourceLine {
    /// The rules of a `user` line, selectors in one piece. The error is the index of the word whose parenthesis is not
    /// closed.
    fn rules(&self) -> Result<Vec<Vec<u8>>, usize> {
        let words: Vec<&[u8]> = self.words.iter().skip(1).map(Vec::as_slice).collect();
        join_selectors(&words)
    }
}

/// The user a line of the configuration declares.
pub(crate) fn declared_user(line: &SourceLine, rules: Rules<'_>) -> Result<User, String> {
    let name = &line.words[0];
    if has_blanks(name) {
        return Err("Spaces not allowed in ACL usernames".into());
    }
    let mut user = User::new(name, rules);
    for word in line.rules().unwrap_or_default() {
        user.apply(&word, rules).map_err(|e| {
            let (word, name) = (String::from_utf8_lossy(&word), String::from_utf8_lossy(name));
            format!("Error loading ACL rule '{word}' for the user named '{name}': {}", e.text())
        })?;
    }
    Ok(user)
}

/// A user's name and the rules that make it, with a space between words and none inside.
pub(crate) fn user_line(user: &User) -> Vec<u8> {
    let mut line = Vec::with_capacity(128);
    user.write_line(&mut line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::{self, Config};
    use proptest::prelude::*;

    /// Rules with text that tries to break out of them.
    fn rule() -> impl Strategy<Value = Vec<u8>> {
        let text = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..6),
            "[a-c ()\"'\\\\\n\t\u{b}*#]{0,8}".prop_map(String::into_bytes),
        ];
        let plain = (prop::sample::select(&[">", "~", "%R~", "%W~", "&", "+get|", "-", "+", ""][..]), text.clone());
        let plain = plain.prop_map(|(start, text)| [start.as_bytes(), &text].concat()).boxed();
        let in_selector = (text, proptest::collection::vec(plain.clone(), 0..4))
            .prop_map(|(text, rules)| [b"(", rules.join(&b' ').as_slice(), b" ~", &text, b" +@read)"].concat());
        prop_oneof![
            4 => plain,
            1 => in_selector,
            1 => prop::sample::select(&["on", "+@all", "-@write", "+config|get", "allkeys", "resetchannels"][..])
                .prop_map(|rule| rule.as_bytes().to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn users_are_read_back_as_they_were_written(
            name in prop_oneof![proptest::collection::vec(any::<u8>(), 0..5), "[a\"'\\\\#(]{0,4}".prop_map(String::into_bytes)],
            words in proptest::collection::vec(rule(), 0..8),
        ) {
            prop_assume!(!has_blanks(&name));
            let commands = crate::server::commands::table().0;
            let rules = Rules { commands: &commands, channels_open: false };
            let mut user = User::new(&name, rules);
            for word in &words {
                let mut changed = user.clone();
                if changed.apply(word, rules).is_ok() {
                    user = changed;
                }
            }
            let line = user_line(&user);
            let file = [b"user ", line.as_slice(), b"\n"].concat();
            let read = parse_users(&file, "file", rules).map_err(TestCaseError::fail)?;
            prop_assert_eq!(read.len(), 1);
            // `~*` takes in all other patterns as it is read, also where `%R~*` and `%W~*` are what it was made of.
            let bare = |word: &[u8]| matches!(word, b"~*" | b"(~*" | b"~*)" | b"(~*)");
            if !line.split(|b| *b == b' ').any(bare) {
                prop_assert_eq!(user_line(&read[0]), line.clone());
            }
            let again = [b"user ", user_line(&read[0]).as_slice()].concat();
            let again = parse_users(&again, "file", rules).map_err(TestCaseError::fail)?;
            prop_assert_eq!(user_line(&again[0]), user_line(&read[0]));

            let text = config::rewrite(b"", &Config::default(), std::slice::from_ref(&line));
            let found = text.split(|b| *b == b'\n').find(|line| line.starts_with(b"user "));
            let mut found = config::words::split(found.unwrap()).unwrap();
            found.remove(0);
            let source = SourceLine { words: found, number: 1, text: Vec::new() };
            prop_assert!(check_declaration(&source, &[], rules).is_ok());
            let read = declared_user(&source, rules).map_err(TestCaseError::fail)?;
            prop_assert_eq!(user_line(&read), line);
        }
    }

    #[test]
    fn mistakes_in_a_file_are_all_told() {
        let commands = crate::server::commands::table().0;
        let rules = Rules { commands: &commands, channels_open: false };
        let file = b"user b on foo bar\nuser c +nosuch -more\nuser b\nfoo\nuser d (+get\nuser a\tb\n";
        assert_eq!(
            parse_users(file, "f", rules).unwrap_err(),
            "f:1: Syntax error. f:2: Error in applying operation '+nosuch': Unknown command or category name in ACL. f:2: Error \
             in applying operation '-more': Unknown command or category name in ACL. WARNING: Duplicate user 'b' found on \
             line 3. f:4 should start with user keyword followed by the username. f:5: Unmatched parenthesis in selector \
             definition.'f:6: username 'a\tb' contains invalid characters. WARNING: ACL errors detected, no change to the \
             previously active ACL rules was performed"
        );
        // Nothing is quoted in such a file.
        let read = parse_users(b"user b ~\"x\" >a'b  on\r\n", "f", rules).unwrap();
        assert!(read[0].accepts_password(b"a'b") && user_line(&read[0]).ends_with(b" ~\"x\" resetchannels -@all"));
    }
}
