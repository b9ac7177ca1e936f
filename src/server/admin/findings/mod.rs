//! DOCTOR and CLUSTER DOCTOR: what is wrong or about to be, in plain words, and what to do. One row a kind of finding.
//!
//! The same findings are told to the log, once each, to scrapes, to the page for operators and, of a cluster, to
//! `redis-cli --cluster check`.

mod cluster;
mod server;

use crate::admin::finding::{Finding, Severity, Told};
use crate::cluster::Cluster;
use crate::resp::Reply;
use crate::server::Server;

/// How often the log is told of what is new, milliseconds.
const LOOK_EVERY_MS: i64 = 5_000;

/// A row.
struct Check {
    id: &'static str,
    severity: Severity,
    advice: &'static str,
    look: Look,
}

/// What looks for it, and calls its last argument with a subject and the words.
#[derive(Clone, Copy)]
enum Look {
    AtServer(fn(&Server, &mut Found<'_>)),
    /// With the time of the cluster, milliseconds.
    AtCluster(fn(&Server, &Cluster, i64, &mut Found<'_>)),
}

type Found<'a> = dyn FnMut(&str, String) + 'a;

/// What the doctor remembers.
#[derive(Debug, Default)]
pub(crate) struct Doctor {
    told: Told,
}

impl Server {
    /// What is wrong, or about to be; the worst first. `of_cluster`: with the cluster alone.
    pub(crate) fn findings(&self, of_cluster: bool) -> Vec<Finding> {
        let mut found = Vec::new();
        for check in server::CHECKS.iter().chain(cluster::CHECKS) {
            let mut note = |subject: &str, text: String| {
                let (subject, Check { id, severity, advice, .. }) = (subject.to_owned(), check);
                found.push(Finding { id, severity: *severity, subject, text, advice });
            };
            match (check.look, self.bus.as_ref()) {
                (Look::AtServer(look), _) if !of_cluster => look(self, &mut note),
                (Look::AtCluster(look), Some(bus)) => {
                    look(self, &bus.machine, bus.machine_ms(self.clock.mono_us()), &mut note);
                }
                (Look::AtServer(_) | Look::AtCluster(_), _) => {}
            }
        }
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        found
    }

    /// Tells the log of what is new: by the cron.
    pub(crate) fn doctor_cron(&mut self) {
        if !self.every_ms(LOOK_EVERY_MS) || self.is_loading() {
            return;
        }
        let found = self.findings(false);
        for finding in self.doctor.told.news(&found, self.clock.mono_ms()) {
            // The start has told of the system.
            if finding.id != server::OVERCOMMIT {
                log::warn!("Doctor ({}): {} {}", finding.id, finding.text, finding.advice);
            }
        }
    }
}

/// Writes findings as DOCTOR replies with them.
pub(crate) fn write(found: &[Finding], out: &mut Reply) {
    out.array(found.len());
    for finding in found {
        let fields = finding.fields();
        out.map(fields.len());
        fields.iter().for_each(|(name, value)| {
            out.bulk_str(name);
            out.bulk_str(value);
        });
    }
}
