//! The configuration of a running server: changing directives and applying what they change, the rewrite of the file, and
//! what of the configuration is given to the operating system.
//!
//! Invariant: a directive whose change could not be applied has its old value, and that value is applied.

use crate::catalog::CmdError;
use crate::config::{self, Apply, Config, OomScoreAdj, ProtectedAction, SetContext, SetError};
use crate::net::ClientId;
use crate::net::listener::{self, Listener};
use crate::server::Server;
use crate::server::dispatch::admit::is_local;
use crate::sys::os_error;
use crate::sys::{alloc, crash, log as log_sink, process, reserve, watchdog};
use std::io;
use std::task::Poll;
use std::time::Duration;

const CANNOT_BIND: &str = "Failed to bind to specified addresses.";
const CANNOT_LISTEN: &str = "Unable to listen on this port. Check server logs.";
const CANNOT_USE_TLS: &str = "Unable to update TLS configuration.";
/// What a transaction may wait for a host name, which holds up everybody: one in a local file is there by then.
const BRIEFLY: Duration = Duration::from_millis(100);

/// Which of the three values of `oom-score-adj-values` holds for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessClass {
    Primary,
    Replica,
    Child,
}

/// Makes a configuration file's new content of the old one, the values and the `user` lines.
type Rewrite = fn(&[u8], &Config, &[Vec<u8>]) -> Vec<u8>;

impl Server {
    /// CONFIG SET: changes all of the directives or none. Pending, and nothing changed, while host names are looked up:
    /// to be tried again when [`Resolver::take_answered`](crate::sys::resolve::Resolver::take_answered) says so. Who cannot
    /// wait (`may_wait`) is refused unless they are known at once.
    pub(crate) fn set_config(
        &mut self,
        id: ClientId,
        pairs: &[(&[u8], &[u8])],
        may_wait: bool,
    ) -> Poll<Result<(), CmdError>> {
        let context = SetContext { loading: self.is_loading(), protected_allowed: self.may_set_protected(id) };
        let refuse = |error: SetError| CmdError::bytes(error.reply());
        let change = config::set_many(&mut self.cfg, pairs, context).map_err(refuse);
        let change = match change {
            Ok(change) => change,
            Err(refused) => return Poll::Ready(Err(refused)),
        };
        if change.apply.iter().any(|(apply, _)| *apply == Apply::Bind) {
            let looked_up = self.look_up_bind(may_wait);
            if looked_up != Poll::Ready(Ok(())) {
                change.roll_back(&mut self.cfg);
                let failed =
                    |reason: &str| refuse(SetError::Failed { name: "bind".into(), reason: reason.to_owned().into() });
                return looked_up.map_err(failed);
            }
        }
        for (apply, name) in change.apply.clone() {
            let Err(reason) = self.apply_config(apply) else { continue };
            log::warn!(
                "Failed applying new configuration. Possibly related to new {name} setting. Restoring previous settings."
            );
            for apply in change.roll_back(&mut self.cfg) {
                if let Err(reason) = self.apply_config(apply) {
                    log::warn!("Failed applying restored failed CONFIG SET command: {reason}");
                }
            }
            return Poll::Ready(Err(refuse(SetError::Failed { name: name.into(), reason: reason.into() })));
        }
        let set = pairs.iter().filter_map(|(name, _)| config::lookup(name));
        set.filter(|(row, _)| row.is_idle(&self.cfg)).for_each(|(_, name)| log_idle(name));
        self.cluster_config_changed();
        Poll::Ready(Ok(()))
    }

    /// Finds out where the host names of `bind` are.
    fn look_up_bind(&mut self, may_wait: bool) -> Poll<Result<(), &'static str>> {
        let mut pending = false;
        for name in listener::names_to_look_up(&self.cfg.bind) {
            let found = match self.resolver.addresses(name) {
                Poll::Pending if may_wait => {
                    pending = true;
                    continue;
                }
                Poll::Pending => self.resolver.addresses_within(name, BRIEFLY),
                Poll::Ready(found) => found,
            };
            match found.map(|found| listener::address_to_bind(&found)) {
                Ok(at) => self.bind_names.extend(at.map(|at| (name.to_owned(), at))),
                Err(e) => {
                    log::warn!("Could not look up the bind address {name}: {}", listener::reason(&e));
                    return Poll::Ready(Err(CANNOT_BIND));
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn may_set_protected(&self, id: ClientId) -> bool {
        match self.cfg.enable_protected_configs {
            ProtectedAction::Yes => true,
            ProtectedAction::No => false,
            ProtectedAction::Local => self.clients.get(id).is_some_and(is_local),
        }
    }

    /// Makes a changed directive take effect. The error is what CONFIG SET answers.
    fn apply_config(&mut self, apply: Apply) -> Result<(), String> {
        match apply {
            Apply::None
            // Followed when or the cluster is next looked at.
            | Apply::ClusterAnnounceHostname
            | Apply::ClusterAnnounceHumanNodename
            | Apply::ClusterAnnounceIp
            | Apply::ClusterAnnouncePort
            | Apply::ClusterFlags => {}
            Apply::Admin => {
                self.apply_tls().map_err(|reason| format!("{CANNOT_USE_TLS} {reason}"))?;
                self.open_operators_port().inspect_err(|reason| log::warn!("{reason}")).map_err(|_| CANNOT_LISTEN)?;
            }
            Apply::GoodReplicas => self.with_repl(|repl, env| repl.refresh_good_replicas(env)),
            Apply::ReplBacklogSize => self.resize_backlog(),
            Apply::AofAutoGc => self.remove_aof_history(),
            Apply::Appendfsync => self.apply_appendfsync(),
            Apply::Appendonly => self.apply_appendonly()?,
            Apply::Bind => self.listen_again().map_err(|()| CANNOT_BIND)?,
            Apply::CrashLog => crash::set_report(self.cfg.crash_log_enabled),
            Apply::Dir => change_directory(&mut self.cfg)?,
            Apply::Hz => self.cfg.hz = self.cfg.hz.clamp(config::MIN_HZ, config::MAX_HZ),
            Apply::JemallocBgThread => self.apply_allocator_thread(),
            Apply::LocaleCollate => {
                if !process::set_collation(&self.cfg.locale_collate) {
                    return Err("Invalid locale name".into());
                }
            }
            Apply::LogFormat => log_sink::set_format(self.cfg.log_format, self.cfg.log_timestamp_format),
            Apply::LogLevel => log_sink::set_level(self.cfg.loglevel),
            Apply::Maxclients => self.apply_maxclients()?,
            Apply::Maxmemory => self.apply_maxmemory(),
            Apply::NotifyKeyspaceEvents => self.ks.effects.notify_flags = self.cfg.notify_keyspace_events.0,
            Apply::OomScoreAdj => {
                warn_of_oom_values(&self.cfg);
                self.apply_oom_score()
                    .map_err(|_| "Failed to set current oom_score_adj. Check server logs.")?;
            }
            Apply::Port => self.listen_again().map_err(|()| CANNOT_LISTEN)?,
            Apply::ProcTitle => self.show_title(),
            Apply::Requirepass => self.apply_requirepass(),
            Apply::Tls => self.apply_tls().map_err(|reason| format!("{CANNOT_USE_TLS} {reason}"))?,
            Apply::TlsPort => {
                self.apply_tls().map_err(|reason| format!("{CANNOT_USE_TLS} {reason}"))?;
                self.listen_again().map_err(|()| CANNOT_LISTEN)?;
            }
            Apply::WatchdogPeriod => self.apply_watchdog(),
        }
        Ok(())
    }

    /// The watchdog must not go off between two runs of the cron.
    fn apply_watchdog(&mut self) {
        if self.cfg.watchdog_period > 0 {
            let least_ms = 1000 / self.hz() * 2;
            self.cfg.watchdog_period = self.cfg.watchdog_period.max(least_ms);
        }
        watchdog::set(self.cfg.watchdog_period);
    }

    /// What of the configuration has to be done once, before the server listens.
    pub(crate) fn apply_initial_config(&mut self) -> Result<(), String> {
        self.apply_tls().map_err(|reason| format!("Failed to configure TLS: {reason}"))?;
        self.cfg.maxclients = process::raise_open_files(self.cfg.maxclients).map_err(|few| {
            format!(
                "Your current 'ulimit -n' of {} is not enough for the server to start. Please increase your open file \
                 limit to at least {}. Exiting.",
                few.limit, few.needed
            )
        })?;
        reserve::refill();
        self.ks.effects.notify_flags = self.cfg.notify_keyspace_events.0;
        self.apply_allocator_thread();
        if !process::set_collation(&self.cfg.locale_collate) {
            return Err(format!("Failed to set LC_COLLATE to '{}'", self.cfg.locale_collate));
        }
        config::TABLE.iter().filter(|row| row.is_idle(&self.cfg)).for_each(|row| log_idle(row.name));
        warn_of_oom_values(&self.cfg);
        // A score that cannot be set is in the log; Redis starts all the same.
        let _ = self.apply_oom_score();
        self.show_title();
        self.apply_watchdog();
        Ok(())
    }

    /// Closes the tcp listeners and opens those the configuration asks for. What fails is in the log.
    fn listen_again(&mut self) -> Result<(), ()> {
        let (tcp, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.listeners).into_iter().partition(|l| !matches!(l, Listener::Unix(..)));
        for mut old in tcp {
            let _ = old.deregister(self.reactor.registry());
        }
        self.listeners = kept;
        let opened = self.listen_tcp();
        // The sockets that stay change their numbers too, so they are registered anew in either case.
        let failed = opened.is_err();
        let mut all = opened.unwrap_or_default();
        for mut kept in std::mem::take(&mut self.listeners) {
            let _ = kept.deregister(self.reactor.registry());
            all.push(kept);
        }
        self.set_listeners(all)
            .map_err(|error| log::warn!("Failed to watch the listening sockets: {}", os_error(&error)))?;
        self.show_title();
        if failed { Err(()) } else { Ok(()) }
    }

    fn apply_maxclients(&mut self) -> Result<(), String> {
        let wanted = self.cfg.maxclients;
        match process::raise_open_files(wanted) {
            Ok(possible) if possible == wanted => Ok(()),
            Ok(possible) => Err(too_many_clients(possible.into())),
            Err(few) => Err(too_many_clients(few.limit.saturating_sub(process::RESERVED_FILES))),
        }
    }

    fn apply_maxmemory(&mut self) {
        let used = alloc::used() as u64;
        if self.cfg.maxmemory != 0 && self.cfg.maxmemory < used {
            log::warn!(
                "WARNING: the new maxmemory value set via CONFIG SET ({}) is smaller than the current memory usage ({used}). \
                 This will result in key eviction and/or the inability to accept new write commands depending on the \
                 maxmemory-policy.",
                self.cfg.maxmemory
            );
            // Before the loop next sleeps, and on from there.
            self.ks.eviction.running = true;
        }
    }

    fn apply_allocator_thread(&self) {
        if !alloc::set_background_thread(self.cfg.jemalloc_bg_thread) && self.cfg.jemalloc_bg_thread {
            log::debug!("The allocator has no background thread.");
        }
    }

    fn apply_requirepass(&mut self) {
        self.acl.set_default_password(self.cfg.requirepass.as_ref());
        self.acl_changed();
    }

    /// Sets the out-of-memory score of this process for its present role.
    pub(crate) fn apply_oom_score(&mut self) -> io::Result<()> {
        let class = if self.cfg.replicaof.is_some() { ProcessClass::Replica } else { ProcessClass::Primary };
        self.set_oom_score(class)
    }

    /// Sets the out-of-memory score of the calling process: in a child process, for [`ProcessClass::Child`].
    pub(crate) fn set_oom_score(&mut self, class: ProcessClass) -> io::Result<()> {
        let [primary, replica, child] = self.cfg.oom_score_adj_values;
        let value = match class {
            ProcessClass::Primary => primary,
            ProcessClass::Replica => replica,
            ProcessClass::Child => child,
        };
        self.oom_score.set(self.cfg.oom_score_adj, value)
    }

    /// Shows in process lists what this process is.
    pub(crate) fn show_title(&self) {
        self.show_title_of(process::program());
    }

    /// Shows in process lists what a child process does, such as `redis-rdb-bgsave`.
    pub(crate) fn show_title_of(&self, title: &str) {
        if !self.cfg.set_proc_title {
            return;
        }
        if let Some(text) =
            config::expand_title(&self.cfg.proc_title_template, |variable| self.title_variable(variable, title))
        {
            process::set_title(text.trim_matches(' ').as_bytes());
        }
    }

    fn title_variable(&self, variable: &str, title: &str) -> Option<String> {
        let cfg = &self.cfg;
        Some(match variable {
            "title" => title.to_owned(),
            "listen-addr" if cfg.port != 0 => {
                format!("{}:{}", cfg.bind.first().map_or("*", String::as_str), cfg.port)
            }
            "listen-addr" if cfg.tls_port != 0 => {
                format!("{}:{}", cfg.bind.first().map_or("*", String::as_str), cfg.tls_port)
            }
            "listen-addr" => format!("unixsocket:{}", cfg.unixsocket),
            "server-mode" if cfg.cluster_enabled => "[cluster]".into(),
            "server-mode" => String::new(),
            "port" => cfg.port.to_string(),
            "tls-port" => cfg.tls_port.to_string(),
            "unixsocket" => cfg.unixsocket.clone(),
            "config-file" => cfg.config_file.as_ref().map_or("-".into(), |path| path.display().to_string()),
            _ => return None,
        })
    }

    /// Writes the values in use back into the configuration file; `None` if there is none.
    pub(crate) fn rewrite_config(&self) -> Option<io::Result<()>> {
        self.rewrite_config_with(config::rewrite)
    }

    /// The same with a line for every directive: DEBUG CONFIG-REWRITE-FORCE-ALL.
    pub(crate) fn rewrite_whole_config(&self) -> Option<io::Result<()>> {
        self.rewrite_config_with(config::rewrite_all)
    }

    fn rewrite_config_with(&self, rewrite: Rewrite) -> Option<io::Result<()>> {
        let path = self.cfg.config_file.as_ref()?;
        let old = match std::fs::read(path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Some(Err(error)),
        };
        Some(config::overwrite(path, &rewrite(&old, &self.cfg, &self.acl_lines())))
    }

    /// CONFIG RESETSTAT.
    pub(crate) fn reset_stats(&mut self) {
        self.stats = Default::default();
        self.ks.stats = Default::default();
        self.repl.reset_stats();
        self.background.reset_lazy_freed();
        self.admin.metrics.reset();
        if let Some(bus) = &mut self.bus {
            bus.machine.slot_stats_mut().reset_all();
        }
        for command in self.commands.all_mut() {
            command.stats = Default::default();
        }
    }
}

fn log_idle(name: &str) {
    log::warn!("The directive '{name}' is kept, but it has no effect in this server.");
}

fn too_many_clients(possible: u64) -> String {
    format!("The operating system is not able to handle the specified number of clients, try with {possible}")
}

/// Goes to `dir`, and keeps its absolute path.
fn change_directory(cfg: &mut Config) -> Result<(), String> {
    std::env::set_current_dir(&cfg.dir).map_err(|error| os_error(&error))?;
    if let Ok(dir) = std::env::current_dir() {
        cfg.dir = dir.to_string_lossy().into_owned();
    }
    Ok(())
}

fn warn_of_oom_values(cfg: &Config) {
    if cfg.oom_score_adj != OomScoreAdj::No && !cfg.oom_score_adj_values.is_sorted() {
        log::warn!(
            "The oom-score-adj-values configuration may not work for non-privileged processes! Please consult the \
             documentation."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::resolve::Resolver;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    #[test]
    fn bind_names_are_looked_up_beside_the_loop() {
        let (release, held) = channel();
        let (woken, wakes) = channel();
        let held = Mutex::new(held);
        let look_up = move |name: &str| {
            assert_eq!(name, "home.invalid");
            held.lock().unwrap().recv().unwrap()
        };
        let config = Config { bind: vec!["127.0.0.1".into()], port: 0, ..Config::default() };
        let mut server = Server::new(config, String::new()).unwrap();
        server.resolver = Resolver::with(look_up, move || woken.send(()).unwrap());
        let nobody = ClientId { index: 0, generation: 0 };
        let pairs: [(&[u8], &[u8]); 2] = [(b"hz", b"50"), (b"bind", b"-home.invalid ::1")];
        let (hz, bind) = (server.cfg.hz, server.cfg.bind.clone());
        for _ in 0..2 {
            assert!(server.set_config(nobody, &pairs, true).is_pending());
            assert!(!server.resolver.take_answered());
        }
        // A transaction does not wait.
        assert!(matches!(server.set_config(nobody, &pairs, false), Poll::Ready(Err(_))));
        assert_eq!((server.cfg.hz, &server.cfg.bind), (hz, &bind));
        // Not known: all stays as it was.
        release.send(Err(io::Error::other("no such name"))).unwrap();
        wakes.recv().unwrap();
        assert!(server.resolver.take_answered() && !server.resolver.take_answered());
        assert!(matches!(server.set_config(nobody, &pairs, true), Poll::Ready(Err(_))));
        assert_eq!((server.cfg.hz, &server.cfg.bind), (hz, &bind));
        // Of several addresses, one of IPv4 is taken.
        assert!(server.set_config(nobody, &pairs, true).is_pending());
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        release.send(Ok(vec![IpAddr::V6(Ipv6Addr::LOCALHOST), here])).unwrap();
        wakes.recv().unwrap();
        assert!(matches!(server.set_config(nobody, &pairs, true), Poll::Ready(Ok(()))));
        assert_eq!((server.cfg.hz, server.cfg.bind.len()), (50, 2));
        assert_eq!(server.bind_names["home.invalid"], here);
        // Other tests watch how much memory this process uses.
        std::mem::forget(server);
    }
}
