//! By what nodes of ours know each other's connections (`AUTH "internal connection"`), as nodes of Redis 8 do.
//!
//! Each node begins with a random number, and all settle on the least of those that they hear of. It is told to nodes of ours
//! alone, over the bus, until they say the same: a Valkey takes it for something else, and nodes of Redis have one of their own,
//! which is kept by node (`Node::secret`).
//!
//! Whoever can read the bus, or makes himself known on it, learns that number, so it lets nobody in who needs a password: a node
//! logs in with a code of it that only `cluster-secret` makes, or with `masterauth`. The number itself is said where neither is
//! configured, and is enough where anybody may do anything.

use super::node::{NodeKey, Secret};
use super::wire::Extension;
use super::{Cluster, LinkId};

/// The least secret that was heard of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CommonSecret {
    secret: Option<Secret>,
    /// How often it has changed, from 1 on.
    version: u32,
}

impl CommonSecret {
    fn set(&mut self, secret: Secret) {
        *self = CommonSecret { secret: Some(secret), version: self.version + 1 };
    }
}

fn hex(code: [u8; 32]) -> String {
    code.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Cluster {
    /// What this node begins with.
    pub(crate) fn set_secret(&mut self, secret: Secret) {
        self.common_secret.set(secret);
    }

    /// What nodes of ours have settled on, in this node's eyes.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.common_secret.secret.as_ref()
    }

    /// The number, if a node of ours has settled on the same.
    pub(super) fn number_at(&self, key: NodeKey) -> Option<&Secret> {
        let CommonSecret { secret, version } = &self.common_secret;
        let node = &self.nodes[key];
        secret.as_ref().filter(|_| node.is_ours && node.secret_agreed == *version)
    }

    /// What shows such a node that who asks it has the secret of the cluster.
    pub(super) fn login_at(&self, key: NodeKey) -> Option<String> {
        self.config.secrets.proof(self.number_at(key)?).map(hex)
    }

    pub(crate) fn is_common_number(&self, said: &[u8]) -> bool {
        self.secret().is_some_and(|secret| secret == said)
    }

    /// All that show it to us.
    pub(super) fn logins(&self) -> impl Iterator<Item = String> + '_ {
        self.secret().into_iter().flat_map(|secret| self.config.secrets.proofs(secret)).map(hex)
    }

    /// The secret, if the node at the other end of a link is to hear of it.
    pub(super) fn secret_to_tell(&mut self, link: LinkId) -> Option<Extension> {
        let CommonSecret { secret, version } = self.common_secret;
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
    use super::super::{ClusterConfig, Env};
    use super::*;

    fn with_secret(secrets: &str, number: Secret) -> Cluster {
        let config = ClusterConfig { secrets: Secrets::parse(secrets), ..ClusterConfig::default() };
        let mut c = Cluster::new(config, 1, 1000);
        c.set_secret(number);
        c
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
        let me = asking.myself;
        assert_eq!(asking.login_at(me), None, "it is not known for one of ours");
        asking.nodes[me].is_ours = true;
        assert_eq!(asking.login_at(me), None, "it has not said the same yet");
        asking.take_in_secret(me, &[7; 40]);
        let login = asking.login_at(me).unwrap();
        for (secrets, number, is_let_in) in [
            ("a-secret-of-the-cluster", [7; 40], true),
            ("another-one-of-it a-secret-of-the-cluster", [7; 40], true),
            ("a-secret-of-the-cluster", [6; 40], false),
            ("another-one-of-it", [7; 40], false),
            ("", [7; 40], false),
        ] {
            let asked = with_secret(secrets, number);
            assert_eq!(asked.is_secret_of_node(login.as_bytes()), is_let_in, "{secrets}");
            assert!(asked.is_common_number(&number) && !asked.is_secret_of_node(&number));
        }
        let mut plain = with_secret("", [7; 40]);
        plain.nodes[me].is_ours = true;
        plain.take_in_secret(me, &[7; 40]);
        assert_eq!((plain.login_at(me), plain.number_at(me)), (None, Some(&[7; 40])));
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
