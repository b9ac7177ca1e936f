//! For tests: which keys were looked up and changed, to compare them with those that a command names.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// Names of keys.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) looked_up: BTreeSet<Vec<u8>>,
    pub(crate) changed: BTreeSet<Vec<u8>>,
}

thread_local! {
    static RECORD: RefCell<Option<Touched>> = const { RefCell::new(None) };
}

/// The keys that this thread touches while `f` runs.
pub(crate) fn during(f: impl FnOnce()) -> Touched {
    RECORD.set(Some(Touched::default()));
    f();
    RECORD.take().unwrap_or_default()
}

pub(crate) fn note_lookup(key: &[u8]) {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.looked_up.insert(key.to_vec());
        }
    });
}

pub(crate) fn note_change(key: &[u8]) {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.changed.insert(key.to_vec());
        }
    });
}
