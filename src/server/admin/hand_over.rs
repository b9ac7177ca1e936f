//! A cluster node that is to end has a replica take over first, so that its clients notice no more than redirections.
//!
//! Writes are held back from the beginning. The best replica that has everything is told by the stream, in the words of
//! Valkey 9, and elected as in a manual failover; then clients are sent there for a moment before the server ends. If no
//! replica can take over, or the masters that would elect it are not reached, the server ends as it would without.

use crate::admin::shutdown::{HandOver, ShutdownFlags};
use crate::cluster::HandOverState;
use crate::repl::Heir;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::server::dispatch::pause::PausePurpose;

/// How long clients are waited for to hear who has taken over, at most, and which of them: those that sent something so
/// shortly before.
const REDIRECTING_MS: i64 = 1000;
const RECENT_MS: i64 = 10_000;

pub(super) const NO_HEIR: &str = "Unable to find a replica to perform the auto failover on shutdown.";

impl Server {
    /// Whether a replica is to take over before this server ends. Whether one can is seen later.
    pub(super) fn wants_to_hand_over(&self, flags: ShutdownFlags) -> bool {
        let wants = flags.failover || (self.cfg.auto_failover_on_shutdown && !flags.now);
        wants && !self.is_loading() && self.cluster().is_some_and(|machine| machine.owns_slots())
    }

    /// Tells the best replica to take over, if there is one that has everything; gives what is to be waited for.
    pub(super) fn tell_heir(&mut self, flags: ShutdownFlags) -> HandOver {
        self.drain_effects();
        let stays = !flags.now && self.cfg.shutdown_timeout > 0;
        let heir = match self.cluster().filter(|machine| machine.may_be_replaced(stays)) {
            Some(machine) => self.repl.heir(|id| machine.rank_as_heir(id, flags.failover)),
            None => {
                log::info!("No replica can take over: too few masters are reached to elect it.");
                return HandOver::No;
            }
        };
        match heir {
            Heir::Behind => HandOver::Wanted,
            Heir::Unaware => {
                log::info!("Unable to perform auto failover on shutdown since there are legacy replicas.");
                HandOver::No
            }
            Heir::Missing => {
                if self.has_replicas() || flags.failover {
                    log::info!("{NO_HEIR}");
                }
                HandOver::No
            }
            Heir::Ready(id) => {
                log::info!("Perform auto failover to replica {} on shutdown.", String::from_utf8_lossy(&id));
                self.with_cluster(|machine, env| machine.hand_over(&id, env));
                self.with_repl(|repl, _| repl.tell_to_take_over(&id));
                // Clients are held back before any of them is served again.
                self.cluster_before_sleep();
                HandOver::Told
            }
        }
    }

    /// Looks what has become of the replica that was told.
    pub(super) fn advance_hand_over(&mut self, flags: ShutdownFlags) {
        let state = self.cluster().map_or(HandOverState::Done, |machine| machine.hand_over_state());
        self.admin.shutdown.hand_over = match state {
            HandOverState::UnderWay => HandOver::Told,
            HandOverState::Failed => self.tell_heir(flags),
            HandOverState::Done => {
                log::info!("Another node serves the slots of this one now: sending clients there before the end.");
                self.unpause_clients(PausePurpose::Shutdown);
                HandOver::Done { at_ms: self.clock.ms() }
            }
        };
    }

    /// Whether all clients that work with this node have been sent to the one that took over at that time.
    pub(super) fn has_sent_clients_on(&self, at_ms: i64) -> bool {
        let others = ClientFlags::REPLICA.union(ClientFlags::MASTER).union(ClientFlags::BLOCKED);
        let waits = |c: &Client| {
            let is_recent = (at_ms - RECENT_MS..=at_ms).contains(&c.last_interaction_ms);
            !c.out.is_empty() || c.conn.is_some() && !c.is(others) && is_recent
        };
        self.clock.ms() - at_ms >= REDIRECTING_MS || !self.clients.iter().any(waits)
    }
}
