//! Links of the bus with codes (`cluster::seal`): greetings, what is turned away, and a change of the secret.

use std::rc::Rc;

use super::bus::Peer;
use crate::cluster::LinkId;
use crate::cluster::seal::{Broken, Nonce, Secrets};
use crate::server::Server;

/// Links that are turned away are logged at most this often.
const RELOG_MS: i64 = 1000;

pub(super) fn random_nonce() -> Nonce {
    let mut nonce = Nonce::default();
    crate::server::random_bytes(&mut nonce);
    nonce
}

impl Server {
    /// The other side has greeted: we answer, if it opened the link, or begin to use it. `None`: the link is gone.
    pub(super) fn on_greeting(&mut self, index: usize, answer: Option<Vec<u8>>) -> Option<()> {
        let peer = self.bus.as_mut()?.peers.get_mut(index)?;
        let (link, local, opened) = (peer.link, peer.conn.local(), answer.is_none());
        if let Some(bytes) = answer {
            peer.enqueue_bytes(Rc::from(bytes));
        }
        self.write_link(index);
        self.bus.as_ref()?.peers.get(index).filter(|peer| peer.link == link)?;
        if opened {
            self.link_may_be_used(link, local);
        }
        Some(())
    }

    /// What came on a link is not what it should be.
    pub(super) fn give_up_link(&mut self, index: usize, broken: &Broken) {
        let now_ms = self.clock.ms();
        let Some(bus) = &mut self.bus else { return };
        let Some(peer) = bus.peers.get(index) else { return };
        let (link, from) = (peer.link, peer.conn.peer());
        let from = from.map_or(String::new(), |a| format!(" from {}:{}", a.ip(), a.port()));
        // Whoever sends something else where codes are to be does not know the secret.
        if !peer.seal.is_plain() {
            bus.machine.note_refused_by_code();
        }
        // Anybody can do this as often as he likes.
        if now_ms - bus.refusal_logged_ms >= RELOG_MS {
            bus.refusal_logged_ms = now_ms;
            match broken {
                Broken::Wire(e) => log::warn!("{}{from}", e.to_string().trim_end_matches('.')),
                Broken::Refused(why) => {
                    log::warn!("Refusing a link of the cluster bus{from}: {why}, see cluster-secret");
                }
            }
        }
        self.lose_link(link);
    }

    /// Takes up another `cluster-secret`: links that could not begin any more end.
    pub(super) fn secret_changed(&mut self) {
        let Some(bus) = &mut self.bus else { return };
        let secrets = Secrets::parse(&self.cfg.cluster_secret);
        if bus.secrets == secrets {
            return;
        }
        bus.secrets = secrets;
        let is_bad = |peer: &Peer| !peer.seal.is_good_under(&bus.secrets);
        let ending: Vec<LinkId> =
            bus.peers.iter().filter(|(_, peer)| is_bad(peer)).map(|(_, peer)| peer.link).collect();
        ending.into_iter().for_each(|link| self.lose_link(link));
    }
}
