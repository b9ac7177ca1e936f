//! By what nodes of ours know each other's connections (`AUTH "internal connection"`), as nodes of Redis 8 do.
//!
//! Each node begins with a random number, and all settle on the least of those that they hear of. It is told to nodes of ours
//! alone, over the bus, until they say the same: a Valkey takes it for something else, and nodes of Redis have one of their own,
//! which is kept by node (`Node::secret`).
//!
//! Whoever can read the bus, or makes himself known on it, learns that number, so it lets nobody in who needs a password: a node
//! logs in with a code that only `cluster-secret` makes, or with `masterauth`. The number itself is said where neither is
//! configured, and is enough where anybody may do anything.
//!
//! A code answers a challenge: who is asked for one gives it to this connection alone, and it is of no use on another one, nor at
//! another node. So whoever has seen a login on its way cannot repeat it.

use super::node::{NodeId, NodeKey, Secret};
use super::seal::challenge;
use super::wire::Extension;
use super::{Cluster, LinkId};

/// What is said in place of a secret to be given a challenge.
pub(crate) const ASKS_FOR_CHALLENGE: &[u8] = b"challenge";

/// The least secret that was heard of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CommonSecret {
    secret: Option<Secret>,
    /// How often it has changed, from 1 on.
    version: u32,
    /// Challenges are made with it. Nobody else knows it, and another process has another one.
    challenge_key: [u8; 32],
}

impl CommonSecret {
    fn set(&mut self, secret: Secret) {
        (self.secret, self.version) = (Some(secret), self.version + 1);
    }
}

fn hex(code: [u8; 32]) -> String {
    code.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a code is made of: who asks knows at which node, so that no other one can pass the challenge of a third one on to it.
fn what_is_shown(asked: &NodeId, challenge: &[u8]) -> Vec<u8> {
    [asked.as_bytes(), challenge].concat()
}

/// Compares without telling by the time it takes how much is the same.
pub(super) fn is_same(secret: &[u8], said: &[u8]) -> bool {
    secret.len() == said.len() && secret.iter().zip(said).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

impl Cluster {
    /// What this node begins with, and what it makes challenges with: both random.
    pub(crate) fn set_secret(&mut self, secret: Secret, challenge_key: [u8; 32]) {
        self.common_secret.set(secret);
        self.common_secret.challenge_key = challenge_key;
    }

    /// What nodes of ours have settled on, in this node's eyes.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.common_secret.secret.as_ref()
    }

    /// The number, if a node of ours has settled on the same.
    pub(super) fn number_at(&self, key: NodeKey) -> Option<&Secret> {
        let CommonSecret { secret, version, .. } = &self.common_secret;
        let node = &self.nodes[key];
        secret.as_ref().filter(|_| node.is_ours && node.secret_agreed == *version)
    }

    pub(crate) fn is_common_number(&self, said: &[u8]) -> bool {
        self.secret().is_some_and(|secret| secret == said)
    }

    /// Whether a node is one of ours, to which we can show that we have the secret of the cluster.
    pub(super) fn answers_challenge_of(&self, key: NodeKey) -> bool {
        self.nodes[key].is_ours && self.config.secrets.proof(&[]).is_some()
    }

    /// What shows it to the node that has given us this challenge.
    pub(super) fn answer_to(&self, key: NodeKey, challenge: &[u8]) -> Option<String> {
        self.config.secrets.proof(&what_is_shown(&self.nodes[key].id, challenge)).map(hex)
    }

    /// What a client of this number has to answer: nobody else is given the same. Not where no code would let it in.
    pub(crate) fn challenge_to(&self, client: u64) -> Option<String> {
        let lets_in = self.config.secrets.proofs(&[]).next().is_some();
        lets_in.then(|| hex(challenge(&self.common_secret.challenge_key, client)))
    }

    /// Whether this is the answer to what the client was given.
    pub(crate) fn is_answer_of(&self, client: u64, said: &[u8]) -> bool {
        let Some(challenge) = self.challenge_to(client) else { return false };
        let shown = what_is_shown(&self.myself().id, challenge.as_bytes());
        let answers = self.config.secrets.proofs(&shown).map(hex);
        answers.fold(false, |found, answer| found | is_same(answer.as_bytes(), said))
    }

    /// The secret, if the node at the other end of a link is to hear of it.
    pub(super) fn secret_to_tell(&mut self, link: LinkId) -> Option<Extension> {
        let CommonSecret { secret, version, .. } = self.common_secret;
        let secret = secret?;
        let link = self.links.get_mut(&link)?;
        let node = &self.nodes[link.node?];
        let was_told = std::mem::replace(&mut link.secret_told, version) == version;
        let is_to_hear = node.is_ours && (node.secret_agreed != version || !was_told);
        if !node.is_ours {
            link.secret_told = 0;
        }
        is_to_hear.then_some(Extension::Secret(secret))
    }

    /// A node of ours says which it knows.
    pub(super) fn take_in_secret(&mut self, sender: NodeKey, said: &Secret) {
        let Some(ours) = self.common_secret.secret else { return };
        if *said < ours {
            self.common_secret.set(*said);
        }
        let agrees = *said <= ours;
        self.nodes[sender].secret_agreed = if agrees { self.common_secret.version } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::Secrets;
    use super::super::{ClusterConfig, Env, NodeFlags};
    use super::*;

    fn with_secret(secrets: &str, number: Secret) -> Cluster {
        let config = ClusterConfig { secrets: Secrets::parse(secrets), ..ClusterConfig::default() };
        let mut c = Cluster::new(config, u64::from(number[0]), 1000);
        c.set_secret(number, [1; 32]);
        c
    }

    fn meet(c: &mut Cluster, other: &Cluster) -> NodeKey {
        c.add_node(other.myself().id, NodeFlags::MASTER, 1000)
    }

    #[test]
    fn the_least_number_is_the_one_of_all() {
        let mut c = with_secret("", [7; 40]);
        let sender = c.myself;
        c.take_in_secret(sender, &[8; 40]);
        assert_eq!((c.secret(), c.nodes[sender].secret_agreed), (Some(&[7; 40]), 0));
        c.take_in_secret(sender, &[7; 40]);
        assert_eq!(c.nodes[sender].secret_agreed, 1);
        c.take_in_secret(sender, &[5; 40]);
        assert_eq!((c.secret(), c.nodes[sender].secret_agreed), (Some(&[5; 40]), 2));
    }

    /// Who has read the number on the bus is not let in, nor is anybody where no secret is configured.
    #[test]
    fn only_who_has_the_secret_of_the_cluster_is_let_in() {
        let mut asking = with_secret("a-secret-of-the-cluster", [7; 40]);
        for (number, secrets, is_let_in) in [
            (1, "a-secret-of-the-cluster", Some(true)),
            (2, "another-one-of-it a-secret-of-the-cluster", Some(true)),
            (3, "- a-secret-of-the-cluster", Some(true)),
            (4, "another-one-of-it", Some(false)),
            (5, "", None),
        ] {
            let asked = with_secret(secrets, [number; 40]);
            let key = meet(&mut asking, &asked);
            assert!(!asking.answers_challenge_of(key), "it is not known for one of ours");
            asking.nodes[key].is_ours = true;
            assert!(asking.answers_challenge_of(key));
            let challenge = asked.challenge_to(1);
            let answer = challenge.and_then(|challenge| asking.answer_to(key, challenge.as_bytes()));
            assert_eq!(answer.map(|answer| asked.is_answer_of(1, answer.as_bytes())), is_let_in, "{secrets}");
            assert!(asked.is_common_number(&[number; 40]) && !asked.is_secret_of_node(&[number; 40]));
            assert!(!asked.is_answer_of(1, &[number; 40]));
        }
        let mut plain = with_secret("", [7; 40]);
        let me = plain.myself;
        plain.nodes[me].is_ours = true;
        plain.take_in_secret(me, &[7; 40]);
        assert!(!plain.answers_challenge_of(me));
        assert_eq!((plain.answer_to(me, b"x"), plain.number_at(me)), (None, Some(&[7; 40])));
    }

    /// What was an answer once is none for another client, another process or another node.
    #[test]
    fn an_answer_counts_on_one_connection_only() {
        let secret = "a-secret-of-the-cluster";
        let (mut asking, mut asked) = (with_secret(secret, [7; 40]), with_secret(secret, [6; 40]));
        let other = with_secret(secret, [5; 40]);
        let key = meet(&mut asking, &asked);
        let challenge = asked.challenge_to(1).unwrap();
        let answer = asking.answer_to(key, challenge.as_bytes()).unwrap();
        assert!(asked.is_answer_of(1, answer.as_bytes()));
        assert!(!asked.is_answer_of(2, answer.as_bytes()));
        // The other node would give the same challenge.
        assert_eq!(other.challenge_to(1), Some(challenge));
        assert!(!other.is_answer_of(1, answer.as_bytes()));
        asked.set_secret([6; 40], [2; 32]);
        assert!(!asked.is_answer_of(1, answer.as_bytes()));
    }

    /// A node whose packets do not say that it is one of ours hears nothing.
    #[test]
    fn only_nodes_of_ours_are_told_and_once_they_agree_no_more() {
        let mut c = with_secret("", [7; 40]);
        let link = c.on_accept(1000, "10.0.0.9".into(), "10.0.0.1".into());
        let me = c.myself;
        assert_eq!(c.secret_to_tell(link), None);
        c.links.get_mut(&link).unwrap().node = Some(me);
        assert_eq!(c.secret_to_tell(link), None);
        c.nodes[me].is_ours = c.header(0, &Env::at(1000)).is_ours;
        assert_eq!(
            [c.secret_to_tell(link), c.secret_to_tell(link)],
            [Some(Extension::Secret([7; 40])), Some(Extension::Secret([7; 40]))]
        );
        c.take_in_secret(me, &[7; 40]);
        assert_eq!(c.secret_to_tell(link), None);
        c.take_in_secret(me, &[6; 40]);
        assert_eq!([c.secret_to_tell(link), c.secret_to_tell(link)], [Some(Extension::Secret([6; 40])), None]);
    }
}
