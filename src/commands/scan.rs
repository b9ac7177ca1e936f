//! Going through the keys of a database: KEYS and SCAN, and what HSCAN, SSCAN and ZSCAN share with it.

use super::int_arg;
use super::prelude::*;
use crate::keyspace::object;
use crate::resp::Reply;
use crate::structs::glob;
use crate::structs::numbers::split_sign;

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Generic, "keys", keys)
        .flags(flag::READONLY)
        .acl(cat::DANGEROUS | cat::KEYSPACE)
        .args(&[Arg::pattern("pattern")])
        .complexity("O(N) where N is the number of keys of the database.")
        .summary("Lists the keys that match a pattern.")
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    command(Group::Generic, "scan", scan)
        .flags(flag::READONLY)
        .args(&[
            Arg::integer("cursor"),
            Arg::pattern("pattern").token("MATCH").optional(),
            Arg::integer("count").token("COUNT").optional(),
            Arg::string("type").token("TYPE").since("6.0.0").optional(),
        ])
        .since("2.8.0")
        .history(&["6.0.0"])
        .complexity("O(1) a call; O(N) for a full pass, where N is the number of keys.")
        .summary("Goes through the keys step by step.")
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"]),
];

/// The arguments of a command that goes through the elements of a key.
pub(crate) const SCAN_ARGS: &[Arg] = &[
    Arg::key("key", 0),
    Arg::integer("cursor"),
    Arg::pattern("pattern").token("MATCH").optional(),
    Arg::integer("count").token("COUNT").optional(),
];

fn keys(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let pattern = &args[1];
    let room = ctx.session.reply_room();
    let mut over = false;
    let mark = ctx.out.open();
    let mut found = 0;
    for entry in ctx.ks.dbs[ctx.db].shown() {
        let matches = pattern == b"*" || glob::matches(pattern, entry.key());
        if matches && !ctx.ks.is_past(entry) {
            ctx.out.bulk(entry.key());
            found += 1;
            over = ctx.out.buf.len() > room;
            if over {
                break;
            }
        }
    }
    ctx.out.close_array(mark, found);
    if over {
        ctx.close_client();
    }
    Ok(())
}

/// The options of SCAN, HSCAN, SSCAN and ZSCAN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanOptions<'a> {
    /// `None`: everything matches.
    pub(crate) pattern: Option<&'a [u8]>,
    /// Elements to look at in one call, at least 1.
    pub(crate) count: i64,
    pub(crate) type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options from argument `from` on; TYPE only for keys (`of_keys`).
    pub(crate) fn parse(args: Args<'a>, from: usize, of_keys: bool) -> Result<ScanOptions<'a>, CmdError> {
        let mut o = ScanOptions { pattern: None, count: 10, type_name: None };
        let mut i = from;
        while i < args.len() {
            let (option, value) = (args.at(i), args.get(i + 1));
            match value {
                Some(n) if option.eq_ignore_ascii_case(b"COUNT") => {
                    o.count = int_arg(n)?;
                    if o.count < 1 {
                        return Err(error::SYNTAX);
                    }
                }
                Some(pattern) if option.eq_ignore_ascii_case(b"MATCH") => {
                    o.pattern = (pattern != b"*").then_some(pattern);
                }
                Some(name) if of_keys && option.eq_ignore_ascii_case(b"TYPE") => o.type_name = Some(name),
                _ => return Err(error::SYNTAX),
            }
            i += 2;
        }
        Ok(o)
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.pattern.is_none_or(|p| glob::matches(p, text))
    }
}

/// A cursor as C's `strtoul` reads it: a sign is accepted, and nothing at all is 0.
pub(crate) fn cursor_arg(text: &[u8]) -> Result<u64, CmdError> {
    const INVALID: CmdError = CmdError::of("ERR invalid cursor");
    let (negative, digits) = split_sign(text);
    if digits.is_empty() && !text.is_empty() {
        return Err(INVALID);
    }
    let mut n = 0u64;
    for d in digits {
        let digit = (*d as char).to_digit(10).ok_or(INVALID)?;
        n = n.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit))).ok_or(INVALID)?;
    }
    Ok(if negative { n.wrapping_neg() } else { n })
}

fn scan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut cursor = cursor_arg(&args[1])?;
    let options = ScanOptions::parse(args, 2, true)?;
    let type_name = options.type_name.map(<[u8]>::to_ascii_lowercase);
    let mut found = Reply::default();
    let (mut count, mut looked_at, mut hits) = (0, 0, 0);
    let mut expired = Vec::new();
    let ks = &mut ctx.ks;
    // Steps that find nothing end the call, too, but ten times as many.
    let mut calls = options.count.saturating_mul(10);
    loop {
        let wanted = usize::try_from(options.count - looked_at).unwrap_or(0).max(1);
        cursor = ks.dbs[ctx.db].scan(cursor, wanted, |entry| {
            looked_at += 1;
            if !options.matches(entry.key()) {
                return;
            }
            if ks.is_past(entry) {
                expired.push(entry.key().to_vec());
                return;
            }
            if let Some(wanted) = &type_name {
                hits += 1;
                if object::type_name(entry).as_bytes() != wanted {
                    return;
                }
            }
            found.bulk(entry.key());
            count += 1;
        });
        calls -= 1;
        if cursor == 0 || looked_at >= options.count || calls < 0 {
            break;
        }
    }
    ks.stats.hits += hits;
    if !expired.is_empty() {
        super::generic::unwrap_deletions(ctx);
    }
    let ks = &mut ctx.ks;
    for key in expired {
        // The look-up deletes the key if the expire policy allows.
        ks.exists(ctx.db, &key);
        ks.stats.misses += type_name.is_some() as u64;
    }
    ctx.out.array(2);
    ctx.out.bulk(cursor.to_string().as_bytes());
    ctx.out.array(count);
    ctx.out.raw(&found.buf);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn cursors_are_read_as_strtoul_does() {
        for (text, value) in [
            (&b"0"[..], 0),
            (b"", 0),
            (b"+17", 17),
            (b"-1", u64::MAX),
            (b"007", 7),
            (b"18446744073709551615", u64::MAX),
        ] {
            assert_eq!(cursor_arg(text), Ok(value), "{text:?}");
        }
        for text in [&b"-"[..], b" 1", b"1 ", b"18446744073709551616", b"x"] {
            assert!(cursor_arg(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_are_listed_by_pattern_and_page_by_page() {
        let mut bare = Bare::new();
        bare.run("mset one 1 two 2 three 3");
        assert_eq!(bare.run("keys o*"), "*1 $3 one");
        assert_eq!(bare.run("scan 0 match t*o count 100"), "*2 $1 0 *1 $3 two");
        assert_eq!(bare.run("scan x"), "-ERR invalid cursor");
    }
}
