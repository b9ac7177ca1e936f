//! INFO clients.

use super::row::{Figure, field, samples};

pub(super) static ROWS: &[Figure] = &[
    field("connected_clients", |f| f.srv.clients_but_replicas().into())
        .gauge("redis_connected_clients", "Clients that are connected, replicas apart."),
    field("cluster_connections", |f| f.srv.cluster_link_count().into())
        .gauge("redis_cluster_connections", "Connections that the cluster bus may take."),
    field("maxclients", |f| f.srv.cfg.maxclients.into()).gauge("redis_max_clients", "The most clients there may be."),
    field("client_recent_max_input_buffer", |f| f.srv.client_memory.recent_peaks().0.into())
        .gauge("redis_client_recent_max_input_buffer_bytes", "The largest query buffer of late."),
    field("client_recent_max_output_buffer", |f| f.srv.client_memory.recent_peaks().1.into())
        .gauge("redis_client_recent_max_output_buffer_bytes", "The largest output of a client of late."),
    field("blocked_clients", |f| (f.srv.blocked.clients.len() + f.srv.postponed.len()).into())
        .gauge("redis_blocked_clients", "Clients that wait in a blocking command."),
    field("tracking_clients", |f| f.srv.tracking_clients().into())
        .gauge("redis_tracking_clients", "Clients whose caches are told of changes."),
    field("clients_in_timeout_table", |f| f.srv.blocked.deadline_count().into())
        .gauge("redis_clients_in_timeout_table", "Clients that wait for a limited time."),
    field("total_blocking_keys", |f| f.srv.blocking_key_counts().0.into())
        .gauge("redis_total_blocking_keys", "Keys that clients wait for."),
    field("total_blocking_keys_on_nokey", |f| f.srv.blocking_key_counts().1.into())
        .gauge("redis_total_blocking_keys_on_nokey", "Keys whose disappearance would release a client."),
    field("paused_reason", |f| f.srv.describe_pause().0.into()),
    field("paused_actions", |f| f.srv.describe_pause().1.into()),
    samples(|f, sample| {
        for class in f.srv.cfg.client_output_buffer_limit.iter().zip(OUTPUT_CLASSES) {
            sample(&[("class", class.1), ("limit", "hard")], class.0.hard_bytes as f64);
            sample(&[("class", class.1), ("limit", "soft")], class.0.soft_bytes as f64);
        }
    })
    .gauge("redis_config_client_output_buffer_limit_bytes", "How much output a client of this class may have waiting."),
    samples(|f, sample| {
        for class in f.srv.cfg.client_output_buffer_limit.iter().zip(OUTPUT_CLASSES) {
            sample(&[("class", class.1), ("limit", "soft")], class.0.soft_seconds as f64);
        }
    })
    .gauge("redis_config_client_output_buffer_limit_overcome_seconds", "For how long it may exceed the soft limit."),
];

/// The classes of `client-output-buffer-limit`, in its order.
const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];
