//! What connections under TLS are made with: read at the start, by CONFIG SET, and when the files change. What cannot be
//! read leaves what was in use. Connections that stand keep what they were made with.

use crate::config::Config;
use crate::net::tls::{self, CertificateFacts, Contexts};
use crate::net::{Conn, Secured};
use crate::server::Server;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a file was when it was last looked at: nothing for one that is not there.
type Stamp = Vec<(u64, u64, i64, i64)>;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    contexts: Option<Contexts>,
    stamps: Vec<Stamp>,
    looked_at_ms: i64,
}

impl Tls {
    pub(crate) fn contexts(&self) -> Option<&Contexts> {
        self.contexts.as_ref()
    }
}

fn is_wanted(cfg: &Config) -> bool {
    cfg.tls_port != 0 || cfg.tls_replication || cfg.tls_cluster || (cfg.admin_tls && cfg.admin_port != 0)
}

impl Server {
    /// Reads what the configuration names, if TLS is in use. The error says what is wrong with which file.
    pub(crate) fn apply_tls(&mut self) -> Result<(), String> {
        if !is_wanted(&self.cfg) {
            return Ok(());
        }
        self.tls.stamps = stamps(&self.cfg);
        self.tls.looked_at_ms = self.clock.mono_ms();
        let contexts = Contexts::read(&self.cfg).inspect_err(|reason| log::warn!("{reason}"))?;
        contexts.notices.iter().for_each(|notice| log::warn!("{notice}"));
        self.tls.contexts = Some(contexts);
        Ok(())
    }

    /// Reads the files again if they have changed, every `tls-auto-reload-interval` seconds.
    pub(crate) fn reload_tls(&mut self) {
        let interval_ms = self.cfg.tls_auto_reload_interval.saturating_mul(1000);
        let now_ms = self.clock.mono_ms();
        if interval_ms == 0 || now_ms - self.tls.looked_at_ms < interval_ms || !is_wanted(&self.cfg) {
            return;
        }
        self.tls.looked_at_ms = now_ms;
        if stamps(&self.cfg) == self.tls.stamps {
            return;
        }
        match self.apply_tls() {
            Ok(()) => log::info!("The TLS certificates have changed and were read again"),
            Err(_) => log::warn!("The TLS certificates have changed and cannot be read; those before stay in use"),
        }
    }

    /// The certificates in use, with what each is for, as long as TLS is in use.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&'static str, &CertificateFacts)> {
        let contexts = self.tls.contexts().filter(|_| is_wanted(&self.cfg));
        let all = contexts
            .map(|c| [("server", &c.server_certificate), ("client", &c.client_certificate), ("ca", &c.ca_certificate)]);
        all.into_iter().flatten().filter_map(|(name, facts)| Some((name, facts.as_ref()?)))
    }

    /// A connection that we make, under TLS if it is to be.
    pub(crate) fn secure(&self, conn: Conn, is_secured: bool) -> io::Result<Conn> {
        if is_secured { conn.secure(self.tls.contexts(), Secured::Opened) } else { Ok(conn) }
    }
}

fn stamps(cfg: &Config) -> Vec<Stamp> {
    tls::files(cfg).map(|path| stamp(Path::new(path))).collect()
}

/// A file's stamp; those of its files for a folder.
fn stamp(path: &Path) -> Stamp {
    let one = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    let mut all: Stamp = one(path).into_iter().collect();
    if let Ok(entries) = std::fs::read_dir(path) {
        all.extend(entries.filter_map(|entry| one(&entry.ok()?.path())));
        all.sort_unstable();
    }
    all
}
