//! Looking ahead: requests are found in the query buffers before the first of them runs, and the memory that their keys
//! stand in is asked for meanwhile. By the time a request runs, its key is in the cache.
//!
//! A request that was looked at has not begun: nothing is decided about it but where its arguments are. Whoever runs it
//! looks it up by its place, and drops it when its client may not go on.

use super::table::{CmdRef, CommandTable, Resolved};
use crate::keyspace::{KeyHash, Keyspace, MemberStep};
use crate::resp::{Args, Limits, Parsed, RequestParser, Span, find_short};
use crate::structs::bytes::is_same;
use std::ops::Range;

/// Requests looked at before they run: about as many as there may be memory accesses under way, twice.
pub const BATCH: usize = 32;
/// Clients whose input is read before the first of them is run.
pub const CLIENTS: usize = 32;
/// How many requests before a request runs the entries of its keys are asked for, at least; it is done for so many requests
/// at once, so that looking up where the memory is overlaps, too.
const FETCH_DISTANCE: usize = 4;
const FETCH_STRIDE: usize = 4;
/// How many requests before it the place of a member in its collection is asked for; half of that for the member itself.
const MEMBER_DISTANCE: usize = 4;
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

/// A key of a request: which argument it is, and its hash.
#[derive(Debug)]
struct AheadKey {
    arg: usize,
    db: usize,
    hash: KeyHash,
    /// The hash of a member or field of what the key holds.
    member: Option<u64>,
}

/// The requests of one client or several, one client's after another's.
#[derive(Debug, Default)]
pub struct Ahead {
    requests: Vec<Request>,
    spans: Vec<Span>,
    keys: Vec<AheadKey>,
    /// The request up to which entries were asked for, and how many of the keys had their buckets and their entries asked
    /// for, by `fetch`.
    fetched: usize,
    buckets: usize,
    entries: usize,
    /// Some of the keys come with a member.
    has_members: bool,
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
            self.fetched = self.fetched.min(len);
            self.buckets = self.buckets.min(self.keys.len());
            self.entries = self.entries.min(self.keys.len());
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
        // Requests in a row are often of one command.
        let mut last: (&[u8], Option<CmdRef>) = (b"", None);
        while pos < query.len() && self.requests.len() - first < count {
            let (spans, keys) = (self.spans.len(), self.keys.len());
            let Some(consumed) = self.find(&query[pos..], parser, limits) else { break };
            let text = &query[pos..pos + consumed];
            let args = Args::new(text, &self.spans[spans..]);
            let name = &text[self.spans[spans].start..][..self.spans[spans].len];
            let cmd = if last.1.is_some() && is_same(name, last.0) {
                last.1
            } else {
                let cmd = match commands.resolve(name, args.get(1)) {
                    Resolved::Found(cmd) => Some(cmd),
                    Resolved::Unknown | Resolved::UnknownSub(_) => None,
                };
                // What a container runs depends on its first argument.
                last = (name, cmd.filter(|c| !commands.has_to_do_with_subcommands(*c)));
                cmd
            };
            if let Some(cmd) = cmd {
                let command = commands.get(cmd);
                let member = command.member.map(|m| ks.hash_member(args.at(m.index(args.len()))));
                for arg in command.keys.positions(args.len()).take(KEYS_PER_REQUEST) {
                    let hash = ks.hash(args.at(arg));
                    ks.prefetch(db, hash);
                    self.keys.push(AheadKey { arg, db, hash, member });
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
    fn find(&mut self, query: &[u8], parser: &mut RequestParser, limits: Limits) -> Option<usize> {
        if !parser.in_multibulk()
            && !limits.unauthenticated
            && let Some(consumed) = find_short(query, &mut self.spans)
        {
            return Some(consumed);
        }
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
        if index + FETCH_DISTANCE >= self.fetched && self.keys.len() > 1 {
            self.fetch_entries(index, ks);
        }
        if self.has_members {
            self.fetch_members(index, ks);
        }
    }

    fn fetch_entries(&mut self, index: usize, ks: &Keyspace) {
        let ahead = FETCH_DISTANCE + FETCH_STRIDE;
        if ks.is_per_slot() {
            let end = self.keys_until(index + 2 * ahead);
            for key in &self.keys[self.buckets.min(end)..end] {
                ks.prefetch_bucket(key.db, key.hash);
            }
            self.buckets = self.buckets.max(end);
        }
        let end = self.keys_until(index + ahead);
        for key in &self.keys[self.entries.min(end)..end] {
            ks.prefetch_entry(key.db, key.hash);
        }
        self.entries = self.entries.max(end);
        self.fetched = index + ahead;
    }

    /// The next two steps of `fetch`, for the members that requests name of collections.
    fn fetch_members(&mut self, index: usize, ks: &Keyspace) {
        for (distance, step) in [(MEMBER_DISTANCE, MemberStep::Bucket), (MEMBER_DISTANCE / 2, MemberStep::Item)] {
            let Some(request) = self.requests.get(index + distance) else { continue };
            if let [AheadKey { db, hash, member: Some(member), .. }] = self.keys[request.keys.clone()] {
                ks.prefetch_member(db, hash, member, step);
            }
        }
    }

    /// Where the keys of the requests up to `index` end.
    fn keys_until(&self, index: usize) -> usize {
        self.requests.get(index).map_or(self.keys.len(), |request| request.keys.end)
    }
}
