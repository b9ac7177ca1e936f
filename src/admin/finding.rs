//! What the doctor finds, and what of it the log was told already. What is looked at is in `server/admin/findings/`.

use std::collections::BTreeMap;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// It will become worse, or costs something.
    Warning,
    /// Requests fail, or data can be lost.
    Critical,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Something that is wrong, or about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What kind of finding it is.
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    /// What tells it from others of its kind, such as a node; empty: there is one at most.
    pub(crate) subject: String,
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: &'static str,
}

impl Finding {
    /// Names and values, as DOCTOR and the page show them.
    pub(crate) fn fields(&self) -> [(&'static str, &str); 4] {
        let severity = self.severity.name();
        [("id", self.id), ("severity", severity), ("text", &self.text), ("advice", self.advice)]
    }
}

/// A finding that is not there for so long is another one when it comes back, milliseconds.
const FORGOTTEN_AFTER_MS: i64 = 600_000;

#[derive(Debug)]
struct Known {
    /// How often it was seen in a row.
    looks: u32,
    last_ms: i64,
    is_told: bool,
}

/// What was found and told so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    known: BTreeMap<(&'static str, String), Known>,
}

impl Told {
    /// Of what is found now, what the log is to be told: each once, when it is there at a second look in a row, so that what
    /// passes by itself is not told.
    pub(crate) fn news<'a>(&mut self, found: &'a [Finding], now_ms: i64) -> Vec<&'a Finding> {
        let mut news = Vec::new();
        for finding in found {
            let key = (finding.id, finding.subject.clone());
            let known = self.known.entry(key).or_insert(Known { looks: 0, last_ms: now_ms, is_told: false });
            known.looks += 1;
            known.last_ms = now_ms;
            if known.looks > 1 && !known.is_told {
                known.is_told = true;
                news.push(finding);
            }
        }
        self.known.retain(|_, known| now_ms - known.last_ms < FORGOTTEN_AFTER_MS);
        self.known.values_mut().filter(|known| known.last_ms < now_ms).for_each(|known| known.looks = 0);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_told_once_and_what_passes_never() {
        let finding = |subject: &str, text: &str| Finding {
            id: "x",
            severity: Severity::Warning,
            subject: subject.into(),
            text: text.into(),
            advice: "",
        };
        let mut told = Told::default();
        let texts = |found: Vec<&Finding>| found.iter().map(|f| f.text.clone()).collect::<Vec<_>>();
        assert!(told.news(&[finding("a", "1"), finding("b", "1")], 0).is_empty());
        assert_eq!(texts(told.news(&[finding("a", "2")], 5000)), ["2"]);
        assert!(told.news(&[finding("a", "3"), finding("b", "2")], 10_000).is_empty());
        assert_eq!(texts(told.news(&[finding("b", "3")], 15_000)), ["3"]);
        // It comes and goes: that is no news.
        assert!(told.news(&[], 20_000).is_empty());
        assert!(told.news(&[finding("a", "4")], 25_000).is_empty());
        assert!(told.news(&[finding("a", "5")], 30_000).is_empty());
        assert!(told.news(&[], 700_000).is_empty());
        assert!(told.news(&[finding("a", "6")], 710_000).is_empty());
        assert_eq!(texts(told.news(&[finding("a", "7")], 715_000)), ["7"]);
    }
}
