//! Looking ahead: requests are found in the query buffers before the first of them runs, and the memory that their keys
//! stand in is asked for meanwhile. By the time a request runs, its key is in the cache.
//!
//! A request that was looked at has not begun: nothing is decided about it but where its arguments are. Whoever runs it
//! looks it up by its place, and drops it when its client may not go on.

use super::table::{CmdRef, CommandTable, Resolved};
use crate::keyspace::{KeyHash, Keyspace};
use crate::resp::{Args, Limits, Parsed, RequestParser, ShortCommands, Span};
use crate::structs::table::Step;
use std::ops::Range;

/// Requests looked at before they run: about as many as there may be memory accesses under way, twice.
pub const BATCH: usize = 32;
/// Clients whose input is read before the first of them is run.
pub const CLIENTS: usize = 32;
/// Memory is asked for on behalf of so many requests at once, so that looking up where it is overlaps, too.
const STRIDE: usize = 4;
/// How many requests before a request runs the entries of its keys are asked for, at least; those that stand in a bucket
/// behind another, half of it later.
const ENTRY_DISTANCE: usize = 8;
/// The same of the place of a member in its collection, and of the member itself.
const PLACE_DISTANCE: usize = 12;
const MEMBER_DISTANCE: usize = 8;
/// How much earlier entries are asked for when requests name members, and the buckets of keys when there is a table for each
/// slot to be found first.
const ENTRIES_EARLIER: usize = 8;
const BUCKETS_EARLIER: usize = 8;
/// Keys of one request whose memory is asked for.
const KEYS_PER_REQUEST: usize = 32;

/// Arguments for which room is kept.
const KEPT_SPANS: usize = 4096;

/// A request that was found, in the order of its client's query buffer.
#[derive(Debug)]
pub struct Request {
    /// What it calls; `None` if there is no such command.
    pub cmd: Option<CmdRef>,
    /// Its length in the query buffer, bytes.
    pub consumed: usize,
    spans: Range<usize>,
    keys: Range<usize>,
}

impl Request {
    /// It is another call of this command, and none of a size that would make it slow.
    #[inline]
    pub fn is_light_call_of(&self, cmd: CmdRef, most: usize) -> bool {
        self.cmd == Some(cmd) && self.consumed <= most
    }
}

/// A key of a request: which argument it is, and its hash.
#[derive(Debug)]
struct AheadKey {
    arg: usize,
    db: usize,
    hash: KeyHash,
    /// The hash of a member or field of what the key holds.
    member: Option<u64>,
    /// It, or the member, may stand in a bucket behind another.
    is_behind: bool,
    is_member_behind: bool,
}

/// The requests of one client or several, one client's after another's.
#[derive(Debug, Default)]
pub struct Ahead {
    requests: Vec<Request>,
    spans: Vec<Span>,
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

impl Ahead {
    /// Where the next request will stand.
    pub fn mark(&self) -> usize {
        self.requests.len()
    }

    /// Forgets the requests from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if let Some(first) = self.requests.get(len) {
            self.spans.truncate(first.spans.start);
            self.keys.truncate(first.keys.start);
            self.requests.truncate(len);
            self.fetched.limit(len);
        }
    }

    /// Forgets all requests, and gives back the memory that an unusually long one took.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.has_members = false;
        if self.spans.capacity() > KEPT_SPANS {
            self.spans.shrink_to(KEPT_SPANS);
        }
    }

    #[inline]
    pub fn request(&self, index: usize) -> &Request {
        &self.requests[index]
    }

    /// The arguments of a request that stands at the beginning of `buf`.
    #[inline]
    pub fn args<'a>(&'a self, request: &Request, buf: &'a [u8]) -> Args<'a> {
        Args::new(&buf[..request.consumed], &self.spans[request.spans.clone()])
    }

    /// Tells the keyspace the hashes of the keys of a request that is about to run.
    #[inline]
    pub fn expect_keys(&self, request: &Request, args: Args<'_>, ks: &mut Keyspace) {
        ks.hashes.clear();
        for key in &self.keys[request.keys.clone()] {
            ks.hashes.expect(args.at(key.arg), key.hash);
        }
    }

    /// Finds up to `count` requests from `pos` on, and begins to fetch the places of their keys. It stops at what is no
    /// whole command in RESP; the parser then stands where it found that, or is at a loss and was reset.
    pub fn look(
        &mut self,
        query: &[u8],
        mut pos: usize,
        parser: &mut RequestParser,
        limits: Limits,
        count: usize,
        (commands, ks, db): (&CommandTable, &Keyspace, usize),
    ) -> Range<usize> {
        let first = self.requests.len();
        let mut short = ShortCommands::default();
        // What the last one calls, if the name alone tells: a container's subcommand is told by its first argument.
        let mut last = None;
        while pos < query.len() && self.requests.len() - first < count {
            let (spans, keys) = (self.spans.len(), self.keys.len());
            let Some(consumed) = self.find(&query[pos..], &mut short, parser, limits) else { break };
            let args = Args::new(&query[pos..pos + consumed], &self.spans[spans..]);
            let cmd = if short.is_alike && last.is_some() {
                last
            } else {
                let cmd = match commands.resolve(args.at(0), args.get(1)) {
                    Resolved::Found(cmd) => Some(cmd),
                    Resolved::Unknown | Resolved::UnknownSub(_) => None,
                };
                last = cmd.filter(|c| !commands.has_to_do_with_subcommands(*c));
                cmd
            };
            if let Some(cmd) = cmd {
                let command = commands.get(cmd);
                let member = command.member.map(|m| ks.hash_member(args.at(m.index(args.len()))));
                let mut expect = |arg| {
                    let hash = ks.hash(args.at(arg));
                    ks.prefetch(db, hash);
                    self.keys.push(AheadKey { arg, db, hash, member, is_behind: false, is_member_behind: false });
                };
                if command.keys.is_first_argument(args.len()) {
                    expect(1);
                } else {
                    command.keys.positions(args.len()).take(KEYS_PER_REQUEST).for_each(expect);
                }
                self.has_members |= member.is_some();
            }
            let (spans, keys) = (spans..self.spans.len(), keys..self.keys.len());
            self.requests.push(Request { cmd, consumed, spans, keys });
            pos += consumed;
        }
        first..self.requests.len()
    }

    /// The length of the command in RESP that `query` begins with; its arguments are added to ours. `None`: there is none.
    #[inline]
    fn find<'b>(
        &mut self,
        query: &'b [u8],
        short: &mut ShortCommands<'b>,
        parser: &mut RequestParser,
        limits: Limits,
    ) -> Option<usize> {
        if !parser.in_multibulk()
            && !limits.unauthenticated
            && let Some(consumed) = short.find(query, &mut self.spans)
        {
            return Some(consumed);
        }
        short.is_alike = false;
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

    /// Goes on with what `look` began, before request `index` runs: asks for the entries of the keys of the requests that
    /// follow soon. Not of all at once, as only a few memory accesses can be under way.
    #[inline]
    pub fn fetch(&mut self, index: usize, ks: &Keyspace) {
        if index >= self.fetched.next && self.keys.len() > 1 {
            self.fetch_more(index, ks);
        }
    }

    fn fetch_more(&mut self, index: usize, ks: &Keyspace) {
        let len = self.requests.len();
        let up_to = |distance: usize| (index + STRIDE + distance).min(len);
        let entry_distance = ENTRY_DISTANCE + if self.has_members { ENTRIES_EARLIER } else { 0 };
        let mut fetched = self.fetched;
        fetched.next = index + STRIDE;
        if ks.is_per_slot() {
            for key in self.keys_between(&mut fetched.buckets, up_to(entry_distance + BUCKETS_EARLIER)) {
                ks.prefetch_bucket(key.db, key.hash);
            }
        }
        for key in self.keys_between(&mut fetched.entries, up_to(entry_distance)) {
            key.is_behind = ks.prefetch_entry(key.db, key.hash, Step::Item);
        }
        for key in self.keys_between(&mut fetched.entries_behind, up_to(entry_distance / 2)) {
            if key.is_behind {
                ks.prefetch_entry(key.db, key.hash, Step::Behind);
            }
        }
        if self.has_members {
            for key in self.keys_between(&mut fetched.places, up_to(PLACE_DISTANCE)) {
                key.prefetch_member(ks, Step::Bucket);
            }
            for key in self.keys_between(&mut fetched.members, up_to(MEMBER_DISTANCE)) {
                key.is_member_behind = key.prefetch_member(ks, Step::Item);
            }
            for key in self.keys_between(&mut fetched.members_behind, up_to(MEMBER_DISTANCE / 2)) {
                if key.is_member_behind {
                    key.prefetch_member(ks, Step::Behind);
                }
            }
        }
        self.fetched = fetched;
    }

    /// The keys of the requests from `from` up to `to`, which `from` becomes.
    fn keys_between(&mut self, from: &mut usize, to: usize) -> &mut [AheadKey] {
        let end = |requests: usize| requests.checked_sub(1).map_or(0, |last| self.requests[last].keys.end);
        let keys = end(*from)..end(to.max(*from));
        *from = to.max(*from);
        &mut self.keys[keys]
    }
}

impl AheadKey {
    fn prefetch_member(&self, ks: &Keyspace, step: Step) -> bool {
        self.member.is_some_and(|member| ks.prefetch_member(self.db, self.hash, member, step))
    }
}
