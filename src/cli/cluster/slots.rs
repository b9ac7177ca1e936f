//! Slots as the cluster manager counts and prints them.

pub(crate) use crate::structs::slots::{SlotSet, key_slot};

pub(crate) const SLOTS: u16 = crate::structs::slots::SLOT_COUNT as u16;

pub(crate) fn count(slots: &SlotSet) -> u16 {
    u16::try_from(slots.len()).unwrap_or(SLOTS)
}

/// A set as text: `[0-5460],[6000]`.
pub(crate) fn text(slots: &SlotSet) -> String {
    let ranges = slots.ranges().into_iter().map(|(first, last)| match first == last {
        true => format!("[{first}]"),
        false => format!("[{first}-{last}]"),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_as_text() {
        let mut set: SlotSet = (0..=5460).chain([6000, 16383]).collect();
        assert_eq!(text(&set), "[0-5460],[6000],[16383]");
        assert_eq!(count(&set), 5463);
        set.remove(1);
        assert_eq!(text(&set), "[0],[2-5460],[6000],[16383]");
        assert_eq!(text(&SlotSet::default()), "");
        assert_eq!(count(&(0..SLOTS).collect()), SLOTS);
    }
}
