//! What is shown of jobs, and how they are written down.

use std::fmt::Write;

use super::{Cluster, Dialect, Job, NodeId, Ranges, State};
use crate::structs::slots::{SLOT_COUNT, Slot};

/// An entry of CLUSTER GETSLOTMIGRATIONS. Times are Unix seconds, sizes bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobView {
    pub(crate) name: NodeId,
    pub(crate) operation: &'static str,
    pub(crate) slot_ranges: String,
    /// Target and source, unless the job is only followed here.
    pub(crate) nodes: Option<(NodeId, NodeId)>,
    pub(crate) created_s: i64,
    pub(crate) updated_s: i64,
    pub(crate) acked_s: i64,
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) backlog: u64,
}

/// An entry of CLUSTER MIGRATION STATUS. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskView {
    pub(crate) name: NodeId,
    /// `a-b c d-e`
    pub(crate) slots: String,
    pub(crate) nodes: (NodeId, NodeId),
    pub(crate) operation: &'static str,
    pub(crate) state: &'static str,
    pub(crate) last_error: String,
    pub(crate) retries: u64,
    pub(crate) created_ms: i64,
    pub(crate) begun_ms: Option<i64>,
    pub(crate) ended_ms: Option<i64>,
    /// For so long the source held writes back, if the slots moved.
    pub(crate) held_ms: i64,
}

/// `a-b c-d`
fn ranges_text(ranges: &Ranges) -> String {
    let parts: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    parts.join(" ")
}

/// The same as arguments: first and last of each.
pub(super) fn numbers(ranges: &Ranges) -> Vec<String> {
    ranges.iter().flat_map(|(first, last)| [first.to_string(), last.to_string()]).collect()
}

impl Job {
    fn view(&self) -> JobView {
        JobView {
            name: self.name,
            operation: if self.is_export { "EXPORT" } else { "IMPORT" },
            slot_ranges: ranges_text(&self.ranges),
            nodes: self.target.zip(self.source).filter(|_| !self.is_tracking_only),
            created_s: self.created_ms / 1000,
            updated_s: self.updated_ms / 1000,
            acked_s: self.acked_ms / 1000,
            state: self.state.name(),
            message: self.message.clone(),
            backlog: if self.is_export && self.has_link { self.backlog } else { 0 },
        }
    }

    /// The command that makes an import known.
    pub(super) fn import_command(&self) -> Vec<Vec<u8>> {
        let words = ["CLUSTER", "SYNCSLOTS", "ESTABLISH", "NAME", self.name.as_str(), "SLOTSRANGE"];
        words.into_iter().map(String::from).chain(numbers(&self.ranges)).map(String::into_bytes).collect()
    }

    /// CLUSTER SYNCSLOTS FINISH for a job that is over.
    pub(super) fn finish_command(&self) -> Vec<Vec<u8>> {
        let state: &[u8] = if self.state == State::Success { b"SUCCESS" } else { b"FAILED" };
        let words: [&[u8]; 7] = [b"CLUSTER", b"SYNCSLOTS", b"FINISH", b"STATE", state, b"NAME", self.name.as_bytes()];
        let mut args: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        if !self.message.is_empty() {
            args.extend([b"MESSAGE".to_vec(), self.message.clone().into_bytes()]);
        }
        args
    }

    /// How it stands with the job as a Redis tells its replicas: `name:source:target:import:state:a-b c-d`.
    fn task_text(&self) -> Option<String> {
        let (source, target) = self.source.zip(self.target)?;
        let operation = if self.is_export { "migrate" } else { "import" };
        let state = match self.state {
            State::Success => "completed",
            state if state.is_final() || !state.has_begun() => "failed",
            state => state.redis_name(),
        };
        Some(format!("{}:{source}:{target}:{operation}:{state}:{}", self.name, ranges_text(&self.ranges)))
    }

    /// The same as a command.
    pub(super) fn task_command(&self) -> Option<Vec<Vec<u8>>> {
        let words = ["CLUSTER", "SYNCSLOTS", "CONF", "ASM-TASK"].map(String::from);
        Some(words.into_iter().chain([self.task_text()?]).map(String::into_bytes).collect())
    }

    /// `None` where the job is only followed.
    fn task(&self) -> Option<TaskView> {
        let is_ours = !self.is_tracking_only || self.dialect == Dialect::Pull;
        let nodes = self.source.zip(self.target).filter(|_| is_ours)?;
        let held_ms = self.ended_ms.zip(self.paused_ms).map_or(0, |(ended_ms, paused_ms)| ended_ms - paused_ms);
        let shown = match self.state {
            State::CleaningUp => self.outcome,
            // This process is not the master any more that had begun it.
            State::OnPrimary | State::Failed if self.is_tracking_only => State::Cancelled,
            state => state,
        };
        Some(TaskView {
            name: self.name,
            slots: ranges_text(&self.ranges),
            nodes,
            operation: if self.is_export { "migrate" } else { "import" },
            state: shown.redis_name(),
            last_error: self.message.clone(),
            retries: self.pull.retries,
            created_ms: self.created_ms,
            begun_ms: self.begun_ms,
            ended_ms: self.ended_ms,
            held_ms: if self.state == State::Success { held_ms } else { 0 },
        })
    }
}

/// Reads what `Cluster::imports_text` gives.
pub(super) fn parse_import(text: &[u8]) -> Option<(NodeId, Ranges)> {
    let space = text.iter().position(|b| *b == b' ')?;
    Some((NodeId::parse(&text[..space])?, parse_ranges(&text[space + 1..])?))
}

/// An export whose target may have taken over when this node stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Grant {
    pub(super) name: NodeId,
    pub(super) target: NodeId,
    pub(super) ranges: Ranges,
}

/// Reads what `Cluster::grants_text` gives.
pub(in crate::cluster) fn parse_grants(text: &str) -> Option<Vec<Grant>> {
    let grant = |text: &str| {
        let mut parts = text.split(':');
        let (name, target, ranges) = (parts.next()?, parts.next()?, parts.next()?.replace(',', " "));
        let id = |text: &str| NodeId::parse(text.as_bytes());
        Some(Grant { name: id(name)?, target: id(target)?, ranges: parse_ranges(ranges.as_bytes())? })
    };
    text.split(';').map(grant).collect()
}

/// What a master tells of an import.
pub(super) struct MasterTask {
    pub(super) name: NodeId,
    pub(super) ranges: Ranges,
    /// The slots are the master's.
    pub(super) is_done: bool,
    /// They are, or never will be by it.
    pub(super) is_over: bool,
}

/// Reads what [`Job::task_text`] gives; `None` for an export, of which a replica need not know.
pub(super) fn parse_task(text: &[u8]) -> Option<MasterTask> {
    let parts: Vec<&[u8]> = text.split(|b| *b == b':').collect();
    let [name, _, _, b"import", state, ranges, ..] = parts[..] else { return None };
    let is_done = state == b"completed";
    let is_over = is_done || state == b"failed" || state == b"canceled";
    Some(MasterTask { name: NodeId::parse(name)?, ranges: parse_ranges(ranges)?, is_done, is_over })
}

fn parse_ranges(text: &[u8]) -> Option<Ranges> {
    let slot = |word: &[u8]| {
        let slot = std::str::from_utf8(word).ok()?.parse::<Slot>().ok()?;
        (usize::from(slot) < SLOT_COUNT).then_some(slot)
    };
    let mut ranges = Ranges::new();
    for word in text.split(|b| *b == b' ') {
        let dash = word.iter().position(|b| *b == b'-')?;
        let (first, last) = (slot(&word[..dash])?, slot(&word[dash + 1..])?);
        (first <= last).then(|| ranges.push((first, last)))?;
    }
    (!ranges.is_empty()).then_some(ranges)
}

impl Cluster {
    /// All jobs, the newest first.
    pub(crate) fn slot_migrations(&self) -> Vec<JobView> {
        self.jobs.list.iter().map(Job::view).collect()
    }

    /// The same, as Redis shows them; of one job, if it is named. Those that are over come last.
    pub(crate) fn slot_tasks(&self, name: Option<&[u8]>) -> Vec<TaskView> {
        let is_meant = |job: &&Job| name.is_none_or(|name| job.name.as_bytes() == name);
        let (over, open): (Vec<&Job>, Vec<&Job>) =
            self.jobs.list.iter().filter(is_meant).partition(|job| job.state.is_final());
        open.into_iter().chain(over).filter_map(Job::task).collect()
    }

    /// How many jobs of this process are not over. A task that was cancelled is, whatever is left to delete: that is shown by
    /// itself, and may wait for the end of a pause.
    pub(crate) fn open_slot_tasks(&self) -> usize {
        let is_over = |job: &Job| job.state.is_final() || job.dialect == Dialect::Pull && job.is_ending();
        self.jobs.list.iter().filter(|job| !is_over(job) && !job.is_tracking_only).count()
    }

    /// The imports of which replicas and the log know, the oldest first.
    fn open_imports(&self) -> impl Iterator<Item = &Job> {
        self.jobs.list.iter().rev().filter(|job| job.is_open(false) && job.is_told())
    }

    /// They as they stand in a snapshot: a name and ranges each.
    pub(crate) fn imports_text(&self) -> Vec<String> {
        self.open_imports().map(|job| format!("{} {}", job.name, ranges_text(&job.ranges))).collect()
    }

    /// One of them, or an export, as a Redis writes it down for its replicas.
    pub(crate) fn task_text(&self) -> Option<String> {
        let is_known = |job: &&Job| !job.state.is_final() && job.is_told();
        self.jobs.list.iter().filter(is_known).find_map(Job::task_text)
    }

    /// The exports whose targets may take over, as `nodes.conf` has them: `name:target:a-b,c-d;...`.
    pub(in crate::cluster) fn grants_text(&self) -> Option<String> {
        let open = self.jobs.list.iter().filter(|job| job.is_export && job.state.may_grant());
        let grant = |job: &Job| {
            let ranges = ranges_text(&job.ranges).replace(' ', ",");
            job.target.map(|target| format!("{}:{target}:{ranges}", job.name))
        };
        let grants: Vec<String> = open.filter_map(grant).collect();
        (!grants.is_empty()).then(|| grants.join(";"))
    }

    /// The same as the commands that make them known.
    pub(crate) fn import_commands(&self) -> Vec<Vec<Vec<u8>>> {
        self.open_imports().map(Job::import_command).collect()
    }

    /// A job as logs call it.
    pub(super) fn describe_job(&self, is_export: bool, name: NodeId, ranges: &Ranges, other: Option<NodeId>) -> String {
        let (operation, side) = if is_export { ("export", "target_node") } else { ("import", "source_node") };
        let id = other.map_or("unknown".to_string(), |id| id.to_string());
        let mut out = format!("{{name: {name}, operation: {operation}, {side}_id: {id}, ");
        let human = other.and_then(|id| self.nodes.find(&id)).map(|key| &self.nodes[key].human_name);
        if let Some(human) = human.filter(|human| !human.is_empty()) {
            let _ = write!(out, "{side}_human_name: {human}, ");
        }
        let _ = write!(out, "slots: {}}}", ranges_text(ranges));
        out
    }
}
