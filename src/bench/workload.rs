//! The tests, and the requests they are made of.

use super::options::Options;
use crate::resp::Reply;
use std::borrow::Cow;

/// Replaced by a random number of this many digits.
const PLACEHOLDER: &[u8] = b"__rand_int__";
/// Replaced by a hash tag that the node serves, in a cluster.
const TAG: &[u8] = b"{tag}";

/// One test: a request sent again and again.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) title: String,
    /// One request as it goes over the wire, placeholders in place.
    pub(crate) request: Vec<u8>,
    /// Where random numbers go.
    pub(crate) random_at: Vec<usize>,
    /// Where hash tags go; each is as long as `{tag}`.
    pub(crate) tag_at: Vec<usize>,
}

/// Name for `-t`, title, request words; `{data}` stands for the value.
const STANDARD: &[(&str, &str, &[&str])] = &[
    ("ping_mbulk", "PING_MBULK", &["PING"]),
    ("set", "SET", &["SET", "key{tag}:__rand_int__", "{data}"]),
    ("get", "GET", &["GET", "key{tag}:__rand_int__"]),
    ("incr", "INCR", &["INCR", "counter{tag}:__rand_int__"]),
    ("lpush", "LPUSH", &["LPUSH", "mylist{tag}", "{data}"]),
    ("rpush", "RPUSH", &["RPUSH", "mylist{tag}", "{data}"]),
    ("lpop", "LPOP", &["LPOP", "mylist{tag}"]),
    ("rpop", "RPOP", &["RPOP", "mylist{tag}"]),
    ("sadd", "SADD", &["SADD", "myset{tag}", "element:__rand_int__"]),
    ("hset", "HSET", &["HSET", "myhash{tag}", "element:__rand_int__", "{data}"]),
    ("spop", "SPOP", &["SPOP", "myset{tag}"]),
    ("zadd", "ZADD", &["ZADD", "myzset{tag}", "0", "element:__rand_int__"]),
    ("zpopmin", "ZPOPMIN", &["ZPOPMIN", "myzset{tag}"]),
    ("lrange", "LPUSH (needed to benchmark LRANGE)", &["LPUSH", "mylist{tag}", "{data}"]),
    ("lrange_100", "LRANGE_100 (first 100 elements)", &["LRANGE", "mylist{tag}", "0", "99"]),
    ("lrange_300", "LRANGE_300 (first 300 elements)", &["LRANGE", "mylist{tag}", "0", "299"]),
    ("lrange_500", "LRANGE_500 (first 500 elements)", &["LRANGE", "mylist{tag}", "0", "499"]),
    ("lrange_600", "LRANGE_600 (first 600 elements)", &["LRANGE", "mylist{tag}", "0", "599"]),
    ("mset", "MSET (10 keys)", &MSET),
    ("xadd", "XADD", &["XADD", "mystream{tag}", "*", "myfield", "{data}"]),
];

/// Ten keys with their values.
const MSET: [&str; 21] = {
    let mut words = ["MSET"; 21];
    let mut at = 1;
    while at < words.len() {
        words[at] = "key{tag}:__rand_int__";
        words[at + 1] = "{data}";
        at += 2;
    }
    words
};

/// The tests that `-t` lets through, in their usual order.
pub(crate) fn standard(options: &Options) -> Vec<Workload> {
    let wanted = |name: &str| match &options.tests {
        None => true,
        Some(tests) => tests.iter().any(|t| {
            t == name
                || (t == "ping" && name.starts_with("ping_"))
                || (t == "lrange" && name.starts_with("lrange"))
                || (name == "lrange" && t.starts_with("lrange_"))
        }),
    };
    let value = data(options.data_size);
    let mut out = Vec::new();
    if wanted("ping_inline") {
        out.push(Workload::new("PING_INLINE", b"PING\r\n".to_vec(), options));
    }
    for (name, title, words) in STANDARD {
        if wanted(name) {
            let words: Vec<Cow<'_, [u8]>> = words
                .iter()
                .map(|word| match (*word, word.split_once("{tag}")) {
                    ("{data}", _) => Cow::from(value.as_slice()),
                    (_, Some((before, after))) if !options.cluster => {
                        Cow::from(format!("{before}{after}").into_bytes())
                    }
                    (word, _) => Cow::from(word.as_bytes()),
                })
                .collect();
            out.push(Workload::of_words(title, &words, options));
        }
    }
    out
}

/// A value that does not compress to nothing, the same in every run.
fn data(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    (0..len).map(|_| rng.alphanumeric() as u8).collect()
}

impl Workload {
    pub(crate) fn of_command(options: &Options) -> Workload {
        let titled = options.command.len() - usize::from(options.stdin_last);
        let title = String::from_utf8_lossy(&options.command[..titled].join(&b' ')).into_owned();
        Workload::of_words(&title, &options.command, options)
    }

    fn of_words<W: AsRef<[u8]>>(title: &str, words: &[W], options: &Options) -> Workload {
        let mut wire = Reply::default();
        wire.command(words.iter().map(AsRef::as_ref));
        Workload::new(title, wire.buf, options)
    }

    fn new(title: &str, request: Vec<u8>, options: &Options) -> Workload {
        let all = |request: &[u8], what: &[u8]| memchr::memmem::find_iter(request, what).collect::<Vec<_>>();
        let tag_at = if options.cluster { all(&request, TAG) } else { Vec::new() };
        // Without -r the placeholder is a name like any other.
        let random_at = if options.keyspace == 0 { Vec::new() } else { all(&request, PLACEHOLDER) };
        Workload { title: title.to_string(), request, random_at, tag_at }
    }

    /// Writes fresh numbers and tags into a copy of the request.
    pub(crate) fn freshen(&self, copy: &mut [u8], keyspace: u64, rng: &mut fastrand::Rng, tags: &[[u8; 3]]) {
        for at in &self.random_at {
            let mut n = rng.u64(..keyspace.max(1));
            for digit in copy[*at..at + PLACEHOLDER.len()].iter_mut().rev() {
                *digit = b'0' + (n % 10) as u8;
                n /= 10;
            }
        }
        if !tags.is_empty() {
            let tag = tags[rng.usize(..tags.len())];
            self.tag_at.iter().for_each(|at| copy[at + 1..at + 4].copy_from_slice(&tag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_fill_their_place() {
        let options =
            Options { keyspace: 1000, command: vec![b"incr".into(), b"k:__rand_int__".into()], ..Options::default() };
        let w = Workload::of_command(&options);
        let mut copy = w.request.clone();
        w.freshen(&mut copy, 1000, &mut fastrand::Rng::with_seed(1), &[]);
        let text = String::from_utf8(copy).unwrap();
        let number = text.split("k:").nth(1).unwrap().trim_end();
        assert!(number.len() == 12 && number.parse::<u64>().unwrap() < 1000, "{text}");
    }

    #[test]
    fn tests_are_chosen_by_name() {
        let options = Options { tests: Some(vec!["get".into(), "ping".into()]), ..Options::default() };
        let titles: Vec<_> = standard(&options).into_iter().map(|w| w.title).collect();
        assert_eq!(titles, ["PING_INLINE", "PING_MBULK", "GET"]);
    }

    #[test]
    fn tags_are_for_clusters() {
        let request = |cluster| {
            let options = Options { tests: Some(vec!["get".into()]), cluster, keyspace: 9, ..Options::default() };
            String::from_utf8(standard(&options)[0].request.clone()).unwrap()
        };
        assert!(request(false).ends_with("\r\nkey:__rand_int__\r\n"));
        assert!(request(true).ends_with("\r\nkey{tag}:__rand_int__\r\n"));
        let mset = Options { tests: Some(vec!["mset".into()]), ..Options::default() };
        assert!(standard(&mset)[0].request.starts_with(b"*21\r\n$4\r\nMSET\r\n"));
    }

    #[test]
    fn what_came_from_standard_input_is_no_title() {
        let command = vec![b"set".to_vec(), b"k".to_vec(), b"value".to_vec()];
        let w = Workload::of_command(&Options { command, stdin_last: true, ..Options::default() });
        assert_eq!((w.title.as_str(), w.request.len()), ("set k", 31));
    }
}
