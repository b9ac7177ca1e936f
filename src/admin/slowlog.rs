//! The slow log: commands that took longer than `slowlog-log-slower-than`, the newest first.

use crate::resp::Reply;
use std::collections::VecDeque;

/// Arguments kept of a command. The last one may say how many were left out.
const MAX_ARGS: usize = 32;
/// Bytes kept of an argument.
const MAX_ARG_BYTES: usize = 128;

#[derive(Debug)]
pub(crate) struct SlowEntry {
    pub(crate) id: i64,
    /// Seconds since 1970.
    pub(crate) time: i64,
    pub(crate) duration_us: i64,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) peer: String,
    pub(crate) name: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    pub(crate) entries: VecDeque<SlowEntry>,
    pub(crate) next_id: i64,
}

impl SlowLog {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn reset(&mut self) {
        self.entries.clear();
    }

    /// Keeps at most `max` entries.
    pub(crate) fn trim(&mut self, max: usize) {
        self.entries.truncate(max);
    }

    /// The newest `count` entries, as SLOWLOG GET gives them.
    pub(crate) fn write(&self, count: usize, out: &mut Reply) {
        let count = count.min(self.entries.len());
        out.array(count);
        for entry in self.entries.iter().take(count) {
            out.array(6);
            out.int(entry.id);
            out.int(entry.time);
            out.int(entry.duration_us);
            out.array(entry.args.len());
            entry.args.iter().for_each(|a| out.bulk(a));
            out.bulk_str(&entry.peer);
            out.bulk(&entry.name);
        }
    }
}

/// The arguments as they are kept: at most [`MAX_ARGS`], each cut to [`MAX_ARG_BYTES`].
pub(crate) fn kept_args<'a>(args: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let count = args.len();
    let shown = if count > MAX_ARGS { MAX_ARGS - 1 } else { count };
    let mut kept: Vec<Vec<u8>> = args
        .take(shown)
        .map(|arg| {
            if arg.len() <= MAX_ARG_BYTES {
                return arg.to_vec();
            }
            let mut cut = arg[..MAX_ARG_BYTES].to_vec();
            cut.extend_from_slice(format!("... ({} more bytes)", arg.len() - MAX_ARG_BYTES).as_bytes());
            cut
        })
        .collect();
    if shown < count {
        kept.push(format!("... ({} more arguments)", count - shown).into_bytes());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_cut() {
        let many: Vec<Vec<u8>> = (0..40).map(|i| format!("{i}").into_bytes()).collect();
        let kept = kept_args(many.iter().map(Vec::as_slice));
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[31], b"... (9 more arguments)");
        let long = [b'A'; 129];
        let kept = kept_args([&long[..]].into_iter());
        assert!(kept[0].ends_with(b"... (1 more bytes)"));
        let exact: Vec<Vec<u8>> = many[..32].to_vec();
        assert_eq!(kept_args(exact.iter().map(Vec::as_slice)).len(), 32);
    }
}
