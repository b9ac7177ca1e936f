//! The flags in a script's first line (`#!lua flags=no-writes,allow-oom`) and of a function.
//!
//! The line also names the engine and, for a library, the library. Errors are the texts of the replies, without `ERR`.

use crate::config::words;

/// Script flags, one bit each.
pub(crate) const NO_WRITES: u32 = 1 << 0;
pub(crate) const ALLOW_OOM: u32 = 1 << 1;
pub(crate) const ALLOW_STALE: u32 = 1 << 2;
pub(crate) const NO_CLUSTER: u32 = 1 << 3;
pub(crate) const ALLOW_CROSS_SLOT: u32 = 1 << 4;
/// A script without such a line: it is treated as before there were flags.
pub(crate) const COMPAT: u32 = 1 << 5;

/// The flags that scripts can set, by the names that FUNCTION LIST shows, in its order.
pub(crate) const NAMES: &[(u32, &str)] = &[
    (NO_WRITES, "no-writes"),
    (ALLOW_OOM, "allow-oom"),
    (ALLOW_STALE, "allow-stale"),
    (NO_CLUSTER, "no-cluster"),
    (ALLOW_CROSS_SLOT, "allow-cross-slot-keys"),
];

/// Flags of an EVAL script, and the length of the line they stand in. The line is not part of the program, but its line
/// break is, so that line numbers stay.
pub(crate) fn of_script(body: &[u8]) -> Result<(u32, usize), Vec<u8>> {
    if !body.starts_with(b"#!") {
        return Ok((COMPAT, 0));
    }
    let len = memchr::memchr(b'\n', body).ok_or_else(|| b"Invalid script shebang".to_vec())?;
    let parts = words::split(&body[..len]).filter(|p| !p.is_empty());
    let parts = parts.ok_or_else(|| b"Invalid engine in script shebang".to_vec())?;
    if parts[0] != b"#!lua" {
        return Err([b"Unexpected engine in script shebang: ", &parts[0][..]].concat());
    }
    let mut flags = 0;
    for part in &parts[1..] {
        let Some(list) = part.strip_prefix(b"flags=") else {
            return Err([b"Unknown lua shebang option: ", &part[..]].concat());
        };
        if list.is_empty() {
            continue;
        }
        for name in list.split(|b| *b == b',') {
            let Some((flag, _)) = NAMES.iter().find(|(_, n)| n.as_bytes() == name) else {
                return Err([b"Unexpected flag in script shebang: ", name].concat());
            };
            flags |= flag;
        }
    }
    Ok((flags, len))
}

/// The first line of a library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LibraryHead {
    pub(crate) name: Vec<u8>,
    pub(crate) engine: Vec<u8>,
    /// Length of the line, without its line break.
    pub(crate) len: usize,
}

/// Reads the first line of a library: `#!lua name=mylib`.
pub(crate) fn of_library(code: &[u8]) -> Result<LibraryHead, Vec<u8>> {
    if !code.starts_with(b"#!") {
        return Err(b"Missing library metadata".to_vec());
    }
    let invalid = || b"Invalid library metadata".to_vec();
    let len = memchr::memchr(b'\n', code).ok_or_else(invalid)?;
    let parts = words::split(&code[..len]).filter(|p| !p.is_empty()).ok_or_else(invalid)?;
    let mut name = None;
    for part in &parts[1..] {
        match part.split_at_checked(5) {
            Some((key, value)) if key.eq_ignore_ascii_case(b"name=") => {
                if name.replace(value.to_vec()).is_some() {
                    return Err(b"Invalid metadata value, name argument was given multiple times".to_vec());
                }
            }
            _ => return Err([b"Invalid metadata value given: ", &part[..]].concat()),
        }
    }
    let name = name.ok_or_else(|| b"Library name was not given".to_vec())?;
    Ok(LibraryHead { name, engine: parts[0].get(2..).unwrap_or_default().to_vec(), len })
}

/// Whether a name of a library or function is valid: letters, digits and underscores.
pub(crate) fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &[u8]) -> String {
        String::from_utf8(of_script(body).unwrap_err()).unwrap()
    }

    #[test]
    fn scripts_say_their_flags() {
        assert_eq!(of_script(b"return 1"), Ok((COMPAT, 0)));
        assert_eq!(of_script(b"#!lua\nreturn 1"), Ok((0, 5)));
        assert_eq!(of_script(b"#!lua flags=\nreturn 1"), Ok((0, 12)));
        assert_eq!(of_script(b"#!lua flags=no-writes,allow-stale\nx"), Ok((NO_WRITES | ALLOW_STALE, 33)));
        assert_eq!(error(b"#!lua"), "Invalid script shebang");
        assert_eq!(error(b"#!not-lua\n"), "Unexpected engine in script shebang: #!not-lua");
        assert_eq!(error(b"#!lua name=x\n"), "Unknown lua shebang option: name=x");
        assert_eq!(error(b"#!lua flags=bad\n"), "Unexpected flag in script shebang: bad");
        assert_eq!(error(b"#!lua \"\n"), "Invalid engine in script shebang");
    }

    #[test]
    fn libraries_say_their_names() {
        let head = of_library(b"#!lua Name=mylib\ncode").unwrap();
        assert_eq!(head, LibraryHead { name: b"mylib".to_vec(), engine: b"lua".to_vec(), len: 16 });
        let error = |code: &[u8]| String::from_utf8(of_library(code).unwrap_err()).unwrap();
        assert_eq!(error(b"code"), "Missing library metadata");
        assert_eq!(error(b"#!lua name=x"), "Invalid library metadata");
        assert_eq!(error(b"#!lua\n"), "Library name was not given");
        assert_eq!(error(b"#!lua foo=x\n"), "Invalid metadata value given: foo=x");
        assert_eq!(error(b"#!lua name=a name=b\n"), "Invalid metadata value, name argument was given multiple times");
        assert!(is_valid_name(b"a_1") && !is_valid_name(b"") && !is_valid_name(b"a-b"));
    }
}
