//! What a primary knows about its replicas, and what it decides from that.
//!
//! Owns the record of one replica and the rules over all of them: which replicas share one snapshot and where it goes,
//! who counts as good, who has acknowledged what, who is silent for too long. No I/O: the caller starts the child,
//! writes to sockets and closes clients.

use super::LogLine;
use super::backlog::CursorId;

/// What a replica understands, as it announced with `REPLCONF capa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Capabilities {
    /// A dataset delimited by an end mark.
    pub(crate) eof: bool,
    /// `+CONTINUE <id>`.
    pub(crate) psync2: bool,
}

impl Capabilities {
    /// What both understand.
    pub(crate) fn and(self, other: Capabilities) -> Capabilities {
        Capabilities { eof: self.eof && other.eof, psync2: self.psync2 && other.psync2 }
    }

    /// Whether everything `other` understands is understood here too.
    pub(crate) fn include(self, other: Capabilities) -> bool {
        (self.eof || !other.eof) && (self.psync2 || !other.psync2)
    }
}

/// What a replica wants left out of its snapshot (`REPLCONF rdb-filter-only`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Requirements {
    /// No keys.
    pub(crate) exclude_data: bool,
    /// No functions.
    pub(crate) exclude_functions: bool,
}

impl Requirements {
    /// Whether anything is left out: such a snapshot must not become the dump file.
    pub(crate) fn any(self) -> bool {
        self.exclude_data || self.exclude_functions
    }
}

/// How far a replica's synchronization has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaState {
    /// Needs a snapshot that was not started yet.
    WaitBgsaveStart,
    /// The snapshot is being made; the stream is kept for it from that point on.
    WaitBgsaveEnd,
    /// The snapshot file is being sent.
    SendBulk,
    /// Follows the stream.
    Online,
    /// Wanted only the snapshot and has got it.
    RdbTransmitted,
}

impl ReplicaState {
    /// The name INFO shows; a replica without one is not shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ReplicaState::WaitBgsaveStart | ReplicaState::WaitBgsaveEnd => "wait_bgsave",
            ReplicaState::SendBulk => "send_bulk",
            ReplicaState::Online => "online",
            ReplicaState::RdbTransmitted => "",
        }
    }

    /// Whether the replica has still to get the whole snapshot.
    pub(crate) fn needs_snapshot(self) -> bool {
        match self {
            ReplicaState::WaitBgsaveStart | ReplicaState::WaitBgsaveEnd | ReplicaState::SendBulk => true,
            ReplicaState::Online | ReplicaState::RdbTransmitted => false,
        }
    }
}

/// What a connection says about itself with REPLCONF before it becomes a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Announcement {
    /// Port its clients use; 0 when not told.
    pub(crate) listening_port: i64,
    /// Address to show instead of the connection's.
    pub(crate) ip: Option<Vec<u8>>,
    /// What it understands.
    pub(crate) capabilities: Capabilities,
    /// The version of Hexad that it runs, if it says so.
    pub(crate) version: Option<String>,
    /// What is to be left out.
    pub(crate) requirements: Requirements,
    /// Only a snapshot is wanted, no stream.
    pub(crate) rdb_only: bool,
    /// The cluster node it is; whoever says so can be told by the stream to take over.
    pub(crate) node_id: Option<Vec<u8>>,
}

impl Announcement {
    /// How logs call the replica: its address and the port its clients use.
    pub(crate) fn name(&self, peer_ip: Option<&str>, client_id: u64) -> String {
        let ip = match (&self.ip, peer_ip) {
            (Some(ip), _) => String::from_utf8_lossy(ip).into_owned(),
            (None, Some(ip)) => ip.to_owned(),
            (None, None) => return format!("client id #{client_id}"),
        };
        match self.listening_port {
            0 => format!("{ip}:<unknown-replica-port>"),
            port if ip.contains(':') => format!("[{ip}]:{port}"),
            port => format!("{ip}:{port}"),
        }
    }
}

/// An attached replica.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// What it told about itself.
    pub(crate) announced: Announcement,
    /// How far its synchronization has come.
    pub(crate) state: ReplicaState,
    /// It came with SYNC: it does not acknowledge.
    pub(crate) pre_psync: bool,
    /// Its place in the stream; `None` until it is to be fed.
    pub(crate) cursor: Option<CursorId>,
    /// Offset of the stream its snapshot corresponds to.
    pub(crate) snapshot_offset: i64,
    /// The stream waits until the replica has acknowledged the end of a streamed snapshot.
    pub(crate) stream_waits_for_ack: bool,
    /// Newest offset it has processed.
    pub(crate) ack_offset: i64,
    /// Newest offset it has on disk.
    pub(crate) aof_ack_offset: i64,
    /// When it last acknowledged, in Unix seconds.
    pub(crate) ack_time_s: i64,
    /// When it asked for synchronization, in Unix seconds.
    pub(crate) waiting_since_s: i64,
    /// Since when a piece of a streamed snapshot could not be written out, in Unix seconds.
    pub(crate) partial_write_since_s: Option<i64>,
}

impl Replica {
    /// A replica that asks for a snapshot.
    pub(crate) fn waiting(announced: Announcement, pre_psync: bool, now_s: i64) -> Self {
        Replica {
            announced,
            state: ReplicaState::WaitBgsaveStart,
            pre_psync,
            cursor: None,
            snapshot_offset: 0,
            stream_waits_for_ack: false,
            ack_offset: 0,
            aof_ack_offset: 0,
            ack_time_s: 0,
            waiting_since_s: now_s,
            partial_write_since_s: None,
        }
    }

    /// A replica that continues from `cursor`.
    pub(crate) fn continuing(announced: Announcement, cursor: CursorId, now_s: i64) -> Self {
        Replica {
            state: ReplicaState::Online,
            cursor: Some(cursor),
            ack_time_s: now_s,
            ..Replica::waiting(announced, false, now_s)
        }
    }

    /// Whether bytes of the stream may be written to its connection now.
    pub(crate) fn may_stream(&self) -> bool {
        self.state == ReplicaState::Online && !self.stream_waits_for_ack
    }

    /// Notes `REPLCONF ACK <processed> [FACK <fsynced>]`. Offsets never go back.
    pub(crate) fn acknowledge(&mut self, processed: i64, fsynced: Option<i64>, now_s: i64) {
        self.ack_offset = self.ack_offset.max(processed);
        if let Some(fsynced) = fsynced {
            self.aof_ack_offset = self.aof_ack_offset.max(fsynced);
        }
        self.ack_time_s = now_s;
    }

    /// Seconds since the last acknowledgement, as reported: 0 for a replica that is not online yet.
    pub(crate) fn lag_s(&self, now_s: i64) -> i64 {
        if self.state == ReplicaState::Online { now_s - self.ack_time_s } else { 0 }
    }

    /// Whether the replica has been silent (or a streamed snapshot stuck) for more than `timeout_s`; `name` is for the
    /// line to log.
    pub(crate) fn timed_out(
        &self,
        streaming_snapshot: bool,
        now_s: i64,
        timeout_s: i64,
        name: &str,
    ) -> Option<LogLine> {
        match self.state {
            ReplicaState::Online if !self.pre_psync && now_s - self.ack_time_s > timeout_s => {
                Some(LogLine::warning(format!("Disconnecting timedout replica (streaming sync): {name}")))
            }
            ReplicaState::WaitBgsaveEnd
                if streaming_snapshot && self.partial_write_since_s.is_some_and(|since| now_s - since > timeout_s) =>
            {
                Some(LogLine::warning(format!("Disconnecting timedout replica (full sync): {name}")))
            }
            _ => None,
        }
    }
}

/// Where a snapshot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotTarget {
    /// The dump file, then from there to the replicas.
    Disk,
    /// Straight to the replicas that wait now.
    Sockets,
}

/// A snapshot to start, for every waiting replica with exactly these requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotPlan {
    /// What all of them understand.
    pub(crate) capabilities: Capabilities,
    /// What is left out.
    pub(crate) requirements: Requirements,
    /// Where it goes.
    pub(crate) target: SnapshotTarget,
}

/// `repl-diskless-sync` and its companions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotConfig {
    /// Stream to sockets when the replicas understand it.
    pub(crate) diskless: bool,
    /// How long to wait for more replicas first, in seconds.
    pub(crate) delay_s: i64,
    /// Start at once when so many wait; 0 is no limit.
    pub(crate) max_replicas: usize,
}

/// The snapshot child that is running, as far as replication cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunningChild {
    None,
    SnapshotToDisk,
    SnapshotToSockets,
    /// A child that does something else.
    Other,
}

/// What to do about a replica that just asked for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FullSyncStep {
    /// Share the running snapshot with this replica (an index in the list given), from its place in the stream.
    Share { with: usize },
    /// Start a snapshot now.
    Start(SnapshotPlan),
    /// Wait: the periodic work will start one.
    Wait,
}

/// Where a snapshot for replicas with these properties goes. A filtered one is always streamed, so that it does not
/// replace the dump file.
pub(crate) fn snapshot_target(
    config: SnapshotConfig,
    capabilities: Capabilities,
    requirements: Requirements,
) -> SnapshotTarget {
    if (config.diskless || requirements.any()) && capabilities.eof {
        SnapshotTarget::Sockets
    } else {
        SnapshotTarget::Disk
    }
}

/// Decides how `newcomer`, which waits for a snapshot, gets one; `others` are the replicas before it.
pub(crate) fn on_full_sync_request(
    newcomer: &Replica,
    others: &[&Replica],
    child: RunningChild,
    config: SnapshotConfig,
) -> (FullSyncStep, Option<LogLine>) {
    let wants = &newcomer.announced;
    match child {
        RunningChild::SnapshotToDisk => {
            // Only the stream of a replica that keeps one can be shared by one that needs it.
            let found = others.iter().position(|other| {
                other.state == ReplicaState::WaitBgsaveEnd && (!other.announced.rdb_only || wants.rdb_only)
            });
            match found {
                Some(with)
                    if wants.capabilities.include(others[with].announced.capabilities)
                        && wants.requirements == others[with].announced.requirements =>
                {
                    (FullSyncStep::Share { with }, Some(LogLine::notice("Waiting for end of BGSAVE for SYNC")))
                }
                _ => (
                    FullSyncStep::Wait,
                    Some(LogLine::notice(
                        "Can't attach the replica to the current BGSAVE. Waiting for next BGSAVE for SYNC",
                    )),
                ),
            }
        }
        RunningChild::SnapshotToSockets => (
            FullSyncStep::Wait,
            Some(LogLine::notice("Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC")),
        ),
        RunningChild::None | RunningChild::Other => {
            if config.diskless && wants.capabilities.eof && config.delay_s > 0 {
                (FullSyncStep::Wait, Some(LogLine::notice("Delay next BGSAVE for diskless SYNC")))
            } else if child == RunningChild::Other {
                let text = "No BGSAVE in progress, but another BG operation is active. BGSAVE for replication delayed";
                (FullSyncStep::Wait, Some(LogLine::notice(text)))
            } else {
                let plan = SnapshotPlan {
                    capabilities: wants.capabilities,
                    requirements: wants.requirements,
                    target: snapshot_target(config, wants.capabilities, wants.requirements),
                };
                (FullSyncStep::Start(plan), None)
            }
        }
    }
}

/// The periodic decision: whether waiting replicas are due for a snapshot. Call it only while no child runs.
pub(crate) fn due_snapshot<'a>(
    replicas: impl IntoIterator<Item = &'a Replica>,
    config: SnapshotConfig,
    now_s: i64,
) -> Option<SnapshotPlan> {
    let mut waiting = replicas.into_iter().filter(|replica| replica.state == ReplicaState::WaitBgsaveStart);
    let first = waiting.next()?;
    let requirements = first.announced.requirements;
    let mut capabilities = first.announced.capabilities;
    let mut longest_s = now_s - first.waiting_since_s;
    let mut count = 1;
    for replica in waiting.filter(|replica| replica.announced.requirements == requirements) {
        capabilities = capabilities.and(replica.announced.capabilities);
        longest_s = longest_s.max(now_s - replica.waiting_since_s);
        count += 1;
    }
    let enough = config.max_replicas > 0 && count >= config.max_replicas;
    (!config.diskless || enough || longest_s >= config.delay_s).then(|| SnapshotPlan {
        capabilities,
        requirements,
        target: snapshot_target(config, capabilities, requirements),
    })
}

/// How many replicas are online and have acknowledged within `max_lag_s` seconds (`min-replicas-max-lag`).
pub(crate) fn good_replicas<'a>(replicas: impl IntoIterator<Item = &'a Replica>, max_lag_s: i64, now_s: i64) -> usize {
    let good = |replica: &&Replica| replica.state == ReplicaState::Online && replica.lag_s(now_s) <= max_lag_s;
    replicas.into_iter().filter(good).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Capabilities = Capabilities { eof: true, psync2: true };
    const DISKLESS: SnapshotConfig = SnapshotConfig { diskless: true, delay_s: 5, max_replicas: 0 };
    const DISK: SnapshotConfig = SnapshotConfig { diskless: false, delay_s: 5, max_replicas: 0 };

    fn waiting(capabilities: Capabilities, now_s: i64) -> Replica {
        Replica::waiting(Announcement { capabilities, ..Announcement::default() }, false, now_s)
    }

    #[test]
    fn names_as_in_logs() {
        let mut announced = Announcement::default();
        assert_eq!(announced.name(Some("10.1.1.1"), 7), "10.1.1.1:<unknown-replica-port>");
        assert_eq!(announced.name(None, 7), "client id #7");
        announced.listening_port = 6380;
        assert_eq!(announced.name(Some("10.1.1.1"), 7), "10.1.1.1:6380");
        announced.ip = Some(b"::1".to_vec());
        assert_eq!(announced.name(Some("10.1.1.1"), 7), "[::1]:6380");
    }

    #[test]
    fn a_newcomer_shares_a_running_snapshot_only_when_it_fits() {
        let mut first = waiting(BOTH, 0);
        first.state = ReplicaState::WaitBgsaveEnd;
        let ask = |newcomer: &Replica, other: &Replica| {
            on_full_sync_request(newcomer, &[other], RunningChild::SnapshotToDisk, DISK).0
        };
        assert_eq!(ask(&waiting(BOTH, 1), &first), FullSyncStep::Share { with: 0 });
        assert_eq!(ask(&waiting(Capabilities::default(), 1), &first), FullSyncStep::Wait);
        let mut filtered = waiting(BOTH, 1);
        filtered.announced.requirements.exclude_data = true;
        assert_eq!(ask(&filtered, &first), FullSyncStep::Wait);
        first.announced.rdb_only = true;
        assert_eq!(ask(&waiting(BOTH, 1), &first), FullSyncStep::Wait);
        let mut also_rdb_only = waiting(BOTH, 1);
        also_rdb_only.announced.rdb_only = true;
        assert_eq!(ask(&also_rdb_only, &first), FullSyncStep::Share { with: 0 });
    }

    #[test]
    fn without_a_child_it_starts_or_is_delayed() {
        let newcomer = waiting(BOTH, 0);
        let ask = |child, config| on_full_sync_request(&newcomer, &[], child, config);
        let plan =
            SnapshotPlan { capabilities: BOTH, requirements: Requirements::default(), target: SnapshotTarget::Disk };
        assert_eq!(ask(RunningChild::None, DISK), (FullSyncStep::Start(plan), None));
        assert_eq!(ask(RunningChild::None, DISKLESS).0, FullSyncStep::Wait);
        let at_once = SnapshotConfig { delay_s: 0, ..DISKLESS };
        let streamed = SnapshotPlan { target: SnapshotTarget::Sockets, ..plan };
        assert_eq!(ask(RunningChild::None, at_once).0, FullSyncStep::Start(streamed));
        assert_eq!(ask(RunningChild::Other, DISK).0, FullSyncStep::Wait);
        assert_eq!(ask(RunningChild::SnapshotToSockets, DISK).0, FullSyncStep::Wait);
    }

    #[test]
    fn a_filtered_snapshot_never_goes_to_disk() {
        let filter = Requirements { exclude_data: true, exclude_functions: false };
        assert_eq!(snapshot_target(DISK, BOTH, filter), SnapshotTarget::Sockets);
        assert_eq!(snapshot_target(DISKLESS, Capabilities::default(), Requirements::default()), SnapshotTarget::Disk);
    }

    #[test]
    fn the_periodic_start_waits_for_company() {
        let replicas = [waiting(BOTH, 10), waiting(Capabilities { eof: true, psync2: false }, 12)];
        assert_eq!(due_snapshot(&replicas, DISKLESS, 14), None);
        let plan = due_snapshot(&replicas, DISKLESS, 15).unwrap();
        assert_eq!(plan.capabilities, Capabilities { eof: true, psync2: false });
        assert_eq!(plan.target, SnapshotTarget::Sockets);
        assert!(due_snapshot(&replicas, SnapshotConfig { max_replicas: 2, ..DISKLESS }, 12).is_some());
        assert!(due_snapshot(&replicas, DISK, 12).is_some());
        assert_eq!(due_snapshot(&[], DISK, 12), None);
    }

    #[test]
    fn counts_only_replicas_that_are_online() {
        let mut replicas = vec![waiting(BOTH, 0), waiting(BOTH, 0), waiting(BOTH, 0)];
        replicas[0].state = ReplicaState::Online;
        replicas[1].state = ReplicaState::Online;
        replicas[0].acknowledge(100, Some(50), 20);
        replicas[0].acknowledge(90, None, 21);
        replicas[1].acknowledge(80, None, 5);
        replicas[2].acknowledge(100, Some(100), 21);
        assert_eq!((good_replicas(&replicas, 10, 22), good_replicas(&replicas, 30, 22)), (1, 2));
        assert!(replicas[1].timed_out(false, 66, 60, "r").is_some());
        assert!(replicas[0].timed_out(false, 66, 60, "r").is_none());
    }
}
