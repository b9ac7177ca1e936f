//! Looks up host names on threads of their own, as a name server that does not answer can block one for half a minute.
//!
//! Owns the look-ups under way and recent results. An IP address needs no look-up and no thread.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

/// A result is used for this long: for several connections made at the same time, not for later ones.
const FRESH: Duration = Duration::from_secs(5);
/// Look-ups that may be under way at a time.
const MOST: usize = 16;

type Answer = io::Result<Vec<IpAddr>>;

enum Entry {
    UnderWay(Receiver<Answer>),
    Found(Vec<IpAddr>, Instant),
}

pub(crate) struct Resolver {
    look_up: Arc<dyn Fn(&str) -> Answer + Send + Sync>,
    /// Ends the sleep of the loop.
    wake: Arc<dyn Fn() + Send + Sync>,
    names: HashMap<String, Entry>,
    answered: Arc<AtomicBool>,
}

impl Resolver {
    /// A resolver that asks the system, and calls `wake` when an answer is there.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Resolver {
        Resolver::with(ask_the_system, wake)
    }

    /// A resolver that asks `look_up`, which may block.
    pub(crate) fn with(
        look_up: impl Fn(&str) -> Answer + Send + Sync + 'static,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Resolver {
        Resolver { look_up: Arc::new(look_up), wake: Arc::new(wake), names: HashMap::new(), answered: Arc::default() }
    }

    /// The addresses of a name, at least one. Pending while they are looked up: ask again after the wake. A failure is
    /// returned once; the next call starts a new look-up.
    pub(crate) fn addresses(&mut self, name: &str) -> Poll<Answer> {
        if let Ok(address) = name.parse() {
            return Poll::Ready(Ok(vec![address]));
        }
        match self.names.get(name) {
            Some(Entry::UnderWay(answer)) => match answer.try_recv() {
                Ok(answer) => Poll::Ready(self.keep(name, answer)),
                Err(TryRecvError::Empty) => Poll::Pending,
                Err(TryRecvError::Disconnected) => Poll::Ready(self.keep(name, Err(nothing_found()))),
            },
            Some(Entry::Found(found, at)) if at.elapsed() < FRESH => Poll::Ready(Ok(found.clone())),
            _ => match self.start(name) {
                Ok(()) => Poll::Pending,
                Err(e) => Poll::Ready(Err(e)),
            },
        }
    }

    /// Whether there was an answer since this was last asked.
    pub(crate) fn take_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire) && self.answered.swap(false, Ordering::AcqRel)
    }

    /// As [`addresses`](Resolver::addresses), but waits for the answer, at most `patience`. A look-up that takes longer
    /// goes on, for the next caller.
    pub(crate) fn addresses_within(&mut self, name: &str, patience: Duration) -> Answer {
        if let Poll::Ready(answer) = self.addresses(name) {
            return answer;
        }
        let Some(Entry::UnderWay(answer)) = self.names.get(name) else { return Err(nothing_found()) };
        match answer.recv_timeout(patience) {
            Ok(answer) => self.keep(name, answer),
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => self.keep(name, Err(nothing_found())),
        }
    }

    fn keep(&mut self, name: &str, answer: Answer) -> Answer {
        let found = match answer {
            Ok(found) if !found.is_empty() => found,
            failure => {
                self.names.remove(name);
                return failure.and(Err(nothing_found()));
            }
        };
        self.names.insert(name.to_owned(), Entry::Found(found.clone(), Instant::now()));
        Ok(found)
    }

    fn start(&mut self, name: &str) -> io::Result<()> {
        self.names.retain(|_, entry| match entry {
            Entry::Found(_, at) => at.elapsed() < FRESH,
            // Nobody has asked for it since it was answered.
            Entry::UnderWay(answer) => matches!(answer.try_recv(), Err(TryRecvError::Empty)),
        });
        if self.names.len() >= MOST {
            return Err(io::Error::other("Too many host names are being looked up"));
        }
        let (sender, answer) = channel();
        let (look_up, wake, answered) = (self.look_up.clone(), self.wake.clone(), self.answered.clone());
        let asked = name.to_owned();
        thread::Builder::new().name("name_lookup".into()).spawn(move || {
            let found = look_up(&asked);
            // The receiver may be gone.
            let _ = sender.send(found);
            answered.store(true, Ordering::Release);
            wake();
        })?;
        self.names.insert(name.to_owned(), Entry::UnderWay(answer));
        Ok(())
    }
}

fn ask_the_system(name: &str) -> Answer {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn nothing_found() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EADDRNOTAVAIL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_name_server_that_hangs_holds_up_nobody() {
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let (woken, wakes) = channel();
        let look_up = move |name: &str| {
            let _ = held.lock().unwrap().recv();
            if name == "there.invalid" { Ok(vec![HOME]) } else { Err(io::Error::other("no such name")) }
        };
        let mut resolver = Resolver::with(look_up, move || woken.send(()).unwrap());
        assert!(matches!(resolver.addresses("127.0.0.1"), Poll::Ready(Ok(a)) if a == [HOME]));
        assert!(resolver.addresses("there.invalid").is_pending());
        assert!(resolver.addresses("there.invalid").is_pending(), "it is looked up once");
        let late = resolver.addresses_within("there.invalid", Duration::from_millis(1)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        release.send(()).unwrap();
        wakes.recv().unwrap();
        assert!(matches!(resolver.addresses("there.invalid"), Poll::Ready(Ok(a)) if a == [HOME]));
        assert!(matches!(resolver.addresses("there.invalid"), Poll::Ready(Ok(_))), "it is known for a while");
        release.send(()).unwrap();
        assert!(resolver.addresses_within("elsewhere.invalid", Duration::from_secs(60)).is_err());
    }

    #[test]
    fn look_ups_that_never_end_are_not_piled_up() {
        let (_never, held) = channel::<()>();
        let held = Mutex::new(held);
        let look_up = move |_: &str| {
            let _ = held.lock().unwrap().recv();
            Ok(Vec::new())
        };
        let mut resolver = Resolver::with(look_up, || ());
        for i in 0..MOST {
            assert!(resolver.addresses(&format!("{i}.invalid")).is_pending());
        }
        assert!(matches!(resolver.addresses("one.too.many.invalid"), Poll::Ready(Err(_))));
    }
}
