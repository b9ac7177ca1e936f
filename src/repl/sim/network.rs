//! The connections of a simulation: bytes on their way, in pieces and late, and how connections come and go.

use super::*;

impl World {
    pub(super) fn is_parted(&self, a: NodeNo, b: NodeNo) -> bool {
        self.parted.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn dial(&mut self, n: NodeNo, link: LinkId, master: NodeNo) {
        if !self.is_current(n, link) {
        } else if self.fault(20) {
            self.nodes[n].repl.on_look_up();
        } else if self.fault(20) {
            self.event(n, |repl, env| repl.on_connect_failed("refused", env));
        } else {
            let (no, up_ms) = (self.number(), self.later());
            let conn = Conn {
                replica: n,
                link,
                adopted: None,
                master,
                client: ClientId { index: no as u32, generation: 1 },
                up_ms,
                is_up: false,
                to_master: Pipe::default(),
                to_replica: Pipe::default(),
                input: Vec::new(),
                out: Vec::new(),
                file: None,
                close_after_out: false,
                replica_open: true,
                master_open: true,
            };
            self.conns.insert(no, conn);
            self.event(n, Repl::on_connecting);
        }
    }

    pub(super) fn send_to_master(&mut self, n: NodeNo, link: LinkId, bytes: Vec<u8>) {
        if !self.nodes[n].repl.is_current(link) {
            return;
        }
        if self.nodes[n].repl.master_client().is_none() && self.fault(200) {
            return self.event(n, |repl, env| repl.on_write_failed("broken pipe", env));
        }
        let due_ms = self.later();
        if let Some(no) = self.conn_of(n, link) {
            self.conns.get_mut(&no).unwrap().to_master.send(due_ms, bytes);
        }
    }

    /// One side closes its end; the other learns of it when it has read everything.
    pub(super) fn hang_up(&mut self, no: ConnNo, by_replica: bool) {
        let at = self.later();
        let Some(conn) = self.conns.get_mut(&no) else { return };
        let pipe = if by_replica { &mut conn.to_master } else { &mut conn.to_replica };
        pipe.closed_ms = Some(at);
        if by_replica {
            conn.replica_open = false;
        } else {
            conn.master_open = false;
        }
    }

    /// A client goes, at a master or (the master's) at a replica.
    pub(super) fn free(&mut self, n: NodeNo, client: ClientId) {
        self.event(n, |repl, env| repl.on_client_gone(client, env));
        let adopted = self.conns.iter().find(|(_, c)| c.replica == n && c.adopted == Some(client) && c.replica_open);
        if let Some(no) = adopted.map(|(no, _)| *no) {
            self.hang_up(no, true);
        }
        if let Some(no) = self.conn_of_client(n, client) {
            self.hang_up(no, false);
        }
    }

    /// A side of a connection finds that it has ended.
    pub(super) fn lose(&mut self, no: ConnNo, at_replica: bool) {
        let Some(conn) = self.conns.get(&no) else { return };
        let (n, link) = (conn.replica, conn.link);
        if !at_replica {
            return if conn.master_open {
                self.free(conn.master, conn.client)
            };
        }
        if !conn.replica_open {
            return;
        }
        if let Some(client) = conn.adopted {
            return self.free(n, client);
        }
        let is_up = conn.is_up;
        self.hang_up(no, true);
        if !self.is_current(n, link) {
        } else if self.nodes[n].loading.take_if(|loading| loading.link == link).is_some() {
            self.event(n, |repl, _| repl.restart_sync());
        } else if is_up {
            let why = self.rng.bool().then_some("reset by peer");
            self.event(n, |repl, env| repl.on_master_closed(why, env));
        } else {
            self.event(n, |repl, env| repl.on_connection_error("timed out", env));
        }
    }

    /// Breaks a connection: what is on its way is lost.
    pub(super) fn break_conn(&mut self, no: ConnNo) {
        let (a, b) = (self.later(), self.later());
        let Some(conn) = self.conns.get_mut(&no) else { return };
        for (pipe, at) in [(&mut conn.to_master, a), (&mut conn.to_replica, b)] {
            pipe.pieces.clear();
            pipe.closed_ms = Some(at);
        }
    }

    /// The next piece of a pipe, if it has arrived; `Err` once the pipe has ended.
    pub(super) fn receive(&mut self, no: ConnNo, to_replica: bool) -> Result<Option<Vec<u8>>, ()> {
        let now_ms = self.now_ms;
        let cut = self.rng.u32(0..4);
        let Some(conn) = self.conns.get_mut(&no) else { return Ok(None) };
        let pipe = if to_replica { &mut conn.to_replica } else { &mut conn.to_master };
        let Some(mut bytes) = pipe.next(now_ms) else {
            let has_ended = pipe.pieces.is_empty() && pipe.closed_ms.is_some_and(|at| at <= now_ms);
            return if has_ended { Err(()) } else { Ok(None) };
        };
        match cut {
            0 if bytes.len() > 1 => {
                let rest = bytes.split_off(self.rng.usize(1..bytes.len()));
                pipe.pieces.push_front((now_ms, rest));
            }
            1 => {
                while let Some(next) = pipe.next(now_ms) {
                    bytes.extend(next);
                }
            }
            _ => {}
        }
        Ok(Some(bytes))
    }

    pub(super) fn deliver(&mut self, no: ConnNo) {
        let conn = &self.conns[&no];
        let (n, link, master) = (conn.replica, conn.link, conn.master);
        if self.is_parted(n, master) {
            return;
        }
        if !conn.is_up && conn.replica_open && conn.up_ms <= self.now_ms && conn.to_replica.closed_ms.is_none() {
            self.conns.get_mut(&no).unwrap().is_up = true;
            self.event(n, Repl::on_connected);
        }
        loop {
            match self.receive(no, false) {
                Ok(Some(bytes)) => {
                    self.conns.get_mut(&no).unwrap().input.extend(bytes);
                    self.run_requests(no);
                }
                Ok(None) => break,
                Err(()) => {
                    self.lose(no, false);
                    break;
                }
            }
        }
        loop {
            let bytes = match self.receive(no, true) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(()) => {
                    self.lose(no, true);
                    break;
                }
            };
            let Some(conn) = self.conns.get(&no).filter(|conn| conn.replica_open) else { continue };
            let adopted = conn.adopted;
            let node = &mut self.nodes[n];
            if adopted.is_some() && adopted == node.repl.master_client() {
                node.repl.note_master_read(bytes.len(), self.now_ms / 1000);
                node.input.extend(bytes);
                self.run_stream(n);
            } else if let Some(loading) = node.loading.as_mut().filter(|loading| loading.link == link) {
                loading.bytes.extend(bytes);
                node.repl.note_loaded(None, self.now_ms / 1000);
                self.go_on_loading(n);
            } else if node.repl.is_current(link) {
                self.event(n, |repl, env| repl.on_master_bytes(&bytes, env));
            }
        }
    }

    /// A master's end takes what is to be sent: replies, then the file, then the stream.
    pub(super) fn flush(&mut self, no: ConnNo) {
        let due_ms = self.later();
        let (mut room, at_once) = (self.rng.usize(1..30_000), self.rng.usize(1..3000));
        let Some(conn) = self.conns.get_mut(&no).filter(|conn| conn.master_open && conn.is_up) else { return };
        // What comes later is not to arrive before.
        let due_ms = conn.to_replica.pieces.back().map_or(due_ms, |(last_ms, _)| due_ms.max(*last_ms));
        let (n, client) = (conn.master, conn.client);
        let mut send = |bytes: Vec<u8>| conn.to_replica.send(due_ms, bytes);
        if !conn.out.is_empty() {
            send(std::mem::take(&mut conn.out));
        }
        if conn.close_after_out {
            return self.nodes[n].closing.push(client);
        }
        if let Some(file) = &mut conn.file {
            let rest = file.split_off(room.min(file.len()));
            room -= file.len();
            send(std::mem::replace(file, rest));
            if file.is_empty() {
                conn.file = None;
                self.event(n, |repl, env| repl.on_snapshot_sent(client, env));
            }
        }
        let Some(conn) = self.conns.get_mut(&no).filter(|conn| conn.file.is_none()) else { return };
        let repl = &mut self.nodes[n].repl;
        while room > 0 {
            let slices = repl.output(client, 3, at_once.min(room));
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            if bytes.is_empty() {
                break;
            }
            repl.note_sent(client, bytes.len());
            room -= bytes.len();
            conn.to_replica.send(due_ms, bytes);
        }
    }
}
