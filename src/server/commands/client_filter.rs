//! The filters of CLIENT LIST and CLIENT KILL: which connections are meant. A filter is a row of `ROWS`.

use super::int_arg;
use super::prelude::*;
use crate::net::ClientId;
use crate::net::link::shown_addr;
use crate::server::admin::client_line;
use crate::server::admin::client_memory::ClientClass;
use crate::server::clients::{Client, ClientFlags, Clients};
use std::net::{IpAddr, SocketAddr};

/// An address as CLIENT LIST shows it, and what it means if it is that of a socket.
#[derive(Clone, Copy)]
struct Address<'a> {
    text: &'a [u8],
    socket: Option<SocketAddr>,
}

impl<'a> Address<'a> {
    fn new(text: &'a [u8]) -> Address<'a> {
        // Only what we would write so ourselves means a socket: an address has one text.
        let socket = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let socket = socket.filter(|socket| shown_addr(Some(*socket), None).as_bytes() == text);
        Address { text, socket }
    }

    /// False if it is surely not that of a client with this socket address.
    #[inline(always)]
    fn may_be_of(&self, socket: Option<SocketAddr>) -> bool {
        match (socket, self.socket) {
            (Some(SocketAddr::V4(theirs)), Some(SocketAddr::V4(ours))) => theirs == ours,
            _ => true,
        }
    }

    /// Whether it is that of a client with this socket address, or else with what `shown` gives.
    fn is_of(&self, socket: Option<SocketAddr>, shown: impl Fn() -> String) -> bool {
        match (socket, self.socket) {
            (Some(SocketAddr::V4(theirs)), Some(SocketAddr::V4(ours))) => theirs == ours,
            (Some(SocketAddr::V4(_)), _) => false,
            _ => shown().as_bytes() == self.text,
        }
    }
}

/// What a client is asked.
enum Test<'a> {
    Addr(Address<'a>),
    Laddr(Address<'a>),
    /// `None`: no address of a host is written so.
    Ip(Option<IpAddr>),
    Class(ClientClass),
    User(&'a [u8]),
    Ids(Vec<u64>),
    Name(&'a [u8]),
    LibName(&'a [u8]),
    LibVer(&'a [u8]),
    /// All of these letters.
    Flags(&'a [u8]),
    Db(usize),
    /// Seconds.
    Age(i64),
    Idle(i64),
}

/// A filter.
struct Row {
    word: &'static str,
    /// `NOT-` may stand before it.
    has_opposite: bool,
    parse: for<'a> fn(&Parser<'_, 'a>, &'a [u8]) -> Result<Test<'a>, CmdError>,
}

const ROWS: &[Row] = &[
    Row { word: "addr", has_opposite: true, parse: |_, value| Ok(Test::Addr(Address::new(value))) },
    Row { word: "laddr", has_opposite: true, parse: |_, value| Ok(Test::Laddr(Address::new(value))) },
    Row { word: "ip", has_opposite: true, parse: |_, value| Ok(Test::Ip(ip_arg(value))) },
    Row { word: "type", has_opposite: true, parse: |_, value| class_arg(value).map(Test::Class) },
    Row { word: "user", has_opposite: true, parse: |parser, value| parser.user(value).map(Test::User) },
    Row { word: "id", has_opposite: true, parse: |parser, value| Ok(Test::Ids(vec![parser.id(value)?])) },
    Row { word: "name", has_opposite: true, parse: |_, value| Ok(Test::Name(value)) },
    Row { word: "lib-name", has_opposite: true, parse: |_, value| Ok(Test::LibName(value)) },
    Row { word: "lib-ver", has_opposite: true, parse: |_, value| Ok(Test::LibVer(value)) },
    Row { word: "flags", has_opposite: true, parse: |_, value| flags_arg(value).map(Test::Flags) },
    Row { word: "db", has_opposite: true, parse: |parser, value| parser.db(value).map(Test::Db) },
    Row { word: "maxage", has_opposite: false, parse: |_, value| seconds_arg("maxage", value).map(Test::Age) },
    Row { word: "idle", has_opposite: false, parse: |_, value| seconds_arg("idle", value).map(Test::Idle) },
];

fn refuse<T>(before: &str, value: &[u8], after: &str) -> Result<T, CmdError> {
    Err(CmdError::bytes([before.as_bytes(), value, after.as_bytes()].concat()))
}

fn ip_arg(value: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn class_arg(value: &[u8]) -> Result<ClientClass, CmdError> {
    ClientClass::by_name(value).map_or_else(|| refuse("ERR Unknown client type '", value, "'"), Ok)
}

fn flags_arg(value: &[u8]) -> Result<&[u8], CmdError> {
    if value.iter().all(|letter| client_line::is_flag(*letter)) {
        return Ok(value);
    }
    refuse("ERR Unknown flags found in the provided filter: ", value, "")
}

fn seconds_arg(word: &str, value: &[u8]) -> Result<i64, CmdError> {
    match int_arg(value) {
        Err(_) => refuse("ERR ", word.as_bytes(), " is not an integer or out of range"),
        Ok(..=0) => refuse("ERR ", word.as_bytes(), " should be greater than 0"),
        Ok(seconds) => Ok(seconds),
    }
}

/// The row that a word means, and whether its opposite is meant.
fn find(word: &[u8]) -> Option<(&'static Row, bool)> {
    let (is_not, rest) = match word.split_at_checked(4) {
        Some((start, rest)) if start.eq_ignore_ascii_case(b"not-") => (true, rest),
        _ => (false, word),
    };
    let row = ROWS.iter().find(|row| rest.eq_ignore_ascii_case(row.word.as_bytes()))?;
    (row.has_opposite || !is_not).then_some((row, is_not))
}

/// What values of filters are held against, and how the command answers to wrong ones.
struct Parser<'c, 'a> {
    ctx: &'c Ctx<'c>,
    args: Args<'a>,
    is_kill: bool,
}

impl<'a> Parser<'_, 'a> {
    fn user(&self, name: &'a [u8]) -> Result<&'a [u8], CmdError> {
        match self.ctx.srv.acl.user(name) {
            Some(_) => Ok(name),
            None => refuse("ERR No such user '", name, "'"),
        }
    }

    fn id(&self, value: &[u8]) -> Result<u64, CmdError> {
        match int_arg(value) {
            Ok(number) if number >= 1 || !self.is_kill => Ok(number as u64),
            _ if self.is_kill => Err(CmdError::of("ERR client-id should be greater than 0")),
            _ => Err(CmdError::of("ERR Invalid client ID")),
        }
    }

    fn db(&self, value: &[u8]) -> Result<usize, CmdError> {
        let count = self.ctx.srv.ks.dbs.len();
        let number = int_arg(value).map_err(|_| CmdError::of("ERR DB is not an integer or out of range"))?;
        match usize::try_from(number) {
            Ok(db) if db < count => Ok(db),
            _ => Err(CmdError::text(format!("ERR DB number should be between 0 and {}", count - 1))),
        }
    }

    /// Ids that follow the first one, from argument `at` on; where the next argument is.
    fn more_ids(&self, ids: &mut Vec<u64>, mut at: usize) -> Result<usize, CmdError> {
        while let Some(value) = self.args.get(at).filter(|word| find(word).is_none() && !is_skip_me(word)) {
            // KILL takes what is no number for a filter, which it does not know.
            if self.is_kill && int_arg(value).is_err() {
                break;
            }
            ids.push(self.id(value)?);
            at += 1;
        }
        Ok(at)
    }

    /// The filter that all arguments together are. `skip`: who is left out unless SKIPME says otherwise.
    fn filter(&self, skip: Option<ClientId>) -> Result<Filter<'a>, CmdError> {
        let mut filter = Filter { skip, ..Filter::all(self.ctx.srv.clock.ms()) };
        let mut at = 2;
        while let Some(word) = self.args.get(at) {
            let value = self.args.get(at + 1).ok_or(error::SYNTAX)?;
            at += 2;
            if is_skip_me(word) {
                filter.skip = match value {
                    yes if yes.eq_ignore_ascii_case(b"yes") => Some(self.ctx.client),
                    no if no.eq_ignore_ascii_case(b"no") => None,
                    _ => return Err(error::SYNTAX),
                };
                continue;
            }
            let (row, is_not) = find(word).ok_or(error::SYNTAX)?;
            let mut test = (row.parse)(self, value)?;
            if let Test::Ids(ids) = &mut test {
                at = self.more_ids(ids, at)?;
            }
            filter.add(Condition { word: row.word, is_not, test });
        }
        Ok(filter)
    }
}

fn is_skip_me(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"skipme")
}

struct Condition<'a> {
    /// Which row it is of.
    word: &'static str,
    is_not: bool,
    test: Test<'a>,
}

/// Which connections CLIENT LIST and CLIENT KILL mean: those that pass all conditions.
pub(super) struct Filter<'a> {
    conditions: Vec<Condition<'a>>,
    skip: Option<ClientId>,
    now_ms: i64,
}

impl<'a> Filter<'a> {
    fn all(now_ms: i64) -> Filter<'a> {
        Filter { conditions: Vec::new(), skip: None, now_ms }
    }

    /// `CLIENT KILL <address>`
    pub(super) fn of_address(address: &'a [u8]) -> Filter<'a> {
        let mut filter = Filter::all(0);
        filter.add(Condition { word: "addr", is_not: false, test: Test::Addr(Address::new(address)) });
        filter
    }

    /// `CLIENT KILL <filter> <value> [...]`
    pub(super) fn of_kill(ctx: &Ctx<'_>, args: Args<'a>) -> Result<Filter<'a>, CmdError> {
        Parser { ctx, args, is_kill: true }.filter(Some(ctx.client))
    }

    /// `CLIENT LIST [<filter> <value> ...]`
    pub(super) fn of_list(ctx: &Ctx<'_>, args: Args<'a>) -> Result<Filter<'a>, CmdError> {
        Parser { ctx, args, is_kill: false }.filter(None)
    }

    /// A filter that is named again takes the place of the one before, but ids gather.
    fn add(&mut self, new: Condition<'a>) {
        let same = self.conditions.iter_mut().find(|old| (old.word, old.is_not) == (new.word, new.is_not));
        match same {
            None => self.conditions.push(new),
            Some(old) => match (&mut old.test, new.test) {
                (Test::Ids(ids), Test::Ids(more)) => ids.extend(more),
                (test, new) => *test = new,
            },
        }
    }

    /// The ids that are named, so that no others need be looked at.
    fn ids(&self) -> Option<&[u64]> {
        self.conditions.iter().find_map(|condition| match &condition.test {
            Test::Ids(ids) if !condition.is_not => Some(ids.as_slice()),
            _ => None,
        })
    }

    /// Whether [`Filter::clients`] gives them in the order in which they are named.
    pub(super) fn names_ids(&self) -> bool {
        self.ids().is_some()
    }

    /// The clients that are meant, as often as their ids are named if they are, or in no order.
    pub(super) fn clients<'s>(&'s self, clients: &'s Clients) -> impl Iterator<Item = &'s Client> {
        let named = self.ids();
        let by_id = named.unwrap_or_default().iter();
        let by_id = by_id.filter_map(|number| clients.by_number(*number).and_then(|id| clients.get(id)));
        let others =
            named.is_none().then(|| clients.iter().filter(|c| self.is_of_class(c)).filter(|c| self.may_match(c)));
        by_id.chain(others.into_iter().flatten()).filter(|c| self.matches(c))
    }

    /// Whether the client's class does not rule it out, which its first bytes tell; as it does nearly all of many. Inlined, so
    /// that the processor fetches the next clients meanwhile.
    #[inline(always)]
    fn is_of_class(&self, c: &Client) -> bool {
        self.conditions.iter().all(|Condition { is_not, test, .. }| match test {
            Test::Class(class) => (ClientClass::of(c) == *class) != *is_not,
            _ => true,
        })
    }

    /// Whether its addresses do not rule it out.
    #[inline(always)]
    fn may_match(&self, c: &Client) -> bool {
        self.conditions.iter().all(|Condition { is_not, test, .. }| match test {
            Test::Addr(addr) => *is_not || addr.may_be_of(c.peer),
            Test::Laddr(addr) => *is_not || addr.may_be_of(c.local),
            _ => true,
        })
    }

    fn matches(&self, c: &Client) -> bool {
        c.conn.is_some()
            && self.skip != Some(c.id)
            && self.conditions.iter().all(|condition| condition.test.passes(c, self.now_ms) != condition.is_not)
    }
}

impl Test<'_> {
    fn passes(&self, c: &Client, now_ms: i64) -> bool {
        match self {
            Test::Addr(addr) => addr.is_of(c.peer, || c.addr()),
            Test::Laddr(addr) => addr.is_of(c.local, || c.laddr()),
            Test::Ip(ip) => ip.is_some() && c.peer.map(|peer| peer.ip()) == *ip,
            Test::Class(class) => ClientClass::of(c) == *class,
            // What comes from our primary is nobody's.
            Test::User(user) => c.user == *user && !c.is(ClientFlags::MASTER),
            Test::Ids(ids) => ids.contains(&c.number),
            Test::Name(name) => c.name == *name,
            Test::LibName(name) => c.lib_name == *name,
            Test::LibVer(version) => c.lib_ver == *version,
            Test::Flags(letters) => {
                let shown = client_line::flags_of(c);
                letters.iter().all(|letter| shown.contains(letter))
            }
            Test::Db(db) => c.db == *db,
            Test::Age(seconds) => client_line::seconds_since(c.created_ms, now_ms) >= *seconds,
            Test::Idle(seconds) => client_line::seconds_since(c.last_interaction_ms, now_ms) >= *seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_the_client_that_is_shown_so() {
        let is = |text: &str, socket: Option<&str>, path: Option<&str>| {
            let socket = socket.map(|s| s.parse().unwrap());
            Address::new(text.as_bytes()).is_of(socket, || shown_addr(socket, path))
        };
        assert!(is("127.0.0.1:80", Some("127.0.0.1:80"), None));
        assert!(!is("127.0.0.1:81", Some("127.0.0.1:80"), None));
        assert!(!is("127.0.0.1:080", Some("127.0.0.1:80"), None));
        assert!(is("[::1]:80", Some("[::1]:80"), None));
        assert!(!is("[0::1]:80", Some("[::1]:80"), None));
        assert!(!is("127.0.0.1:80", Some("[::1]:80"), None));
        assert!(!is("[::1]:80", Some("127.0.0.1:80"), None));
        assert!(is("/run/redis.sock:0", None, Some("/run/redis.sock")));
        assert!(!is("127.0.0.1:80", None, Some("/run/redis.sock")));
        assert!(is("?:0", None, None));
    }
}
