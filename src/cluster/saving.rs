//! When `nodes.conf` is written, and what has to wait for that.
//!
//! Owns the numbers of changes that others are told of, and the packets that are kept back until they are on disk. The file is
//! the server's.
//!
//! There are three kinds of changes:
//!
//! - *What is ours*: our role, slots and epoch, and what an operator ordered. Every packet says it, and every client is served by
//!   it, so that all would wait in any case: [`Action::SaveConfig`] has the file written before anything else is done.
//! - *What one answer tells of*: a vote, a promise, a record of durable acknowledgements, the epoch of an election. The file is
//!   written beside the loop ([`Action::WriteConfig`]), and the packets that tell of the change wait for it. To all others that is
//!   no more than a packet that takes longer. Several such changes go into one file: those that come while one is written, or
//!   shortly after it was begun.
//! - *What others could tell again* waits for longer.
//!
//! Invariant: what [`Cluster::once_saved`] sends leaves after a file that is synced and has every change that was made before.

use std::collections::VecDeque;

use super::durable::Lineage;
use super::{Action, Cluster, Env};

/// Between writes for what others could tell us again: for who owns which slot, and for the rest.
const CLAIMS_APART_MS: i64 = 100;
const NEWS_APART_MS: i64 = 500;
/// Between writes that packets wait for: so many nodes cost a millisecond, as the file is as long as they are many.
const NODES_A_MS: usize = 20;
const MOST_APART_MS: i64 = 50;

/// A file that is being written beside the loop.
#[derive(Clone, Copy, Debug)]
struct Writing {
    /// It has all changes up to this one, if it is synced.
    number: u64,
    lineage: Lineage,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Saving {
    /// The latest change that packets may wait for, and the latest that is on disk.
    latest: u64,
    on_disk: u64,
    writing: Option<Writing>,
    /// Packets, and which change each waits for.
    waiting: VecDeque<(u64, Action)>,
    /// When a file was last begun.
    began_ms: i64,
}

impl Saving {
    /// Whether a change is on disk.
    pub(super) fn has(&self, change: u64) -> bool {
        change <= self.on_disk
    }
}

/// What is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ToSave {
    /// Before anything else is done; and synced.
    now: bool,
    synced: bool,
    /// Packets wait for it.
    told: bool,
    claims: bool,
    news: bool,
}

impl ToSave {
    /// A node that is new.
    pub(super) fn at_once() -> ToSave {
        ToSave { now: true, synced: true, ..ToSave::default() }
    }
}

impl Cluster {
    // ---- what has changed ----

    /// Before anything else is done, though a power loss may undo it.
    pub(super) fn save_soon(&mut self) {
        self.to_save.now = true;
    }

    pub(super) fn save_synced(&mut self) {
        (self.to_save.now, self.to_save.synced) = (true, true);
    }

    pub(super) fn save_and_update(&mut self) {
        self.to_save.now = true;
        self.todo.state = true;
    }

    /// For what others could tell us again: a cluster that forms, or of which a part fails, has much of it at once.
    pub(super) fn save_later(&mut self) {
        self.to_save.news = true;
    }

    pub(super) fn save_later_and_update(&mut self) {
        self.to_save.news = true;
        self.todo.state = true;
    }

    /// For what others claim. They could tell us again, but should not need to.
    pub(super) fn save_claims(&mut self) {
        self.to_save.claims = true;
    }

    /// For what is told by [`Cluster::once_saved`]. The number of the change, see [`Saving::has`].
    pub(super) fn save_to_tell(&mut self) -> u64 {
        self.saving.latest += 1;
        self.to_save.told = true;
        self.saving.latest
    }

    /// What `say` sends leaves when all that has changed so far is on disk. It must do nothing but send.
    pub(super) fn once_saved(&mut self, say: impl FnOnce(&mut Cluster)) {
        let before = self.actions.len();
        say(self);
        let latest = self.saving.latest;
        if !self.saving.has(latest) {
            self.saving.waiting.extend(self.actions.drain(before..).map(|action| (latest, action)));
        }
    }

    /// Whether something is to be written before anything else is done.
    pub(super) fn is_to_be_saved_now(&self) -> bool {
        self.to_save.now
    }

    /// Packets that wait, bytes of each.
    pub(super) fn packets_that_wait(&self) -> impl Iterator<Item = &Action> {
        self.saving.waiting.iter().map(|(_, action)| action)
    }

    /// Nobody is to hear any more of what was to be told.
    pub(super) fn forget_what_waits(&mut self) {
        self.saving.waiting.clear();
    }

    // ---- when it is written ----

    /// At the end of a turn: what is to be done about the file goes before all other actions.
    pub(super) fn save_as_due(&mut self, env: &Env) -> Vec<Action> {
        let due_ms = self.write_due_ms();
        if self.to_save.now {
            return self.save_at_once(env);
        }
        if due_ms > env.now_ms {
            self.wake_at(due_ms);
        } else {
            let number = self.saving.latest;
            let fsync = self.to_save.told || self.to_save.claims || !self.saving.has(number);
            // One that is not synced is no file to wait for.
            let number = if fsync { number } else { self.saving.on_disk };
            self.to_save = ToSave::default();
            self.saving.began_ms = env.now_ms;
            self.saving.writing = Some(Writing { number, lineage: self.data_lineage() });
            self.actions.push(Action::WriteConfig { fsync, number });
        }
        self.note_if_all_is_saved();
        Vec::new()
    }

    fn save_at_once(&mut self, env: &Env) -> Vec<Action> {
        let fsync = self.to_save.synced || self.to_save.told || !self.saving.has(self.saving.latest);
        self.to_save = ToSave::default();
        self.saving.began_ms = env.now_ms;
        self.saving.on_disk = self.saving.latest;
        self.note_if_all_is_saved();
        let told = std::mem::take(&mut self.saving.waiting).into_iter().map(|(_, action)| action);
        [Action::SaveConfig { fsync }].into_iter().chain(told).collect()
    }

    /// When the next file is to be begun; never, if there is nothing to write or one is being written.
    fn write_due_ms(&self) -> i64 {
        let gathered_ms = ((self.nodes.len() / NODES_A_MS) as i64).min(MOST_APART_MS);
        let ToSave { told, claims, news, .. } = self.to_save;
        match (told, claims, news) {
            _ if self.saving.writing.is_some() => i64::MAX,
            (true, ..) => self.saving.began_ms + gathered_ms,
            (false, true, _) => self.saving.began_ms + CLAIMS_APART_MS,
            (false, false, true) => self.saving.began_ms + NEWS_APART_MS,
            (false, false, false) => i64::MAX,
        }
    }

    /// To be called when the file of [`Action::WriteConfig`] is in its place.
    pub(crate) fn on_config_written(&mut self, number: u64, env: &Env) {
        let Some(Writing { lineage, .. }) = self.saving.writing.take_if(|writing| writing.number == number) else {
            return;
        };
        if number > self.saving.on_disk {
            self.saving.on_disk = number;
            self.note_saved_lineage(lineage);
            let told = self.saving.waiting.partition_point(|(change, _)| *change <= number);
            self.actions.extend(self.saving.waiting.drain(..told).map(|(_, action)| action));
        }
        // The next one, and what a record that stands now lets go on.
        self.wake_at(env.now_ms);
    }

    fn note_if_all_is_saved(&mut self) {
        if self.saving.has(self.saving.latest) {
            self.note_saved_lineage(self.data_lineage());
        }
    }

    /// Ends a turn, and has what is then written come to its place at once.
    #[cfg(test)]
    pub(super) fn flush_and_save(&mut self, env: &Env) -> Vec<Action> {
        let mut actions = self.flush(env);
        let mut told = 0;
        while let Some(at) = actions[told..].iter().position(|action| matches!(action, Action::WriteConfig { .. })) {
            told += at + 1;
            if let Action::WriteConfig { number, .. } = actions[told - 1] {
                self.on_config_written(number, env);
            }
            actions.extend(self.flush(env));
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ClusterConfig;
    use crate::cluster::node::{Node, NodeFlags, NodeId};
    use crate::cluster::wire::Body;

    const NOW_MS: i64 = 1_000_000;

    /// A node that has been saved, and that may send on this link.
    fn node() -> (Cluster, super::super::LinkId) {
        let mut c = Cluster::new(ClusterConfig::default(), 1, NOW_MS);
        assert_eq!(c.flush(&Env::at(NOW_MS))[0], Action::SaveConfig { fsync: true });
        let link = c.on_accept(NOW_MS, "127.0.0.1".into(), "127.0.0.1".into());
        (c, link)
    }

    fn tell(c: &mut Cluster, link: super::super::LinkId, now_ms: i64) {
        c.once_saved(|c| c.send(link, &Body::MfStart, 0, &Env::at(now_ms)));
    }

    /// The number of the file that is begun, and how many packets are sent.
    fn flushed(c: &mut Cluster, now_ms: i64) -> (Option<u64>, usize) {
        let actions = c.flush(&Env::at(now_ms));
        let begun = actions.iter().find_map(|action| match action {
            Action::WriteConfig { number, fsync } => Some(*number).filter(|_| *fsync),
            _ => None,
        });
        (begun, actions.iter().filter(|action| matches!(action, Action::Send { .. })).count())
    }

    #[test]
    fn what_tells_of_a_change_waits_for_the_file_and_nothing_else_does() {
        let (mut c, link) = node();
        let now_ms = NOW_MS + 1000;
        tell(&mut c, link, now_ms);
        assert_eq!(flushed(&mut c, now_ms), (None, 1), "nothing has changed");
        c.save_to_tell();
        tell(&mut c, link, now_ms);
        c.send(link, &Body::MfStart, 0, &Env::at(now_ms));
        assert_eq!(flushed(&mut c, now_ms), (Some(1), 1), "the other one");
        // What comes while the file is written goes into the next one, all of it.
        for _ in 0..3 {
            c.save_to_tell();
            tell(&mut c, link, now_ms);
        }
        assert_eq!(flushed(&mut c, now_ms + 5000), (None, 0));
        c.on_config_written(7, &Env::at(now_ms + 5000));
        assert_eq!(flushed(&mut c, now_ms + 5000), (None, 0), "it was another file");
        c.on_config_written(1, &Env::at(now_ms + 5000));
        assert_eq!(flushed(&mut c, now_ms + 5000), (Some(4), 1));
        c.on_config_written(4, &Env::at(now_ms + 5000));
        assert_eq!(flushed(&mut c, now_ms + 5000), (None, 3));
    }

    #[test]
    fn a_file_that_is_written_at_once_lets_go_what_waits() {
        let (mut c, link) = node();
        let now_ms = NOW_MS + 1000;
        c.save_to_tell();
        tell(&mut c, link, now_ms);
        assert_eq!(flushed(&mut c, now_ms), (Some(1), 0));
        c.save_to_tell();
        tell(&mut c, link, now_ms);
        c.save_soon();
        let actions = c.flush(&Env::at(now_ms));
        assert_eq!(actions[0], Action::SaveConfig { fsync: true });
        assert!(actions[1..].iter().all(|action| matches!(action, Action::Send { .. })) && actions.len() == 3);
        // The one under way ends after that, and there is nothing left to write.
        c.on_config_written(1, &Env::at(now_ms));
        assert_eq!(flushed(&mut c, now_ms + 5000), (None, 0));
    }

    #[test]
    fn what_others_could_tell_again_is_gathered() {
        let (mut c, link) = node();
        let mut began_ms = NOW_MS;
        for (change, apart_ms) in
            [(Cluster::save_claims as fn(&mut Cluster), CLAIMS_APART_MS), (Cluster::save_later, NEWS_APART_MS)]
        {
            for later_ms in [1, apart_ms / 2, apart_ms - 1] {
                change(&mut c);
                assert_eq!(c.flush(&Env::at(began_ms + later_ms)), [], "{later_ms} of {apart_ms}");
                assert!(c.next_deadline_ms() <= began_ms + apart_ms);
            }
            began_ms += apart_ms;
            let actions = c.flush(&Env::at(began_ms));
            assert_eq!(actions, [Action::WriteConfig { fsync: apart_ms == CLAIMS_APART_MS, number: 0 }]);
            c.on_config_written(0, &Env::at(began_ms));
        }
        // A file that is not synced is none to wait for.
        c.save_later();
        assert_eq!(flushed(&mut c, began_ms + NEWS_APART_MS).0, None);
        c.save_to_tell();
        tell(&mut c, link, began_ms);
        c.on_config_written(0, &Env::at(began_ms));
        assert_eq!(flushed(&mut c, began_ms + NEWS_APART_MS), (Some(1), 0));
    }

    /// A large cluster has a long file, and many elections at once if much of it fails.
    #[test]
    fn the_larger_the_cluster_the_more_votes_go_into_one_file() {
        for (nodes, apart_ms) in [(3, 0), (60, 3), (1000, 50), (3000, 50)] {
            let (mut c, link) = node();
            while c.nodes.len() < nodes {
                let id = NodeId::random(&mut c.rng);
                c.nodes.insert(Node::new(id, id, NodeFlags::MASTER, NOW_MS));
            }
            let mut now_ms = NOW_MS + 1000;
            c.save_to_tell();
            tell(&mut c, link, now_ms);
            assert_eq!(flushed(&mut c, now_ms), (Some(1), 0), "the first does not wait");
            c.on_config_written(1, &Env::at(now_ms));
            c.save_to_tell();
            tell(&mut c, link, now_ms);
            while flushed(&mut c, now_ms).0.is_none() {
                now_ms += 1;
            }
            assert_eq!(now_ms, NOW_MS + 1000 + apart_ms, "{nodes} nodes");
        }
    }

    /// Who cuts itself loose from all has nothing to tell them.
    #[test]
    fn a_reset_forgets_what_waits() {
        let (mut c, link) = node();
        c.save_to_tell();
        tell(&mut c, link, NOW_MS);
        c.reset(true, false).unwrap();
        assert!(!c.flush(&Env::at(NOW_MS)).iter().any(|action| matches!(action, Action::Send { .. })));
    }
}
