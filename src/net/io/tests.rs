//! Threads with sockets, and a main thread of the test: bytes in order, limits, moves and ends.

use super::{Batch, Far, Finder, Home, IoThread, Report};
use crate::net::output::MIN_BUFFER_BYTES;
use crate::net::{ClientId, Conn, Link};
use crate::structs::table::HashSeed;
use mio::{Poll, Token, Waker};
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const CLIENT: ClientId = ClientId { index: 3, generation: 1 };
const FINDER: Finder = Finder { seed: HashSeed([7; 16]), per_slot: true };
const LONG: Duration = Duration::from_secs(20);

/// The side of the main thread, with one client.
struct Main {
    threads: Vec<Arc<IoThread>>,
    far: Option<Box<Far>>,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    end: Option<Result<(), io::ErrorKind>>,
    /// Takes what is reported as input.
    takes: bool,
    moves: usize,
}

impl Main {
    fn new(threads: usize) -> (Main, UnixStream) {
        // What wakes the main thread is of no use to tests that look again and again.
        let waker = Arc::new(Waker::new(Poll::new().unwrap().registry(), Token(0)).unwrap());
        let threads: Vec<_> =
            (0..threads).map(|at| IoThread::start((at, threads), "", FINDER, waker.clone()).unwrap()).collect();
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let conn = Conn::Unix(mio::net::UnixStream::from_std(ours));
        let far = Some(Box::new(Far::new(&threads[0], CLIENT, conn)));
        let (input, output) = (Vec::new(), Vec::new());
        (Main { threads, far, input, output, sent: 0, end: None, takes: true, moves: 0 }, peer)
    }

    /// Writes what it can, and sees to what is reported.
    fn turn(&mut self) {
        while self.sent < self.output.len() {
            // In pieces of different lengths.
            let len = (self.output.len() - self.sent).min(1 + self.sent * 7 % 50_000);
            let piece = &self.output[self.sent..self.sent + len];
            let (a, b) = piece.split_at(len / 3);
            let Some(far) = &mut self.far else { break };
            match far.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => break,
            }
        }
        for at in 0..self.threads.len() {
            self.threads[at].post();
            let mut batch = Batch::default();
            let _ = self.threads[at].take_reports(&mut batch);
            let mut bytes = &batch.bytes[..];
            for report in batch.messages {
                match report {
                    Report::Input { client, len, .. } => {
                        assert_eq!(client, CLIENT);
                        let (mine, rest) = bytes.split_at(len);
                        bytes = rest;
                        self.input.extend_from_slice(mine);
                        if let Some(far) = self.far.as_mut().filter(|_| self.takes) {
                            far.note_taken(len);
                        }
                    }
                    Report::MuchInput { bytes, .. } => {
                        self.input.extend_from_slice(&bytes);
                        if let Some(far) = self.far.as_mut().filter(|_| self.takes) {
                            far.note_taken(bytes.len());
                        }
                    }
                    Report::Ended { end, .. } => {
                        self.end = Some(end);
                        self.far.iter_mut().for_each(|far| far.note_end(end));
                    }
                    Report::Released { conn, .. } => {
                        // Nobody waits for it any more: it is closed.
                        let Some(mut far) = self.far.take() else { continue };
                        let Some(Home::Thread(to)) = far.moving_to else { panic!("not asked for") };
                        far.forget();
                        self.far = Some(Box::new(Far::new(&self.threads[to], CLIENT, *conn)));
                        self.moves += 1;
                    }
                    Report::Room { .. } | Report::Secured { .. } | Report::SeenTo => {}
                }
            }
        }
        thread::yield_now();
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Main) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < LONG, "{what} takes too long");
            self.turn();
        }
    }

    fn stop(self) {
        drop(self.far);
        self.threads.iter().for_each(|thread| thread.stop());
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) >> 3).wrapping_add(seed) as u8).collect()
}

/// A peer that sends `text` and reads `len` bytes, at its own pace.
fn peer(peer: UnixStream, text: Vec<u8>, len: usize, pause: Duration) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut writer = peer.try_clone().unwrap();
        let sender = thread::spawn(move || writer.write_all(&text));
        let mut reader = peer;
        let mut got = vec![0; len];
        for piece in got.chunks_mut(40_000) {
            reader.read_exact(piece).unwrap();
            thread::sleep(pause);
        }
        sender.join().unwrap().unwrap();
        got
    })
}

#[test]
fn bytes_arrive_in_order_both_ways() {
    let (mut main, socket) = Main::new(1);
    let (there, back) = (pattern(3_000_000, 1), pattern(2_500_000, 9));
    main.output = there.clone();
    let peer = peer(socket, back.clone(), there.len(), Duration::ZERO);
    main.until("the exchange", |main| main.input.len() == back.len() && main.sent == main.output.len());
    assert_eq!(main.input, back);
    assert_eq!(peer.join().unwrap(), there);
    main.stop();
}

#[test]
fn a_link_moves_between_threads_and_loses_nothing() {
    let (mut main, socket) = Main::new(3);
    let (there, back) = (pattern(4_000_000, 5), pattern(4_000_000, 6));
    main.output = there.clone();
    let peer = peer(socket, back.clone(), there.len(), Duration::from_micros(200));
    let mut turns = 0usize;
    let begun = Instant::now();
    while main.input.len() < back.len() || main.sent < there.len() {
        assert!(begun.elapsed() < LONG);
        turns += 1;
        if turns.is_multiple_of(7) {
            let to = (main.far.as_ref().unwrap().home() + 1) % 3;
            main.far.as_mut().unwrap().move_to(Home::Thread(to));
        }
        main.turn();
    }
    assert_eq!(main.input, back);
    let moves = main.moves;
    assert!(moves > 3, "{moves} moves");
    assert_eq!(peer.join().unwrap(), there);
    main.stop();
}

#[test]
fn what_was_written_leaves_before_a_link_is_closed() {
    let (mut main, mut socket) = Main::new(1);
    main.output = pattern(200_000, 2);
    main.until("writing", |main| main.sent == main.output.len());
    main.far = None;
    main.turn();
    let mut got = Vec::new();
    socket.read_to_end(&mut got).unwrap();
    assert_eq!(got, main.output);
    main.stop();
}

#[test]
fn a_peer_that_does_not_read_holds_up_the_writer() {
    let (mut main, mut socket) = Main::new(1);
    main.output = pattern(8_000_000, 3);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        main.turn();
    }
    let held = main.sent;
    assert!(held < 2_000_000, "{held} bytes were taken");
    let reader = thread::spawn(move || {
        let mut got = vec![0; 8_000_000];
        socket.read_exact(&mut got).map(|()| got)
    });
    main.until("the rest", |main| main.sent == main.output.len());
    assert_eq!(reader.join().unwrap().unwrap(), main.output);
    main.stop();
}

#[test]
fn a_main_thread_that_takes_nothing_holds_up_the_peer() {
    let (mut main, mut socket) = Main::new(1);
    main.takes = false;
    let text = pattern(4_000_000, 4);
    let sent = text.clone();
    let sender = thread::spawn(move || socket.write_all(&sent).map(|()| socket));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        main.turn();
    }
    let held = main.input.len();
    assert!((1..1_000_000).contains(&held), "{held} bytes came");
    main.takes = true;
    main.far.as_mut().unwrap().note_taken(held);
    main.until("the rest", |main| main.input.len() == text.len());
    assert_eq!(main.input, text);
    drop(sender.join().unwrap().unwrap());
    main.until("the end", |main| main.end == Some(Ok(())));
    main.stop();
}

#[test]
fn a_link_may_fail_at_any_time() {
    for seed in 0..100 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let (mut main, socket) = Main::new(2);
        main.output = pattern(dice.usize(1..600_000), 1);
        let text = pattern(dice.usize(..600_000), 2);
        // The peer reads some of it, and then fails in one way or another; or the link is closed here.
        let (len, fault) = (dice.usize(..main.output.len()), dice.usize(..5));
        let (sent, mut writer) = (text.clone(), socket.try_clone().unwrap());
        let sender = thread::spawn(move || writer.write_all(&sent));
        let reader = thread::spawn(move || {
            let mut socket = socket;
            let mut got = vec![0; len];
            let mut at = 0;
            while at < len {
                match socket.read(&mut got[at..]) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => at += count,
                }
            }
            got.truncate(at);
            match fault {
                0 => drop(socket.shutdown(Shutdown::Read)),
                1 => drop(socket.shutdown(Shutdown::Write)),
                2 => drop(socket.read(&mut [0; 1000])),
                _ => {}
            }
            thread::yield_now();
            let _ = socket.shutdown(Shutdown::Both);
            got
        });
        let closes_at = if fault >= 3 { dice.usize(..100) } else { usize::MAX };
        let begun = Instant::now();
        let mut turns = 0;
        while let Some(far) = main.far.as_mut().filter(|_| main.end.is_none()) {
            assert!(begun.elapsed() < LONG, "seed {seed}");
            if dice.usize(..20) == 0 {
                far.move_to(Home::Thread(1 - far.home()));
            }
            if turns >= closes_at {
                if fault == 4 {
                    far.discard_output();
                }
                main.far = None;
            }
            turns += 1;
            main.turn();
        }
        // One that was about to move is closed when it comes.
        while !reader.is_finished() || !sender.is_finished() {
            assert!(begun.elapsed() < LONG, "seed {seed}");
            main.turn();
        }
        let (got, _) = (reader.join().unwrap(), sender.join().unwrap());
        assert!(main.output.starts_with(&got) && text.starts_with(&main.input), "seed {seed}");
        main.stop();
    }
}

#[test]
fn a_link_can_be_called_home_at_once() {
    let (mut main, mut socket) = Main::new(1);
    main.output = b"before".to_vec();
    main.turn();
    main.until("rest", |main| main.far.as_ref().unwrap().is_at_rest());
    let conn = main.far.as_mut().unwrap().call_home(LONG);
    let mut conn = conn.expect("the connection");
    conn.write_all(b" and after").unwrap();
    let mut got = vec![0; 16];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(got, b"before and after");
    main.stop();
}

#[test]
fn a_short_reply_costs_the_same_before_and_after_it_was_written() {
    let (mut main, _peer) = Main::new(1);
    let far = main.far.take().unwrap();
    let mut link = Link { conn: Some(Conn::Far(far)), ..Link::default() };
    let idle = link.mem_bytes();
    let mut send = |bytes: usize| {
        let Some(Conn::Far(far)) = &mut link.conn else { unreachable!() };
        // The thread hears of it when it is posted.
        assert_eq!(far.write_vectored(&[IoSlice::new(&vec![b'x'; bytes])]).unwrap(), bytes);
        link.mem_bytes()
    };
    assert_eq!(send(100), idle);
    assert_eq!(send(10_000), idle + 10_100 - MIN_BUFFER_BYTES);
}

#[test]
fn what_stays_unwritten_shows_after_a_period() {
    let (mut main, _peer) = Main::new(1);
    let mut far = main.far.take().unwrap();
    let give = |far: &mut Far, bytes: usize| far.write_vectored(&[IoSlice::new(&vec![b'x'; bytes])]).unwrap();
    give(&mut far, 1000);
    assert_eq!((far.lasting(1), far.lasting(1)), (0, 0));
    give(&mut far, 10);
    // The thread hears of it when it is posted.
    assert_eq!((far.lasting(2), far.lasting(3), far.lasting(3)), (1000, 1010, 1010));
    main.threads[0].post();
    let begun = Instant::now();
    while far.unwritten() > 0 {
        assert!(begun.elapsed() < LONG);
        thread::yield_now();
    }
    assert_eq!(far.lasting(3), 0);
}
