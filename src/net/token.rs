//! What a readiness event is about, packed into mio's token.

use mio::Token;

/// Identifies a client. The id of a client that is gone finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// The owner of a registered descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A client listener, by its place in the list of listeners.
    Listener(u32),
    /// A client connection.
    Client(ClientId),
    /// A listener of the cluster bus.
    BusListener(u32),
    /// A cluster bus link: slot and generation.
    BusLink(u32, u32),
    /// The connection to our master before it becomes a client.
    MasterLink,
    /// The pipe from the child that writes a snapshot for replicas.
    SnapshotPipe,
    /// Wakes the loop from another thread.
    Waker,
    /// A connection in its handshake: slot and generation.
    Handshake(u32, u32),
    /// A connection that was closed and has output left, on an I/O thread: slot.
    Lingering(u32),
    /// A listener of the port for operators.
    OperatorsListener(u32),
    /// A connection there: slot and generation.
    Operator(u32, u32),
    /// A connection to the other side of a slot migration before it becomes a client: its number.
    SlotMigration(u32),
    /// A connection to the target of MIGRATE: its number.
    Moving(u32),
}

const KIND_SHIFT: u32 = 60;
const GEN_SHIFT: u32 = 32;
const GEN_MASK: u64 = (1 << 28) - 1;

impl Source {
    pub(crate) fn token(self) -> Token {
        let (kind, generation, index) = match self {
            Source::Listener(i) => (0, 0, i),
            Source::Client(id) => (1, id.generation, id.index),
            Source::BusListener(i) => (2, 0, i),
            Source::BusLink(i, generation) => (3, generation, i),
            Source::MasterLink => (4, 0, 0),
            Source::SnapshotPipe => (5, 0, 0),
            Source::Waker => (6, 0, 0),
            Source::Handshake(i, generation) => (7, generation, i),
            Source::Lingering(i) => (8, 0, i),
            Source::OperatorsListener(i) => (9, 0, i),
            Source::Operator(i, generation) => (10, generation, i),
            Source::SlotMigration(i) => (11, 0, i),
            Source::Moving(i) => (12, 0, i),
        };
        Token(((kind as u64) << KIND_SHIFT | (generation as u64 & GEN_MASK) << GEN_SHIFT | index as u64) as usize)
    }

    /// `None` for a token that `token` never made.
    pub(crate) fn of(token: Token) -> Option<Source> {
        let bits = token.0 as u64;
        let index = bits as u32;
        let generation = (bits >> GEN_SHIFT & GEN_MASK) as u32;
        Some(match bits >> KIND_SHIFT {
            0 => Source::Listener(index),
            1 => Source::Client(ClientId { index, generation }),
            2 => Source::BusListener(index),
            3 => Source::BusLink(index, generation),
            4 => Source::MasterLink,
            5 => Source::SnapshotPipe,
            6 => Source::Waker,
            7 => Source::Handshake(index, generation),
            8 => Source::Lingering(index),
            9 => Source::OperatorsListener(index),
            10 => Source::Operator(index, generation),
            11 => Source::SlotMigration(index),
            12 => Source::Moving(index),
            _ => return None,
        })
    }

    /// The bus and the replication links are served before clients in every turn.
    pub(crate) fn is_urgent(self) -> bool {
        match self {
            Source::BusListener(_)
            | Source::BusLink(..)
            | Source::MasterLink
            | Source::SnapshotPipe
            | Source::SlotMigration(_)
            | Source::Waker => true,
            Source::Listener(_)
            | Source::Client(_)
            | Source::Handshake(..)
            | Source::Lingering(_)
            | Source::OperatorsListener(_)
            | Source::Operator(..)
            | Source::Moving(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_way_through_the_poll() {
        for s in [
            Source::Listener(3),
            Source::Client(ClientId { index: u32::MAX, generation: 77 }),
            Source::BusLink(5, 9),
            Source::MasterLink,
            Source::SnapshotPipe,
            Source::Waker,
            Source::Handshake(7, (1 << 28) - 1),
            Source::Lingering(2),
            Source::OperatorsListener(1),
            Source::Operator(7, 9),
            Source::SlotMigration(u32::MAX),
            Source::Moving(3),
        ] {
            assert_eq!(Source::of(s.token()), Some(s));
        }
    }
}
