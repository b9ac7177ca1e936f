//! All clients: the slab they live in, and the lists of those with something to do.
//!
//! Nothing outside holds a reference to a client. Closing only marks: the loop frees at the end of the turn, so that code
//! that runs for a client never loses it underneath.

pub(crate) mod client;

pub(crate) use client::{Client, ClientFlags};

use crate::net::io::{FoundAt, FoundRequests};
use crate::net::{ClientId, Conn, Link};
use slab::Slab;
use std::collections::HashMap;

/// A client whose input was read and waits to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToRun {
    pub(crate) id: ClientId,
    /// Its socket may hold more.
    pub(crate) more: bool,
    /// Which of [`Clients::found`] its input begins with, as long as the client is marked with [`FOUND_FAR`].
    pub(crate) found: FoundAt,
}

/// In place of the number of a look-ahead: the query buffer begins with requests that an I/O thread has found.
pub(crate) const FOUND_FAR: u64 = u64::MAX;

#[derive(Default)]
pub(crate) struct Clients {
    slab: Slab<Box<Client>>,
    generations: Vec<u32>,
    by_number: HashMap<u64, ClientId>,
    next_number: u64,
    pub(crate) to_run: Vec<ToRun>,
    /// What I/O threads have found in the input of those.
    pub(crate) found: FoundRequests,
    /// Clients whose input is being run, and how many of them have begun with it.
    pub(crate) batch: Vec<ToRun>,
    pub(crate) batch_at: usize,
    /// Clients with bytes to send.
    pub(crate) pending_writes: Vec<ClientId>,
    /// Clients whose sockets may hold more than was read.
    pub(crate) pending_reads: Vec<ClientId>,
    /// Clients that were released from blocking and have input to go on with.
    pub(crate) unblocked: Vec<ClientId>,
    /// Clients to free at the end of the turn.
    pub(crate) closing: Vec<ClientId>,
    pub(crate) monitors: Vec<ClientId>,
    /// The client whose command runs: its reply buffer is taken, so pushes to it wait in `self_push`.
    pub(crate) current: Option<ClientId>,
    pub(crate) self_push: Vec<u8>,
    /// Clients with a connection that are neither replicas nor our master.
    pub(crate) connected: usize,
    /// Where `next_in_turn` goes on.
    turn: usize,
}

impl Clients {
    pub(crate) fn add(&mut self, conn: Option<Conn>, now_ms: i64) -> ClientId {
        let slot = self.slab.vacant_entry();
        let index = slot.key();
        if self.generations.len() <= index {
            self.generations.resize(index + 1, 0);
        }
        let id = ClientId { index: index as u32, generation: self.generations[index] };
        self.next_number += 1;
        slot.insert(Box::new(Client::new(id, self.next_number, Link::new(conn), now_ms)));
        self.by_number.insert(self.next_number, id);
        id
    }

    pub(crate) fn get(&self, id: ClientId) -> Option<&Client> {
        self.slab.get(id.index as usize).map(|c| &**c).filter(|c| c.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.slab.get_mut(id.index as usize).map(|c| &mut **c).filter(|c| c.id == id)
    }

    pub(crate) fn by_number(&self, number: u64) -> Option<ClientId> {
        self.by_number.get(&number).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.slab.iter().map(|(_, c)| &**c)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.slab.iter_mut().map(|(_, c)| &mut **c)
    }

    /// The next `count` clients, so that all get their turn if this is called again and again.
    pub(crate) fn next_in_turn(&mut self, count: usize) -> Vec<ClientId> {
        let end = self.slab.capacity();
        let mut ids = Vec::with_capacity(count);
        for _ in 0..end {
            if ids.len() == count {
                break;
            }
            self.turn = if self.turn + 1 < end { self.turn + 1 } else { 0 };
            ids.extend(self.slab.get(self.turn).map(|c| c.id));
        }
        ids
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Takes the client out for good.
    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Box<Client>> {
        self.get(id)?;
        let client = self.slab.remove(id.index as usize);
        let generation = &mut self.generations[id.index as usize];
        *generation = generation.wrapping_add(1) & ((1 << 28) - 1);
        self.by_number.remove(&client.number);
        Some(client)
    }

    /// Frees the client at the end of the turn; it takes no more commands.
    pub(crate) fn close_later(&mut self, id: ClientId) {
        if let Some(c) = self.get_mut(id)
            && !c.is(ClientFlags::CLOSE_ASAP)
        {
            c.flags.add(ClientFlags::CLOSE_ASAP);
            self.closing.push(id);
        }
    }

    /// Puts the client on the list of those with bytes to send.
    pub(crate) fn want_write(&mut self, id: ClientId) {
        if let Some(c) = self.slab.get_mut(id.index as usize).filter(|c| c.id == id) {
            list_to_write(c, &mut self.pending_writes);
        }
    }

    /// Puts the client on the list of those whose sockets may hold more.
    pub(crate) fn want_read(&mut self, id: ClientId) {
        if let Some(c) = self.get_mut(id)
            && !c.is(ClientFlags::PENDING_READ)
        {
            c.flags.add(ClientFlags::PENDING_READ);
            self.pending_reads.push(id);
        }
    }

    /// Sends a client what it asked for earlier, unless it wants no replies.
    pub(crate) fn reply(&mut self, id: ClientId, bytes: &[u8]) {
        self.push_unless(ClientFlags::REPLY_OFF.union(ClientFlags::REPLY_SKIP), id, bytes);
    }

    /// Sends bytes to a client outside the reply of a command of its own. To the client whose command runs they follow
    /// the reply.
    pub(crate) fn push(&mut self, id: ClientId, bytes: &[u8]) {
        self.push_unless(ClientFlags::default(), id, bytes);
    }

    /// As `push`, without a copy.
    pub(crate) fn push_all(&mut self, id: ClientId, bytes: Vec<u8>) {
        if self.current == Some(id) {
            self.self_push.extend_from_slice(&bytes);
        } else if let Some(c) = self.slab.get_mut(id.index as usize).filter(|c| c.id == id)
            && !bytes.is_empty()
            && !c.is(ClientFlags::CLOSE_ASAP)
        {
            c.out.append_owned(bytes);
            list_to_write(c, &mut self.pending_writes);
        }
    }

    /// The same, unless it has one of these flags.
    #[inline]
    fn push_unless(&mut self, flags: ClientFlags, id: ClientId, bytes: &[u8]) {
        let Some(c) = self.slab.get_mut(id.index as usize).filter(|c| c.id == id && !c.is(flags)) else { return };
        if self.current == Some(id) {
            self.self_push.extend_from_slice(bytes);
        } else if c.conn.is_some() && !c.is(ClientFlags::CLOSE_ASAP) {
            c.out.append(bytes);
            list_to_write(c, &mut self.pending_writes);
        }
    }
}

/// Puts a client on the list of those that have something to be written, if it is not there.
#[inline]
fn list_to_write(c: &mut Client, pending: &mut Vec<ClientId>) {
    if !c.is(ClientFlags::PENDING_WRITE) {
        c.flags.add(ClientFlags::PENDING_WRITE);
        pending.push(c.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_ids_find_nothing() {
        let mut clients = Clients::default();
        let a = clients.add(None, 0);
        clients.remove(a).unwrap();
        let b = clients.add(None, 0);
        assert_eq!(a.index, b.index);
        assert!(clients.get(a).is_none());
        assert_eq!(clients.get(b).unwrap().number, 2);
        assert_eq!(clients.by_number(1), None);
    }

    #[test]
    fn what_is_sent_to_the_client_whose_command_runs_follows_its_reply() {
        let mut clients = Clients::default();
        let (a, b) = (clients.add(None, 0), clients.add(None, 0));
        clients.current = Some(a);
        clients.push(a, b"1");
        clients.reply(a, b"2");
        // One without a connection gets nothing.
        clients.push(b, b"3");
        clients.get_mut(a).unwrap().flags.add(ClientFlags::REPLY_OFF);
        clients.reply(a, b"4");
        clients.push(a, b"5");
        assert_eq!(clients.self_push, b"125");
        assert!(clients.get(b).unwrap().out.is_empty() && clients.pending_writes.is_empty());
    }
}
