//! A simulation: clients that write and read, a loop that turns, a disk that is quick, slow or broken, and replicas that
//! confirm.

use super::*;

/// A client's output is a row of bytes, each of which tells of the log up to some byte.
struct Client {
    id: ClientId,
    out: Vec<u64>,
    /// Bytes that may leave though not everything they might tell of is on disk.
    released: u64,
    sent: usize,
    is_held: bool,
}

struct Sim {
    gate: Gate,
    now_us: i64,
    clients: Vec<Client>,
    /// Bytes of the log: all, those in the file, and those on disk.
    log: u64,
    written: u64,
    on_disk: u64,
    /// Whether it is synced at all, and what of it replicas have, if they are asked.
    syncs: bool,
    confirmed: Option<u64>,
    /// The sync under way: what it covers, what to tell, and when it is done, after how long.
    sync: Option<(u64, Arc<Shared>, i64, u64)>,
}

impl Sim {
    fn new(clients: usize) -> Sim {
        let client = |n| Client {
            id: ClientId { index: n as u32, generation: 0 },
            out: Vec::new(),
            released: 0,
            sent: 0,
            is_held: false,
        };
        Sim {
            gate: Gate::default(),
            now_us: 0,
            clients: (0..clients).map(client).collect(),
            log: 0,
            written: 0,
            on_disk: 0,
            syncs: true,
            confirmed: None,
            sync: None,
        }
    }

    fn client(&mut self, id: ClientId) -> &mut Client {
        self.clients.iter_mut().find(|c| c.id == id).expect("a client")
    }

    /// Somebody writes or reads. What is told may tell of all that was written before.
    fn command(&mut self, who: usize, is_write: bool) {
        self.log += u64::from(is_write);
        self.clients[who].out.push(self.log);
    }

    /// What the server does before replies leave, and then lets leave.
    fn turn(&mut self, took_us: u64) {
        self.gate.note_confirmed(self.confirmed.unwrap_or(0) as i64);
        let answering = match self.gate.check() {
            Step::Nothing => false,
            Step::Failed(errno) => panic!("error {errno}"),
            Step::Opened(opened) => {
                for (id, until) in opened.released {
                    let client = self.client(id);
                    client.released = client.released.max(until);
                }
                if let Some((_, us)) = opened.synced {
                    self.gate.expect(opened.held.len(), us, self.now_us);
                }
                let answering = !opened.held.is_empty();
                opened.held.into_iter().for_each(|id| self.client(id).is_held = false);
                answering
            }
        };
        let waits = self.gate.is_syncing() || self.gate.awaits_replicas();
        if self.syncs && !waits && self.log > self.written {
            self.gate.stop_gathering();
            let waiting = self.clients.iter().filter(|c| c.out.len() as u64 > c.released).count();
            if !self.gate.gathers(waiting, answering, self.now_us) {
                self.sync(took_us);
            }
        }
        if !self.gate.is_shut() && self.confirmed.is_some_and(|confirmed| confirmed < self.log) {
            self.gate.cover(self.ends());
            self.gate.await_replicas(self.log as i64, self.now_us);
        }
        for client in &mut self.clients {
            let end = if self.gate.is_shut() {
                if client.out.len() as u64 > client.released && !client.is_held {
                    let is_covered = match self.gate.awaited_offset() {
                        Some(offset) => offset as u64 == self.log,
                        None => self.log == self.written,
                    };
                    let covered = is_covered.then_some(client.out.len() as u64);
                    self.gate.hold(client.id, covered);
                    client.is_held = true;
                }
                client.released as usize
            } else {
                client.out.len()
            };
            for told in &client.out[client.sent..end.max(client.sent)] {
                assert!(
                    !self.syncs || *told <= self.on_disk,
                    "{told} of the log was told with {} on disk",
                    self.on_disk
                );
                assert!(self.confirmed.is_none_or(|confirmed| *told <= confirmed), "{told}: {:?}", self.confirmed);
            }
            client.sent = end.max(client.sent);
            client.released = client.released.max(client.sent as u64);
        }
    }

    fn sync(&mut self, took_us: u64) {
        self.written = self.log;
        match self.gate.syncer(self.now_us) {
            Syncer::Loop if self.confirmed.is_none() => {
                self.on_disk = self.written;
                for id in self.gate.synced(took_us) {
                    self.client(id).is_held = false;
                }
                self.gate.expect(self.clients.len(), took_us, self.now_us);
            }
            Syncer::Loop | Syncer::Thread => {
                let shared = self.gate.shut(self.written, self.ends());
                if self.confirmed.is_some() {
                    self.gate.await_replicas(self.written as i64, self.now_us);
                }
                self.sync = Some((self.written, shared, self.now_us + took_us as i64, took_us));
            }
        }
    }

    /// Where the output of everybody ends.
    fn ends(&self) -> Vec<(ClientId, u64)> {
        self.clients.iter().map(|c| (c.id, c.out.len() as u64)).collect()
    }

    fn pass(&mut self, us: i64) {
        self.now_us += us;
        if let Some((covers, shared, _, us)) = self.sync.take_if(|(_, _, done_us, _)| *done_us <= self.now_us) {
            self.on_disk = covers;
            shared.finish(0, us);
        }
    }
}

#[test]
fn nobody_is_told_of_what_is_not_on_disk_and_nobody_waits_for_ever() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = Sim::new(rng.usize(1..6));
        let mut handed_over = 0;
        for _ in 0..400 {
            for _ in 0..rng.usize(0..4) {
                let who = rng.usize(..sim.clients.len());
                sim.command(who, rng.u8(..3) == 0);
                if rng.bool() {
                    sim.gate.note_read(sim.now_us);
                }
            }
            let took_us = [rng.u64(1..100), rng.u64(200..900), rng.u64(1000..30_000)][rng.usize(..3)];
            sim.turn(took_us);
            handed_over += u64::from(sim.sync.is_some());
            sim.pass(rng.i64(1..2000));
        }
        for _ in 0..100 {
            sim.turn(10);
            sim.pass(1000);
        }
        assert!(sim.clients.iter().all(|c| c.sent == c.out.len()), "seed {seed}");
        assert_eq!(sim.on_disk, sim.log);
        assert!(handed_over > 0, "seed {seed}");
    }
}

#[test]
fn nobody_is_told_of_what_replicas_have_not_confirmed_and_nobody_waits_for_ever() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = Sim::new(rng.usize(1..6));
        (sim.syncs, sim.confirmed) = (rng.bool(), Some(0));
        let mut awaited = 0;
        for _ in 0..400 {
            for _ in 0..rng.usize(0..4) {
                let who = rng.usize(..sim.clients.len());
                sim.command(who, rng.u8(..3) == 0);
            }
            sim.turn([rng.u64(1..100), rng.u64(1000..30_000)][rng.usize(..2)]);
            awaited += u64::from(sim.gate.awaits_replicas());
            sim.pass(rng.i64(1..2000));
            sim.confirmed = sim.confirmed.map(|confirmed| rng.u64(confirmed..=sim.log));
        }
        sim.confirmed = Some(sim.log);
        for _ in 0..100 {
            sim.turn(10);
            sim.pass(1000);
        }
        assert!(sim.clients.iter().all(|c| c.sent == c.out.len()), "seed {seed}");
        assert!(awaited > 0, "seed {seed}: {awaited}");
    }
}

#[test]
fn an_error_of_the_disk_is_told_before_anything_is_let_go() {
    let mut gate = Gate::default();
    let id = ClientId { index: 1, generation: 0 };
    let shared = gate.shut(10, vec![(id, 5)]);
    gate.hold(id, None);
    assert_eq!((gate.check(), gate.is_shut()), (Step::Nothing, true));
    shared.finish(libc::EIO, 700);
    assert_eq!(gate.check(), Step::Failed(libc::EIO));
    let mut gate = Gate::default();
    let shared = gate.shut(10, vec![(id, 5)]);
    gate.hold(id, None);
    shared.finish(0, 700);
    let opened = Opened { synced: Some((10, 700)), released: vec![(id, 5)], held: vec![id], confirmed: false };
    assert_eq!(gate.check(), Step::Opened(opened));
    assert_eq!(gate.check(), Step::Nothing);
}

#[test]
fn the_loop_syncs_itself_if_that_takes_no_time_from_anybody() {
    let mut gate = Gate::default();
    assert_eq!(gate.syncer(0), Syncer::Loop);
    gate.synced(WORTH_HANDING_OVER_US);
    assert_eq!(gate.syncer(0), Syncer::Loop);
    gate.note_read(10);
    assert_eq!(gate.syncer(10 + READERS_STAY_US - 1), Syncer::Thread);
    assert_eq!(gate.syncer(10 + READERS_STAY_US), Syncer::Loop);
    gate.synced(WORTH_WAITING_US);
    assert_eq!(gate.syncer(10 + READERS_STAY_US), Syncer::Thread);
}
