//! How far a move of slots or keys has come: one line on a terminal, nothing elsewhere.
//!
//! Bytes come from MEMORY USAGE at the source, so they are asked for only while the line is shown.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::node::Node;
use crate::cli::modes::stat::human_bytes;
use crate::cli::term;
use crate::resp::reply_reader::Reply;

/// The line is drawn again at most this often.
const REDRAW: Duration = Duration::from_millis(100);

/// Columns of the bar itself.
const BAR_COLUMNS: usize = 24;

/// What is being moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Work {
    pub(crate) slots: u64,
    pub(crate) keys: u64,
}

/// See the module description. The default shows nothing.
#[derive(Default)]
pub(crate) struct Progress {
    live: Option<Live>,
}

struct Live {
    title: &'static str,
    total: Work,
    done: Work,
    bytes: u64,
    route: String,
    started: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    /// Begins to show, if standard output is a terminal.
    pub(crate) fn begin(title: &'static str, total: Work) -> Progress {
        if !std::io::stdout().is_terminal() || (total.slots == 0 && total.keys == 0) {
            return Progress::default();
        }
        let started = Instant::now();
        let live = Live { title, total, done: Work::default(), bytes: 0, route: String::new(), started, drawn: None };
        Progress { live: Some(live) }
    }

    /// Whether the line is shown, in place of a log.
    pub(crate) fn is_shown(&self) -> bool {
        self.live.is_some()
    }

    /// Sets the source and target that the line shows.
    pub(crate) fn route(&mut self, source: &str, target: &str) {
        if let Some(live) = &mut self.live {
            live.route = format!("{source} -> {target}");
            live.draw(false);
        }
    }

    /// Adds keys that have arrived.
    pub(crate) fn moved(&mut self, keys: u64, bytes: u64) {
        if let Some(live) = &mut self.live {
            live.done.keys += keys;
            live.bytes += bytes;
            live.draw(false);
        }
    }

    /// Counts a slot that has a new owner.
    pub(crate) fn slot_done(&mut self) {
        if let Some(live) = &mut self.live {
            live.done.slots += 1;
            live.draw(false);
        }
    }

    /// Leaves the last state of the line on the screen.
    pub(crate) fn end(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.draw(true);
            let line = live.line(term::size().0);
            term::clear_status();
            term::put_now(format!("{line}\n").as_bytes());
        }
    }
}

impl Live {
    fn draw(&mut self, now: bool) {
        if now || self.drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            self.drawn = Some(Instant::now());
            term::show_status(&self.line(term::size().0));
        }
    }

    /// The line, as much of it as fits.
    fn line(&self, columns: usize) -> String {
        let elapsed = self.started.elapsed().as_secs_f64().max(1e-3);
        let share = self.share();
        let filled = (share * BAR_COLUMNS as f64) as usize;
        let mut text = format!(
            "{} [{}{}] {:3.0}%",
            self.title,
            "#".repeat(filled),
            ".".repeat(BAR_COLUMNS - filled),
            (share * 100.0).floor()
        );
        if self.total.slots > 0 {
            text.push_str(&format!("  {}/{} slots", self.done.slots, self.total.slots));
        }
        let per_second = |n: u64| (n as f64 / elapsed) as i64;
        text.push_str(&format!("  {} keys ({}/s)", self.done.keys, per_second(self.done.keys)));
        text.push_str(&format!(
            "  {} ({}/s)",
            human_bytes(i64::try_from(self.bytes).unwrap_or(i64::MAX)),
            human_bytes(per_second(self.bytes))
        ));
        let time = match share {
            share if share >= 1.0 => format!("  in {}", clock(elapsed)),
            share if share > 0.0 => format!("  {} left", clock(elapsed / share - elapsed)),
            _ => String::new(),
        };
        text.push_str(&time);
        if !self.route.is_empty() {
            text.push_str(&format!("  {}", self.route));
        }
        // The last column stays empty, so that no terminal breaks the line.
        text.chars().take(columns.saturating_sub(1)).collect()
    }

    /// How much of the work is done, from 0 to 1. Keys take the time where there are any; slots without keys count for a
    /// little, so that the bar moves over them too.
    fn share(&self) -> f64 {
        const KEYS_A_SLOT: f64 = 20.0;
        let weigh = |work: Work| work.keys as f64 + KEYS_A_SLOT * work.slots as f64;
        (weigh(self.done) / weigh(self.total).max(1.0)).min(1.0)
    }
}

/// Seconds as `m:ss` or `h:mm:ss`.
fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// Keys of these slots at a node, 0 where it does not say.
pub(crate) fn count_keys(node: &mut Node, slots: &[u16]) -> u64 {
    let asked: Vec<Vec<String>> =
        slots.iter().map(|slot| vec!["CLUSTER".to_string(), "COUNTKEYSINSLOT".to_string(), slot.to_string()]).collect();
    node.pipeline(&asked).iter().map(unsigned).sum()
}

/// Bytes of these keys at a node, 0 where it does not say.
pub(crate) fn weigh_keys(node: &mut Node, keys: &[Vec<u8>]) -> u64 {
    let asked: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![&b"MEMORY"[..], b"USAGE", key]).collect();
    node.pipeline(&asked).iter().map(unsigned).sum()
}

/// An integer reply; 0 for any other, or a negative one.
pub(crate) fn unsigned(reply: &Reply) -> u64 {
    reply.integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live {
            title: "Moving",
            total: Work { slots: 10, keys: 800 },
            done: Work { slots: 5, keys: 400 },
            bytes: 2048,
            route: "a:1 -> b:2".into(),
            started: Instant::now() - Duration::from_secs(10),
            drawn: None,
        }
    }

    #[test]
    fn the_line_tells_what_is_done_and_left() {
        let line = live().line(200);
        assert!(line.starts_with("Moving [############............]  50%  5/10 slots  400 keys ("), "{line}");
        assert!(line.contains("  2.00K (") && line.ends_with("  0:10 left  a:1 -> b:2"), "{line}");
        let done = Live { done: Work { slots: 10, keys: 800 }, ..live() };
        assert!(done.line(200).contains("100%") && done.line(200).contains("  in 0:10"));
    }

    #[test]
    fn the_line_fits() {
        assert_eq!(live().line(40).chars().count(), 39);
    }

    #[test]
    fn times() {
        assert_eq!(clock(59.4), "0:59");
        assert_eq!(clock(3661.0), "1:01:01");
    }

    #[test]
    fn without_a_terminal_there_is_nothing() {
        let mut progress = Progress::default();
        progress.moved(1, 1);
        progress.end();
        assert!(!progress.is_shown());
    }
}
