//! Reads a scrape as strictly as OpenMetrics 1.0 asks for, or the text format of Prometheus; what breaks a rule is a panic that says which.

use std::collections::{BTreeMap, BTreeSet};

/// Names and values, in their order.
type Labels = Vec<(String, String)>;
pub(crate) type Sample = (Labels, f64);

/// The samples of a scrape by their names.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) samples: BTreeMap<String, Vec<Sample>>,
    pub(crate) families: BTreeSet<String>,
}

impl Scrape {
    /// The value of the only sample of this name, or of the one with this label.
    pub(crate) fn value(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let samples = self.samples.get(name).unwrap_or_else(|| panic!("no {name}"));
        let is = |s: &&Sample| label.is_none_or(|(k, v)| s.0.iter().any(|(key, value)| key == k && value == v));
        let mut found = samples.iter().filter(is);
        let value = found.next().unwrap_or_else(|| panic!("no {name} with {label:?}")).1;
        assert!(found.next().is_none(), "{name} {label:?} is there more than once");
        value
    }
}

struct Family {
    name: String,
    kind: String,
}

pub(crate) fn read(text: &str, is_open_metrics: bool) -> Scrape {
    let body = match is_open_metrics {
        true => text.strip_suffix("# EOF\n").expect("the mark at the end"),
        false => text,
    };
    assert!(body.is_empty() || body.ends_with('\n'), "the last line ends");
    let (mut scrape, mut families, mut seen) = (Scrape::default(), BTreeSet::new(), BTreeSet::new());
    let mut family: Option<Family> = None;
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(is_name(name, true), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = Some(Family { name: name.to_owned(), kind: String::new() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            let family = family.as_mut().expect(line);
            assert_eq!(name, family.name, "the type is that of the family");
            let odd = if is_open_metrics { "unknown" } else { "untyped" };
            assert!(["gauge", "counter", "histogram", "summary", odd].contains(&kind), "{line}");
            assert!(!(is_open_metrics && kind == "counter" && name.ends_with("_total")), "{line}");
            family.kind = kind.to_owned();
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "an unknown line: {line}");
            let (name, sample) = read_sample(line);
            check(family.as_ref().expect(line), &name, &sample, is_open_metrics);
            assert!(seen.insert((name.clone(), sample.0.clone())), "{line} comes twice");
            scrape.samples.entry(name).or_default().push(sample);
        }
    }
    check_histograms(&scrape);
    scrape.families = families;
    scrape
}

fn is_name(name: &str, may_have_colons: bool) -> bool {
    let ok = |(i, c): (usize, char)| {
        c.is_ascii_alphabetic() || c == '_' || (may_have_colons && c == ':') || (i > 0 && c.is_ascii_digit())
    };
    !name.is_empty() && name.chars().enumerate().all(ok)
}

fn read_number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => {
            assert!(text.bytes().all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)), "no number: {text}");
            text.parse().unwrap_or_else(|_| panic!("no number: {text}"))
        }
    }
}

fn read_sample(line: &str) -> (String, Sample) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label, false), "{line}");
            let (value, after) = read_quoted(after, line);
            assert!(labels.iter().all(|(known, _)| known != label), "a label comes twice: {line}");
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(more) => inside = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("labels do not end: {line}"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), (labels, read_number(value)))
}

/// The text up to the closing quote, and what follows that.
fn read_quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some(c @ ('\\' | '"')) => value.push(c),
                other => panic!("escaped {other:?}: {line}"),
            },
            c => value.push(c),
        }
    }
    panic!("a value does not end: {line}")
}

/// Whether the sample may stand in the family.
fn check(family: &Family, name: &str, (labels, value): &Sample, is_open_metrics: bool) {
    let suffix = name.strip_prefix(&family.name).unwrap_or_else(|| panic!("{name} stands in {}", family.name));
    let label = |name: &str| labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let is_canonical = |text: &str| !is_open_metrics || text == "+Inf" || text.contains('.');
    match (family.kind.as_str(), suffix) {
        ("gauge" | "unknown" | "untyped", "") => {}
        ("counter", "_total") if is_open_metrics => assert!(*value >= 0.0, "{name} {value}"),
        ("counter", "") if !is_open_metrics => assert!(*value >= 0.0, "{name} {value}"),
        ("histogram", "_bucket") => assert!(is_canonical(label("le").expect(name)), "{labels:?}"),
        ("summary", "") => {
            let quantile = label("quantile").expect(name);
            assert!(is_canonical(quantile) && (0.0..=1.0).contains(&read_number(quantile)), "{labels:?}");
        }
        ("histogram" | "summary", "_sum" | "_count") => assert!(*value >= 0.0, "{name} {value}"),
        (kind, _) => panic!("{name} in a family of kind {kind}"),
    }
    // What would be taken for another family's.
    let taken = ["_total", "_bucket", "_created"].iter().any(|suffix| family.name.ends_with(suffix));
    assert!(!is_open_metrics || !taken || family.kind == "unknown", "{}", family.name);
}

/// Buckets of a histogram rise, with their bounds, and end with all.
fn check_histograms(scrape: &Scrape) {
    for (name, buckets) in scrape.samples.iter().filter_map(|(n, s)| Some((n.strip_suffix("_bucket")?, s))) {
        let mut by_labels: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for (labels, value) in buckets {
            let (bounds, rest): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|(key, _)| key == "le");
            by_labels.entry(rest).or_default().push((read_number(&bounds[0].1), *value));
        }
        for (labels, steps) in by_labels {
            assert!(steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?} {steps:?}");
            let counts = &scrape.samples[&format!("{name}_count")];
            let count = counts.iter().find(|(other, _)| *other == labels).expect(name).1;
            assert_eq!(*steps.last().unwrap(), (f64::INFINITY, count), "{name} {labels:?}");
        }
    }
}
