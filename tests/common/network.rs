//! Hosts with networks of their own, on one switch: namespaces, which only root can make.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Hosts 1 to `hosts`, each in a namespace, on one switch in another, which is host 0 and reaches all.
pub(crate) struct Network {
    name: String,
    hosts: usize,
}

fn ip(words: &str) {
    let run = Command::new("ip").args(words.split(' ')).output().expect("ip");
    assert!(run.status.success(), "ip {words}: {}", String::from_utf8_lossy(&run.stderr));
}

pub(crate) fn address(host: usize) -> String {
    format!("10.99.0.{host}")
}

impl Network {
    pub(crate) fn new(hosts: usize) -> Network {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hx{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let network = Network { name, hosts };
        let n = &network.name;
        ip(&format!("netns add {n}-0"));
        ip(&format!("-n {n}-0 link add sw type bridge"));
        ip(&format!("-n {n}-0 link set sw up"));
        ip(&format!("-n {n}-0 address add {}/24 dev sw", address(254)));
        for host in 1..=hosts {
            ip(&format!("netns add {n}-{host}"));
            ip(&format!("-n {n}-{host} link set lo up"));
            ip(&format!("-n {n}-{host} link add eth type veth peer name p{host} netns {n}-0"));
            ip(&format!("-n {n}-0 link set p{host} master sw up"));
            ip(&format!("-n {n}-{host} address add {}/24 dev eth", address(host)));
            ip(&format!("-n {n}-{host} link set eth up"));
        }
        network
    }

    pub(crate) fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// Nothing goes to or from a host any more.
    pub(crate) fn unplug(&self, host: usize) {
        ip(&format!("-n {} link set p{host} down", self.namespace(0)));
    }

    pub(crate) fn plug_in(&self, host: usize) {
        ip(&format!("-n {} link set p{host} up", self.namespace(0)));
    }

    /// What a host sends to another is lost.
    pub(crate) fn mute(&self, from: usize, to: usize) {
        ip(&format!("-n {} route add blackhole {}/32", self.namespace(from), address(to)));
    }

    pub(crate) fn unmute(&self, from: usize, to: usize) {
        ip(&format!("-n {} route del blackhole {}/32", self.namespace(from), address(to)));
    }

    /// The host is at another address from now on.
    pub(crate) fn move_to(&self, host: usize, from: usize, to: usize) {
        ip(&format!("-n {} address del {}/24 dev eth", self.namespace(host), address(from)));
        ip(&format!("-n {} address add {}/24 dev eth", self.namespace(host), address(to)));
    }

    /// A thread that runs on a host as far as sockets that it and what it starts make are concerned.
    pub(crate) fn on<T: Send + 'static>(
        &self,
        host: usize,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/var/run/netns/{}", self.namespace(host));
        std::thread::spawn(move || {
            setns(File::open(path).expect("the namespace"), CloneFlags::CLONE_NEWNET).expect("into the namespace");
            run()
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..=self.hosts {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(host)]).output();
        }
    }
}
