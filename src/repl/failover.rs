//! A planned change of roles (FAILOVER): the primary stops writing, waits until a replica has everything, and follows it.
//!
//! Owns the state of that plan and decides its steps from the time and from what replicas have acknowledged. The caller
//! pauses writes, becomes a replica (sending PSYNC with FAILOVER), and reports how that went.

use super::LogLine;

/// A replica's address as its primary shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Address.
    pub(crate) host: String,
    /// Port its clients use.
    pub(crate) port: i64,
}

/// A replica as the plan sees it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Where it is; `None` when its address cannot be told.
    pub(crate) target: Option<Target>,
    /// What it has acknowledged.
    pub(crate) ack_offset: i64,
}

/// How far the plan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FailoverState {
    #[default]
    None,
    /// Writes are paused until a replica has caught up.
    WaitForSync,
    /// The target was asked to take over.
    InProgress,
}

impl FailoverState {
    /// The name INFO shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FailoverState::None => "no-failover",
            FailoverState::WaitForSync => "waiting-for-sync",
            FailoverState::InProgress => "failover-in-progress",
        }
    }
}

/// What the caller has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FailoverStep {
    /// Nothing yet.
    Wait,
    /// Become a replica of this one, asking it to take over.
    Follow(Target),
    /// The plan ended without a change: let writes go on; when `return_to_primary`, stop following the target first.
    Aborted { return_to_primary: bool },
}

/// The plan. See the module's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failover {
    state: FailoverState,
    target: Option<Target>,
    deadline_ms: Option<u64>,
    force: bool,
}

impl Failover {
    /// How far it has come.
    pub(crate) fn state(&self) -> FailoverState {
        self.state
    }

    /// Whether the plan waits for a replica to catch up.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == FailoverState::WaitForSync
    }

    /// Whether the target was asked to take over.
    pub(crate) fn is_in_progress(&self) -> bool {
        self.state == FailoverState::InProgress
    }

    /// Whether the plan has a time limit.
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline_ms.is_some()
    }

    /// Starts waiting for `target` (or for any replica) until `deadline_ms`.
    pub(crate) fn request(&mut self, target: Option<Target>, deadline_ms: Option<u64>, force: bool) -> LogLine {
        let line = match &target {
            Some(target) => format!("FAILOVER requested to {}:{}.", target.host, target.port),
            None => "FAILOVER requested to any replica.".to_owned(),
        };
        *self = Failover { state: FailoverState::WaitForSync, target, deadline_ms, force };
        LogLine::notice(line)
    }

    /// The periodic step: has a replica everything up to `offset`, or is it too late?
    pub(crate) fn tick(&mut self, replicas: &[Candidate], offset: i64, now_ms: u64) -> (FailoverStep, Option<LogLine>) {
        if self.state != FailoverState::WaitForSync {
            return (FailoverStep::Wait, None);
        }
        if self.deadline_ms.is_some_and(|deadline| deadline <= now_ms) {
            return match (&self.target, self.force) {
                (Some(target), true) => {
                    let target = target.clone();
                    self.state = FailoverState::InProgress;
                    let line = format!("FAILOVER to {}:{} time out exceeded, failing over.", target.host, target.port);
                    (FailoverStep::Follow(target), Some(LogLine::notice(line)))
                }
                _ => self.abort("Replica never caught up before timeout"),
            };
        }
        let caught_up = replicas.iter().filter(|replica| replica.ack_offset == offset).find_map(|replica| {
            let found = replica.target.as_ref()?;
            let wanted = self
                .target
                .as_ref()
                .is_none_or(|target| target.port == found.port && target.host.eq_ignore_ascii_case(&found.host));
            wanted.then(|| found.clone())
        });
        match caught_up {
            Some(found) => {
                let target = self.target.get_or_insert(found).clone();
                self.state = FailoverState::InProgress;
                let line = format!("Failover target {}:{} is synced, failing over.", target.host, target.port);
                (FailoverStep::Follow(target), Some(LogLine::notice(line)))
            }
            None => (FailoverStep::Wait, None),
        }
    }

    /// Ends the plan without a change, for this reason.
    pub(crate) fn abort(&mut self, reason: &str) -> (FailoverStep, Option<LogLine>) {
        if self.state == FailoverState::None {
            return (FailoverStep::Wait, None);
        }
        let line = match &self.target {
            Some(target) => format!("FAILOVER to {}:{} aborted: {reason}", target.host, target.port),
            None => format!("FAILOVER to any replica aborted: {reason}"),
        };
        let return_to_primary = self.state == FailoverState::InProgress;
        self.clear();
        (FailoverStep::Aborted { return_to_primary }, Some(LogLine::notice(line)))
    }

    /// The target took over (or the plan does not matter any more). The caller lets paused writes go on.
    pub(crate) fn clear(&mut self) {
        *self = Failover::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: i64) -> Target {
        Target { host: "127.0.0.1".into(), port }
    }

    fn at(port: i64, ack_offset: i64) -> Candidate {
        Candidate { target: Some(target(port)), ack_offset }
    }

    #[test]
    fn follows_the_first_replica_that_has_everything() {
        let mut failover = Failover::default();
        failover.request(None, None, false);
        assert_eq!(failover.tick(&[at(1, 9), at(2, 8)], 10, 0).0, FailoverStep::Wait);
        let (step, line) = failover.tick(&[at(1, 9), at(2, 10)], 10, 1);
        assert_eq!(step, FailoverStep::Follow(target(2)));
        assert_eq!(line.unwrap().text, "Failover target 127.0.0.1:2 is synced, failing over.");
        assert_eq!(failover.state().name(), "failover-in-progress");
        let (step, line) = failover.abort("Failover target rejected psync request");
        assert_eq!(step, FailoverStep::Aborted { return_to_primary: true });
        assert_eq!(line.unwrap().text, "FAILOVER to 127.0.0.1:2 aborted: Failover target rejected psync request");
        assert_eq!(failover.state(), FailoverState::None);
    }

    #[test]
    fn a_named_target_is_the_only_one_that_counts() {
        let mut failover = Failover::default();
        failover.request(Some(target(1)), Some(100), false);
        assert_eq!(failover.tick(&[at(2, 10), at(1, 9)], 10, 99).0, FailoverStep::Wait);
        let (step, line) = failover.tick(&[at(1, 9)], 10, 100);
        assert_eq!(step, FailoverStep::Aborted { return_to_primary: false });
        assert_eq!(line.unwrap().text, "FAILOVER to 127.0.0.1:1 aborted: Replica never caught up before timeout");
    }

    #[test]
    fn force_takes_a_target_that_lags() {
        let mut failover = Failover::default();
        failover.request(Some(target(1)), Some(100), true);
        assert_eq!(failover.tick(&[at(1, 9)], 10, 100).0, FailoverStep::Follow(target(1)));
        failover.clear();
        assert_eq!(failover.abort("x"), (FailoverStep::Wait, None));
    }
}
