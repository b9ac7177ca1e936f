//! INFO tls: the certificates in use, as long as TLS is. Not in Redis.

use super::row::{Figure, lines, samples};
use crate::admin::figure::Value;

pub(super) static ROWS: &[Figure] = &[
    lines(|f, line| {
        for (name, facts) in f.srv.certificates() {
            line(&format!("tls_{name}_cert_serial"), Value::text(&facts.serial));
            line(&format!("tls_{name}_cert_expires_in_seconds"), (facts.not_after - f.now_s).max(0).into());
        }
    }),
    samples(|f, sample| {
        f.srv.certificates().for_each(|(name, facts)| sample(&[("certificate", name)], facts.not_after as f64));
    })
    .gauge("hexad_tls_certificate_expiry_timestamp_seconds", "When the certificate in use ends."),
];
