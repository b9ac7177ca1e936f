//! MIGRATE: moves keys to another server. What goes on until they are there is in `server::moving`.

use super::int_arg;
use super::prelude::*;
use crate::catalog::row::KeyPos;
use crate::server::moving::{Request, not_connected};
use std::io;
use std::task::Poll;
use std::time::Duration;

pub(crate) const COMMANDS: &[ServerCommand] = &[command(Group::Generic, "migrate", migrate)
    .flags(flag::WRITE)
    .acl(cat::KEYSPACE | cat::DANGEROUS)
    .keys(&[
        KeySpec::range(key::RW | key::ACCESS | key::DELETE, 3, 0, 1),
        KeySpec::new(
            key::RW | key::ACCESS | key::DELETE | key::INCOMPLETE,
            Begin::Keyword("KEYS", -2),
            Find::Range { last: -1, step: 1, limit: 0 },
        ),
    ])
    .get_keys(migrate_keys)
    .args(&[
        Arg::string("host"),
        Arg::integer("port"),
        Arg::one_of("key-selector").of(&[Arg::key("key", 0), Arg::word("empty-string", "")]),
        Arg::integer("destination-db"),
        Arg::integer("timeout"),
        Arg::word("copy", "COPY").since("3.0.0").optional(),
        Arg::word("replace", "REPLACE").since("3.0.0").optional(),
        Arg::one_of("authentication").optional().of(&[
            Arg::string("auth").display("password").token("AUTH").since("4.0.7"),
            Arg::block("auth2").token("AUTH2").since("6.0.0").of(&[Arg::string("username"), Arg::string("password")]),
        ]),
        Arg::key("keys", 1).display("key").token("KEYS").since("3.0.6").optional().multiple(),
    ])
    .since("2.6.0")
    .history(&["3.0.0", "3.0.6", "4.0.7", "6.0.0"])
    .complexity("For each key what DUMP and DEL take here and RESTORE there, and the way between them.")
    .summary("Moves keys to another server.")
    .tips(&["nondeterministic_output"])];

/// An option, and at which argument its first value stands.
#[derive(Clone, Copy)]
enum Opt {
    Copy,
    Replace,
    Auth(usize),
    /// The user; the password is the next.
    Auth2(usize),
    /// The first key; those after it are keys, too.
    Keys(usize),
}

/// The options of a call; an argument that is none is an error by itself. Both the command and who asks for its keys read
/// them here, so they agree about which argument is what.
struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    fn of(args: Args<'a>) -> Options<'a> {
        Options { args, next: 6 }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<Opt, CmdError>;

    fn next(&mut self) -> Option<Result<Opt, CmdError>> {
        let at = self.next + 1;
        let option = self.args.get(self.next)?;
        let left = self.args.len() - at;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        let (option, values) = if is(b"copy") {
            (Ok(Opt::Copy), 0)
        } else if is(b"replace") {
            (Ok(Opt::Replace), 0)
        } else if is(b"auth") && left >= 1 {
            (Ok(Opt::Auth(at)), 1)
        } else if is(b"auth2") && left >= 2 {
            (Ok(Opt::Auth2(at)), 2)
        } else if is(b"keys") {
            (Ok(Opt::Keys(at)), left)
        } else {
            (Err(error::SYNTAX), 0)
        };
        self.next = at + values;
        Some(option)
    }
}

/// No longer timeout counts, ms: weeks.
const LONGEST_TIMEOUT: i64 = i32::MAX as i64;

fn parse(args: Args<'_>) -> Result<Request, CmdError> {
    let (mut copy, mut replace, mut auth, mut keys) = (false, false, Vec::new(), vec![args[3].to_vec()]);
    for option in Options::of(args) {
        match option? {
            Opt::Copy => copy = true,
            Opt::Replace => replace = true,
            Opt::Auth(at) => auth = vec![b"AUTH".to_vec(), args[at].to_vec()],
            Opt::Auth2(at) => auth = vec![b"AUTH".to_vec(), args[at].to_vec(), args[at + 1].to_vec()],
            Opt::Keys(at) => {
                if !args[3].is_empty() {
                    return Err(CmdError::of(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                keys = args.from(at).iter().map(<[u8]>::to_vec).collect();
            }
        }
    }
    let timeout_ms = int_arg(&args[5])?;
    let db = int_arg(&args[4])?;
    let timeout_ms = if timeout_ms <= 0 { 1000 } else { timeout_ms.min(LONGEST_TIMEOUT) };
    let timeout = Duration::from_millis(timeout_ms.unsigned_abs());
    Ok(Request { host: args[1].to_vec(), port: args[2].to_vec(), db, timeout, copy, replace, auth, keys })
}

/// Positions of the keys: the third argument, or all after KEYS.
fn migrate_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    let flags = key::RW | key::ACCESS | key::DELETE;
    let several = Options::of(args).find_map(|option| match option {
        Ok(Opt::Keys(at)) => Some(at..args.len()),
        _ => None,
    });
    match several {
        Some(_) if !args[3].is_empty() => None,
        keys => Some(keys.unwrap_or(3..4).map(|index| KeyPos { index, flags }).collect()),
    }
}

fn migrate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let request = parse(args)?;
    let (id, db) = (ctx.client, ctx.db);
    let found: Vec<usize> =
        (0..request.keys.len()).filter(|i| ctx.srv.ks.read(db, &request.keys[*i]).is_some()).collect();
    if found.is_empty() {
        return ctx.out.just_simple("NOKEY");
    }
    let waits = !ctx.deny_blocking() && !ctx.must_obey() && ctx.srv.depth == 1;
    let unusable = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let addresses = std::str::from_utf8(&request.host).map_err(unusable).and_then(|name| match waits {
        false => ctx.srv.resolver.addresses_within(name, request.timeout).map(Poll::Ready),
        true => match ctx.srv.resolver.addresses(name) {
            Poll::Ready(found) => found.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        },
    });
    match addresses.map_err(|e| not_connected(&e))? {
        Poll::Pending => ctx.srv.postpone_this(id, args),
        Poll::Ready(addresses) => {
            if let Some(result) = ctx.srv.move_keys((id, db), request, &found, addresses, waits) {
                result?;
                ctx.out.ok();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::OwnedArgs;

    #[test]
    fn a_timeout_is_as_long_as_can_be_counted() {
        for (text, ms) in [("0", 1000), ("-5", 1000), ("7", 7), ("9223372036854775807", i32::MAX as u64)] {
            let words = ["MIGRATE", "host", "1", "key", "0", text];
            let args = OwnedArgs::from_iter(words.iter().map(|word| word.as_bytes()));
            assert_eq!(parse(args.as_args()).unwrap().timeout, Duration::from_millis(ms), "{text}");
        }
    }
}
