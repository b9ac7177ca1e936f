//! What `nodes.conf` has of durable acknowledgements: variables in its line `vars`, which Redis skips.
//!
//! `durableData epoch:run:logged` is the lineage of the data, and whether a log has all of it. `durableShard-<id>` is the
//! promise of a shard, `epoch:node`, and after that its record if there is one, `:owner:epoch:run:version:copies:members`.

use super::{Lineage, Record, Shard};
use crate::cluster::Cluster;
use crate::cluster::node::NodeId;

impl Cluster {
    pub(super) fn is_durable_known(&self) -> bool {
        self.config.durable_acks > 0 || !self.durable.shards.is_empty()
    }

    /// The variables of `nodes.conf`, each with a blank before it; none where this is not used.
    pub(in crate::cluster) fn durable_vars(&self) -> String {
        if !self.is_durable_known() {
            return String::new();
        }
        let Lineage { epoch, run } = self.durable.lineage;
        let mut out = format!(" durableData {epoch}:{run}:{}", u8::from(self.durable.is_logged));
        for (id, shard) in &self.durable.shards {
            let to = shard.promised_to.map_or(String::new(), |to| to.to_string());
            out.push_str(&format!(" durableShard-{id} {}:{to}", shard.promised));
            if let Some(Record { owner, lineage, version, copies, members }) = &shard.record {
                let members: Vec<&str> = members.iter().map(NodeId::as_str).collect();
                let members = members.join(",");
                out.push_str(&format!(":{owner}:{}:{}:{version}:{copies}:{members}", lineage.epoch, lineage.run));
            }
        }
        out
    }

    /// Reads a variable of that kind; whether it is one, and `None` if it is broken.
    pub(in crate::cluster) fn read_durable_var(&mut self, name: &str, value: &str) -> Option<bool> {
        let parts: Vec<&str> = value.split(':').collect();
        let number = |at: usize| parts.get(at)?.parse::<u64>().ok();
        if name == "durableData" {
            self.durable.lineage = Lineage { epoch: number(0)?, run: number(1)? };
            self.durable.is_logged = number(2)? == 1;
            return Some(true);
        }
        let Some(id) = name.strip_prefix("durableShard-") else { return Some(false) };
        let node = |at: usize| NodeId::parse(parts.get(at)?.as_bytes());
        let mut shard = Shard { promised: number(0)?, promised_to: node(1), record: None };
        if parts.len() > 2 {
            let ids = parts.get(7)?.split(',').filter(|id| !id.is_empty());
            shard.record = Some(Record {
                owner: node(2)?,
                lineage: Lineage { epoch: number(3)?, run: number(4)? },
                version: number(5)?,
                copies: number(6)?.try_into().ok()?,
                members: ids.map(|id| NodeId::parse(id.as_bytes())).collect::<Option<_>>()?,
            });
        }
        self.durable.shards.insert(NodeId::parse(id.as_bytes())?, shard);
        Some(true)
    }

    /// After the file was read: without its data from before this node cannot vouch for anything.
    pub(in crate::cluster) fn durable_restarted(&mut self) {
        // A master that has led nobody has acknowledged nothing; a replica may have confirmed without knowing the record.
        let has_record = self.my_record().is_some_and(|record| record.copies > 0);
        let was_asked = self.is_replica() && self.config.durable_acks > 0;
        self.durable.is_incomplete = has_record || was_asked || self.durable.lineage != Lineage::default();
        self.durable.saved = self.durable.lineage;
    }
}
