//! Tests of what is saved and rewritten, and when.

use super::*;
use crate::config::SavePoint;
use crate::persist::child::{Child, ChildKind};
use crate::persist::state::Loading;

struct Bench {
    persist: Persist,
    cfg: Config,
}

impl Bench {
    fn new(points: &[(i64, i64)], appendonly: bool) -> Bench {
        let save = points.iter().map(|(seconds, changes)| SavePoint { seconds: *seconds, changes: *changes }).collect();
        let cfg = Config { save, appendonly, ..Config::default() };
        Bench { persist: Persist::new(&cfg, 1000), cfg }
    }

    fn due(&mut self, stage: Stage, now_s: i64, dirty: u64) -> Option<Action> {
        self.persist.due(stage, &Env { now_s, dirty, cfg: &self.cfg, is_new_second: true })
    }

    /// Nothing at all is due.
    fn is_idle(&mut self, now_s: i64, dirty: u64) -> bool {
        Stage::ALL.iter().all(|stage| self.due(*stage, now_s, dirty).is_none())
    }

    fn child(&mut self, kind: ChildKind) {
        let info = std::fs::File::open("/dev/null").unwrap();
        self.persist.child = Some(Child::new(nix::unistd::Pid::from_raw(1), kind, info));
    }
}

#[test]
fn a_save_point_is_reached_by_changes_and_time() {
    let mut b = Bench::new(&[(3600, 1), (60, 100)], false);
    assert!(b.is_idle(1000 + 3600, 1), "a second too early");
    assert!(b.is_idle(1000 + 100_000, 0));
    assert_eq!(b.due(Stage::SavePoint, 1000 + 3601, 1), Some(Action::SaveAtPoint { changes: 1, seconds: 3600 }));
    assert!(b.is_idle(1000 + 61, 99));
    assert_eq!(b.due(Stage::SavePoint, 1000 + 61, 100), Some(Action::SaveAtPoint { changes: 100, seconds: 60 }));
    b.persist.saves.saved(2000);
    assert!(b.is_idle(2060, 100));
    let mut never = Bench::new(&[], false);
    assert!(never.is_idle(i64::MAX / 2, u64::MAX));
}

#[test]
fn a_failed_save_is_tried_again_after_a_while() {
    let mut b = Bench::new(&[(10, 1)], false);
    b.persist.saves.attempt(7, 1011);
    b.persist.saves.started(1011);
    assert_eq!(b.persist.saves.child_ended(SaveEnd::Failed, 1013), 0);
    assert_eq!((b.persist.saves.is_ok(), b.persist.saves.times_s()), (false, (None, Some(2))));
    assert!(b.is_idle(1011 + RETRY_DELAY_S, 7));
    assert!(b.due(Stage::SavePoint, 1012 + RETRY_DELAY_S, 7).is_some());
    // So is one that could not even begin.
    b.persist.saves.attempt(7, 1020);
    b.persist.saves.not_started();
    assert!(b.is_idle(1025, 7) && !b.is_idle(1026, 7));
    b.persist.saves.attempt(9, 1026);
    b.persist.saves.started(1026);
    assert_eq!(b.persist.saves.child_ended(SaveEnd::Done, 1030), 9, "what came since does not count as saved");
    assert_eq!((b.persist.saves.is_ok(), b.persist.saves.last_save_s(), b.persist.saves.count()), (true, 1030, 3));
}

#[test]
fn a_save_that_we_stop_says_nothing_of_the_disk() {
    let mut b = Bench::new(&[(10, 1)], false);
    b.persist.saves.attempt(7, 1011);
    b.persist.saves.started(1011);
    for end in [SaveEnd::Stopped, SaveEnd::Transfer] {
        assert_eq!(b.persist.saves.child_ended(end, 1013), 0);
        assert_eq!((b.persist.saves.is_ok(), b.persist.saves.last_save_s()), (true, 1000));
    }
}

#[test]
fn what_was_scheduled_waits_for_the_child() {
    let mut b = Bench::new(&[(10, 1)], true);
    b.child(ChildKind::RdbDisk);
    b.persist.aof.rewrites.schedule_now();
    b.persist.saves.schedule();
    for stage in Stage::ALL {
        let due = b.due(stage, 5000, 7);
        assert_eq!(due, (stage == Stage::Child).then_some(Action::LookAtChild), "{stage:?}");
    }
    b.persist.child = None;
    assert_eq!(b.due(Stage::ScheduledRewrite, 5000, 7), Some(Action::RewriteAsScheduled));
    assert_eq!(b.due(Stage::ScheduledSave, 5000, 7), Some(Action::SaveAsScheduled));
    b.persist.aof.rewrites.started(5000);
    assert_eq!(b.due(Stage::ScheduledRewrite, 5000, 7), None);
    // A data set that is only half there is not to be saved.
    b.persist.loading = Some(Default::default());
    assert!(b.is_idle(5000, 7));
}

#[test]
fn a_log_that_could_not_be_written_is_tried_again() {
    let mut b = Bench::new(&[], true);
    assert_eq!(b.due(Stage::Log, 1000, 0), None);
    b.persist.aof.writing.failed(0, None, 1000);
    assert_eq!(b.due(Stage::Log, 1000, 0), Some(Action::RetryLog));
    let env = Env { now_s: 1000, dirty: 0, cfg: &b.cfg, is_new_second: false };
    assert_eq!(b.persist.due(Stage::Log, &env), None);
    b.persist.aof.state = AofState::Off;
    assert_eq!(b.due(Stage::Log, 1000, 0), None);
}

#[test]
fn the_log_is_rewritten_when_it_has_grown() {
    let mut b = Bench::new(&[], true);
    b.persist.aof.current_size = 100 << 20;
    b.persist.aof.rewrites.set_base_bytes(50 << 20);
    assert_eq!(b.due(Stage::Growth, 1000, 0), Some(Action::RewriteAtGrowth { percent: 100 }));
    b.persist.aof.rewrites.set_base_bytes((50 << 20) + (1 << 20));
    assert_eq!(b.due(Stage::Growth, 1000, 0), None);
    b.cfg.auto_aof_rewrite_percentage = 90;
    assert_eq!(b.due(Stage::Growth, 1000, 0), Some(Action::RewriteAtGrowth { percent: 96 }));
    b.cfg.auto_aof_rewrite_min_size = 100 << 20;
    assert_eq!(b.due(Stage::Growth, 1000, 0), None);
    b.cfg.auto_aof_rewrite_min_size = 0;
    b.persist.aof.rewrites.set_base_bytes(0);
    assert!(b.due(Stage::Growth, 1000, 0).is_some());
    b.persist.aof.state = AofState::WaitRewrite;
    assert_eq!(b.due(Stage::Growth, 1000, 0), None);
    b.persist.aof.state = AofState::On;
    b.cfg.auto_aof_rewrite_percentage = 0;
    assert_eq!(b.due(Stage::Growth, 1000, 0), None);
}

#[test]
fn rewrites_that_keep_failing_are_said_to_wait() {
    let mut b = Bench::new(&[], true);
    b.persist.aof.rewrites.schedule();
    (0..3).for_each(|_| b.persist.aof.rewrites.note(false));
    assert_eq!(b.due(Stage::ScheduledRewrite, 1000, 0), Some(Action::SayRewritesWait { minutes: 1 }));
    assert_eq!(b.due(Stage::ScheduledRewrite, 1059, 0), None);
    assert_eq!(b.due(Stage::ScheduledRewrite, 1060, 0), Some(Action::RewriteAsScheduled));
    b.persist.aof.rewrites.note(false);
    assert_eq!(b.due(Stage::ScheduledRewrite, 1061, 0), Some(Action::SayRewritesWait { minutes: 2 }));
    b.persist.aof.rewrites.schedule_now();
    assert_eq!(b.due(Stage::ScheduledRewrite, 1062, 0), Some(Action::RewriteAsScheduled));
}

#[test]
fn failing_rewrites_wait_longer_and_longer() {
    let mut limit = RewriteLimit::default();
    assert_eq!(limit.is_limited(2, 0), (false, None));
    let mut now = 1000;
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(limit.is_limited(3, now), (true, Some(minutes)));
        assert_eq!(limit.is_limited(3, now + minutes * 60 - 1), (true, None));
        now += minutes * 60;
        assert_eq!(limit.is_limited(3, now), (false, None));
    }
    assert_eq!(limit.is_limited(0, now), (false, None));
    assert_eq!(limit.is_limited(3, now), (true, Some(1)));
}

#[test]
fn a_log_that_cannot_be_switched_on_is_tried_once_a_second() {
    let mut b = Bench::new(&[], true);
    let due = |b: &mut Bench, now_s| b.due(Stage::Restart, now_s, 0) == Some(Action::RestartLog);
    assert!(!due(&mut b, 1000));
    b.persist.aof.restart.begin();
    for try_s in 1000..1009 {
        assert!(due(&mut b, try_s));
        assert_eq!(b.persist.aof.restart.tried(false, try_s), Tried::Again);
        assert!(!due(&mut b, try_s));
    }
    assert_eq!(b.persist.aof.restart.tried(false, 1009), Tried::Over);
    b.persist.aof.restart.begin();
    assert_eq!(b.persist.aof.restart.tried(true, 1010), Tried::Done);
    assert!(!due(&mut b, 1011));
    b.persist.aof.restart.begin();
    // Nothing is begun while a data set is loaded, and nothing is left to do when the log is not to be on.
    b.persist.loading = Some(Loading::default());
    assert!(!due(&mut b, 1012));
    b.persist.loading = None;
    assert!(due(&mut b, 1012));
    b.persist.aof.restart.cancel();
    assert!(!due(&mut b, 1013));
}
