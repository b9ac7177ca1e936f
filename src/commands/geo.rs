//! Geo commands: places in sorted sets, with their position as score.

use super::prelude::*;
use super::zset::{AddOptions, add, limits, score_arg, store, zset_of};
use super::{int_arg, reply_item};
use crate::catalog::row::KeyPos;
use crate::keyspace::zset::{Zset, sort_members};
use crate::resp::{OwnedArgs, Reply};
use crate::structs::geohash::{Point, Search, Shape};
use crate::structs::listpack::Item;
use crate::structs::numbers::{f64_text_fixed, parse_f64};

const UNIT: Arg =
    Arg::one_of("unit").of(&[Arg::word("m", "M"), Arg::word("km", "KM"), Arg::word("ft", "FT"), Arg::word("mi", "MI")]);
const LONGITUDE: Arg = Arg::double("longitude");
const LATITUDE: Arg = Arg::double("latitude");
const FROM: Arg = Arg::one_of("from").of(&[
    Arg::string("member").token("FROMMEMBER"),
    Arg::block("fromlonlat").token("FROMLONLAT").of(&[LONGITUDE, LATITUDE]),
]);
const BY: Arg = Arg::one_of("by").of(&[
    Arg::block("circle").of(&[Arg::double("radius").token("BYRADIUS"), UNIT]),
    Arg::block("box").of(&[Arg::double("width").token("BYBOX"), Arg::double("height"), UNIT]),
]);
const WITH_COORD: Arg = Arg::word("withcoord", "WITHCOORD").optional();
const WITH_DIST: Arg = Arg::word("withdist", "WITHDIST").optional();
const WITH_HASH: Arg = Arg::word("withhash", "WITHHASH").optional();
const ANY: Arg = Arg::word("any", "ANY").optional();
const COUNT: Arg = count_block(&[Arg::integer("count").token("COUNT"), ANY]);
const COUNT_OF_OLD: Arg = count_block(&[Arg::integer("count").token("COUNT"), ANY.since("6.2.0")]);
const ORDER: Arg = Arg::one_of("order").optional().of(&[Arg::word("asc", "ASC"), Arg::word("desc", "DESC")]);
const STORE: Arg = Arg::one_of("store").optional().of(&[
    Arg::key("storekey", 1).display("key").token("STORE"),
    Arg::key("storedistkey", 2).display("key").token("STOREDIST"),
]);

const fn count_block(args: &'static [Arg]) -> Arg {
    Arg::block("count-block").optional().of(args)
}

const COMPLEXITY: &str =
    "O(N+log(M)) where N is the number of places in the cells around the shape and M that of those within it.";

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Geo, "geoadd", geoadd)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::one_of("condition").since("6.2.0").optional().of(&[Arg::word("nx", "NX"), Arg::word("xx", "XX")]),
            Arg::word("change", "CH").since("6.2.0").optional(),
            Arg::block("data").multiple().of(&[LONGITUDE, LATITUDE, Arg::string("member")]),
        ])
        .since("3.2.0")
        .history(&["6.2.0"])
        .complexity("O(log(N)) for each place, where N is the number of members of the sorted set.")
        .summary("Adds places to a sorted set; their positions become scores."),
    command(Group::Geo, "geodist", geodist)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member1"), Arg::string("member2"), UNIT.optional()])
        .since("3.2.0")
        .summary("Gives the distance between two places."),
    command(Group::Geo, "geohash", geohash)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").optional().multiple()])
        .since("3.2.0")
        .complexity("O(1) for each member asked for.")
        .summary("Gives the positions of places as geohash texts."),
    command(Group::Geo, "geopos", geopos)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").optional().multiple()])
        .since("3.2.0")
        .complexity("O(1) for each member asked for.")
        .summary("Gives the longitude and latitude of places."),
    command(Group::Geo, "georadius", |ctx, args| search(ctx, args, Form::Radius { stores: true }))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[
            KeySpec::range(key::RO | key::ACCESS, 1, 0, 1),
            KeySpec::new(key::OW | key::UPDATE, Begin::Keyword("STORE", 6), Find::Range { last: 0, step: 1, limit: 0 }),
            KeySpec::new(
                key::OW | key::UPDATE,
                Begin::Keyword("STOREDIST", 6),
                Find::Range { last: 0, step: 1, limit: 0 },
            ),
        ])
        .get_keys(georadius_keys)
        .args(&[
            Arg::key("key", 0),
            LONGITUDE,
            LATITUDE,
            Arg::double("radius"),
            UNIT,
            WITH_COORD,
            WITH_DIST,
            WITH_HASH,
            COUNT_OF_OLD,
            ORDER,
            STORE,
        ])
        .since("3.2.0")
        .history(&["6.2.0", "7.0.0"])
        .deprecated("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument")
        .complexity(COMPLEXITY)
        .summary("Finds places around a position, and may store them."),
    command(Group::Geo, "georadius_ro", |ctx, args| search(ctx, args, Form::Radius { stores: false }))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            LONGITUDE,
            LATITUDE,
            Arg::double("radius"),
            UNIT,
            WITH_COORD,
            WITH_DIST,
            WITH_HASH,
            COUNT_OF_OLD,
            ORDER,
        ])
        .since("3.2.10")
        .history(&["6.2.0"])
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` argument")
        .complexity(COMPLEXITY)
        .summary("Finds places around a position."),
    command(Group::Geo, "georadiusbymember", |ctx, args| search(ctx, args, Form::ByMember { stores: true }))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[
            KeySpec::range(key::RO | key::ACCESS, 1, 0, 1),
            KeySpec::new(key::OW | key::UPDATE, Begin::Keyword("STORE", 5), Find::Range { last: 0, step: 1, limit: 0 }),
            KeySpec::new(
                key::OW | key::UPDATE,
                Begin::Keyword("STOREDIST", 5),
                Find::Range { last: 0, step: 1, limit: 0 },
            ),
        ])
        .get_keys(georadiusbymember_keys)
        .args(&[
            Arg::key("key", 0),
            Arg::string("member"),
            Arg::double("radius"),
            UNIT,
            WITH_COORD,
            WITH_DIST,
            WITH_HASH,
            COUNT,
            ORDER,
            STORE,
        ])
        .since("3.2.0")
        .history(&["7.0.0"])
        .deprecated("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments")
        .complexity(COMPLEXITY)
        .summary("Finds places around one of them, and may store them."),
    command(Group::Geo, "georadiusbymember_ro", |ctx, args| search(ctx, args, Form::ByMember { stores: false }))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::string("member"),
            Arg::double("radius"),
            UNIT,
            WITH_COORD,
            WITH_DIST,
            WITH_HASH,
            COUNT,
            ORDER,
        ])
        .since("3.2.10")
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments")
        .complexity(COMPLEXITY)
        .summary("Finds places around one of them."),
    command(Group::Geo, "geosearch", |ctx, args| search(ctx, args, Form::Search))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), FROM, BY, ORDER, COUNT, WITH_COORD, WITH_DIST, WITH_HASH])
        .since("6.2.0")
        .history(&["7.0.0"])
        .complexity(COMPLEXITY)
        .summary("Finds places in a circle or a box."),
    command(Group::Geo, "geosearchstore", |ctx, args| search(ctx, args, Form::SearchStore))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1), KeySpec::range(key::RO | key::ACCESS, 2, 0, 1)])
        .args(&[
            Arg::key("destination", 0),
            Arg::key("source", 1),
            FROM,
            BY,
            ORDER,
            COUNT,
            Arg::word("storedist", "STOREDIST").optional(),
        ])
        .since("6.2.0")
        .history(&["7.0.0"])
        .complexity(COMPLEXITY)
        .summary("Finds places in a circle or a box and stores them."),
];

const UNKNOWN_UNIT: CmdError = CmdError::of("ERR unsupported unit provided. please use M, KM, FT, MI");
const NOT_A_PLACE: CmdError = CmdError::of("ERR could not decode requested zset member");

/// The length of a unit, in metres.
fn unit_arg(arg: &[u8]) -> Result<f64, CmdError> {
    match arg {
        u if u.eq_ignore_ascii_case(b"m") => Ok(1.0),
        u if u.eq_ignore_ascii_case(b"km") => Ok(1000.0),
        u if u.eq_ignore_ascii_case(b"ft") => Ok(0.3048),
        u if u.eq_ignore_ascii_case(b"mi") => Ok(1609.34),
        _ => Err(UNKNOWN_UNIT),
    }
}

fn point_arg(lon: &[u8], lat: &[u8]) -> Result<Point, CmdError> {
    let at = Point { lon: score_arg(lon)?, lat: score_arg(lat)? };
    if !at.is_valid() {
        return Err(CmdError::text(format!("ERR invalid longitude,latitude pair {:.6},{:.6}", at.lon, at.lat)));
    }
    Ok(at)
}

fn radius_args(radius: &[u8], unit: &[u8]) -> Result<(Shape, f64), CmdError> {
    let radius = parse_f64(radius).ok_or(CmdError::of("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(CmdError::of("ERR radius cannot be negative"));
    }
    let unit = unit_arg(unit)?;
    Ok((Shape::Circle { radius: radius * unit }, unit))
}

/// Width, height and their unit.
fn box_args(width: &[u8], height: &[u8], unit: &[u8]) -> Result<(Shape, f64), CmdError> {
    let width = parse_f64(width).ok_or(CmdError::of("ERR need numeric width"))?;
    let height = parse_f64(height).ok_or(CmdError::of("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(CmdError::of("ERR height or width cannot be negative"));
    }
    let unit = unit_arg(unit)?;
    Ok((Shape::Box { width: width * unit, height: height * unit }, unit))
}

fn reply_distance(out: &mut Reply, distance: f64) {
    out.bulk(&f64_text_fixed(distance, 4));
}

fn reply_point(out: &mut Reply, at: Point) {
    out.array(2);
    for degrees in [at.lon, at.lat] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        out.double_text(if text == "-0" { "0" } else { text });
    }
}

fn geoadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut options = AddOptions::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        match word {
            w if w.eq_ignore_ascii_case(b"NX") => options.nx = true,
            w if w.eq_ignore_ascii_case(b"XX") => options.xx = true,
            w if w.eq_ignore_ascii_case(b"CH") => options.ch = true,
            _ => break,
        }
        at += 1;
    }
    let places = args.from(at);
    if !places.len().is_multiple_of(3) || (options.nx && options.xx) {
        return Err(error::SYNTAX);
    }
    let mut pairs = OwnedArgs::default();
    for i in (0..places.len()).step_by(3) {
        let score = point_arg(&places[i], &places[i + 1])?.score();
        pairs.push(IntBuf::new().format(score as i64));
        pairs.push(&places[i + 2]);
    }
    let pairs = pairs.as_args();
    add(ctx, &args[1], pairs, options)?;
    // Propagated as ZADD, with scores in place of positions.
    let command: Vec<&[u8]> =
        std::iter::once(&b"zadd"[..]).chain(args.between(1, at).iter()).chain(pairs.iter()).collect();
    ctx.ks.effects.replace_with(&command);
    Ok(())
}

fn place_of(zset: Option<&Zset>, member: &[u8]) -> Option<Point> {
    Some(Point::of_score(zset?.score(member)?))
}

fn geopos(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let members = args.from(2);
    ctx.out.array(members.len());
    for member in members.iter() {
        match place_of(zset, member) {
            Some(at) => reply_point(ctx.out, at),
            None => ctx.out.null_array(),
        }
    }
    Ok(())
}

fn geohash(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let members = args.from(2);
    ctx.out.array(members.len());
    for member in members.iter() {
        match place_of(zset, member) {
            Some(at) => ctx.out.bulk(&at.text()),
            None => ctx.out.null(),
        }
    }
    Ok(())
}

fn geodist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let unit = match args.len() {
        ..=4 => 1.0,
        5 => unit_arg(&args[4])?,
        _ => return Err(error::SYNTAX),
    };
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    match (place_of(zset, &args[2]), place_of(zset, &args[3])) {
        (Some(from), Some(to)) => reply_distance(ctx.out, from.distance(to) / unit),
        _ => ctx.out.null(),
    }
    Ok(())
}

/// The order of the results.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Any,
    Nearest,
    Farthest,
}

/// The command of a search: where its center and shape are, and whether it may store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEORADIUS: position and radius before the options.
    Radius { stores: bool },
    /// GEORADIUSBYMEMBER: member and radius before the options.
    ByMember { stores: bool },
    /// GEOSEARCH: all in options.
    Search,
    /// GEOSEARCHSTORE: as GEOSEARCH, after the key to store in.
    SearchStore,
}

impl Form {
    /// The index of the argument after the fixed ones.
    fn options_at(self) -> usize {
        match self {
            Form::Radius { .. } => 6,
            Form::ByMember { .. } => 5,
            Form::Search => 2,
            Form::SearchStore => 3,
        }
    }
}

/// An option, with the index of its first value.
#[derive(Clone, Copy)]
enum Opt {
    WithDist,
    WithHash,
    WithCoord,
    Any,
    Order(Order),
    Count(usize),
    /// Where to store, and whether the distances become scores.
    Store {
        at: usize,
        distance: bool,
    },
    StoreDistance,
    FromMember(usize),
    FromLonLat(usize),
    ByRadius(usize),
    ByBox(usize),
}

/// The options of a call; an unknown argument is one error. Used by the command and to find its keys, so that both
/// agree.
struct Options<'a> {
    args: Args<'a>,
    form: Form,
    next: usize,
}

impl<'a> Options<'a> {
    fn of(args: Args<'a>, form: Form) -> Options<'a> {
        Options { args, form, next: form.options_at() }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<Opt, CmdError>;

    fn next(&mut self) -> Option<Result<Opt, CmdError>> {
        let (form, at) = (self.form, self.next + 1);
        let word = self.args.get(self.next)?;
        let behind = self.args.len() - at;
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let may_store = matches!(form, Form::Radius { stores: true } | Form::ByMember { stores: true });
        let searches = matches!(form, Form::Search | Form::SearchStore);
        let (option, values) = if is(b"WITHDIST") {
            (Opt::WithDist, 0)
        } else if is(b"WITHHASH") {
            (Opt::WithHash, 0)
        } else if is(b"WITHCOORD") {
            (Opt::WithCoord, 0)
        } else if is(b"ANY") {
            (Opt::Any, 0)
        } else if is(b"ASC") {
            (Opt::Order(Order::Nearest), 0)
        } else if is(b"DESC") {
            (Opt::Order(Order::Farthest), 0)
        } else if is(b"COUNT") && behind >= 1 {
            (Opt::Count(at), 1)
        } else if may_store && behind >= 1 && (is(b"STORE") || is(b"STOREDIST")) {
            (Opt::Store { at, distance: is(b"STOREDIST") }, 1)
        } else if form == Form::SearchStore && is(b"STOREDIST") {
            (Opt::StoreDistance, 0)
        } else if searches && behind >= 1 && is(b"FROMMEMBER") {
            (Opt::FromMember(at), 1)
        } else if searches && behind >= 2 && is(b"FROMLONLAT") {
            (Opt::FromLonLat(at), 2)
        } else if searches && behind >= 2 && is(b"BYRADIUS") {
            (Opt::ByRadius(at), 2)
        } else if searches && behind >= 3 && is(b"BYBOX") {
            (Opt::ByBox(at), 3)
        } else {
            self.next = at;
            return Some(Err(error::SYNTAX));
        };
        self.next = at + values;
        Some(Ok(option))
    }
}

/// The key of the places and the key to store in; of several of the latter, the last counts.
fn stored_keys(args: Args<'_>, form: Form) -> Option<Vec<KeyPos>> {
    let mut keys = vec![KeyPos { index: 1, flags: key::RO | key::ACCESS }];
    let stores = Options::of(args, form).filter_map(|option| match option {
        Ok(Opt::Store { at, .. }) => Some(at),
        _ => None,
    });
    keys.extend(stores.last().map(|index| KeyPos { index, flags: key::OW | key::UPDATE }));
    Some(keys)
}

fn georadius_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    stored_keys(args, Form::Radius { stores: true })
}

fn georadiusbymember_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    stored_keys(args, Form::ByMember { stores: true })
}

/// A search, as its arguments describe it.
struct Request<'a> {
    /// `None`: there is no such key, so the member has no position.
    center: Option<Point>,
    has_center: bool,
    /// With the size of its unit in metres.
    shape: Option<(Shape, f64)>,
    with_distance: bool,
    with_hash: bool,
    with_point: bool,
    order: Order,
    /// How many at most; 0: all.
    count: usize,
    /// ANY: the first places found, not the nearest.
    any: bool,
    store: Option<&'a [u8]>,
    /// Distances become scores.
    store_distance: bool,
}

/// Of which kind center and shape were given, if they were.
#[derive(Default)]
struct Kinds {
    center_is_member: Option<bool>,
    shape_is_box: Option<bool>,
}

/// The place of a member; `None`: there is no such key.
fn center_of(zset: Option<&Zset>, member: &[u8]) -> Result<Option<Point>, CmdError> {
    match zset {
        Some(zset) => place_of(Some(zset), member).map(Some).ok_or(NOT_A_PLACE),
        None => Ok(None),
    }
}

impl<'a> Request<'a> {
    /// Reads the arguments, and the center from the sorted set where it is given as a member.
    fn parse(args: Args<'a>, zset: Option<&Zset>, form: Form) -> Result<Request<'a>, CmdError> {
        let mut r = Request {
            center: None,
            has_center: false,
            shape: None,
            with_distance: false,
            with_hash: false,
            with_point: false,
            order: Order::Any,
            count: 0,
            any: false,
            store: None,
            store_distance: false,
        };
        match form {
            Form::Radius { .. } => {
                r.center = Some(point_arg(&args[2], &args[3])?);
                r.shape = Some(radius_args(&args[4], &args[5])?);
            }
            Form::ByMember { .. } => {
                r.center = center_of(zset, &args[2])?;
                if zset.is_some() {
                    r.shape = Some(radius_args(&args[3], &args[4])?);
                }
            }
            Form::Search => {}
            Form::SearchStore => r.store = Some(args.at(1)),
        }
        let mut kinds = Kinds::default();
        for option in Options::of(args, form) {
            r.take(option?, &mut kinds, args, zset)?;
        }
        r.check(&kinds, args, form)?;
        Ok(r)
    }

    fn take(&mut self, option: Opt, kinds: &mut Kinds, args: Args<'a>, zset: Option<&Zset>) -> Result<(), CmdError> {
        // Center and shape may be given again, but not of another kind.
        let same_as_before = |before: &mut Option<bool>, now: bool| match before.replace(now) {
            Some(before) if before != now => Err(error::SYNTAX),
            _ => Ok(()),
        };
        match option {
            Opt::WithDist => self.with_distance = true,
            Opt::WithHash => self.with_hash = true,
            Opt::WithCoord => self.with_point = true,
            Opt::Any => self.any = true,
            Opt::Order(order) => self.order = order,
            Opt::Count(at) => {
                let count = int_arg(&args[at])?;
                if count <= 0 {
                    return Err(CmdError::of("ERR COUNT must be > 0"));
                }
                self.count = count as usize;
            }
            Opt::Store { at, distance } => {
                self.store = Some(args.at(at));
                self.store_distance = distance;
            }
            Opt::StoreDistance => self.store_distance = true,
            Opt::FromMember(at) => {
                same_as_before(&mut kinds.center_is_member, true)?;
                self.center = center_of(zset, &args[at])?;
            }
            Opt::FromLonLat(at) => {
                same_as_before(&mut kinds.center_is_member, false)?;
                self.center = Some(point_arg(&args[at], &args[at + 1])?);
            }
            Opt::ByRadius(at) => {
                same_as_before(&mut kinds.shape_is_box, false)?;
                self.shape = Some(radius_args(&args[at], &args[at + 1])?);
            }
            Opt::ByBox(at) => {
                same_as_before(&mut kinds.shape_is_box, true)?;
                self.shape = Some(box_args(&args[at], &args[at + 1], &args[at + 2])?);
            }
        }
        Ok(())
    }

    /// Refuses options that do not go together.
    fn check(&mut self, kinds: &Kinds, args: Args<'a>, form: Form) -> Result<(), CmdError> {
        let searches = matches!(form, Form::Search | Form::SearchStore);
        self.has_center = !searches || kinds.center_is_member.is_some();
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_point) {
            let what = if form == Form::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CmdError::text(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let missing = |what: &str| {
            let mut text = format!("ERR exactly one of {what} can be specified for ").into_bytes();
            text.extend_from_slice(&args[0]);
            CmdError::bytes(text)
        };
        if !self.has_center {
            return Err(missing("FROMMEMBER or FROMLONLAT"));
        }
        if searches && kinds.shape_is_box.is_none() {
            return Err(missing("BYRADIUS and BYBOX"));
        }
        if self.any && self.count == 0 {
            return Err(CmdError::of("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// The places asked for, and the unit of the distances in metres.
    fn run<'z>(&self, zset: &'z Zset) -> (Vec<Found<'z>>, f64) {
        let (Some(center), Some((shape, unit))) = (self.center, self.shape) else { return (Vec::new(), 1.0) };
        let search = Search { center, shape };
        let enough = if self.any { self.count } else { usize::MAX };
        let mut found = Vec::new();
        for (from, to) in search.score_ranges() {
            if found.len() >= enough {
                break;
            }
            let start = zset.partition_point(|score, _| score < from);
            let in_range = zset.range(start, usize::MAX, false).take_while(|(_, score)| *score < to);
            let places = in_range.filter_map(|(member, score)| {
                let at = Point::of_score(score);
                let distance = search.distance(at)?;
                Some(Found { member, score, at, distance })
            });
            found.extend(places.take(enough - found.len()));
        }
        match self.order {
            Order::Any if self.count == 0 || self.any => {}
            // With COUNT, the nearest are meant.
            Order::Any | Order::Nearest => found.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
            Order::Farthest => found.sort_by(|a, b| b.distance.total_cmp(&a.distance)),
        }
        if self.count > 0 {
            found.truncate(self.count);
        }
        (found, unit)
    }

    fn reply(&self, out: &mut Reply, found: &[Found<'_>], unit: f64) {
        let extras = [self.with_distance, self.with_hash, self.with_point].into_iter().filter(|w| *w).count();
        out.array(found.len());
        for place in found {
            if extras > 0 {
                out.array(extras + 1);
            }
            reply_item(out, place.member);
            if self.with_distance {
                reply_distance(out, place.distance / unit);
            }
            if self.with_hash {
                out.int(place.score as i64);
            }
            if self.with_point {
                reply_point(out, place.at);
            }
        }
    }
}

/// A place within the shape.
struct Found<'z> {
    member: Item<'z>,
    score: f64,
    at: Point,
    /// From the center, metres.
    distance: f64,
}

fn search(ctx: &mut Ctx<'_>, args: Args<'_>, form: Form) -> CmdResult {
    let source = if form == Form::SearchStore { args.at(2) } else { args.at(1) };
    let limits = limits(ctx);
    let entry = ctx.ks.read(ctx.db, source);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let request = Request::parse(args, zset, form)?;
    let (found, unit) = zset.map_or((Vec::new(), 1.0), |zset| request.run(zset));
    let Some(target) = request.store else {
        request.reply(ctx.out, &found, unit);
        return Ok(());
    };
    let score = |place: &Found<'_>| if request.store_distance { place.distance / unit } else { place.score };
    let mut members: Vec<(Item<'_>, f64)> = found.iter().map(|place| (place.member, score(place))).collect();
    sort_members(&mut members);
    let stored = Zset::from_sorted(&members, &limits);
    let event = if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" };
    // Each place counts as a change.
    ctx.dirty((stored.len() as u64).saturating_sub(1));
    store(ctx, target, stored, event);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn places_are_found_by_their_distance() {
        let mut bare = Bare::new();
        assert_eq!(bare.run("geoadd g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"), ":2");
        assert_eq!(bare.run("geodist g Palermo Catania km"), "$8 166.2742");
        assert_eq!(bare.run("geosearch g fromlonlat 15 37 byradius 100 km"), "*1 $7 Catania");
        assert_eq!(bare.run("geoadd g 200 0 x"), "-ERR invalid longitude,latitude pair 200.000000,0.000000");
    }
}
