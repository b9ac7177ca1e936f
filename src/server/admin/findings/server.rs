//! What the doctor looks at of this server: memory, disk, replication, certificates, limits, the system.

use super::{Check, Found, Look};
use crate::admin::finding::Severity::{self, Critical, Warning};
use crate::admin::human_bytes;
use crate::admin::memory::{resident_set, system_memory};
use crate::config::{AppendFsync, MaxmemoryPolicy};
use crate::persist::state::{AofState, Refusal};
use crate::repl::ReplicaView;
use crate::server::Server;
use crate::sys::build::HEXAD_VERSION;
use crate::sys::{alloc, system_check};

pub(super) const OVERCOMMIT: &str = "overcommit";

const fn check(id: &'static str, severity: Severity, look: fn(&Server, &mut Found<'_>), advice: &'static str) -> Check {
    Check { id, severity, advice, look: Look::AtServer(look) }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "memory-full",
        Critical,
        |srv, found| {
            with_memory(srv, |used, max| {
                if used >= max {
                    found(
                        "",
                        format!(
                            "Writes are refused: {} of the {} of maxmemory are in use, and nothing is evicted.",
                            human_bytes(used),
                            human_bytes(max)
                        ),
                    );
                }
            })
        },
        "Raise maxmemory, delete keys, or choose a maxmemory-policy that evicts.",
    ),
    check(
        "memory-near-limit",
        Warning,
        |srv, found| {
            with_memory(srv, |used, max| {
                if used < max && used >= max / 10 * 9 {
                    found(
                        "",
                        format!(
                            "Writes will be refused soon: {} of the {} of maxmemory are in use, and nothing is evicted.",
                            human_bytes(used),
                            human_bytes(max)
                        ),
                    );
                }
            })
        },
        "Raise maxmemory, delete keys, or choose a maxmemory-policy that evicts.",
    ),
    check(
        "memory-of-machine",
        Warning,
        |srv, found| {
            let (rss, all) = (resident_set() as u64, system_memory());
            if srv.cfg.maxmemory == 0 && all > 0 && rss > all / 10 * 8 {
                found(
                    "",
                    format!(
                        "The server takes {} of the machine's {}, and maxmemory sets no limit.",
                        human_bytes(rss),
                        human_bytes(all)
                    ),
                );
            }
        },
        "Set maxmemory, well below the memory of the machine: a save needs room for what changes meanwhile.",
    ),
    check(
        "writes-refused",
        Critical,
        |srv, found| match srv.persist.refusal(&srv.cfg) {
            Some(Refusal::Snapshot) => {
                found("", "Writes are refused, as the last snapshot could not be written.".into())
            }
            Some(Refusal::Log { errno }) => {
                let why = nix::errno::Errno::from_raw(errno).desc();
                found("", format!("Writes are refused, as the log cannot be written: {why}."));
            }
            None => {}
        },
        "See the log for the error of the disk; space and permissions of 'dir' are the usual causes.",
    ),
    check(
        "rewrite-fails",
        Warning,
        |srv, found| {
            let failures = srv.persist.aof.rewrites.failures();
            if failures > 0 {
                found("", format!("The log grows on: its last {failures} rewrites failed."));
            }
        },
        "See the log for the error; space of the disk and memory for a child are the usual causes.",
    ),
    check(
        "slow-fsync",
        Warning,
        |srv, found| {
            /// How long a slow sync is told of, seconds.
            const FOR_S: i64 = 300;
            let shared = &srv.persist.aof.shared;
            let (ms, at_s) = shared.slow_sync();
            let is_always = srv.cfg.appendfsync == AppendFsync::Always;
            if srv.persist.aof.state != AofState::Off && at_s > 0 && srv.now_s() - at_s < FOR_S {
                let whom =
                    if is_always { "Every change waits for it." } else { "Writes wait when one takes too long." };
                found(
                    "",
                    format!("The disk is slow: a sync of the log took {ms} ms, {} s ago. {whom}", srv.now_s() - at_s),
                );
            }
        },
        "Look for others that use the disk; a local SSD may be what it takes. 'no-appendfsync-on-rewrite yes' spares it while a child writes.",
    ),
    check(
        "replica-behind",
        Warning,
        |srv, found| {
            for replica in srv.repl.replica_views(srv.now_s()) {
                if let Some(why) = behind(srv, &replica) {
                    let name = format!("{}:{}", replica.ip, replica.port);
                    found(&name, format!("Replica {name} is behind: {why}."));
                }
            }
        },
        "Compare the replica's load and network with the stream (instantaneous_output_repl_kbps); a larger repl-backlog-size lets it \
         come back without a full synchronization.",
    ),
    check(
        "versions-differ",
        Warning,
        |srv, found| {
            for replica in srv.repl.replica_views(srv.now_s()) {
                if let Some(version) = replica.version.filter(|version| version != HEXAD_VERSION) {
                    let name = format!("{}:{}", replica.ip, replica.port);
                    found(&name, format!("Replica {name} runs Hexad {version}, and this server {HEXAD_VERSION}."));
                }
            }
        },
        "That is so while versions are exchanged one by one; go on until all have the same. redis-cli --cluster check looks at all nodes.",
    ),
    check(
        "master-link-down",
        Critical,
        |srv, found| {
            /// A link may be made anew, which takes a moment.
            const SECONDS: i64 = 10;
            let Some(m) = srv.repl.master_view(srv.now_s()).filter(|m| !m.is_up) else { return };
            let since = if m.down_s >= 0 { m.down_s } else { (srv.clock.ms() - srv.started_ms) / 1000 };
            if m.transfer.is_none() && !srv.is_loading() && since >= SECONDS {
                let (address, state) = (format!("{}:{}", m.host, m.port), m.state);
                let of = if m.down_s >= 0 { format!("has been down for {since} s") } else { "never was up".into() };
                found(
                    "",
                    format!(
                        "This replica serves old data: the link to its master {address} {of} (it is at '{state}')."
                    ),
                );
            }
        },
        "See the log of both for why: address, password (masterauth), TLS (tls-replication) and rename-command have to agree.",
    ),
    check(
        "certificate-ended",
        Critical,
        |srv, found| each_certificate(srv, found, i64::MIN, 0),
        "Put a new certificate in place; CONFIG SET of tls-cert-file reads it, as does tls-auto-reload-interval.",
    ),
    check(
        "certificate-ends",
        Warning,
        |srv, found| each_certificate(srv, found, 0, 30),
        "Put a new certificate in place; CONFIG SET of tls-cert-file reads it, as does tls-auto-reload-interval.",
    ),
    check(
        "clients-near-limit",
        Warning,
        |srv, found| {
            let (count, most) = (srv.clients.connected, srv.cfg.maxclients as usize);
            if count >= most / 10 * 9 && count >= 10 {
                found(
                    "",
                    format!(
                        "{count} clients are connected, of {most} at most (maxclients): others will be turned away."
                    ),
                );
            }
        },
        "See CLIENT LIST for who keeps connections; raise maxclients, or set timeout.",
    ),
    check(
        OVERCOMMIT,
        Warning,
        |_, found| {
            if system_check::overcommit() == Some(false) {
                found("", "The system may refuse the memory that a save or a replica's first copy needs: vm.overcommit_memory is not 1.".into());
            }
        },
        "sysctl vm.overcommit_memory=1, and in /etc/sysctl.conf to keep it.",
    ),
];

/// Calls with what is used and the limit, if there is one and nothing would be evicted.
fn with_memory(srv: &Server, look: impl FnOnce(u64, u64)) {
    let max = srv.cfg.maxmemory;
    if max > 0 && srv.cfg.maxmemory_policy == MaxmemoryPolicy::Noeviction && !srv.repl.is_replica() {
        look(alloc::used().saturating_sub(srv.memory_not_counted()) as u64, max);
    }
}

/// Why a replica is behind, if it is.
fn behind(srv: &Server, replica: &ReplicaView) -> Option<String> {
    /// A replica acknowledges every second.
    const SILENT_S: i64 = 10;
    const SNAPSHOT_S: i64 = 60;
    if replica.state.needs_snapshot() {
        // That is how replicas begin.
        let (took, state) = (replica.attached_s, replica.state.name());
        return (took >= SNAPSHOT_S).then(|| format!("for {took} s it has been getting the whole data set ({state})"));
    }
    let missing = (srv.repl.offset() - replica.offset).max(0) as u64;
    if replica.lag_s >= SILENT_S {
        return Some(format!(
            "it has acknowledged nothing for {} s, so it or the network stands still; {} of the stream are missing",
            replica.lag_s,
            human_bytes(missing)
        ));
    }
    (missing > srv.cfg.repl_backlog_size / 2)
        .then(|| format!("it takes the stream more slowly than it grows; {} are missing", human_bytes(missing)))
}

/// Certificates that end in more than `from` and at most `to` days.
fn each_certificate(srv: &Server, found: &mut Found<'_>, from: i64, to: i64) {
    const DAY_S: i64 = 86400;
    for (name, facts) in srv.certificates() {
        let left_s = facts.not_after - srv.now_s();
        if left_s > from.saturating_mul(DAY_S) && left_s <= to * DAY_S {
            let when = match left_s {
                ..=0 => "has ended: connections are refused".to_owned(),
                _ => format!("ends in {} days", left_s / DAY_S),
            };
            found(name, format!("The {name} certificate, number {}, {when}.", facts.serial));
        }
    }
}
