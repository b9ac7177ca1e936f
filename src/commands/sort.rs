//! SORT and SORT_RO: the elements of a list, set or sorted set in order, or the values of keys named after them.

use super::collection::store_result;
use super::int_arg;
use super::prelude::*;
use crate::catalog::row::KeyPos;
use crate::keyspace::list::{End, List};
use crate::keyspace::{Entry, Object};
use crate::structs::listpack::Item;
use crate::structs::numbers::parse_f64;
use crate::structs::quicklist::Quicklist;
use crate::sys::process::{collate, collates_bytes};
use std::cmp::Ordering;
use std::ffi::CStr;
use std::ops::Range;

const LIMIT: Arg = Arg::block("limit").token("LIMIT").optional().of(&[Arg::integer("offset"), Arg::integer("count")]);
const GET: Arg =
    Arg::pattern("get-pattern").display("pattern").token("GET").spec(1).optional().multiple().multiple_token();
const ORDER: Arg = Arg::one_of("order").optional().of(&[Arg::word("asc", "ASC"), Arg::word("desc", "DESC")]);
const ALPHA: Arg = Arg::word("sorting", "ALPHA").optional();
const BY: Arg = Arg::pattern("by-pattern").display("pattern").token("BY").spec(1).optional();
const KEY: Arg = Arg::key("key", 0);

const COMPLEXITY: &str = "O(N+M*log(M)) where N is the number of elements and M the number of those in the reply; O(N) \
                          without sorting.";

/// The keys that BY and GET make of the elements.
const BY_AND_GET: KeySpec = KeySpec::new(key::RO | key::ACCESS, Begin::Unknown, Find::Unknown).notes(
    "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort",
);
/// The key that STORE names.
const STORE: KeySpec = KeySpec::new(key::OW | key::UPDATE, Begin::Unknown, Find::Unknown).notes(
    "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array",
);

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Generic, "sort", sort)
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(cat::DANGEROUS | cat::LIST | cat::SET | cat::SORTEDSET)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1), BY_AND_GET, STORE])
        .get_keys(sort_keys)
        .args(&[KEY, BY, LIMIT, GET, ORDER, ALPHA, Arg::key("destination", 2).token("STORE").optional()])
        .complexity(COMPLEXITY)
        .summary("Sorts the elements of a list, set or sorted set, and stores the result when asked for."),
    command(Group::Generic, "sort_ro", |ctx, args| run(ctx, args, false))
        .flags(flag::READONLY)
        .acl(cat::DANGEROUS | cat::LIST | cat::SET | cat::SORTEDSET)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1), BY_AND_GET])
        .get_keys(sort_ro_keys)
        .args(&[KEY, BY, LIMIT, GET, ORDER, ALPHA])
        .since("7.0.0")
        .complexity(COMPLEXITY)
        .summary("Gives the elements of a list, set or sorted set in order."),
];

fn sort_ro_keys(_: Args<'_>) -> Option<Vec<KeyPos>> {
    Some(vec![KeyPos { index: 1, flags: key::RO | key::ACCESS }])
}

/// The key to sort and the key to store in; of several of the latter, the last counts.
fn sort_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    let mut keys = sort_ro_keys(args)?;
    let stores = Options::of(args, true).filter_map(|option| match option {
        Ok(Opt::Store(index)) => Some(index),
        _ => None,
    });
    keys.extend(stores.last().map(|index| KeyPos { index, flags: key::OW | key::UPDATE }));
    Some(keys)
}

/// An option, with the indices of its values.
#[derive(Clone, Copy)]
enum Opt {
    Asc,
    Desc,
    Alpha,
    /// The offset; the count is the next.
    Limit(usize),
    Store(usize),
    By(usize),
    Get(usize),
}

/// The options of a call; an unknown argument is one error. Used by the command and to find its keys, so that both
/// agree.
struct Options<'a> {
    args: Args<'a>,
    may_store: bool,
    next: usize,
}

impl<'a> Options<'a> {
    fn of(args: Args<'a>, may_store: bool) -> Options<'a> {
        Options { args, may_store, next: 2 }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<Opt, CmdError>;

    fn next(&mut self) -> Option<Result<Opt, CmdError>> {
        let at = self.next;
        let word = self.args.get(at)?;
        let left = self.args.len() - at - 1;
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let (option, values) = if is(b"asc") {
            (Opt::Asc, 0)
        } else if is(b"desc") {
            (Opt::Desc, 0)
        } else if is(b"alpha") {
            (Opt::Alpha, 0)
        } else if is(b"limit") && left >= 2 {
            (Opt::Limit(at + 1), 2)
        } else if is(b"store") && self.may_store && left >= 1 {
            (Opt::Store(at + 1), 1)
        } else if is(b"by") && left >= 1 {
            (Opt::By(at + 1), 1)
        } else if is(b"get") && left >= 1 {
            (Opt::Get(at + 1), 1)
        } else {
            self.next = at + 1;
            return Some(Err(error::SYNTAX));
        };
        self.next = at + 1 + values;
        Some(Ok(option))
    }
}

/// A pattern of BY or GET: where the value that belongs to an element comes from.
#[derive(Clone, Copy)]
enum Pattern<'a> {
    /// The element itself: `#`.
    Element,
    /// A pattern without `*`: there is no value.
    Fixed,
    /// The key with the element between `before` and `after`, or a field of the hash there.
    Key { before: &'a [u8], after: &'a [u8], field: Option<&'a [u8]> },
}

impl Pattern<'_> {
    fn parse(text: &[u8]) -> Pattern<'_> {
        // As in C, the pattern is searched only up to a zero byte.
        let plain = until_zero(text);
        if plain == b"#" {
            return Pattern::Element;
        }
        let Some(star) = memchr::memchr(b'*', plain) else { return Pattern::Fixed };
        let arrow = plain[star + 1..].windows(2).position(|w| w == b"->").map(|i| star + 1 + i);
        let (end, field) = match arrow {
            Some(at) if at + 2 < plain.len() => (at, Some(&text[at + 2..])),
            _ => (text.len(), None),
        };
        Pattern::Key { before: &text[..star], after: &text[star + 1..end], field }
    }
}

fn until_zero(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(0, text).unwrap_or(text.len())]
}

/// A call's options.
#[derive(Default)]
struct Request<'a> {
    descending: bool,
    alpha: bool,
    offset: i64,
    /// Below 0: all.
    count: Option<i64>,
    by: Option<Pattern<'a>>,
    /// Some BY had no `*`: the value's own order stays.
    unsorted: bool,
    get: Vec<Pattern<'a>>,
    store: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn parse(ctx: &Ctx<'_>, args: Args<'a>, may_store: bool) -> Result<Request<'a>, CmdError> {
        let denied = |option: &str, why: &str| CmdError::text(format!("ERR {option} option of SORT denied {why}"));
        let all_keys = std::cell::LazyCell::new(|| ctx.session.reads_all_keys(args));
        let check = |option: &str| {
            if ctx.cfg.cluster_enabled {
                return Err(denied(option, "in Cluster mode."));
            }
            if !*all_keys {
                return Err(denied(option, "due to insufficient ACL permissions."));
            }
            Ok(())
        };
        let mut request = Request::default();
        for option in Options::of(args, may_store) {
            match option? {
                Opt::Asc => request.descending = false,
                Opt::Desc => request.descending = true,
                Opt::Alpha => request.alpha = true,
                Opt::Limit(at) => {
                    request.offset = int_arg(&args[at])?;
                    request.count = Some(int_arg(&args[at + 1])?);
                }
                Opt::Store(at) => request.store = Some(args.at(at)),
                Opt::By(at) => {
                    let pattern = args.at(at);
                    if memchr::memchr(b'*', until_zero(pattern)).is_some() {
                        check("BY")?;
                    } else {
                        request.unsorted = true;
                    }
                    request.by = Some(Pattern::parse(pattern));
                }
                Opt::Get(at) => {
                    check("GET")?;
                    request.get.push(Pattern::parse(args.at(at)));
                }
            }
        }
        Ok(request)
    }

    /// The part of `len` ordered elements that LIMIT asks for.
    fn range(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(0);
        let count = self.count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        start.min(len)..start.saturating_add(count).min(len).max(start.min(len))
    }
}

/// Strings one after the other, each with a zero byte after it.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
}

impl Strings {
    fn add(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        Span { start, len: text.len() }
    }

    fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.start + span.len]
    }

    /// The text up to its first zero byte.
    fn get_c(&self, span: Span) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes[span.start..=span.start + span.len]).unwrap_or_default()
    }
}

/// An element to be sorted.
#[derive(Clone, Copy)]
struct Row {
    element: Span,
    /// NaN until it is known.
    score: f64,
    /// The text of BY, if it is sorted by that.
    by: Option<Span>,
}

fn sort(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    run(ctx, args, true)
}

fn run(ctx: &mut Ctx<'_>, args: Args<'_>, may_store: bool) -> CmdResult {
    let mut request = Request::parse(ctx, args, may_store)?;
    let mut texts = Strings::default();
    let mut rows = elements(ctx, &args[1], &mut request, &mut texts)?;
    if !request.unsorted {
        let range = request.range(rows.len());
        weigh(ctx, &request, &mut texts, &mut rows)?;
        rows = in_order(&request, &texts, &rows, range);
    }
    let rows = &rows[..];
    let results = rows.len() * request.get.len().max(1);
    match request.store {
        None => {
            ctx.out.array(results);
            results_of(ctx, &request, &texts, rows, |ctx, result| match result {
                Some(text) => ctx.out.bulk(text),
                None => ctx.out.null(),
            });
        }
        Some(key) => {
            let limits = ctx.limits().list;
            let mut list = List::Quick(Box::new(Quicklist::new()));
            results_of(ctx, &request, &texts, rows, |_, result| {
                list.push(End::Tail, result.unwrap_or_default(), limits);
            });
            list.fit(limits);
            store_result(ctx, key, (Object::List(list), results), (notify::LIST, "sortstore"), results);
        }
    }
    Ok(())
}

/// The elements of the value in their own order: all of them, or those asked for where that order stays. Where that
/// order is arbitrary and the result must not be, asks for sorting by text.
fn elements(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    request: &mut Request<'_>,
    texts: &mut Strings,
) -> Result<Vec<Row>, CmdError> {
    let in_script = ctx.session.is_script();
    let entry = ctx.ks.read(ctx.db, key);
    let Some(object) = entry.as_ref().map(|e| object_of(e)).transpose()? else { return Ok(Vec::new()) };
    if matches!(object, Object::Set(_)) && request.unsorted && (request.store.is_some() || in_script) {
        (request.unsorted, request.by) = (false, None);
        request.alpha = true;
    }
    let len = match object {
        Object::List(list) => list.len(),
        Object::Set(set) => set.len(),
        Object::Zset(zset) => zset.len(),
        Object::Hash(_) | Object::Stream(_) | Object::Damaged(_) => return Err(error::WRONG_TYPE),
    };
    let range = if request.unsorted { request.range(len) } else { 0..len };
    let mut rows = Vec::with_capacity(range.len());
    if range.is_empty() {
        return Ok(rows);
    }
    let back = request.unsorted && request.descending;
    let add = |item: Item<'_>| {
        let element = texts.add(item.bytes(&mut IntBuf::new()));
        let score = if let Item::Int(n) = item { n as f64 } else { f64::NAN };
        rows.push(Row { element, score, by: None });
    };
    match object {
        Object::List(list) if back => list.walk_back(len - 1 - range.start).take(range.len()).for_each(add),
        Object::List(list) => list.walk(range.start).take(range.len()).for_each(add),
        Object::Set(set) => set.iter().skip(range.start).take(range.len()).for_each(add),
        Object::Zset(zset) => {
            let from = if back { len - 1 - range.start } else { range.start };
            zset.range(from, range.len(), back).map(|(member, _)| member).for_each(add);
        }
        Object::Hash(_) | Object::Stream(_) | Object::Damaged(_) => {}
    }
    Ok(rows)
}

fn object_of(entry: &Entry) -> Result<&Object, CmdError> {
    entry.object().ok_or(error::WRONG_TYPE)
}

/// Finds what each element is sorted by.
fn weigh(ctx: &mut Ctx<'_>, request: &Request<'_>, texts: &mut Strings, rows: &mut [Row]) -> CmdResult {
    let mut failed = false;
    let mut found = Vec::new();
    for row in rows {
        let text = match request.by {
            None if request.alpha || !row.score.is_nan() => continue,
            None => texts.get(row.element),
            Some(pattern) => {
                row.score = 0.0;
                if !value_of(ctx, pattern, texts.get(row.element), &mut found) {
                    continue;
                }
                &found
            }
        };
        if !request.alpha {
            match score_of(text) {
                Some(score) => row.score = score,
                None => failed = true,
            }
        } else if request.by.is_some() {
            row.by = Some(texts.add(&found));
        }
    }
    if failed {
        return Err(CmdError::of("ERR One or more scores can't be converted into double"));
    }
    Ok(())
}

/// A number as the C library reads it: leading blanks are skipped, an empty text is 0, and a zero byte ends it.
fn score_of(text: &[u8]) -> Option<f64> {
    let text = until_zero(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let blanks = text.iter().take_while(|b| matches!(b, b' ' | b'\t'..=b'\r')).count();
    parse_f64(&text[blanks..])
}

/// The first 8 bytes of a text as a number with the same order.
fn first_bytes(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = text.len().min(8);
    bytes[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(bytes)
}

/// An integer with the order of the score; the two zeros are equal.
fn ordered_bits(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The rows of `range` in sorted order.
fn in_order(request: &Request<'_>, texts: &Strings, rows: &[Row], range: Range<usize>) -> Vec<Row> {
    if range.is_empty() {
        return Vec::new();
    }
    let text_of = |row: &Row| if request.by.is_none() { Some(row.element) } else { row.by };
    // What is stored must not depend on the locale.
    let (stored, by_bytes) = (request.store.is_some(), collates_bytes());
    let compare_texts = |a: Span, b: Span| match (stored, by_bytes) {
        (true, _) => texts.get(a).cmp(texts.get(b)),
        (false, true) => until_zero(texts.get(a)).cmp(until_zero(texts.get(b))),
        (false, false) => collate(texts.get_c(a), texts.get_c(b)),
    };
    // The number that decides most comparisons is kept beside the row's index, so that the row is seldom read.
    let first = |row: &Row| match text_of(row) {
        _ if !request.alpha => ordered_bits(row.score),
        Some(text) if stored => first_bytes(texts.get(text)),
        Some(text) if by_bytes => first_bytes(until_zero(texts.get(text))),
        _ => 0,
    };
    let mut places: Vec<(u64, usize)> = rows.iter().map(first).zip(0..).collect();
    let compare = |a: &(u64, usize), b: &(u64, usize)| {
        let by_value = a.0.cmp(&b.0).then_with(|| {
            let (a, b) = (&rows[a.1], &rows[b.1]);
            if !request.alpha {
                return texts.get(a.element).cmp(texts.get(b.element));
            }
            match (text_of(a), text_of(b)) {
                (Some(a), Some(b)) => compare_texts(a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            }
        });
        let directed = if request.descending { by_value.reverse() } else { by_value };
        // Equal rows keep their order.
        directed.then(a.1.cmp(&b.1))
    };
    sort_range(&mut places, range, compare).iter().map(|(_, place)| rows[*place]).collect()
}

/// Sorts the items of `range`, which must not be empty; the others end up before and after it, unsorted.
fn sort_range<T>(items: &mut [T], range: Range<usize>, compare: impl Fn(&T, &T) -> Ordering) -> &[T] {
    let items = match range.start {
        0 => items,
        start => {
            items.select_nth_unstable_by(start, &compare);
            &mut items[start..]
        }
    };
    let items = match range.len() {
        len if len < items.len() => {
            items.select_nth_unstable_by(len, &compare);
            &mut items[..len]
        }
        _ => items,
    };
    items.sort_unstable_by(&compare);
    items
}

/// Calls `emit` with the result for each row, or one for each pattern.
fn results_of(
    ctx: &mut Ctx<'_>,
    request: &Request<'_>,
    texts: &Strings,
    rows: &[Row],
    mut emit: impl FnMut(&mut Ctx<'_>, Option<&[u8]>),
) {
    let mut found = Vec::new();
    for row in rows {
        let element = texts.get(row.element);
        if request.get.is_empty() {
            emit(ctx, Some(element));
        }
        for pattern in &request.get {
            let there = value_of(ctx, *pattern, element, &mut found);
            emit(ctx, there.then_some(&found[..]));
        }
    }
}

/// Writes the value of a pattern for an element to `found`. Returns whether there is one.
fn value_of(ctx: &mut Ctx<'_>, pattern: Pattern<'_>, element: &[u8], found: &mut Vec<u8>) -> bool {
    found.clear();
    let (before, after, field) = match pattern {
        Pattern::Element => {
            found.extend_from_slice(element);
            return true;
        }
        Pattern::Fixed => return false,
        Pattern::Key { before, after, field } => (before, after, field),
    };
    let key = [before, element, after].concat();
    let Some(entry) = ctx.ks.read(ctx.db, &key) else { return false };
    let mut int = IntBuf::new();
    let text = match (field, entry.object()) {
        (None, None) => entry.value_bytes(&mut int),
        (Some(field), Some(Object::Hash(hash))) => match hash.get(field) {
            Some(item) => {
                found.extend_from_slice(item.bytes(&mut int));
                return true;
            }
            None => None,
        },
        _ => None,
    };
    found.extend_from_slice(text.unwrap_or_default());
    text.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_part_of_the_order_agrees_with_sorting_all(
            elements in proptest::collection::vec("(-?[0-3](\\.5)?|[a-c\\x00]{0,10})", 0..60),
            alpha in any::<bool>(),
            descending in any::<bool>(),
            stored in any::<bool>(),
            offset in -1i64..70,
            count in -1i64..70,
        ) {
            let store = stored.then_some(&b"there"[..]);
            let request = Request { alpha, descending, store, offset, count: Some(count), ..Request::default() };
            let mut texts = Strings::default();
            let number = |text: &str| text.parse::<f64>().unwrap_or(7.0);
            let rows = elements.iter().map(|text| Row {
                element: texts.add(text.as_bytes()),
                score: number(text),
                by: None,
            });
            let rows: Vec<Row> = rows.collect();
            let mut model = elements.clone();
            model.sort_by(|a, b| {
                let order = match (alpha, stored) {
                    (false, _) => number(a).total_cmp(&number(b)).then(a.cmp(b)),
                    (true, true) => a.cmp(b),
                    (true, false) => a.split('\0').next().cmp(&b.split('\0').next()),
                };
                if descending { order.reverse() } else { order }
            });
            let range = request.range(rows.len());
            let got: Vec<&[u8]> =
                in_order(&request, &texts, &rows, range.clone()).iter().map(|row| texts.get(row.element)).collect();
            let expected: Vec<&[u8]> = model[range].iter().map(|text| text.as_bytes()).collect();
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn numbers_are_ordered_as_their_scores() {
        let scores = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY];
        assert!(scores.windows(2).all(|pair| ordered_bits(pair[0]) < ordered_bits(pair[1])));
        assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
    }

    #[test]
    fn elements_are_sorted_by_what_is_asked_for() {
        let mut bare = Bare::new();
        bare.run("rpush l 3 10 2");
        assert_eq!(bare.run("sort l"), "*3 $1 2 $1 3 $2 10");
        assert_eq!(bare.run("sort l alpha desc limit 0 2"), "*2 $1 3 $1 2");
        bare.run("mset w3 1 w10 0 w2 2");
        assert_eq!(bare.run("sort l by w* get #"), "*3 $2 10 $1 3 $1 2");
        assert_eq!((bare.run("sort l store to"), bare.run("llen to")), (":3".into(), ":3".into()));
    }
}
