//! ACL LOG: the latest refusals, like ones together.

use std::collections::VecDeque;

/// Like refusals closer together than this are one entry, milliseconds.
const GROUPING_MS: i64 = 60_000;
/// Latest entries that are searched for a like one.
const LOOK_BACK: usize = 10;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) count: u64,
    pub(crate) reason: &'static str,
    pub(crate) context: String,
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) client_info: String,
    pub(crate) id: u64,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

#[derive(Debug, Default)]
pub(crate) struct AclLog {
    /// The latest first.
    pub(crate) entries: VecDeque<Entry>,
    next_id: u64,
}

impl AclLog {
    pub(crate) fn add(
        &mut self,
        reason: &'static str,
        context: &str,
        object: Vec<u8>,
        user: &[u8],
        client_info: String,
        now_ms: i64,
        max_len: usize,
    ) {
        let alike = |e: &Entry| {
            e.reason == reason
                && e.context == context
                && e.object == object
                && e.user == user
                && now_ms - e.updated_ms <= GROUPING_MS
        };
        let entry = match self.entries.iter().take(LOOK_BACK).position(alike).and_then(|i| self.entries.remove(i)) {
            Some(old) => Entry { count: old.count + 1, client_info, updated_ms: now_ms, ..old },
            None => {
                let id = self.next_id;
                self.next_id += 1;
                let (context, user) = (context.to_string(), user.to_vec());
                Entry {
                    count: 1,
                    reason,
                    context,
                    object,
                    user,
                    client_info,
                    id,
                    created_ms: now_ms,
                    updated_ms: now_ms,
                }
            }
        };
        self.entries.push_front(entry);
        self.entries.truncate(max_len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_refusals_are_counted_together() {
        let mut log = AclLog::default();
        for (at, object) in [(0, "get"), (1000, "set"), (2000, "get"), (200_000, "get")] {
            log.add("command", "toplevel", object.into(), b"u", String::new(), at, 128);
        }
        let seen: Vec<_> = log.entries.iter().map(|e| (e.id, e.count)).collect();
        assert_eq!(seen, [(2, 1), (0, 2), (1, 1)]);
        log.add("command", "toplevel", b"x".to_vec(), b"u", String::new(), 0, 2);
        assert_eq!(log.entries.len(), 2);
    }
}
