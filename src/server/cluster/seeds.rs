//! The hosts of `cluster-seeds`, looked up beside the loop.

use std::net::IpAddr;
use std::task::Poll;

use crate::server::Server;

impl Server {
    /// Looks up the seeds, and tells the machine of those whose addresses are there; of the others when it asks again.
    pub(super) fn seek_seeds(&mut self) {
        let hosts: Vec<String> =
            self.cluster().map_or(Vec::new(), |machine| machine.seeds().iter().map(|seed| seed.host.clone()).collect());
        for (at, host) in hosts.iter().enumerate() {
            match self.resolver.addresses(host) {
                Poll::Ready(Ok(found)) => {
                    let addresses = found.iter().map(IpAddr::to_string).collect();
                    self.with_cluster(|machine, env| machine.on_seed(at, addresses, env));
                }
                Poll::Ready(Err(e)) => log::debug!("The seed {host} is not found: {e}"),
                Poll::Pending => {}
            }
        }
    }
}
