//! When a snapshot is saved and the log rewritten though no command asks for it at that moment, and how the last ones went.
//!
//! Decides and takes note; what it decides leaves as an [`Action`], and the server says what came of it. The time is told, so
//! that nothing here depends on a clock.

use super::Persist;
use super::state::AofState;
use crate::config::Config;

/// After a failed background save the next automatic one waits this long.
const RETRY_DELAY_S: i64 = 5;

/// What is decided by besides the state.
pub(crate) struct Env<'a> {
    /// Unix time.
    pub(crate) now_s: i64,
    /// Changes since the last snapshot.
    pub(crate) dirty: u64,
    pub(crate) cfg: &'a Config,
    /// The first cron run of a second.
    pub(crate) is_new_second: bool,
}

/// The parts of the periodic work, in their order. At most one child comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Restart,
    ScheduledRewrite,
    SavePoint,
    Growth,
    Child,
    Log,
    ScheduledSave,
}

impl Stage {
    pub(crate) const ALL: [Stage; 7] = [
        Stage::Restart,
        Stage::ScheduledRewrite,
        Stage::SavePoint,
        Stage::Growth,
        Stage::Child,
        Stage::Log,
        Stage::ScheduledSave,
    ];
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Fork a child that saves a snapshot: so many changes came within so many seconds.
    SaveAtPoint { changes: i64, seconds: i64 },
    /// Fork the child that BGSAVE asked for while there was another one.
    SaveAsScheduled,
    /// Fork a child that rewrites the log, which grew by so many percent.
    RewriteAtGrowth { percent: i64 },
    /// Fork the child that BGREWRITEAOF asked for, or the beginning of a log.
    RewriteAsScheduled,
    /// Take in what the child reports, and its end if that has come.
    LookAtChild,
    /// Write to the log what had to wait.
    RetryLog,
    /// Try once more to switch the log on.
    RestartLog,
    /// Say that rewrites failed too often, and that the next one waits so long.
    SayRewritesWait { minutes: i64 },
}

/// How a child that saved a snapshot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveEnd {
    Done,
    Failed,
    /// We ended it ourselves.
    Stopped,
    /// It wrote to replicas, which is nothing to remember.
    Transfer,
}

/// Snapshots: when the last ones were made and what came of them.
#[derive(Debug)]
pub(crate) struct Saves {
    last_save_s: i64,
    last_ok: bool,
    last_try_s: i64,
    scheduled: bool,
    /// Changes that the snapshot being saved will have.
    covered: u64,
    start_s: Option<i64>,
    last_took_s: Option<i64>,
    count: u64,
}

impl Saves {
    pub(crate) fn new(now_s: i64) -> Saves {
        Saves {
            last_save_s: now_s,
            last_ok: true,
            last_try_s: 0,
            scheduled: false,
            covered: 0,
            start_s: None,
            last_took_s: None,
            count: 0,
        }
    }

    /// Unix time.
    pub(crate) fn last_save_s(&self) -> i64 {
        self.last_save_s
    }

    /// Whether the last save in the background went well.
    pub(crate) fn is_ok(&self) -> bool {
        self.last_ok
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// When the save under way began, Unix time, and how long the last one took.
    pub(crate) fn times_s(&self) -> (Option<i64>, Option<i64>) {
        (self.start_s, self.last_took_s)
    }

    /// To be saved when there is no child.
    pub(crate) fn schedule(&mut self) {
        self.scheduled = true;
    }

    pub(crate) fn unschedule(&mut self) {
        self.scheduled = false;
    }

    /// A save in the foreground was asked for.
    pub(crate) fn count_one(&mut self) {
        self.count += 1;
    }

    /// A save in the background is attempted, of a data set with so many changes.
    pub(crate) fn attempt(&mut self, dirty: u64, now_s: i64) {
        self.count += 1;
        self.covered = dirty;
        self.last_try_s = now_s;
    }

    /// The child is there.
    pub(crate) fn started(&mut self, now_s: i64) {
        self.start_s = Some(now_s);
    }

    /// There is no child after all.
    pub(crate) fn not_started(&mut self) {
        self.last_ok = false;
    }

    /// Everything was saved in the foreground.
    pub(crate) fn saved(&mut self, now_s: i64) {
        self.last_save_s = now_s;
        self.last_ok = true;
    }

    /// A child has ended. Gives how many changes are on disk now.
    pub(crate) fn child_ended(&mut self, end: SaveEnd, now_s: i64) -> u64 {
        self.last_took_s = self.start_s.take().map(|start| now_s - start);
        match end {
            SaveEnd::Done => {
                self.saved(now_s);
                self.covered
            }
            SaveEnd::Failed => {
                self.last_ok = false;
                0
            }
            SaveEnd::Stopped | SaveEnd::Transfer => 0,
        }
    }

    fn may_try(&self, now_s: i64) -> bool {
        self.last_ok || now_s - self.last_try_s > RETRY_DELAY_S
    }

    fn point_reached(&self, env: &Env<'_>) -> Option<Action> {
        let since_s = env.now_s - self.last_save_s;
        let reached = env.cfg.save.iter().find(|p| env.dirty >= p.changes as u64 && since_s > p.seconds)?;
        self.may_try(env.now_s).then_some(Action::SaveAtPoint { changes: reached.changes, seconds: reached.seconds })
    }
}

/// Rewrites of the log: what came of the last ones.
#[derive(Debug)]
pub(crate) struct Rewrites {
    scheduled: bool,
    last_ok: bool,
    count: u64,
    failures: u64,
    start_s: Option<i64>,
    last_took_s: Option<i64>,
    limit: RewriteLimit,
    /// Bytes of the log after the last one.
    base_bytes: u64,
}

impl Default for Rewrites {
    fn default() -> Rewrites {
        Rewrites {
            scheduled: false,
            last_ok: true,
            count: 0,
            failures: 0,
            start_s: None,
            last_took_s: None,
            limit: RewriteLimit::default(),
            base_bytes: 0,
        }
    }
}

impl Rewrites {
    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduled
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.last_ok
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn base_bytes(&self) -> u64 {
        self.base_bytes
    }

    /// When the rewrite under way began, Unix time, and how long the last one took.
    pub(crate) fn times_s(&self) -> (Option<i64>, Option<i64>) {
        (self.start_s, self.last_took_s)
    }

    /// To be rewritten when there is no child.
    pub(crate) fn schedule(&mut self) {
        self.scheduled = true;
    }

    /// As [`Self::schedule`], by hand: whoever asks so does not have to wait for earlier failures to be forgotten.
    pub(crate) fn schedule_now(&mut self) {
        self.scheduled = true;
        self.failures = 0;
    }

    pub(crate) fn unschedule(&mut self) {
        self.scheduled = false;
    }

    /// A child is about to be forked.
    pub(crate) fn count_one(&mut self) {
        self.count += 1;
    }

    pub(crate) fn started(&mut self, now_s: i64) {
        self.scheduled = false;
        self.start_s = Some(now_s);
    }

    pub(crate) fn not_started(&mut self) {
        self.last_ok = false;
    }

    /// What the child wrote was made the base, or that failed.
    pub(crate) fn note(&mut self, ok: bool) {
        self.last_ok = ok;
        self.failures = if ok { 0 } else { self.failures + 1 };
    }

    pub(crate) fn child_ended(&mut self, now_s: i64) {
        self.last_took_s = self.start_s.take().map(|start| now_s - start);
    }

    /// The child was stopped, which says nothing of how long rewrites take.
    pub(crate) fn stopped(&mut self) {
        self.start_s = None;
    }

    /// The log has this size after its last rewrite, as far as that is known.
    pub(crate) fn set_base_bytes(&mut self, bytes: u64) {
        self.base_bytes = bytes;
    }

    /// The action of a rewrite that is due, unless repeated failures have it wait.
    fn unless_limited(&mut self, action: Action, now_s: i64) -> Option<Action> {
        match self.limit.is_limited(self.failures, now_s) {
            (false, _) => Some(action),
            (true, Some(minutes)) => Some(Action::SayRewritesWait { minutes }),
            (true, None) => None,
        }
    }
}

/// Keeps failing rewrites from leaving a file behind every second: after three in a row the next waits a minute, then
/// two, four, up to an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RewriteLimit {
    delay_minutes: i64,
    next_s: i64,
}

impl RewriteLimit {
    const FAILURES: u64 = 3;
    const MAX_MINUTES: i64 = 60;

    /// Whether an automatic rewrite has to wait. `Some(minutes)` in the second place when a wait begins.
    fn is_limited(&mut self, failures: u64, now_s: i64) -> (bool, Option<i64>) {
        if failures < Self::FAILURES {
            *self = RewriteLimit::default();
            return (false, None);
        }
        if self.next_s != 0 {
            if now_s < self.next_s {
                return (true, None);
            }
            self.next_s = 0;
            return (false, None);
        }
        self.delay_minutes = (self.delay_minutes * 2).clamp(1, Self::MAX_MINUTES);
        self.next_s = now_s + self.delay_minutes * 60;
        (true, Some(self.delay_minutes))
    }
}

/// Switching the log on again after a full synchronization: tried once a second, so many times.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    tries_left: u32,
    next_s: i64,
}

/// What comes of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Done,
    Again,
    /// It was the last one.
    Over,
}

impl Restart {
    const TRIES: u32 = 10;

    /// The log is to be on again. The first try is due at once.
    pub(crate) fn begin(&mut self) {
        *self = Restart { tries_left: Self::TRIES, next_s: 0 };
    }

    /// The log is to be off, or about to be switched off for a synchronization.
    pub(crate) fn cancel(&mut self) {
        self.tries_left = 0;
    }

    fn is_due(&self, now_s: i64) -> bool {
        self.tries_left > 0 && now_s >= self.next_s
    }

    pub(crate) fn tried(&mut self, is_on: bool, now_s: i64) -> Tried {
        self.next_s = now_s + 1;
        self.tries_left = if is_on { 0 } else { self.tries_left.saturating_sub(1) };
        match self.tries_left {
            _ if is_on => Tried::Done,
            0 => Tried::Over,
            _ => Tried::Again,
        }
    }
}

impl Persist {
    /// What is due at this stage of the periodic work.
    pub(crate) fn due(&mut self, stage: Stage, env: &Env<'_>) -> Option<Action> {
        match stage {
            _ if self.loading.is_some() => None,
            Stage::Child => self.child.is_some().then_some(Action::LookAtChild),
            Stage::Log => {
                let waits = self.aof.writing.is_retried(env.is_new_second);
                (self.aof.state != AofState::Off && waits).then_some(Action::RetryLog)
            }
            Stage::Restart => self.aof.restart.is_due(env.now_s).then_some(Action::RestartLog),
            // One child at a time.
            _ if self.child.is_some() => None,
            Stage::ScheduledRewrite if self.aof.rewrites.scheduled => {
                self.aof.rewrites.unless_limited(Action::RewriteAsScheduled, env.now_s)
            }
            Stage::ScheduledRewrite => None,
            Stage::SavePoint => self.saves.point_reached(env),
            Stage::Growth => self.grown(env),
            Stage::ScheduledSave => {
                (self.saves.scheduled && self.saves.may_try(env.now_s)).then_some(Action::SaveAsScheduled)
            }
        }
    }

    fn grown(&mut self, env: &Env<'_>) -> Option<Action> {
        let limit = env.cfg.auto_aof_rewrite_percentage;
        let size = self.aof.current_size;
        if self.aof.state != AofState::On || limit == 0 || size <= env.cfg.auto_aof_rewrite_min_size {
            return None;
        }
        let rewrites = &mut self.aof.rewrites;
        let percent = (u128::from(size) * 100 / u128::from(rewrites.base_bytes.max(1))) as i64 - 100;
        if percent < limit {
            return None;
        }
        rewrites.unless_limited(Action::RewriteAtGrowth { percent }, env.now_s)
    }
}

#[cfg(test)]
mod tests;
