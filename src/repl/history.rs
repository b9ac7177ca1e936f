//! Which history a dataset belongs to: the replication ids, and how far each of them is valid.
//!
//! A history is an id and an offset. A promoted replica starts a new id and keeps the old one as a second id, valid up
//! to the offset of the switch, so that the other replicas of the old master can continue with it. Whether the bytes a
//! replica asks for are still there is the [`Backlog`]'s part of the same decision.

use super::LogLine;
use super::backlog::Backlog;
use std::fmt;

/// Length of a replication id in hexadecimal digits.
pub(crate) const REPL_ID_LEN: usize = 40;

/// A replication id: 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReplId([u8; REPL_ID_LEN]);

impl ReplId {
    /// The id that stands for "none": all zeros.
    pub(crate) const NONE: ReplId = ReplId([b'0'; REPL_ID_LEN]);

    /// A new random id.
    pub(crate) fn random() -> Self {
        ReplId(std::array::from_fn(|_| b"0123456789abcdef"[fastrand::usize(..16)]))
    }

    /// The id in `bytes`, or `None` unless they are 40 printable bytes. A peer's id is opaque: it need not be hexadecimal.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; REPL_ID_LEN] = bytes.try_into().ok()?;
        id.iter().all(u8::is_ascii_graphic).then_some(ReplId(id))
    }

    /// The digits.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The digits as text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is ASCII")
    }

    /// Whether a peer means this id; case does not matter.
    pub(crate) fn matches(&self, asked: &[u8]) -> bool {
        self.0.eq_ignore_ascii_case(asked)
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The replication history of this server's dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// The current id (`master_replid`).
    pub(crate) id: ReplId,
    /// The id before the last promotion (`master_replid2`).
    pub(crate) second_id: ReplId,
    /// A request under the second id is served up to this offset, included; -1 when there is none.
    pub(crate) second_offset: i64,
    /// Offset of the newest byte of the stream (`master_repl_offset`).
    pub(crate) offset: i64,
}

/// What to answer a PSYNC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PsyncDecision {
    /// Continue from this offset.
    Partial { offset: i64, backlog_bytes: u64 },
    /// The whole dataset is needed. `refused` says that a continuation was asked for (it counts as a failed partial
    /// resync); the lines tell why.
    Full { refused: bool, lines: Vec<LogLine> },
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// A new history under a random id.
    pub(crate) fn new() -> Self {
        History { id: ReplId::random(), second_id: ReplId::NONE, second_offset: -1, offset: 0 }
    }

    /// Starts a history that no one can continue.
    pub(crate) fn start_new(&mut self) {
        self.id = ReplId::random();
        self.clear_second();
    }

    /// Forgets the second id.
    pub(crate) fn clear_second(&mut self) {
        self.second_id = ReplId::NONE;
        self.second_offset = -1;
    }

    /// A replica became a master: the id so far becomes the second one, valid up to the next byte, and a new one starts.
    pub(crate) fn shift(&mut self) -> LogLine {
        self.shift_to(ReplId::random());
        LogLine::notice(format!(
            "Setting secondary replication ID to {}, valid up to offset: {}. New replication ID is {}",
            self.second_id, self.second_offset, self.id
        ))
    }

    /// The master this replica continues with goes by another id now: the old one stays good for what is common. The
    /// offset is that of the next byte, which is the first one a reader of the old history may ask for.
    pub(crate) fn shift_to(&mut self, id: ReplId) {
        self.second_id = self.id;
        self.second_offset = self.offset + 1;
        self.id = id;
    }

    /// Decides a PSYNC for `asked_id` from `asked_offset` on by a replica called `name`.
    pub(crate) fn decide_psync(
        &self,
        backlog: Option<&Backlog>,
        asked_id: &[u8],
        asked_offset: i64,
        name: &str,
    ) -> PsyncDecision {
        let refused = asked_id.first() != Some(&b'?');
        let full = |lines| PsyncDecision::Full { refused, lines };
        let in_second = self.second_id.matches(asked_id);
        if !self.id.matches(asked_id) && (!in_second || asked_offset > self.second_offset) {
            let text = if !refused {
                format!("Full resync requested by replica {name}")
            } else if !in_second {
                format!(
                    "Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{}', my \
                     replication IDs are '{}' and '{}')",
                    String::from_utf8_lossy(asked_id),
                    self.id,
                    self.second_id
                )
            } else {
                format!(
                    "Partial resynchronization not accepted: Requested offset for second ID was {asked_offset}, but I \
                     can reply up to {}",
                    self.second_offset
                )
            };
            return full(vec![LogLine::notice(text)]);
        }
        match backlog {
            Some(backlog) if backlog.can_continue_from(asked_offset) => PsyncDecision::Partial {
                offset: asked_offset,
                backlog_bytes: (backlog.end_offset() - asked_offset) as u64,
            },
            _ => {
                let mut lines = vec![LogLine::notice(format!(
                    "Unable to partial resync with replica {name} for lack of backlog (Replica request was: \
                     {asked_offset})."
                ))];
                if asked_offset > self.offset {
                    lines.push(LogLine::warning(format!(
                        "Warning: replica {name} tried to PSYNC with an offset that is greater than the master \
                         replication offset."
                    )));
                }
                full(lines)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (History, Backlog) {
        let mut history = History::new();
        let mut backlog = Backlog::new(1 << 20, 1001);
        backlog.append(&[b'x'; 500]);
        history.offset = 1500;
        (history, backlog)
    }

    fn texts(decision: PsyncDecision) -> Vec<String> {
        match decision {
            PsyncDecision::Partial { .. } => panic!("continued"),
            PsyncDecision::Full { lines, .. } => lines.into_iter().map(|line| line.text).collect(),
        }
    }

    #[test]
    fn continues_from_any_held_byte_and_the_next_one() {
        let (history, backlog) = server();
        let id = *history.id.as_bytes().first_chunk::<40>().unwrap();
        for (offset, bytes) in [(1001, 500), (1500, 1), (1501, 0)] {
            assert_eq!(
                history.decide_psync(Some(&backlog), &id, offset, "r"),
                PsyncDecision::Partial { offset, backlog_bytes: bytes }
            );
        }
        assert_eq!(
            history.decide_psync(Some(&backlog), &id.map(|b| b.to_ascii_uppercase()), 1501, "r"),
            PsyncDecision::Partial { offset: 1501, backlog_bytes: 0 }
        );
    }

    #[test]
    fn refuses_with_redis_words() {
        let (history, backlog) = server();
        let id = history.id.as_bytes();
        assert_eq!(
            texts(history.decide_psync(Some(&backlog), id, 1000, "1.2.3.4:5")),
            ["Unable to partial resync with replica 1.2.3.4:5 for lack of backlog (Replica request was: 1000)."]
        );
        assert_eq!(texts(history.decide_psync(Some(&backlog), id, 1502, "r")).len(), 2);
        assert_eq!(texts(history.decide_psync(None, id, 1001, "r")).len(), 1);
        let asked = history.decide_psync(Some(&backlog), b"?", -1, "r");
        assert!(matches!(&asked, PsyncDecision::Full { refused: false, .. }));
        assert_eq!(texts(asked), ["Full resync requested by replica r"]);
        let other = history.decide_psync(Some(&backlog), b"abc", 1200, "r");
        assert!(matches!(&other, PsyncDecision::Full { refused: true, .. }));
        assert!(texts(other)[0].contains("Replication ID mismatch (Replica asked for 'abc', my replication IDs are '"));
    }

    #[test]
    fn the_old_id_is_good_up_to_the_promotion() {
        let (mut history, mut backlog) = server();
        let old = history.id;
        history.shift();
        assert_eq!((history.second_id, history.second_offset), (old, 1501));
        backlog.append(&[b'y'; 100]);
        history.offset += 100;
        assert!(matches!(
            history.decide_psync(Some(&backlog), old.as_bytes(), 1501, "r"),
            PsyncDecision::Partial { backlog_bytes: 100, .. }
        ));
        assert_eq!(
            texts(history.decide_psync(Some(&backlog), old.as_bytes(), 1502, "r")),
            [
                "Partial resynchronization not accepted: Requested offset for second ID was 1502, but I can reply up to 1501"
            ]
        );
    }

    #[test]
    fn the_none_id_is_never_continued() {
        let (history, backlog) = server();
        assert!(matches!(
            history.decide_psync(Some(&backlog), ReplId::NONE.as_bytes(), 1200, "r"),
            PsyncDecision::Full { refused: true, .. }
        ));
    }
}
