//! Every command as its row describes it, compared with what a 7.2 server says of it.

use hexad::catalog::row::{Arg, Begin, Command, Find, KeySpec, cat, flag, key};
use std::collections::BTreeMap;

/// A value of the facts file.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Number(i64),
    Text(String),
    List(Vec<Json>),
    Map(BTreeMap<String, Json>),
}

/// Reads the subset of JSON that the facts file is written in.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> u8 {
        while self.text[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        self.text[self.at]
    }

    fn value(&mut self) -> Json {
        match self.peek() {
            b'[' => Json::List(self.items(b']', |r| r.value())),
            b'{' => Json::Map(
                self.items(b'}', |r| {
                    let Json::Text(name) = r.value() else { panic!("a name at {}", r.at) };
                    assert_eq!(r.peek(), b':');
                    r.at += 1;
                    (name, r.value())
                })
                .into_iter()
                .collect(),
            ),
            b'"' => {
                let start = self.at + 1;
                let mut out = Vec::new();
                self.at = start;
                while self.text[self.at] != b'"' {
                    if self.text[self.at] == b'\\' {
                        self.at += 1;
                    }
                    out.push(self.text[self.at]);
                    self.at += 1;
                }
                self.at += 1;
                Json::Text(String::from_utf8(out).unwrap())
            }
            _ => {
                let start = self.at;
                while self.text[self.at] == b'-' || self.text[self.at].is_ascii_digit() {
                    self.at += 1;
                }
                Json::Number(std::str::from_utf8(&self.text[start..self.at]).unwrap().parse().unwrap())
            }
        }
    }

    fn items<T>(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        self.at += 1;
        let mut out = Vec::new();
        while self.peek() != end {
            out.push(item(self));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        out
    }
}

fn text(s: &str) -> Json {
    Json::Text(s.to_owned())
}

fn number(n: impl TryInto<i64>) -> Json {
    Json::Number(n.try_into().ok().expect("a small number"))
}

fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> Json {
    Json::List(all.into_iter().map(text).collect())
}

fn map<const N: usize>(fields: [(&str, Json); N]) -> Json {
    Json::Map(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

/// Lists whose order says nothing are compared sorted.
fn sorted(value: Json) -> Json {
    match value {
        Json::List(mut items) => {
            items.sort_by_key(|i| format!("{i:?}"));
            Json::List(items)
        }
        other => other,
    }
}

fn set_bits<'a, T: Copy + std::ops::BitAnd<Output = T> + PartialEq + Default>(
    bits: T,
    names: &[(T, &'a str)],
) -> Vec<&'a str> {
    names.iter().filter(|(bit, _)| bits & *bit != T::default()).map(|(_, name)| *name).collect()
}

fn describe_spec(spec: &KeySpec) -> Json {
    let begin = match spec.begin {
        Begin::Index(i) => map([("type", text("index")), ("index", number(i))]),
        Begin::Keyword(word, from) => {
            map([("type", text("keyword")), ("keyword", text(word)), ("startfrom", number(from))])
        }
        Begin::Unknown => map([("type", text("unknown"))]),
    };
    let find = match spec.find {
        Find::Range { last, step, limit } => map([
            ("type", text("range")),
            ("lastkey", number(last)),
            ("keystep", number(step)),
            ("limit", number(limit)),
        ]),
        Find::KeyNum { keynum, first, step } => map([
            ("type", text("keynum")),
            ("keynumidx", number(keynum)),
            ("firstkey", number(first)),
            ("keystep", number(step)),
        ]),
        Find::Unknown => map([("type", text("unknown"))]),
    };
    let flags = sorted(names(set_bits(spec.flags, key::NAMES)));
    map([("flags", flags), ("begin_search", begin), ("find_keys", find)])
}

fn describe_arg(arg: &Arg) -> Json {
    let mut m = BTreeMap::from([("name".to_owned(), text(arg.name)), ("type".into(), text(arg.kind.name()))]);
    let mut put = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            m.insert(name.to_owned(), value);
        }
    };
    put("token", arg.token.map(text));
    put("key_spec_index", arg.key_spec.map(number));
    put("since", arg.since.map(text));
    put("deprecated_since", arg.deprecated_since.map(text));
    let flags = [(arg.optional, "optional"), (arg.multiple, "multiple"), (arg.multiple_token, "multiple_token")];
    let flags: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    put("flags", (!flags.is_empty()).then(|| sorted(names(flags))));
    put("arguments", (!arg.args.is_empty()).then(|| Json::List(arg.args.iter().map(describe_arg).collect())));
    Json::Map(m)
}

fn describe(row: &Command) -> Json {
    let (first, last, step) = row.legacy_range();
    let mut flags = set_bits(row.flags, flag::NAMES);
    if row.has_movable_keys() {
        flags.push("movablekeys");
    }
    let categories: Vec<String> = set_bits(row.categories(), cat::NAMES).iter().map(|c| format!("@{c}")).collect();
    let Json::Map(mut m) = map([
        ("name", text(row.name)),
        ("arity", number(row.arity)),
        ("flags", sorted(names(flags))),
        ("first_key", number(first)),
        ("last_key", number(last)),
        ("step", number(step)),
        ("acl", sorted(names(categories.iter().map(String::as_str)))),
        ("tips", names(row.tips.iter().copied())),
        ("key_specs", Json::List(row.keys.iter().map(describe_spec).collect())),
        ("group", text(row.group.name())),
        ("since", text(row.since)),
    ]) else {
        unreachable!("a map")
    };
    let mut put = |name: &str, there: bool, value: &dyn Fn() -> Json| {
        if there {
            m.insert(name.to_owned(), value());
        }
    };
    put("history_versions", !row.history.is_empty(), &|| names(row.history.iter().copied()));
    put("arguments", !row.args.is_empty(), &|| Json::List(row.args.iter().map(describe_arg).collect()));
    if let Some((since, by)) = row.deprecated {
        put("deprecated_since", true, &|| text(since));
        put("replaced_by", !by.is_empty(), &|| text(by));
    }
    let docs: Vec<&str> = [(row.deprecated.is_some(), "deprecated"), (row.has(flag::SYSCMD), "syscmd")]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name)
        .collect();
    put("doc_flags", !docs.is_empty(), &|| sorted(names(docs.iter().copied())));
    Json::Map(m)
}

/// Puts the lists of the facts whose order says nothing in the order that `describe` gives them.
fn normalize(value: &Json) -> Json {
    match value {
        Json::List(items) => Json::List(items.iter().map(normalize).collect()),
        Json::Map(m) => Json::Map(
            m.iter()
                .filter(|(k, _)| *k != "subcommands")
                .map(|(k, v)| {
                    let unordered = matches!(k.as_str(), "flags" | "acl" | "doc_flags");
                    (k.clone(), if unordered { sorted(v.clone()) } else { normalize(v) })
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

/// The facts by command name, subcommands as `container|sub`.
fn facts() -> BTreeMap<String, Json> {
    let file = std::fs::read("tests/facts/commands-7.2.json").expect("the facts file");
    let Json::List(all) = (Reader { text: &file, at: 0 }).value() else { panic!("a list") };
    let mut out = BTreeMap::new();
    let mut todo = all;
    while let Some(Json::Map(m)) = todo.pop() {
        if let Some(Json::List(subs)) = m.get("subcommands") {
            todo.extend(subs.iter().cloned());
        }
        let Json::Text(name) = m["name"].clone() else { panic!("a name") };
        out.insert(name, normalize(&Json::Map(m)));
    }
    out
}

/// Commands that Redis does not have.
const OURS: [&str; 11] = [
    "client|durable",
    "cluster|cancelslotmigrations",
    "cluster|doctor",
    "cluster|flushslot",
    "cluster|getslotmigrations",
    "cluster|migrateslots",
    "cluster|migration",
    "cluster|slot-stats",
    "cluster|syncslots",
    "doctor",
    "trimslots",
];

/// What rows say otherwise, as the commands can do more here.
const OTHERWISE: [(&str, &str); 1] = [("cluster|replicate", "arity")];

#[test]
fn rows_say_what_a_7_2_server_says() {
    let facts = facts();
    let mut wrong = Vec::new();
    for row in hexad::server::commands::rows().all().map(|command| command.row) {
        if OURS.contains(&row.name) {
            continue;
        }
        let Some(Json::Map(theirs)) = facts.get(row.name) else {
            wrong.push(format!("{}: not known there", row.name));
            continue;
        };
        let Json::Map(ours) = describe(row) else { unreachable!("a map") };
        for name in theirs.keys().chain(ours.keys()) {
            if ours.get(name) != theirs.get(name) && !OTHERWISE.contains(&(row.name, name)) {
                let line = format!("{} {name}: {:?}, but should be {:?}", row.name, ours.get(name), theirs.get(name));
                if !wrong.contains(&line) {
                    wrong.push(line);
                }
            }
        }
        if row.summary.is_empty() {
            wrong.push(format!("{}: no summary", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn key_specifications_have_their_notes() {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for row in hexad::server::commands::rows().top_level().map(|command| command.row) {
        found.extend(row.keys.iter().filter(|spec| !spec.notes.is_empty()).map(|spec| (row.name, spec.notes)));
    }
    found.sort();
    let by = "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key \
              we sort";
    let worst = "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE";
    let worst_ro = "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS";
    let expected = [
        ("bitfield", "This command allows both access and modification of the key"),
        ("eval", worst),
        ("eval_ro", worst_ro),
        ("fcall", worst),
        ("fcall_ro", worst_ro),
        ("getex", "RW and UPDATE because it changes the TTL"),
        ("pfcount", "RW because it may change the internal representation of the key, and propagate to replicas"),
        ("set", "RW and ACCESS due to the optional `GET` argument"),
        ("sort", by),
        (
            "sort",
            "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument \
             array",
        ),
        ("sort_ro", by),
        ("xadd", "UPDATE instead of INSERT because of the optional trimming feature"),
    ];
    assert_eq!(found, expected);
}
