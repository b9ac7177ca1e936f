//! What nodes say to each other about durable acknowledgements and elections: messages between modules, as far as the bus is
//! concerned, which a node without this knows to ignore.
//!
//! Integers are big endian; an id is its 40 characters; a list is a count of two bytes and its ids.

use super::{Lead, Lineage, Progress, Record};
use crate::cluster::node::NodeId;

/// The module that the messages are said to be of.
pub(in crate::cluster) const MODULE_ID: u64 = u64::from_ne_bytes(*b"hxd-acks");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Message {
    /// A master to its replicas: the lineage that it writes, and where that begins.
    Lead(Lead),
    /// A candidate to its shard: support me in the election of this epoch.
    Ask { epoch: u64, progress: Progress },
    /// The answer, if it is yes.
    Support { epoch: u64 },
    /// A candidate to voters, before it asks for the vote of this epoch: who supports it.
    Evidence { epoch: u64, supporters: Vec<NodeId> },
    /// A master to everybody: which replicas of its shard count.
    Propose { shard: NodeId, record: Record },
    /// The answer: it is on disk. `voters`: the masters with slots, as a number; `voted`: those of them for whose replicas we have
    /// voted in elections whose end we do not know.
    Accepted { lineage: Lineage, version: u64, voters: u64, voted: Vec<NodeId> },
    /// A replica to its master: I have promised myself, in the election of that epoch.
    Promised { epoch: u64 },
    /// A voter to a candidate, with its vote: what I know of a shard.
    Known { shard: NodeId, promised: u64, promised_to: Option<NodeId>, record: Option<Record> },
    /// A master to a replica: take my place. `forced`: do not wait for my data, as it is not complete.
    TakeOver { forced: bool },
    /// A voter to a candidate: in the election of that epoch my vote is with another replica of your master.
    Denied { epoch: u64 },
    /// A candidate to voters and siblings: I have given up elections up to that epoch.
    Withdrawn { epoch: u64 },
}

impl Message {
    /// The number of its kind, and its content.
    pub(in crate::cluster) fn encode(&self) -> (u8, Vec<u8>) {
        let mut out = Writer(Vec::new());
        let kind = match self {
            Message::Lead(lead) => {
                out.lineage(lead.lineage);
                out.number(lead.start as u64);
                out.0.extend_from_slice(&lead.stream);
                1
            }
            Message::Ask { epoch, progress } => {
                out.number(*epoch);
                out.lineage(progress.lineage);
                out.number(progress.offset as u64);
                2
            }
            Message::Support { epoch } => {
                out.number(*epoch);
                3
            }
            Message::Evidence { epoch, supporters } => {
                out.number(*epoch);
                out.ids(supporters);
                4
            }
            Message::Propose { shard, record } => {
                out.0.extend_from_slice(shard.as_bytes());
                out.record(record);
                5
            }
            Message::Accepted { lineage, version, voters, voted } => {
                out.lineage(*lineage);
                out.number(*version);
                out.number(*voters);
                out.ids(voted);
                6
            }
            Message::Promised { epoch } => {
                out.number(*epoch);
                8
            }
            Message::Known { shard, promised, promised_to, record } => {
                out.0.extend_from_slice(shard.as_bytes());
                out.number(*promised);
                out.ids(promised_to.as_slice());
                out.0.push(u8::from(record.is_some()));
                record.iter().for_each(|record| out.record(record));
                9
            }
            Message::TakeOver { forced } => {
                out.number(u64::from(*forced));
                7
            }
            Message::Denied { epoch } => {
                out.number(*epoch);
                10
            }
            Message::Withdrawn { epoch } => {
                out.number(*epoch);
                11
            }
        };
        (kind, out.0)
    }

    /// The message that these bytes are; `None` if they are none.
    pub(in crate::cluster) fn decode(kind: u8, payload: &[u8]) -> Option<Message> {
        let mut input = Reader(payload);
        let message = match kind {
            1 => Message::Lead(Lead { lineage: input.lineage()?, start: input.offset()?, stream: input.take()? }),
            2 => Message::Ask {
                epoch: input.number()?,
                progress: Progress { lineage: input.lineage()?, offset: input.offset()? },
            },
            3 => Message::Support { epoch: input.number()? },
            4 => Message::Evidence { epoch: input.number()?, supporters: input.ids()? },
            5 => Message::Propose { shard: input.id()?, record: input.record()? },
            6 => Message::Accepted {
                lineage: input.lineage()?,
                version: input.number()?,
                voters: input.number()?,
                voted: input.ids()?,
            },
            7 => Message::TakeOver { forced: input.number()? != 0 },
            8 => Message::Promised { epoch: input.number()? },
            9 => Message::Known {
                shard: input.id()?,
                promised: input.number()?,
                promised_to: input.ids()?.first().copied(),
                record: match input.take()? {
                    [0] => None,
                    _ => Some(input.record()?),
                },
            },
            10 => Message::Denied { epoch: input.number()? },
            11 => Message::Withdrawn { epoch: input.number()? },
            _ => return None,
        };
        input.0.is_empty().then_some(message)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn lineage(&mut self, lineage: Lineage) {
        self.number(lineage.epoch);
        self.number(lineage.run);
    }

    fn record(&mut self, record: &Record) {
        self.0.extend_from_slice(record.owner.as_bytes());
        self.lineage(record.lineage);
        self.number(record.version);
        self.number(u64::from(record.copies));
        self.ids(&record.members);
    }

    fn ids(&mut self, ids: &[NodeId]) {
        self.0.extend_from_slice(&(ids.len() as u16).to_be_bytes());
        ids.iter().for_each(|id| self.0.extend_from_slice(id.as_bytes()));
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn offset(&mut self) -> Option<i64> {
        i64::try_from(self.number()?).ok()
    }

    fn lineage(&mut self) -> Option<Lineage> {
        Some(Lineage { epoch: self.number()?, run: self.number()? })
    }

    fn id(&mut self) -> Option<NodeId> {
        NodeId::parse(&self.take::<{ NodeId::LEN }>()?)
    }

    fn record(&mut self) -> Option<Record> {
        Some(Record {
            owner: self.id()?,
            lineage: self.lineage()?,
            version: self.number()?,
            copies: self.number()?.try_into().ok()?,
            members: self.ids()?,
        })
    }

    fn ids(&mut self) -> Option<Vec<NodeId>> {
        let count = u16::from_be_bytes(self.take()?);
        (0..count).map(|_| self.id()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::some_ids as ids;
    use proptest::prelude::*;

    #[test]
    fn messages_are_read_back_and_half_of_one_is_none() {
        let lineage = Lineage { epoch: 7, run: 2 };
        let record = |n: usize| Record { owner: ids(n)[n - 1], lineage, version: 9, copies: 2, members: ids(3) };
        for message in [
            Message::Lead(Lead { lineage, start: 50, stream: [b'e'; 40] }),
            Message::Ask { epoch: 8, progress: Progress { lineage, offset: 77 } },
            Message::Support { epoch: 8 },
            Message::Evidence { epoch: 8, supporters: ids(2) },
            Message::Propose { shard: ids(1)[0], record: record(4) },
            Message::Accepted { lineage, version: 9, voters: 1 << 63, voted: ids(1) },
            Message::TakeOver { forced: true },
            Message::Promised { epoch: 9 },
            Message::Denied { epoch: 10 },
            Message::Withdrawn { epoch: 11 },
            Message::Known { shard: ids(1)[0], promised: 5, promised_to: Some(ids(2)[1]), record: Some(record(4)) },
            Message::Known { shard: ids(1)[0], promised: 5, promised_to: None, record: None },
        ] {
            let (kind, payload) = message.encode();
            assert_eq!(Message::decode(kind, &payload).as_ref(), Some(&message));
            assert_eq!(Message::decode(kind, &payload[..payload.len() - 1]), None);
            assert_eq!(Message::decode(kind, &[&payload[..], &[0]].concat()), None);
            assert_eq!(Message::decode(0, &payload), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(kind in 0u8..13, payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Message::decode(kind, &payload);
        }
    }
}
