//! Looking ahead: requests are found in the query buffers before the first of them runs, and the memory that their keys
//! stand in is asked for meanwhile. By the time a request runs, its key is in the cache.
//!
//! A request that was looked at has not begun: nothing is decided about it but where its arguments are. Whoever runs it
//! looks it up by its place, and drops it when its client may not go on.

use crate::catalog::table::{CmdRef, CommandTable};
use crate::keyspace::{KeyHash, Keyspace};
use crate::net::io::FoundRequest;
use crate::resp::{Args, Limits, Parsed, RequestParser, ShortCommands, Span, count_of_form};
use crate::structs::bytes::is_same;
use crate::structs::table::Step;
use std::mem::take;
use std::ops::Range;

/// Requests looked at before they run: about as many as there may be memory accesses under way, twice.
pub(crate) const BATCH: usize = 32;
/// Clients whose input is read before the first of them is run.
pub(crate) const CLIENTS: usize = 32;
/// Memory is asked for on behalf of so many requests at once, so that looking up where it is overlaps, too.
const STRIDE: usize = 8;
/// How many requests before a request runs the entries of its keys are asked for, at least.
const ENTRY_DISTANCE: usize = 8;
/// The same of the place of a member in its collection, and of the member itself.
const PLACE_DISTANCE: usize = 12;
const MEMBER_DISTANCE: usize = 8;
/// How many requests later items are asked for that stand in a bucket behind another.
const BEHIND_LATER: usize = 4;
/// How much earlier entries are asked for when requests name members, which are looked for in what stands there, and the
/// buckets of keys when there is a table for each slot to be found first.
const ENTRIES_EARLIER: usize = 12;
const BUCKETS_EARLIER: usize = 8;
/// Keys of one request whose memory is asked for.
const KEYS_PER_REQUEST: usize = 32;

/// Arguments for which room is kept.
const KEPT_SPANS: usize = 4096;

/// A request that was found, in the order of its client's query buffer.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// What it calls; `None` if there is no such command.
    pub(crate) cmd: Option<CmdRef>,
    /// It is of the form of the one before it: its arguments are as many, and stand where those do.
    pub(crate) follows: bool,
    /// It calls the same as the one before it, unless that depends on its first argument.
    is_alike: bool,
    /// Its only key is that of a request before it, too, and was not added again.
    is_key_shared: bool,
    /// Its length in the query buffer, bytes.
    pub(crate) consumed: usize,
    spans: Range<usize>,
    keys: Range<usize>,
}

impl Request {
    /// It calls the same as the one before it, which is given, in the same form.
    #[inline]
    pub(crate) fn continues(&self, before: &Request) -> bool {
        self.follows && self.cmd == before.cmd
    }
}

/// A key of a request: which argument it is, and its hash.
#[derive(Debug)]
struct AheadKey {
    arg: u32,
    db: u32,
    hash: KeyHash,
    /// The hash of a member or field of what the key holds.
    member: Option<u64>,
    /// It, or the member, may stand in a bucket behind another.
    is_behind: bool,
    is_member_behind: bool,
}

/// The requests of one client or several, one client's after another's.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    pub(crate) found: Found,
    pub(crate) keys: AheadKeys,
    usual: Usual,
}

/// The name that was looked up last, and what it calls, if that does not depend on arguments: it likely comes again.
#[derive(Debug, Default)]
struct Usual {
    word: Vec<u8>,
    cmd: Option<CmdRef>,
}

impl Usual {
    /// What a request calls.
    #[inline(always)]
    fn resolve(&mut self, args: Args<'_>, commands: &CommandTable) -> Option<CmdRef> {
        let word = args.at(0);
        if self.cmd.is_some() && is_same(word, &self.word) {
            return self.cmd;
        }
        let cmd = commands.resolve_whole(args);
        word.clone_into(&mut self.word);
        self.cmd = cmd.filter(|cmd| !commands.has_to_do_with_subcommands(*cmd));
        cmd
    }
}

/// What was found in query buffers.
#[derive(Debug, Default)]
pub(crate) struct Found {
    requests: Vec<Request>,
    /// Those of requests that follow one of their form are the same.
    spans: Vec<Span>,
}

/// The keys that requests name.
#[derive(Debug, Default)]
pub(crate) struct AheadKeys {
    keys: Vec<AheadKey>,
    /// The requests up to which `fetch` has asked for memory, step by step.
    fetched: Fetched,
    /// Some of the keys come with a member.
    has_members: bool,
}

/// The first request of which this was not asked for yet.
#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    /// Anything at all is to be done again from this request on.
    next: usize,
    buckets: usize,
    entries: usize,
    entries_behind: usize,
    places: usize,
    members: usize,
    members_behind: usize,
}

impl Fetched {
    fn limit(&mut self, len: usize) {
        let Fetched { next, buckets, entries, entries_behind, places, members, members_behind } = self;
        for at in [next, buckets, entries, entries_behind, places, members, members_behind] {
            *at = (*at).min(len);
        }
    }
}

impl Found {
    #[inline]
    pub(crate) fn request(&self, index: usize) -> &Request {
        &self.requests[index]
    }

    /// Where the arguments of a request are in it.
    #[inline]
    pub(crate) fn spans(&self, request: &Request) -> &[Span] {
        &self.spans[request.spans.clone()]
    }

    /// The arguments of a request that stands at the beginning of `buf`.
    #[inline]
    pub(crate) fn args<'a>(&'a self, request: &Request, buf: &'a [u8]) -> Args<'a> {
        Args::new(&buf[..request.consumed], self.spans(request))
    }

    /// The arguments of the request before `index`, which is what `done`, the buffer up to where that begins, ends with.
    pub(crate) fn args_before<'a>(&'a self, index: usize, done: &'a [u8]) -> Args<'a> {
        let request = self.request(index - 1);
        self.args(request, &done[done.len() - request.consumed..])
    }

    /// Adds the requests that `query` begins with, up to `count`.
    #[inline(never)]
    fn find(&mut self, query: &[u8], parser: &mut RequestParser, limits: Limits, count: usize) {
        let most = self.requests.len() + count;
        let mut short = ShortCommands::default();
        let mut rest = query;
        while !rest.is_empty() && self.requests.len() < most {
            let spans = self.spans.len();
            let is_short = !parser.in_multibulk() && !limits.unauthenticated;
            let consumed = match if is_short { short.find(rest, &mut self.spans) } else { None } {
                Some(consumed) => consumed,
                None => {
                    short.is_alike = false;
                    match self.find_any(rest, parser, limits) {
                        Some(consumed) => consumed,
                        None => break,
                    }
                }
            };
            let spans = spans..self.spans.len();
            let (text, more) = rest.split_at(consumed);
            let room = if is_short { most - self.requests.len() - 1 } else { 0 };
            let followers = count_of_form(text, &self.spans[spans.clone()], more, room);
            rest = &more[consumed * followers..];
            let request = Request {
                cmd: None,
                follows: false,
                is_alike: short.is_alike,
                is_key_shared: false,
                consumed,
                spans,
                keys: 0..0,
            };
            let follower = Request { follows: true, is_alike: true, ..request.clone() };
            self.requests.push(request);
            self.requests.extend(std::iter::repeat_n(follower, followers));
        }
    }

    /// The length of the command in RESP that `query` begins with; its arguments are added to ours. `None`: there is none.
    #[inline(never)]
    fn find_any(&mut self, query: &[u8], parser: &mut RequestParser, limits: Limits) -> Option<usize> {
        match parser.parse(query, limits) {
            Ok(Parsed::Command { consumed }) => {
                self.spans.extend_from_slice(parser.spans());
                parser.reset();
                // Without arguments it is an empty one, which was found as such.
                Some(consumed)
            }
            Ok(Parsed::Incomplete) => None,
            // It is looked at again when its turn has come.
            Ok(Parsed::Empty { .. } | Parsed::Inline { .. }) | Err(_) => {
                parser.reset();
                None
            }
        }
    }
}

impl Ahead {
    /// Where the next request will stand.
    pub(crate) fn mark(&self) -> usize {
        self.found.requests.len()
    }

    /// Forgets the requests from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        let Found { requests, spans } = &mut self.found;
        if let Some(first) = requests.get(len) {
            spans.truncate(if first.follows { first.spans.end } else { first.spans.start });
            self.keys.keys.truncate(if first.is_key_shared { first.keys.end } else { first.keys.start });
            requests.truncate(len);
            self.keys.fetched.limit(len);
        }
    }

    /// Forgets all requests, and gives back the memory that an unusually long one took.
    pub(crate) fn clear(&mut self) {
        self.truncate(0);
        self.keys.has_members = false;
        let spans = &mut self.found.spans;
        if spans.capacity() > KEPT_SPANS {
            spans.shrink_to(KEPT_SPANS);
        }
    }

    /// Finds up to `count` requests from `pos` on, and begins to fetch the places of their keys. It stops at what is no
    /// whole command in RESP; the parser then stands where it found that, or is at a loss and was reset.
    pub(crate) fn look(
        &mut self,
        query: &[u8],
        pos: usize,
        parser: &mut RequestParser,
        limits: Limits,
        count: usize,
        (commands, ks, db): (&CommandTable, &Keyspace, usize),
    ) -> Range<usize> {
        // One step for all before the next: each is small enough for what it works with to stay in registers.
        let (first, first_key) = (self.mark(), self.keys.keys.len());
        self.found.find(&query[pos..], parser, limits, count);
        self.find_keys(first, &query[pos..], (commands, ks, db));
        // At once, so that addresses are translated side by side, too.
        ks.prefetch(db, self.keys.keys[first_key..].iter().map(|key| key.hash));
        first..self.mark()
    }

    /// As `look`, where an I/O thread has found requests that `query` begins with, and their spans: up to `count` of them.
    pub(crate) fn take_over(
        &mut self,
        (requests, mut spans): (&[FoundRequest], &[Span]),
        query: &[u8],
        count: usize,
        (commands, ks, db): (&CommandTable, &Keyspace, usize),
    ) -> Range<usize> {
        let (first, first_key) = (self.mark(), self.keys.keys.len());
        let Ahead { found, keys: AheadKeys { keys, has_members, .. }, usual } = self;
        let (mut rest, mut form, mut last) = (query, 0..0, None);
        for request in &requests[..count.min(requests.len())] {
            let follows = request.args == 0;
            if !follows {
                let (own, later) = spans.split_at(request.args);
                spans = later;
                form = found.spans.len()..found.spans.len() + own.len();
                found.spans.extend_from_slice(own);
            }
            let (text, more) = rest.split_at(request.consumed);
            rest = more;
            let args = Args::new(text, &found.spans[form.clone()]);
            let cmd = match last {
                Some(_) if request.is_alike => last,
                _ => {
                    let cmd = usual.resolve(args, commands);
                    last = cmd.filter(|_| usual.cmd.is_some());
                    cmd
                }
            };
            let next = keys.len();
            if let Some(command) = cmd.map(|cmd| commands.get(cmd)) {
                *has_members |= command.member.is_some();
                if command.keys.is_first_argument(args.len()) && !args.at(1).is_empty() {
                    debug_assert_eq!(KeyHash::known(request.hash, request.slot), ks.hash(args.at(1)));
                    let member = command.member.map(|m| ks.hash_member(args.at(m.index(args.len()))));
                    keys.push(AheadKey::new(1, db, KeyHash::known(request.hash, request.slot), member));
                } else {
                    let positions = command.keys.positions(args.len());
                    add_keys(keys, positions.map(|at| (at, args.at(at))), ks, db);
                }
            }
            found.requests.push(Request {
                cmd,
                follows,
                is_alike: request.is_alike,
                is_key_shared: false,
                consumed: request.consumed,
                spans: form.clone(),
                keys: next..keys.len(),
            });
        }
        ks.prefetch(db, keys[first_key..].iter().map(|key| key.hash));
        first..self.mark()
    }

    /// Finds what the requests from `first` on, with which `query` begins, call, and the hashes of their keys.
    #[inline(never)]
    fn find_keys(&mut self, first: usize, query: &[u8], (commands, ks, db): (&CommandTable, &Keyspace, usize)) {
        let Ahead { found: Found { requests, spans }, keys: AheadKeys { keys, has_members, .. }, usual } = self;
        let mut rest = query;
        // What the last one calls, if the name alone tells: a container's subcommand is told by its first argument.
        let mut last = None;
        let mut last_key = LastKey { name: b"", hash: KeyHash::default(), may_share: true };
        let mut requests = &mut requests[first..];
        while let Some(lead) = requests.first() {
            let (each, is_alike) = (lead.consumed, lead.is_alike);
            let spans = &spans[lead.spans.clone()];
            let args = Args::new(&rest[..each], spans);
            let found = match last {
                Some(_) if is_alike => last,
                _ => {
                    let cmd = usual.resolve(args, commands);
                    let found = cmd.map(|cmd| (cmd, commands.get(cmd)));
                    last = found.filter(|_| usual.cmd.is_some());
                    found
                }
            };
            // Those that follow call the same if the name alone tells.
            let followers = match last {
                Some(_) => requests[1..].iter().take_while(|request| request.follows).count(),
                None => 0,
            };
            let (run, later) = take(&mut requests).split_at_mut(1 + followers);
            requests = later;
            let (texts, behind) = rest.split_at(each * run.len());
            rest = behind;
            let Some((cmd, command)) = found else {
                run[0].keys = keys.len()..keys.len();
                continue;
            };
            *has_members |= command.member.is_some();
            let member = command.member.map(|m| spans[m.index(spans.len())]);
            let of_run = run.iter_mut().zip(texts.chunks_exact(each));
            if command.keys.is_first_argument(spans.len()) {
                add_first_arguments(keys, of_run, cmd, (spans[1], member), &mut last_key, (ks, db));
            } else {
                last_key.name = b"";
                for (request, text) in of_run {
                    let first_key = keys.len();
                    let args = Args::new(text, spans);
                    let positions = command.keys.positions(args.len());
                    add_keys(keys, positions.map(|at| (at, args.at(at))), ks, db);
                    request.cmd = Some(cmd);
                    request.keys = first_key..keys.len();
                }
            }
        }
    }
}

/// The key that was added last, if it is all that its request names (none: an empty one).
struct LastKey<'a> {
    name: &'a [u8],
    hash: KeyHash,
    /// Many in a row have one, or each has another: after two that differ nobody compares them any more.
    may_share: bool,
}

/// Adds the keys of requests that call the same and name none but their first argument, which stands at the first place
/// given, and perhaps a member at the second.
#[inline(always)]
fn add_first_arguments<'a, 'r>(
    keys: &mut Vec<AheadKey>,
    mut of_run: impl Iterator<Item = (&'r mut Request, &'a [u8])>,
    cmd: CmdRef,
    (name_at, member_at): (Span, Option<Span>),
    last: &mut LastKey<'a>,
    (ks, db): (&Keyspace, usize),
) {
    for (request, text) in of_run.by_ref() {
        let name = name_at.of(text);
        let member = member_at.map(|at| ks.hash_member(at.of(text)));
        let next = keys.len();
        request.cmd = Some(cmd);
        if last.may_share && !name.is_empty() && is_same_key(last.name, name) {
            if member.is_none() {
                request.keys = next - 1..next;
                request.is_key_shared = true;
                continue;
            }
        } else {
            last.may_share &= last.name.is_empty();
            (last.name, last.hash) = (name, ks.hash(name));
        }
        request.keys = next..next + 1;
        keys.push(AheadKey::new(1, db, last.hash, member));
        if !last.may_share && member.is_none() {
            break;
        }
    }
    // Nothing but the key itself is to be found of those that are left, if any.
    let mut next = keys.len();
    keys.extend(of_run.map(|(request, text)| {
        request.cmd = Some(cmd);
        request.keys = next..next + 1;
        next += 1;
        AheadKey::new(1, db, ks.hash(name_at.of(text)), None)
    }));
}

impl AheadKeys {
    /// Tells the keyspace the hashes of the keys of a request that is about to run.
    #[inline(always)]
    pub(crate) fn expect(&self, request: &Request, args: Args<'_>, ks: &mut Keyspace) {
        #[inline(never)]
        fn expect_several(keys: &[AheadKey], args: Args<'_>, ks: &mut Keyspace) {
            ks.hashes.clear();
            keys.iter().for_each(|key| ks.hashes.expect(args.at(key.arg as usize), key.hash));
        }
        match &self.keys[request.keys.clone()] {
            [key] => ks.hashes.expect_only(args.at(key.arg as usize), key.hash),
            keys => expect_several(keys, args, ks),
        }
    }

    /// Goes on with what `look` began, before request `index` runs: asks for the entries of the keys of the requests that
    /// follow soon. Not of all at once, as only a few memory accesses can be under way.
    #[inline]
    pub(crate) fn fetch(&mut self, index: usize, found: &Found, ks: &Keyspace) {
        if index >= self.fetched.next && self.keys.len() > 1 {
            self.fetch_more(index, &found.requests, ks);
        }
    }

    fn fetch_more(&mut self, index: usize, requests: &[Request], ks: &Keyspace) {
        let up_to = |distance: usize| (index + STRIDE + distance).min(requests.len());
        let entry_distance = ENTRY_DISTANCE + if self.has_members { ENTRIES_EARLIER } else { 0 };
        let mut fetched = self.fetched;
        fetched.next = index + STRIDE;
        if ks.is_per_slot() {
            for key in self.between(requests, &mut fetched.buckets, up_to(entry_distance + BUCKETS_EARLIER)) {
                ks.prefetch_bucket(key.db as usize, key.hash);
            }
        }
        for key in self.between(requests, &mut fetched.entries, up_to(entry_distance)) {
            key.is_behind = ks.prefetch_entry(key.db as usize, &mut key.hash);
        }
        for key in self.between(requests, &mut fetched.entries_behind, up_to(entry_distance - BEHIND_LATER)) {
            if key.is_behind {
                ks.prefetch_entry_behind(key.db as usize, key.hash);
            }
        }
        if self.has_members {
            let mut step = |from, distance, step| {
                prefetch_members(self.between(requests, from, up_to(distance)), ks, step);
            };
            step(&mut fetched.places, PLACE_DISTANCE, Step::Bucket);
            step(&mut fetched.members, MEMBER_DISTANCE, Step::Item);
            step(&mut fetched.members_behind, MEMBER_DISTANCE - BEHIND_LATER, Step::Behind);
        }
        self.fetched = fetched;
    }

    /// The keys of the requests from `from` up to `to`, which `from` becomes.
    fn between(&mut self, requests: &[Request], from: &mut usize, to: usize) -> &mut [AheadKey] {
        let end = |count: usize| count.checked_sub(1).map_or(0, |last| requests[last].keys.end);
        let keys = end(*from)..end(to.max(*from));
        *from = to.max(*from);
        &mut self.keys[keys]
    }
}

impl AheadKey {
    #[inline(always)]
    fn new(arg: usize, db: usize, hash: KeyHash, member: Option<u64>) -> AheadKey {
        AheadKey { arg: arg as u32, db: db as u32, hash, member, is_behind: false, is_member_behind: false }
    }
}

/// Out of the way of those whose keys differ.
#[inline(never)]
fn is_same_key(a: &[u8], b: &[u8]) -> bool {
    is_same(a, b)
}

/// Adds the keys of a request that names none or several, each with the argument it is.
#[inline(never)]
fn add_keys<'a>(keys: &mut Vec<AheadKey>, of: impl Iterator<Item = (usize, &'a [u8])>, ks: &Keyspace, db: usize) {
    keys.extend(of.take(KEYS_PER_REQUEST).map(|(arg, name)| AheadKey::new(arg, db, ks.hash(name), None)));
}

/// Begins to bring near where the members of these keys stand, or they themselves. What a key holds is only looked for once
/// if several in a row are the same.
fn prefetch_members(keys: &mut [AheadKey], ks: &Keyspace, step: Step) {
    let mut last = None;
    for key in keys {
        let Some(member) = key.member.filter(|_| step != Step::Behind || key.is_member_behind) else { continue };
        let object = match last {
            Some((db, hash, object)) if (db, hash) == (key.db, key.hash) => object,
            _ => ks.likely_object(key.db as usize, key.hash),
        };
        last = Some((key.db, key.hash, object));
        key.is_member_behind = object.is_some_and(|object| object.prefetch_member(member, step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::io::{Finder, FoundAt, FoundRequests};
    use crate::structs::table::HashSeed;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { max_bulk_len: 512 << 20, unauthenticated: false };

    fn command(words: &[&str]) -> Vec<u8> {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|w| text += &format!("${}\r\n{w}\r\n", w.len()));
        text.into_bytes()
    }

    /// A command: which one, and which keys and members it names.
    fn any_command() -> impl Strategy<Value = Vec<String>> {
        (0..12u8, 0..3u8, 0..3u8).prop_map(|(kind, a, b)| {
            // Some are longer than what is found without the parser.
            let long = "v".repeat(if b == 2 { 1_200 } else { 3 });
            let key = |n: u8| if n == 2 { String::new() } else { format!("key:{n}") };
            match kind {
                0..=2 => vec!["GET".into(), key(a)],
                3 => vec!["set".into(), key(a), long],
                4 => vec!["Get".into(), key(b)],
                5 => vec!["SADD".into(), key(a), key(b)],
                6 => vec!["MSET".into(), key(a), "1".into(), key(b), "2".into()],
                7 => vec!["PING".into()],
                8 => vec!["NOSUCH".into(), key(a)],
                9 => vec!["CONFIG".into(), ["GET", "SET", "NOS"][usize::from(a)].into(), "port".into()],
                10 => vec!["CONFIG".into(), "NOSUCH".into()],
                _ => vec!["LPUSH".into(), key(a), key(b)],
            }
        })
    }

    proptest! {
        #[test]
        fn every_request_has_its_arguments_its_command_and_the_hashes_of_its_keys(
            requests in prop::collection::vec(any_command(), 1..40),
            batches in prop::collection::vec((1..20usize, 0..20usize), 1..20),
            per_slot: bool,
            found_far: bool,
        ) {
            let commands = crate::server::commands::table().0;
            let mut ks = Keyspace::new(1, per_slot, HashSeed([7; 16]));
            let words: Vec<Vec<&str>> = requests.iter().map(|r| r.iter().map(String::as_str).collect()).collect();
            let query: Vec<u8> = words.iter().flat_map(|w| command(w)).collect();
            let mut ahead = Ahead::default();
            let mut parser = RequestParser::default();
            let (mut done, mut pos) = (0, 0);
            for (count, kept) in batches.into_iter().cycle().take(100) {
                if done == words.len() {
                    break;
                }
                let mut found = 0..0;
                if found_far {
                    let mut far = FoundRequests::default();
                    let counts = Finder { seed: ks.seed, per_slot }.find(&query[pos..], &mut far);
                    let far = far.at(FoundAt::default().next(counts));
                    found = ahead.take_over(far, &query[pos..], count, (&commands, &ks, 0));
                    prop_assert_eq!(found.len(), count.min(far.0.len()));
                }
                if found.is_empty() {
                    found = ahead.look(&query, pos, &mut parser, LIMITS, count, (&commands, &ks, 0));
                    prop_assert_eq!(found.len(), count.min(words.len() - done));
                }
                for index in found.clone() {
                    ahead.keys.fetch(index, &ahead.found, &ks);
                    let request = ahead.found.request(index);
                    let args = ahead.found.args(request, &query[pos..]);
                    let expected: Vec<&[u8]> = words[done].iter().map(|w| w.as_bytes()).collect();
                    prop_assert_eq!(args.iter().collect::<Vec<_>>(), expected);
                    prop_assert_eq!(request.cmd, commands.resolve_whole(args));
                    ahead.keys.expect(request, args, &mut ks);
                    if let Some(cmd) = request.cmd {
                        for at in commands.get(cmd).keys.positions(args.len()) {
                            prop_assert_eq!(ks.hashes.take(args.at(at)), Some(ks.hash(args.at(at))));
                        }
                    }
                    (done, pos) = (done + 1, pos + request.consumed);
                    prop_assert_eq!(ahead.found.args_before(index + 1, &query[..pos]).len(), words[done - 1].len());
                }
                // Another client's requests stay, and the rest is forgotten.
                ahead.truncate(kept.min(ahead.mark()));
            }
        }
    }

    #[test]
    fn a_key_that_requests_share_outlives_those_that_are_forgotten() {
        let commands = crate::server::commands::table().0;
        let mut ks = Keyspace::new(1, false, HashSeed([7; 16]));
        let query = command(&["GET", "key"]).repeat(4);
        let mut ahead = Ahead::default();
        ahead.look(&query, 0, &mut RequestParser::default(), LIMITS, 4, (&commands, &ks, 0));
        assert_eq!(ahead.keys.keys.len(), 1);
        ahead.truncate(2);
        for index in 0..2 {
            let request = ahead.found.request(index);
            let args = ahead.found.args(request, &query);
            ks.hashes.clear();
            ahead.keys.expect(request, args, &mut ks);
            assert_eq!(ks.hashes.take(args.at(1)), Some(ks.hash(b"key")));
        }
        ahead.truncate(0);
        assert!(ahead.keys.keys.is_empty());
    }
}
