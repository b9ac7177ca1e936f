//! Random, temporary faults in a simulation: of links, nodes and clocks.

use super::*;

impl Sim {
    pub(super) fn start_faults(&mut self) {
        self.faults = true;
        self.after(500, Event::Fault);
    }

    /// How long a fault, or what is between faults, lasts.
    pub(super) fn fault_ms(&mut self, usual: std::ops::Range<i64>) -> i64 {
        self.rng.i64(usual) / self.haste
    }

    pub(super) fn inject_fault(&mut self) {
        if !self.faults {
            return;
        }
        let count = self.nodes.len();
        let no = self.rng.usize(0..count);
        if self.copies > 0 && self.rng.bool() {
            self.inject_data_fault(no);
        }
        let fault = self.next_fault;
        self.next_fault += 1;
        match self.rng.u32(0..12) {
            0..=2 => self.nodes[no].doomed = Some(self.rng.usize(0..12)),
            3 => {
                // Two at once: their replicas' elections meet.
                self.crash(no);
                self.crash((no + 1) % count);
            }
            4 | 5 if self.nodes[no].cluster.is_some() && !self.nodes[no].paused => {
                self.nodes[no].paused = true;
                let ms = self.fault_ms(100..6000);
                self.after(ms, Event::Resume(no));
            }
            6..=8 => {
                // Cut off a group, or one node; in one direction or in both.
                let size = if self.rng.bool() { 1 } else { self.rng.usize(1..=count / 2) };
                let mut all: Vec<NodeNo> = (0..count).collect();
                self.rng.shuffle(&mut all);
                let (inside, outside) = all.split_at(size);
                let directions = self.rng.u32(1..=3).max(self.rng.u32(1..=3));
                for a in inside {
                    for b in outside {
                        if directions & 1 != 0 {
                            self.blocked.insert((*a, *b), fault);
                        }
                        if directions & 2 != 0 {
                            self.blocked.insert((*b, *a), fault);
                        }
                    }
                }
                self.note_cuts();
                let ms = self.fault_ms(300..9000);
                self.after(ms, Event::Heal(fault));
            }
            9 => {
                // Breaks healthy links.
                let conns: Vec<(NodeNo, LinkId)> = self
                    .nodes
                    .iter()
                    .enumerate()
                    .flat_map(|(no, n)| n.links.keys().map(move |l| (no, *l)))
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect();
                for (no, link) in conns {
                    if self.rng.u32(0..5) == 0 && self.nodes[no].links.contains_key(&link) && !self.nodes[no].paused {
                        self.hang_up(no, link);
                        self.step(no, |c, env| c.on_link_closed(link, env));
                    }
                }
            }
            10 => {
                let high = [3, 20, 80][self.rng.usize(0..3)];
                self.latency_ms = 0..high;
                self.loss = [0.0, 0.0, 0.002][self.rng.usize(0..3)];
                self.disk_ms = 0..[2, 10, 50, 400][self.disk_rng.usize(0..4)];
            }
            _ => {
                let mode = [FailoverMode::Coordinated, FailoverMode::Force][self.rng.usize(0..2)];
                if !self.nodes[no].paused {
                    if mode == FailoverMode::Force {
                        self.forced_until_ms = self.now + 20_000;
                    }
                    self.step(no, |c, env| drop(c.failover(mode, env)));
                }
            }
        }
        let ms = self.fault_ms(100..4000);
        self.after(ms, Event::Fault);
    }

    pub(super) fn end_faults(&mut self) {
        self.faults = false;
        self.blocked.clear();
        self.note_cuts();
        self.latency_ms = 0..3;
        self.loss = 0.0;
        self.disk_ms = 1..4;
        for no in 0..self.nodes.len() {
            self.nodes[no].doomed = None;
            if self.nodes[no].paused {
                self.nodes[no].paused = false;
                self.step(no, |_, _| ());
            }
            self.restart(no);
        }
    }
}
