//! What sessions are made with: certificates, keys, protocols, as the `tls-*` directives name them. Read as a whole: an
//! error says which file and why, and what was in use stays in use.

use super::names;
use super::verify::{Authorities, ClientVerifier, PeerVerifier};
use super::x509::{self, CertificateFacts, Parts};
use crate::config::{Config, TlsAuthClients};
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, StoresServerSessions};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Tickets sent after a handshake of TLS 1.3, as many as OpenSSL sends.
const TICKETS: usize = 2;
/// The longest life a ticket may be said to have, seconds, and the longest text of a session that is made one, bytes.
const MAX_TICKET_LIFE_S: u64 = 7 * 24 * 60 * 60;
const MAX_TICKET_BYTES: usize = 16 * 1024;
/// Sessions kept when their number is not limited.
const MAX_SESSIONS: usize = 1 << 20;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// For connections of clients.
    pub(crate) server: Arc<ServerConfig>,
    /// For those of the cluster bus, where every node shows a certificate; `None` without authorities to check it with.
    pub(crate) bus: Option<Arc<ServerConfig>>,
    /// For connections to others; `None` likewise.
    pub(crate) client: Option<Arc<ClientConfig>>,
    pub(crate) server_certificate: Option<CertificateFacts>,
    pub(crate) client_certificate: Option<CertificateFacts>,
    pub(crate) ca_certificate: Option<CertificateFacts>,
    /// What is not as it was asked for, for the log.
    pub(crate) notices: Vec<String>,
}

impl Contexts {
    /// As the configuration says.
    pub(crate) fn read(cfg: &Config) -> Result<Contexts, String> {
        let mut notices = Vec::new();
        let has_authorities = check_files(cfg)?;
        if !cfg.tls_dh_params_file.is_empty() {
            notices.push(
                "tls-dh-params-file: key exchange by finite-field DH is not available here, elliptic curves are used"
                    .into(),
            );
        }
        let versions = names::protocols(&cfg.tls_protocols, &mut notices)?;
        let mut provider = aws_lc_rs::default_provider();
        names::restrict(&mut provider, &cfg.tls_ciphers, &cfg.tls_ciphersuites, &versions, &mut notices)?;
        let provider = Arc::new(provider);
        let authorities = match has_authorities {
            true => Some(read_authorities(
                &[("tls-ca-cert-file", &cfg.tls_ca_cert_file)],
                &[("tls-ca-cert-dir", &cfg.tls_ca_cert_dir)],
            )?),
            false => None,
        };
        let own = read_identity(
            ("tls-cert-file", &cfg.tls_cert_file),
            ("tls-key-file", &cfg.tls_key_file),
            ("tls-key-file-pass", &cfg.tls_key_file_pass),
            &provider,
        )?;
        let other = match cfg.tls_client_cert_file.is_empty() || cfg.tls_client_key_file.is_empty() {
            true => own.clone(),
            false => read_identity(
                ("tls-client-cert-file", &cfg.tls_client_cert_file),
                ("tls-client-key-file", &cfg.tls_client_key_file),
                ("tls-client-key-file-pass", &cfg.tls_client_key_file_pass),
                &provider,
            )?,
        };
        let server = |auth: TlsAuthClients| server_config(cfg, &own, auth, authorities.as_ref(), &provider, &versions);
        let client = authorities.clone().map(|authorities| {
            client_config(PeerVerifier::new(Some(authorities), &provider), Some(other.clone()), &provider, &versions)
        });
        Ok(Contexts {
            server: server(cfg.tls_auth_clients)?,
            bus: authorities.as_ref().map(|_| server(TlsAuthClients::Yes)).transpose()?,
            client: client.transpose()?,
            server_certificate: CertificateFacts::of_first_to_end(&own.cert[..1]),
            client_certificate: CertificateFacts::of_first_to_end(&other.cert[..1]),
            ca_certificate: authorities.and_then(|a| CertificateFacts::of_first_to_end(&a.certificates)),
            notices,
        })
    }
}

/// Whether there are authorities. The error is what there has to be besides.
fn check_files(cfg: &Config) -> Result<bool, String> {
    for (name, value) in [("tls-cert-file", &cfg.tls_cert_file), ("tls-key-file", &cfg.tls_key_file)] {
        if value.is_empty() {
            return Err(format!("No {name} configured!"));
        }
    }
    let has_authorities = !cfg.tls_ca_cert_file.is_empty() || !cfg.tls_ca_cert_dir.is_empty();
    if !has_authorities && (cfg.tls_auth_clients != TlsAuthClients::No || cfg.tls_cluster || cfg.tls_replication) {
        return Err(
            "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or \
                    tls-auth-clients are enabled!"
                .into(),
        );
    }
    Ok(has_authorities)
}

/// The files that the configuration names, whose change is a reason to read them again.
pub(crate) fn files(cfg: &Config) -> impl Iterator<Item = &str> {
    [
        &cfg.tls_cert_file,
        &cfg.tls_key_file,
        &cfg.tls_client_cert_file,
        &cfg.tls_client_key_file,
        &cfg.tls_ca_cert_file,
        &cfg.tls_ca_cert_dir,
    ]
    .into_iter()
    .map(String::as_str)
    .filter(|path| !path.is_empty())
}

fn server_config(
    cfg: &Config,
    identity: &Arc<CertifiedKey>,
    auth: TlsAuthClients,
    authorities: Option<&Authorities>,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, String> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|e| e.to_string())?;
    let builder = match (auth, authorities) {
        (TlsAuthClients::No, _) | (_, None) => builder.with_no_client_auth(),
        (auth, Some(authorities)) => {
            let is_mandatory = auth == TlsAuthClients::Yes;
            let verifier = ClientVerifier::new(authorities.clone(), provider, is_mandatory)?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
    config.ignore_client_order = cfg.tls_prefer_server_ciphers;
    if cfg.tls_session_caching {
        config.session_storage = Arc::new(Sessions::new(cfg.tls_session_cache_size, cfg.tls_session_cache_timeout));
        config.ticketer = Arc::new(Tickets::new(cfg.tls_session_cache_timeout)?);
        config.send_tls13_tickets = TICKETS;
    } else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

fn client_config(
    verifier: PeerVerifier,
    identity: Option<Arc<CertifiedKey>>,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What a tool was told about how to connect.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolOptions {
    /// The name that the server is told it is asked for by.
    pub(crate) sni: Option<String>,
    pub(crate) ca_file: Option<String>,
    pub(crate) ca_dir: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
    /// Any certificate will do.
    pub(crate) insecure: bool,
    pub(crate) ciphers: String,
    pub(crate) ciphersuites: String,
    made: OnceLock<Arc<ClientConfig>>,
}

impl ToolOptions {
    /// What connections are made with.
    pub(crate) fn context(&self) -> Result<&Arc<ClientConfig>, String> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = self.make()?;
        Ok(self.made.get_or_init(|| made))
    }

    fn make(&self) -> Result<Arc<ClientConfig>, String> {
        let mut provider = aws_lc_rs::default_provider();
        let versions = names::protocols("", &mut Vec::new())?;
        names::restrict(&mut provider, &self.ciphers, &self.ciphersuites, &versions, &mut Vec::new())?;
        let provider = Arc::new(provider);
        let authorities = match (&self.ca_file, &self.ca_dir) {
            _ if self.insecure => None,
            (None, None) => Some(system_authorities()?),
            (file, dir) => Some(read_authorities(
                &[("--cacert", file.as_deref().unwrap_or_default())],
                &[("--cacertdir", dir.as_deref().unwrap_or_default())],
            )?),
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(read_identity(("--cert", cert), ("--key", key), ("", ""), &provider)?),
            (None, None) => None,
            _ => return Err("--cert and --key go together".into()),
        };
        client_config(PeerVerifier::new(authorities, &provider), identity, &provider, &versions)
    }
}

/// Those the system trusts, where OpenSSL looks for them.
fn system_authorities() -> Result<Authorities, String> {
    let place = |variable: &str, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let file = place("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");
    let dir = place("SSL_CERT_DIR", "/etc/ssl/certs");
    match Path::new(&file).exists() {
        true => read_authorities(&[("SSL_CERT_FILE", &file)], &[]),
        false => read_authorities(&[], &[("SSL_CERT_DIR", &dir)]),
    }
}

fn failed(name: &str, path: &str, reason: impl std::fmt::Display) -> String {
    format!("{name} '{path}': {reason}")
}

fn read_file(name: &str, path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| failed(name, path, crate::sys::os_error(&e)))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| format!("{e}"))
}

/// The certificates of files and of all files of folders.
fn read_authorities(files: &[(&str, &str)], dirs: &[(&str, &str)]) -> Result<Authorities, String> {
    let mut all = Vec::new();
    for (name, path) in files.iter().filter(|(_, path)| !path.is_empty()) {
        let found = certificates(&read_file(name, path)?).map_err(|e| failed(name, path, e))?;
        if found.is_empty() {
            return Err(failed(name, path, "no certificate in PEM form in it"));
        }
        all.extend(found);
    }
    for (name, path) in dirs.iter().filter(|(_, path)| !path.is_empty()) {
        let listed = std::fs::read_dir(path).map_err(|e| failed(name, path, crate::sys::os_error(&e)))?;
        let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.is_file()).collect();
        paths.sort();
        let before = all.len();
        all.extend(paths.iter().filter_map(|p| certificates(&std::fs::read(p).ok()?).ok()).flatten());
        if all.len() == before && before == 0 {
            return Err(failed(name, path, "no certificate in PEM form in it"));
        }
    }
    // A folder has names for what it has files for.
    let mut seen = std::collections::HashSet::new();
    all.retain(|certificate| seen.insert(certificate.clone()));
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(all.iter().cloned());
    if added == 0 {
        let place = files.iter().chain(dirs).find(|(_, path)| !path.is_empty()).copied().unwrap_or_default();
        return Err(failed(place.0, place.1, "no certificate in it can be read"));
    }
    Ok(Authorities { roots: Arc::new(roots), certificates: Arc::new(all) })
}

/// A certificate with those that lead to its authority, and its key. Each comes with the directive that names it.
fn read_identity(
    cert: (&str, &str),
    key: (&str, &str),
    password: (&str, &str),
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificates(&read_file(cert.0, cert.1)?).map_err(|e| failed(cert.0, cert.1, e))?;
    let Some(first) = chain.first() else {
        return Err(failed(cert.0, cert.1, "no certificate in PEM form in it"));
    };
    let public_key = match Parts::of(first) {
        Some(parts) => parts.public_key.to_vec(),
        None => return Err(failed(cert.0, cert.1, "the certificate in it cannot be read")),
    };
    let der = private_key(&read_file(key.0, key.1)?, password).map_err(|e| failed(key.0, key.1, e))?;
    let signer = provider.key_provider.load_private_key(der).map_err(|e| failed(key.0, key.1, e))?;
    if let Some(own) = signer.public_key()
        && x509::content(&own).is_some_and(|own| own != public_key)
    {
        return Err(failed(
            key.0,
            key.1,
            format!("the key does not belong to the certificate in {} '{}'", cert.0, cert.1),
        ));
    }
    Ok(Arc::new(CertifiedKey::new(chain, signer)))
}

/// The first private key, deciphered if it is under a password.
fn private_key(pem: &[u8], (name, password): (&str, &str)) -> Result<PrivateKeyDer<'static>, String> {
    const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
    let text = String::from_utf8_lossy(pem);
    if let Some(at) = text.find(&format!("-----BEGIN {ENCRYPTED}-----")) {
        let end = format!("-----END {ENCRYPTED}-----");
        let block = text[at..].find(&end).map(|len| &text[at..at + len + end.len()]).ok_or("the key is cut off")?;
        if password.is_empty() {
            return Err(match name {
                "" => "the key is under a password, and there is no way to give one here".into(),
                name => format!("the key is under a password, and {name} names none"),
            });
        }
        let unreadable = |e: &dyn std::fmt::Display| format!("the key under a password cannot be read: {e}");
        let (_, document) = SecretDocument::from_pem(block).map_err(|e| unreadable(&e))?;
        let sealed = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|e| unreadable(&e))?;
        use pkcs8::pkcs5::Error as E;
        let key = sealed.decrypt(password).map_err(|e| match e {
            pkcs8::Error::EncryptedPrivateKey(
                E::AlgorithmParametersInvalid { .. } | E::NoPbes1CryptSupport | E::UnsupportedAlgorithm { .. },
            ) => unreadable(&e),
            // What comes of it with another password is anything.
            _ => format!("{name} is not its password"),
        })?;
        return Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec())));
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(
            "the key is under a password in the old form; 'openssl pkcs8 -topk8' makes one that can be read".into()
        );
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => "no private key in PEM form in it".into(),
        e => format!("{e}"),
    })
}

/// Sessions that peers keep themselves, under a key that only this process knows: a session has the peer's certificates in
/// it, which would be much to keep for everyone who connects. Each tells when it was made.
#[derive(Debug)]
struct Tickets {
    sealing: Arc<dyn ProducesTickets>,
    lasts: Duration,
    /// What times are counted from.
    start: Instant,
}

impl Tickets {
    fn new(lasts_s: i64) -> Result<Tickets, String> {
        let sealing = aws_lc_rs::Ticketer::new().map_err(|e| e.to_string())?;
        Ok(Tickets { sealing, lasts: Duration::from_secs(lasts_s.max(0) as u64), start: Instant::now() })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lasts.as_secs().min(MAX_TICKET_LIFE_S) as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let now_ms = self.start.elapsed().as_millis() as u64;
        let dated = [&now_ms.to_be_bytes()[..], session].concat();
        if dated.len() <= MAX_TICKET_BYTES { self.sealing.encrypt(&dated) } else { None }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let dated = self.sealing.decrypt(ticket)?;
        let (made_ms, session) = dated.split_first_chunk()?;
        let age = self.start.elapsed().saturating_sub(Duration::from_millis(u64::from_be_bytes(*made_ms)));
        (age < self.lasts).then(|| session.to_vec())
    }
}

/// Sessions that may be resumed by those who take no ticket: so many, for so long.
#[derive(Debug)]
struct Sessions {
    most: usize,
    lasts: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<Vec<u8>, (Vec<u8>, Instant)>,
    /// In the order in which they came.
    order: VecDeque<(Vec<u8>, Instant)>,
}

impl Sessions {
    fn new(most: i32, lasts_s: i64) -> Sessions {
        let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(MAX_SESSIONS);
        let lasts = Duration::from_secs(lasts_s.max(0) as u64);
        Sessions { most, lasts, kept: Mutex::default() }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, mut session: Vec<u8>) -> bool {
        session.shrink_to_fit();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some((_, since)) = kept.order.front()
            && (kept.order.len() >= self.most || now.duration_since(*since) >= self.lasts)
        {
            let Some((oldest, since)) = kept.order.pop_front() else { break };
            // It may have been put again since.
            if kept.by_id.get(&oldest).is_some_and(|(_, at)| *at == since) {
                kept.by_id.remove(&oldest);
            }
        }
        kept.order.push_back((id.clone(), now));
        kept.by_id.insert(id, (session, now));
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_id.get(id).filter(|(_, since)| since.elapsed() < self.lasts).map(|(session, _)| session.clone())
    }

    /// A session may be resumed again, as those who open several connections at once do: no data comes before the handshake
    /// is done, so there is nothing to be replayed.
    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.get(id)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_kept_up_to_a_number_and_for_a_time() {
        let sessions = Sessions::new(2, 300);
        for n in 0..3u8 {
            sessions.put(vec![n], vec![n + 100]);
        }
        assert_eq!([0, 1, 2].map(|n| sessions.take(&[n])), [None, Some(vec![101]), Some(vec![102])]);
        assert_eq!(sessions.get(&[2]), Some(vec![102]), "it may be resumed again");
        let brief = Sessions::new(0, 0);
        brief.put(vec![1], vec![2]);
        assert_eq!(brief.get(&[1]), None);
    }

    #[test]
    fn tickets_hold_for_a_time_and_are_only_our_own() {
        let tickets = Tickets::new(300).unwrap();
        let ticket = tickets.encrypt(b"a session").unwrap();
        assert_eq!((tickets.lifetime(), tickets.decrypt(&ticket).as_deref()), (300, Some(&b"a session"[..])));
        assert_eq!(Tickets::new(300).unwrap().decrypt(&ticket), None, "of another");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "changed at {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(tickets.encrypt(&vec![7; MAX_TICKET_BYTES]), None, "of what is too large there is none");
        let brief = Tickets { lasts: Duration::ZERO, ..tickets };
        assert_eq!(brief.decrypt(&ticket), None);
        assert_eq!(Tickets::new(i64::from(i32::MAX)).unwrap().lifetime(), 604_800);
    }
}
