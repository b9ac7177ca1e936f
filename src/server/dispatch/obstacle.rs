//! What can keep a command of a client from running now: one list, in the order in which Redis asks.
//!
//! What may stand against the commands of a client is evaluated to a set of bits, which may name more than stands, never
//! less. Admission matches every obstacle of the set, one after the other. Where nothing that lasts is in the set, plain
//! calls are run without asking for each; `Scope` says of every obstacle how it holds for those. Both matches are
//! exhaustive, so nothing can be added to the one and forgotten in the other.

use crate::config::MemoryOrPercent;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use std::ops::{BitAnd, BitOr};

macro_rules! obstacles {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Obstacle {
            $($(#[$doc])* $name,)*
        }

        impl Obstacle {
            const ALL: &[Obstacle] = &[$(Obstacle::$name,)*];
        }
    };
}

obstacles! {
    /// The client waits: its requests stay in its buffer.
    Blocked,
    /// What our master sends is not refused while a script is busy: it waits, too.
    BusyForMaster,
    /// No more requests are taken from the client.
    Closing,
    /// There are too few or too many arguments.
    Arity,
    /// Nodes between which slots move say nothing else to each other.
    SlotLink,
    /// DEBUG and MODULE are for those whom the configuration trusts with them.
    Protected,
    /// The client has yet to authenticate.
    NoAuth,
    /// Some commands make no sense within a transaction.
    NoMulti,
    /// The user may not do everything.
    Acl,
    /// Another node of the cluster may serve the keys.
    Slot,
    /// There is a limit on the memory of all clients.
    ClientMemory,
    /// There is a limit on memory, or tables may not grow because of it.
    Memory,
    /// The tracking table has more keys than it may have.
    TrackingTable,
    /// Writes cannot reach the disk.
    Disk,
    /// Writes need replicas that are there.
    GoodReplicas,
    /// A replica takes writes from its master alone.
    ReadOnly,
    /// A subscriber that speaks RESP2 may ask for little else.
    Subscribed,
    /// The data may be stale, and nobody is to see that.
    Stale,
    /// The data set is being loaded.
    Loading,
    /// A script has been running for long.
    Busy,
    /// A replica has no business with the keyspace, nor has a monitor.
    ReplicaLink,
    /// Clients are paused, keys are on their way to another node, or go here by the word of our master.
    Paused,
    /// The client is putting a transaction together.
    Multi,
    // What follows is nothing against a command, but more is to be done around it than a plain call takes the time for.
    /// A command of the client was put off and is to run before the others.
    Resumed,
    /// Nobody hears the reply, or that of the next command: the client asked for none, or it is another server or no client
    /// at all.
    Unheard,
    /// An exception that ASKING makes for the next command ends with it.
    Asking,
    /// The keys that the client reads are noted.
    Tracking,
    /// Monitors are shown every command.
    Monitored,
    /// Every command is timed by itself, or counted for its slot.
    Timed,
    /// This is a turn within a command of somebody else.
    Nested,
    /// The server is about to end.
    Ending,
    /// DEBUG asked for it.
    Debugged,
}

/// How an obstacle holds where calls of a plain command follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// It depends on nothing but the call. Plain commands are not protected, and their arguments are counted.
    OfCall,
    /// It may stand against one call and not against the next.
    EachCall,
    /// It neither comes nor goes while calls do nothing but their work on data.
    Lasting,
}

impl Obstacle {
    const fn scope(self) -> Scope {
        use Obstacle as O;
        match self {
            O::Arity | O::Protected => Scope::OfCall,
            O::Slot | O::Memory => Scope::EachCall,
            O::SlotLink
            | O::Blocked
            | O::BusyForMaster
            | O::Closing
            | O::NoAuth
            | O::NoMulti
            | O::Acl
            | O::ClientMemory
            | O::TrackingTable
            | O::Disk
            | O::GoodReplicas
            | O::ReadOnly
            | O::Subscribed
            | O::Stale
            | O::Loading
            | O::Busy
            | O::ReplicaLink
            | O::Paused
            | O::Multi
            | O::Resumed
            | O::Unheard
            | O::Asking
            | O::Tracking
            | O::Monitored
            | O::Timed
            | O::Nested
            | O::Ending
            | O::Debugged => Scope::Lasting,
        }
    }
}

/// The client flags that are obstacles by themselves.
const OF_FLAGS: &[(ClientFlags, Obstacle)] = &[
    (ClientFlags::BLOCKED, Obstacle::Blocked),
    (ClientFlags::MASTER, Obstacle::BusyForMaster),
    (ClientFlags::CLOSE_AFTER_REPLY, Obstacle::Closing),
    (ClientFlags::CLOSE_ASAP, Obstacle::Closing),
    (ClientFlags::MULTI, Obstacle::NoMulti),
    (ClientFlags::PUBSUB, Obstacle::Subscribed),
    (ClientFlags::REPLICA, Obstacle::ReplicaLink),
    (ClientFlags::MONITOR, Obstacle::ReplicaLink),
    (ClientFlags::MULTI, Obstacle::Multi),
    (ClientFlags::REPROCESSING, Obstacle::Resumed),
    (ClientFlags::REPLY_OFF, Obstacle::Unheard),
    (ClientFlags::REPLY_SKIP, Obstacle::Unheard),
    (ClientFlags::REPLY_SKIP_NEXT, Obstacle::Unheard),
    (ClientFlags::MASTER, Obstacle::Unheard),
    (ClientFlags::AOF, Obstacle::Unheard),
    (ClientFlags::SCRIPT, Obstacle::Unheard),
    (ClientFlags::IMPORT, Obstacle::Unheard),
    (ClientFlags::EXPORT, Obstacle::Unheard),
    (ClientFlags::IMPORT, Obstacle::SlotLink),
    (ClientFlags::EXPORT, Obstacle::SlotLink),
    (ClientFlags::INTERNAL, Obstacle::Acl),
    (ClientFlags::ASKING, Obstacle::Asking),
    (ClientFlags::TRACKING, Obstacle::Tracking),
];

/// Any of them.
const FLAGS: ClientFlags = {
    let (mut flags, mut at) = (OF_FLAGS[0].0, 1);
    while at < OF_FLAGS.len() {
        flags = flags.union(OF_FLAGS[at].0);
        at += 1;
    }
    flags
};

/// What each flag stands for, by its bit.
const OF_BIT: [Obstacles; u64::BITS as usize] = {
    let mut all = [Obstacles(0); u64::BITS as usize];
    let mut at = 0;
    while at < OF_FLAGS.len() {
        let bit = OF_FLAGS[at].0.bits().trailing_zeros() as usize;
        all[bit] = all[bit].or(Obstacles::of(&[OF_FLAGS[at].1]));
        at += 1;
    }
    all
};

/// A set of obstacles, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Obstacles(u32);

const _: () = assert!(Obstacle::ALL.len() <= u32::BITS as usize);

impl Obstacles {
    /// With these no request is taken from the client's buffer.
    const BEFORE_REQUESTS: Obstacles = Obstacles::of(&[Obstacle::Blocked, Obstacle::BusyForMaster, Obstacle::Closing]);
    /// Those that depend on nothing but the call: no set of what may stand against a client has them.
    pub(super) const OF_CALL: Obstacles = Obstacles::of_scope(Scope::OfCall);
    const EACH_CALL: Obstacles = Obstacles::of_scope(Scope::EachCall);
    const LASTING: Obstacles = Obstacles::of_scope(Scope::Lasting);
    /// What does not hold for the stream of our master, which is obeyed.
    const NOT_FOR_MASTER: Obstacles =
        Obstacles::of(&[Obstacle::NoAuth, Obstacle::Acl, Obstacle::Slot, Obstacle::GoodReplicas, Obstacle::ReadOnly]);
    /// Against the log being loaded that does not stand either, nor does anything of the server: what has come to be logged
    /// is not refused for what the server has become since.
    const NOT_FOR_LOG: Obstacles = Obstacles::NOT_FOR_MASTER.or(Obstacles::of(&[
        Obstacle::SlotLink,
        Obstacle::Protected,
        Obstacle::NoMulti,
        Obstacle::ClientMemory,
        Obstacle::Memory,
        Obstacle::TrackingTable,
        Obstacle::Disk,
        Obstacle::Stale,
        Obstacle::Loading,
        Obstacle::Busy,
        Obstacle::Paused,
    ]));
    /// Keys of slots that move here come before the slots are ours.
    const NOT_FOR_IMPORT: Obstacles = Obstacles::of(&[Obstacle::Slot]);
    /// And where this node has connected to their source, that need not log in.
    const NOT_FOR_PULLED: Obstacles = Obstacles::NOT_FOR_IMPORT.or(Obstacles::of(&[Obstacle::NoAuth, Obstacle::Acl]));

    const fn of(list: &[Obstacle]) -> Obstacles {
        let (mut set, mut at) = (0, 0);
        while at < list.len() {
            set |= 1 << list[at] as u32;
            at += 1;
        }
        Obstacles(set)
    }

    const fn of_scope(scope: Scope) -> Obstacles {
        let (mut set, mut at) = (0, 0);
        while at < Obstacle::ALL.len() {
            if Obstacle::ALL[at].scope() as u32 == scope as u32 {
                set |= 1 << Obstacle::ALL[at] as u32;
            }
            at += 1;
        }
        Obstacles(set)
    }

    const fn or(self, other: Obstacles) -> Obstacles {
        Obstacles(self.0 | other.0)
    }

    /// Those that may stand against a client of this sort at all.
    #[inline]
    fn against(c: &Client) -> Obstacles {
        const LINKS: ClientFlags =
            ClientFlags::AOF.union(ClientFlags::MASTER).union(ClientFlags::IMPORT).union(ClientFlags::EXPORT);
        if !c.is(LINKS) {
            return Obstacles(!0);
        }
        let kept = if c.is(ClientFlags::IMPORT) {
            if c.is(ClientFlags::INTERNAL) { Obstacles::NOT_FOR_PULLED } else { Obstacles::NOT_FOR_IMPORT }
        } else if c.is(ClientFlags::AOF) {
            Obstacles::NOT_FOR_LOG
        } else {
            // Our master, or a target.
            Obstacles::NOT_FOR_MASTER
        };
        Obstacles(!kept.0)
    }

    #[inline]
    fn add_if(&mut self, obstacle: Obstacle, stands: bool) {
        self.0 |= u32::from(stands) << obstacle as u32;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those to be asked for before each call.
    pub(super) fn of_each_call(self) -> Obstacles {
        self & Obstacles::EACH_CALL
    }

    /// Nothing in it stays from one call to the next.
    pub(super) fn lets_plain_calls_run(self) -> bool {
        (self & Obstacles::LASTING).is_empty()
    }

    /// Calls of the log being loaded are run right away: what else lasts, if anything, is that nobody hears them.
    pub(super) fn lets_plain_calls_of_log_run(self) -> bool {
        (self & Obstacles::LASTING) == Obstacles::of(&[Obstacle::Unheard])
    }

    /// In the order in which they are met.
    pub(super) fn iter(self) -> impl Iterator<Item = Obstacle> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let first = Obstacle::ALL.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(*first)
        })
    }
}

impl BitAnd for Obstacles {
    type Output = Obstacles;

    fn bitand(self, other: Obstacles) -> Obstacles {
        Obstacles(self.0 & other.0)
    }
}

impl BitOr for Obstacles {
    type Output = Obstacles;

    fn bitor(self, other: Obstacles) -> Obstacles {
        self.or(other)
    }
}

/// Of what the server is in the middle of, and how it is configured: seldom anything.
macro_rules! of_server {
    ($server:ident, $($obstacle:ident: $stands:expr,)*) => {
        #[inline]
        pub(super) fn obstacles_of_server(&$server) -> Obstacles {
            if false $(|| $stands)* { $server.named_obstacles_of_server() } else { Obstacles::default() }
        }

        /// Apart, so that nothing need be kept for it while all are asked for.
        #[inline(never)]
        fn named_obstacles_of_server(&$server) -> Obstacles {
            let mut set = Obstacles::default();
            $(set.add_if(Obstacle::$obstacle, $stands);)*
            set
        }
    };
}

impl Server {
    /// What may stand against a command of the client, whichever it calls.
    #[inline]
    pub(super) fn obstacles(&self, c: &Client) -> Obstacles {
        let of_server = if c.is(ClientFlags::AOF) { Obstacles::default() } else { self.obstacles_of_server() };
        (self.obstacles_of_client(c) | of_server) & Obstacles::against(c)
    }

    /// Whether requests are taken from the client's buffer now. Its flags tell.
    pub(super) fn takes_requests(&self, c: &Client) -> bool {
        (self.obstacles_of_flags(c) & Obstacles::BEFORE_REQUESTS).is_empty()
    }

    #[inline]
    pub(super) fn obstacles_of_client(&self, c: &Client) -> Obstacles {
        let mut set = if c.is(FLAGS) { self.obstacles_of_flags(c) } else { Obstacles::default() };
        set.add_if(Obstacle::NoAuth, self.must_authenticate(c));
        set.add_if(Obstacle::Acl, !self.acl.is_free(&c.user));
        set.add_if(Obstacle::Resumed, c.resume.is_some());
        set.add_if(Obstacle::Unheard, c.conn.is_none());
        set
    }

    #[inline(never)]
    fn obstacles_of_flags(&self, c: &Client) -> Obstacles {
        let (mut set, mut bits) = (Obstacles::default(), c.flags.bits() & FLAGS.bits());
        while bits != 0 {
            set = set | OF_BIT[bits.trailing_zeros() as usize];
            bits &= bits - 1;
        }
        if !self.script_is_busy() {
            set.0 &= !Obstacles::of(&[Obstacle::BusyForMaster]).0;
        }
        set
    }

    of_server! {
        self,
        Slot: self.bus.is_some(),
        ClientMemory: self.cfg.maxmemory_clients != MemoryOrPercent::Bytes(0),
        Memory: self.cfg.maxmemory != 0 || self.ks.eviction.tight,
        TrackingTable: self.tracking_table_is_full(),
        Disk: self.persist.refusal(&self.cfg).is_some(),
        GoodReplicas: self.cfg.min_replicas_to_write != 0 || self.refuses_unconfirmable(),
        ReadOnly: self.is_read_only_replica(),
        Stale: self.serves_nothing_stale(),
        Loading: self.is_loading(),
        Busy: self.script_is_busy(),
        Paused: !self.pauses.is_empty() || self.holds_keys() || self.trims_as_replica(),
        Monitored: !self.clients.monitors.is_empty(),
        Timed: self.cfg.latency_monitor_threshold != 0 || self.meters_slots(),
        Nested: self.depth > 0,
        Ending: self.exit.is_some(),
        Debugged: self.admin.debug.enforce_reply_list || !self.admin.debug.plain_calls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_its_obstacles_in_order() {
        let set = Obstacles::of(&[Obstacle::Paused, Obstacle::Blocked, Obstacle::Debugged, Obstacle::Memory]);
        let all: Vec<Obstacle> = set.iter().collect();
        assert_eq!(all, [Obstacle::Blocked, Obstacle::Memory, Obstacle::Paused, Obstacle::Debugged]);
        assert_eq!(Obstacles::default().iter().next(), None);
        assert_eq!(Obstacles(!0).iter().count(), Obstacle::ALL.len());
    }

    #[test]
    fn every_obstacle_has_one_scope() {
        let scopes = [Obstacles::OF_CALL, Obstacles::EACH_CALL, Obstacles::LASTING];
        assert_eq!(scopes.iter().map(|set| set.iter().count()).sum::<usize>(), Obstacle::ALL.len());
        assert_eq!(scopes.iter().fold(Obstacles::default(), |all, set| all | *set).iter().count(), Obstacle::ALL.len());
    }

    #[test]
    fn another_node_of_the_cluster_is_asked_what_it_may_do() {
        let of_internal = OF_BIT[ClientFlags::INTERNAL.bits().trailing_zeros() as usize];
        assert_eq!(of_internal.iter().collect::<Vec<_>>(), [Obstacle::Acl]);
    }

    #[test]
    fn of_what_is_logged_only_the_form_can_stand_against_it() {
        let refusals = Obstacles::of(Obstacle::ALL) & Obstacles(!Obstacles::NOT_FOR_LOG.0);
        let before_whole_calls = refusals.iter().take_while(|o| *o != Obstacle::Resumed);
        assert_eq!(
            before_whole_calls.collect::<Vec<_>>(),
            [
                Obstacle::Blocked,
                Obstacle::BusyForMaster,
                Obstacle::Closing,
                Obstacle::Arity,
                Obstacle::Subscribed,
                Obstacle::ReplicaLink,
                Obstacle::Multi
            ]
        );
    }
}
