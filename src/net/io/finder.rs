//! Finds requests in what links have sent, on their threads, so that the main thread has less to do.

use crate::resp::{ShortCommands, Span, count_of_form};
use crate::structs::slots::key_slot;
use crate::structs::table::HashSeed;

/// Requests of one input that are found, at most: about as many as the main thread looks at before it runs them. None is looked
/// for behind so many arguments.
const MOST: usize = 32;
const MOST_SPANS: usize = 256;
/// Requests, and arguments, for which room is kept.
const KEPT: usize = 4096;

/// A request that was found at the beginning of some input, or behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundRequest {
    /// Its length, bytes.
    pub(crate) consumed: usize,
    /// How many arguments it has, name included; 0: as many as the one before it, which stand where those do.
    pub(crate) args: usize,
    /// Its name is that of the one before it.
    pub(crate) is_alike: bool,
    /// The hash of the argument after its name, if there is one, and that one's slot in cluster mode: it is a key as a rule.
    pub(crate) hash: u64,
    pub(crate) slot: u16,
}

/// What was found, input after input, and where arguments are in their requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundRequests {
    requests: Vec<FoundRequest>,
    spans: Vec<Span>,
}

impl FoundRequests {
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
        self.requests.shrink_to(KEPT);
        self.spans.clear();
        self.spans.shrink_to(KEPT);
    }

    /// Adds those of one input, each with its arguments.
    pub(crate) fn add(&mut self, (requests, spans): (&[FoundRequest], &[Span])) -> FoundAt {
        let counts = FoundCounts { requests: requests.len(), spans: spans.len() };
        let at = FoundAt { request: self.requests.len(), span: self.spans.len(), counts };
        self.requests.extend_from_slice(requests);
        self.spans.extend_from_slice(spans);
        at
    }

    pub(crate) fn at(&self, FoundAt { request, span, counts }: FoundAt) -> (&[FoundRequest], &[Span]) {
        (&self.requests[request..][..counts.requests], &self.spans[span..][..counts.spans])
    }

    /// Adds what is in `other`, which is empty then.
    pub(super) fn append(&mut self, other: &mut FoundRequests) {
        self.requests.append(&mut other.requests);
        self.spans.append(&mut other.spans);
    }
}

/// How many requests were found in an input, and how many spans those have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundCounts {
    requests: usize,
    spans: usize,
}

/// Where those of one input stand among others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoundAt {
    request: usize,
    span: usize,
    counts: FoundCounts,
}

impl FoundAt {
    pub(crate) fn is_some(&self) -> bool {
        self.counts.requests > 0
    }

    /// Where those of the next input stand.
    pub(crate) fn next(self, counts: FoundCounts) -> FoundAt {
        FoundAt { request: self.request + self.counts.requests, span: self.span + self.counts.spans, counts }
    }
}

/// What has to be known to find requests and the hashes of their keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finder {
    /// That of the keyspace.
    pub(crate) seed: HashSeed,
    /// Keys have slots.
    pub(crate) per_slot: bool,
}

impl Finder {
    /// Adds the requests that `input` begins with, as far as they are whole and have few and short arguments. Whether a request
    /// begins there at all is for the main thread to know.
    pub(crate) fn find(&self, input: &[u8], found: &mut FoundRequests) -> FoundCounts {
        let (first, first_span) = (found.requests.len(), found.spans.len());
        let (most, most_spans) = (first + MOST, first_span + MOST_SPANS);
        let mut short = ShortCommands::default();
        let mut rest = input;
        while found.requests.len() < most && found.spans.len() < most_spans {
            let before = found.spans.len();
            let Some(consumed) = short.find(rest, &mut found.spans) else { break };
            let spans = &found.spans[before..];
            let (text, more) = rest.split_at(consumed);
            let followers = count_of_form(text, spans, more, most - found.requests.len() - 1);
            let key = spans.get(1).copied();
            let (texts, behind) = rest.split_at(consumed * (1 + followers));
            rest = behind;
            for (at, text) in texts.chunks_exact(consumed).enumerate() {
                let key = key.map_or(&[][..], |key| key.of(text));
                found.requests.push(FoundRequest {
                    consumed,
                    args: if at == 0 { spans.len() } else { 0 },
                    is_alike: at > 0 || short.is_alike,
                    hash: if key.is_empty() { 0 } else { self.seed.hash(key) },
                    slot: if self.per_slot && !key.is_empty() { key_slot(key) } else { 0 },
                });
            }
        }
        FoundCounts { requests: found.requests.len() - first, spans: found.spans.len() - first_span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::encode::command;
    use crate::resp::{Limits, Parsed, RequestParser};
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { max_bulk_len: 512 << 20, unauthenticated: false };

    fn any_input() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof!["[a-c]{0,3}", Just("{a}b".to_string()), Just("v".repeat(1200))];
        let several = |words: Vec<String>| command(&words.iter().map(String::as_bytes).collect::<Vec<_>>());
        let request = prop_oneof![
            8 => prop::collection::vec(word, 1..5).prop_map(several),
            1 => Just(b"PING\r\n".to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(request, 0..60).prop_map(|requests| requests.concat())
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_the_parser_would_find(inputs in prop::collection::vec(any_input(), 1..4), per_slot: bool) {
            let finder = Finder { seed: HashSeed([7; 16]), per_slot };
            let mut found = FoundRequests::default();
            let counts: Vec<FoundCounts> = inputs.iter().map(|input| finder.find(input, &mut found)).collect();
            let mut at = FoundAt::default();
            for (input, counts) in inputs.iter().zip(counts) {
                at = at.next(counts);
                let (requests, mut spans) = found.at(at);
                prop_assert!(requests.len() <= MOST && at.is_some() != requests.is_empty());
                let (mut rest, mut form, mut name) = (&input[..], &[][..], None);
                for request in requests {
                    let mut parser = RequestParser::default();
                    prop_assert_eq!(parser.parse(rest, LIMITS), Ok(Parsed::Command { consumed: request.consumed }));
                    if request.args > 0 {
                        (form, spans) = spans.split_at(request.args);
                    }
                    prop_assert_eq!(parser.spans(), form);
                    let key = form.get(1).map_or(&[][..], |key| key.of(rest));
                    if !key.is_empty() {
                        prop_assert_eq!(request.hash, finder.seed.hash(key));
                        prop_assert_eq!(request.slot, if per_slot { key_slot(key) } else { 0 });
                    }
                    let own = Some(form[0].of(rest));
                    prop_assert!(!request.is_alike || own == name);
                    name = own;
                    rest = &rest[request.consumed..];
                }
                prop_assert!(spans.is_empty());
            }
        }
    }
}
