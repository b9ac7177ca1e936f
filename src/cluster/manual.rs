//! Manual failover: a replica takes over from a master that works, without losing a write.
//!
//! The replica asks its master to pause its clients (MFSTART), learns the offset at which it paused from the next
//! packet that says PAUSED, waits until it has processed as much, and then wins an election whose requests ask for
//! votes although the master is up. It is given up after `cluster-manual-failover-timeout`.
//!
//! A master that is to end tells its replica so by the stream, in which the order may stand for long before it is read: the
//! replica stood still, or continues a stream that it lost. So it asks the master for its offset, too, as one that was told;
//! such a request makes nobody pause. It counts only if an answer to what was sent after the request says PAUSED. If nobody
//! listens at the master's address any more, that is as good.

use super::node::{Node, NodeFlags, NodeKey};
use super::wire::{Body, Header, MFLAG_FORCE_ACK, MFLAG_PAUSED, PacketType};
use super::{Action, Cluster, Env, LinkId};

/// The master holds clients back for this much longer than its replica may try, as its clock may run faster.
const HOLD_LONGER_MS: i64 = 500;
/// A master that has not answered is asked again: it may not have known yet that we are its replica, or had no link.
const ASK_AGAIN_MS: i64 = 500;
/// The master's clients are held back for at most this many times `cluster-manual-failover-timeout`.
const PAUSE_MULT: i64 = 2;

/// A manual failover, on either side.
#[derive(Clone, Debug, Default)]
pub(super) struct ManualFailover {
    /// When it is given up; `None` if there is none.
    pub(super) ends_ms: Option<i64>,
    /// On the master: the replica that takes over.
    pub(super) replica: Option<NodeKey>,
    /// On the master: the link on which to answer the replica, once clients are held back.
    announce: Option<LinkId>,
    /// On the master: clients are held back, so the offset in our packets is final; and whether those who read are, too.
    pub(super) paused: bool,
    holds_readers: bool,
    /// On the replica: when the master is asked again to pause; `None` if it is not to be asked.
    ask_ms: Option<i64>,
    /// On the replica: its link to the master has been up meanwhile.
    was_linked: bool,
    /// On the replica: the offset at which the master paused.
    master_offset: Option<i64>,
    /// On the replica: votes may be asked for.
    pub(super) can_start: bool,
    /// On the replica: its master told it to take over, and may have thought better of it.
    order: Option<Order>,
}

/// The order of a master that ends, on its replica.
#[derive(Clone, Debug)]
struct Order {
    came_ms: i64,
    /// The link on which the master was asked, and how many answers are to come on it before the one that counts.
    asked: Option<(LinkId, usize)>,
}

impl ManualFailover {
    /// Whether votes may be asked for, and counted. After that time the master's clients may write again.
    pub(super) fn may_win(&self, now_ms: i64) -> bool {
        self.can_start && self.ends_ms.is_some_and(|ends_ms| now_ms <= ends_ms)
    }

    pub(super) fn in_progress(&self) -> bool {
        self.ends_ms.is_some()
    }

    /// On the replica: whether all that the master wrote before it paused was processed.
    pub(super) fn has_master_offset(&self) -> bool {
        self.can_start && self.master_offset.is_some()
    }

    pub(super) fn waits_for_offset(&self) -> bool {
        self.master_offset.is_some() && !self.can_start
    }
}

/// What has become of a replica taking over from a master that is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandOverState {
    UnderWay,
    /// This node owns no slots any more.
    Done,
    /// The replica is gone, was too slow, or too few masters are reached to elect it.
    Failed,
}

impl Cluster {
    // ---- a master that is to end ----

    /// Whether this is a master with slots.
    pub(crate) fn owns_slots(&self) -> bool {
        self.myself().is_voter()
    }

    /// Whether so many of the masters are reached that one of our replicas can be elected; we have a vote, too, if we stay
    /// for so long.
    pub(crate) fn may_be_replaced(&self, stays: bool) -> bool {
        self.owns_slots() && self.voters_reached() + usize::from(stays) >= self.quorum() && !self.has_granted()
    }

    /// How many other masters with slots we reach.
    pub(super) fn voters_reached(&self) -> usize {
        let is_reached = |key: NodeKey, n: &Node| n.healthy() && self.stands(key).0;
        self.nodes.iter().filter(|(key, n)| n.is_voter() && is_reached(*key, n)).count()
    }

    /// How fit a node is to take our place, the less the better; `None`: not at all. One that never takes over unless it is
    /// told to does so only if that was `asked_for`.
    pub(crate) fn rank_as_heir(&self, id: &[u8], asked_for: bool) -> Option<u32> {
        let node = &self.nodes[self.find(id)?];
        let is_shy = node.flags.has(NodeFlags::NOFAILOVER);
        let is_fit = node.replica_of == Some(self.myself) && node.healthy() && (asked_for || !is_shy);
        is_fit.then_some(u32::from(is_shy))
    }

    /// Holds clients back while this replica, which has everything and is told by the stream, takes over.
    pub(crate) fn hand_over(&mut self, id: &[u8], env: &Env) {
        let Some(replica) = self.find(id) else { return };
        self.reset_manual_failover();
        self.manual.replica = Some(replica);
        // Once the others have voted we may not serve, and nobody is to hear of that who can wait a moment.
        self.hold_clients(true, env);
        self.manual.paused = true;
    }

    /// Whether all requests for keys wait for a replica to take over, so that none needs to be refused meanwhile.
    #[inline]
    pub(crate) fn holds_all_clients(&self) -> bool {
        self.manual.paused && self.manual.holds_readers
    }

    /// What has become of it.
    pub(crate) fn hand_over_state(&self) -> HandOverState {
        let is_there = |key: NodeKey| self.nodes[key].link.is_some() || self.nodes[key].inbound.is_some();
        if !self.owns_slots() {
            HandOverState::Done
        } else if self.manual.paused && self.manual.replica.is_some_and(is_there) && self.may_be_replaced(true) {
            HandOverState::UnderWay
        } else {
            HandOverState::Failed
        }
    }

    // ---- the replica, and the master that it asks ----

    /// Begins a manual failover on the replica. If `forced`, the master is not asked.
    pub(super) fn begin_manual_failover(&mut self, forced: bool, env: &Env) {
        self.start_manual_failover(env);
        self.wake_at(env.now_ms);
        if forced {
            self.manual.can_start = true;
            self.todo.failover = true;
        } else {
            self.ask_master_to_pause(env);
        }
    }

    /// Our master, which is to end, told us by its stream to take over: we have all that it wrote before.
    pub(crate) fn take_over_as_told(&mut self, env: &Env) {
        if !self.is_replica() {
            return;
        }
        self.start_manual_failover(env);
        self.manual.order = Some(Order { came_ms: env.now_ms, asked: None });
        self.ask_master_to_pause(env);
    }

    /// What was under way before counts no more.
    fn start_manual_failover(&mut self, env: &Env) {
        self.reset_manual_failover();
        if let Some(epoch) = self.epoch_of_election() {
            log::info!(
                "Failover election in progress for epoch {epoch}, but received a new manual failover. Resetting the election."
            );
        }
        self.forget_election();
        self.manual.ends_ms = Some(env.now_ms + self.config.manual_failover_timeout_ms);
    }

    /// Sends a PONG first, as a master that does not know yet that we follow it would ignore the request.
    fn ask_master_to_pause(&mut self, env: &Env) {
        self.manual.ask_ms = Some(env.now_ms + ASK_AGAIN_MS);
        let Some(link) = self.myself().replica_of.and_then(|m| self.nodes[m].link) else { return };
        self.send_ping(link, PacketType::Pong, env);
        if let Some(order) = &mut self.manual.order {
            order.asked = Some((link, self.links[&link].pings.len()));
            self.send(link, &Body::MfStart, MFLAG_FORCE_ACK, env);
            self.send_ping(link, PacketType::Ping, env);
        } else {
            self.send(link, &Body::MfStart, 0, env);
        }
    }

    /// A PING was answered on a link that we opened; tells whether our master means what it told us.
    pub(super) fn note_answer_as_told(&mut self, link: LinkId, header: &Header) {
        let Some(order) = self.manual.order.as_mut().filter(|_| self.manual.master_offset.is_none()) else { return };
        match &mut order.asked {
            Some((asked, 0)) if *asked == link => {}
            Some((asked, before)) if *asked == link => return *before -= 1,
            _ => return,
        }
        if header.mflags & MFLAG_PAUSED == 0 {
            log::info!("The master goes on: not taking over from it as it once told.");
            return self.reset_manual_failover();
        }
        self.manual.ask_ms = None;
        self.manual.master_offset = Some(header.offset as i64);
        self.todo.failover = true;
    }

    /// To be called when a connection of [`Action::Connect`] was refused: nobody listens there.
    pub(crate) fn on_link_refused(&mut self, link: LinkId) {
        let Some(l) = self.links.get(&link) else { return };
        let is_master = l.node.is_some() && l.node == self.myself().replica_of;
        let is_answer = self.manual.order.as_ref().is_some_and(|order| order.came_ms < l.created_ms);
        if is_master && is_answer && self.manual.master_offset.is_none() {
            log::info!("The master is gone, as it told.");
            (self.manual.can_start, self.manual.ask_ms) = (true, None);
            self.todo.failover = true;
        }
    }

    /// Ends a manual failover, whether it succeeded or not.
    pub(super) fn reset_manual_failover(&mut self) {
        let was_paused = std::mem::take(&mut self.manual).paused;
        if was_paused {
            self.actions.push(Action::UnpauseClients);
            // If we have voted for the replica, it may have been elected, though we do not know it.
            self.lose_lease(self.last_turn_ms);
        }
    }

    /// Ends it without success. Those who voted are free again.
    fn give_up_manual_failover(&mut self, env: &Env) {
        self.reset_manual_failover();
        if self.is_replica() {
            self.tell_withdrawn(env);
            self.forget_election();
        }
    }

    /// On the replica: our master has another epoch than when it held its clients back for us, or was replaced meanwhile. That one
    /// which it took before is agreed on says nothing.
    pub(super) fn note_other_reign(&mut self, env: &Env) {
        if self.manual.in_progress() {
            log::info!("The master has a new epoch: manual failover given up.");
            self.give_up_manual_failover(env);
        }
    }

    /// On the replica: a master that has restarted holds back nobody any more. One that is to end may have done so.
    pub(super) fn check_consent(&mut self, env: &Env) {
        if env.master_link_up {
            self.manual.was_linked = true;
        } else if self.manual.was_linked && self.manual.order.is_none() && self.manual.master_offset.is_some() {
            log::info!("The link to the master that held its clients back is gone: manual failover given up.");
            self.give_up_manual_failover(env);
        }
    }

    /// Handles the request of a replica of ours to take over.
    pub(super) fn on_mf_start(&mut self, link: LinkId, sender: NodeKey, header: &Header, env: &Env) {
        if self.nodes[sender].replica_of != Some(self.myself) {
            return;
        }
        // It would claim slots that another node may take at this moment. It asks again.
        if self.has_granted() {
            return;
        }
        if self.manual.paused && self.manual.replica == Some(sender) {
            // It asks again, perhaps in another attempt. Clients are still held back, so the offset it got is still
            // final.
            self.hold_clients(self.manual.holds_readers, env);
            self.send_ping(link, PacketType::Ping, env);
            return;
        }
        if header.mflags & MFLAG_FORCE_ACK != 0 {
            // We told it once, and have gone on since.
            return;
        }
        self.reset_manual_failover();
        self.manual.ends_ms = Some(env.now_ms + self.config.manual_failover_timeout_ms + HOLD_LONGER_MS);
        self.manual.replica = Some(sender);
        // Clients that are served later in this turn still write.
        self.manual.announce = Some(link);
        let node = &self.nodes[sender];
        log::info!("Manual failover requested by replica {} ({}).", node.id, node.human_name);
    }

    /// At the end of the turn in which a replica asked: holds clients back and sends it the offset, which is final now.
    pub(super) fn pause_for_failover(&mut self, env: &Env) {
        let Some(link) = self.manual.announce.take() else { return };
        // What is acknowledged by the replica that takes over must not be missing in what is read here.
        self.hold_clients(self.has_durable_acks(), env);
        self.manual.paused = true;
        // At once, as the replica waits for this.
        self.send_ping(link, PacketType::Ping, env);
    }

    /// Whether this master has stopped writing, for this replica to take over.
    pub(super) fn hands_over_to(&self, replica: NodeKey) -> bool {
        self.manual.paused && self.manual.replica == Some(replica)
    }

    fn hold_clients(&mut self, readers_too: bool, env: &Env) {
        let timeout_ms = self.config.manual_failover_timeout_ms;
        self.manual.ends_ms = Some(env.now_ms + timeout_ms + HOLD_LONGER_MS);
        self.manual.holds_readers = readers_too;
        self.actions.push(Action::PauseClients { until_ms: env.now_ms + timeout_ms * PAUSE_MULT, readers_too });
    }

    /// On the replica: notes the offset at which the master paused, if this packet says it.
    pub(super) fn note_master_offset(&mut self, sender: NodeKey, header: &Header) {
        let is_of_master = self.is_replica() && self.myself().replica_of == Some(sender);
        if self.manual.order.is_some() {
            // What was on its way before we asked says nothing. But it is not gone if it speaks.
            let is_gone = self.manual.can_start && self.manual.master_offset.is_none();
            if is_of_master && is_gone && header.mflags & MFLAG_PAUSED == 0 {
                self.reset_manual_failover();
            }
            return;
        }
        let waiting = self.manual.in_progress() && !self.manual.can_start && self.manual.master_offset.is_none();
        if waiting && is_of_master && header.mflags & MFLAG_PAUSED != 0 {
            self.manual.master_offset = Some(header.offset as i64);
            self.manual.ask_ms = None;
            log::info!("Received replication offset for paused master manual failover: {}", header.offset);
        }
    }

    pub(super) fn advance_manual_failover(&mut self, env: &Env) {
        // After an order something that is no write may follow.
        let has_all = |offset: i64| match &self.manual.order {
            Some(_) => env.repl_offset >= offset,
            None => env.repl_offset == offset,
        };
        if self.manual.waits_for_offset() && self.manual.master_offset.is_some_and(has_all) {
            self.manual.can_start = true;
            self.todo.failover = true;
            log::info!("All master replication stream processed, manual failover can start.");
        }
    }

    /// Gives up a manual failover that took too long, or asks the master again.
    pub(super) fn manual_failover_cron(&mut self, env: &Env) {
        if self.manual.ends_ms.is_some_and(|ends_ms| ends_ms < env.now_ms) {
            log::warn!("Manual failover timed out.");
            self.give_up_manual_failover(env);
        } else if self.manual.ask_ms.is_some_and(|ask_ms| ask_ms <= env.now_ms) {
            self.ask_master_to_pause(env);
        }
    }
}
