//! Whom to believe: the peer's certificate has to come from one of the certificate authorities that are configured. Names in
//! it are not looked at, as nodes of a cluster and replicas are known by addresses; so it is in Redis.
//!
//! The library's own check is the rule. Two kinds of certificates that it refuses and OpenSSL takes are looked at here: those of
//! version 1, which `openssl x509 -req` makes unless it is told of extensions, and a certificate that is itself among the trusted
//! ones, as one that signed itself.

use super::x509::{self, Parts};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The certificates that are trusted.
#[derive(Clone, Debug)]
pub(super) struct Authorities {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) certificates: Arc<Vec<CertificateDer<'static>>>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    /// `None`: anybody is believed (`--insecure`).
    authorities: Option<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    pub(super) fn new(authorities: Option<Authorities>, provider: &CryptoProvider) -> PeerVerifier {
        PeerVerifier { authorities, algorithms: provider.signature_verification_algorithms }
    }

    /// Looks at a certificate that the library refused.
    fn second_look(&self, refusal: Error, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let (Some(authorities), Some(parts)) = (&self.authorities, Parts::of(certificate)) else { return Err(refusal) };
        let is_trusted = authorities.certificates.iter().any(|trusted| trusted == certificate);
        let is_issued = || {
            let issuers = authorities.roots.roots.iter().filter(|root| root.subject.as_ref() == parts.issuer);
            parts.version == 1
                && issuers.clone().any(|root| parts.is_signed_by(&root.subject_public_key_info, self.algorithms.all))
        };
        if !is_trusted && !is_issued() {
            return Err(refusal);
        }
        match parts.is_valid_at(now.as_secs() as i64) {
            true => Ok(()),
            false => Err(CertificateError::Expired.into()),
        }
    }

    /// A signature of the handshake, with the key of a certificate that the library does not read.
    fn is_signed(&self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct) -> bool {
        let Some(parts) = Parts::of(certificate).filter(|parts| parts.version < 3) else { return false };
        let fitting = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        fitting.flat_map(|(_, all)| *all).any(|a| x509::is_signature(*a, parts.public_key, message, signed.signature()))
    }

    fn or_by_old_certificate(
        &self,
        found: Result<HandshakeSignatureValid, Error>,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        found.or_else(|refusal| match self.is_signed(message, certificate, signed) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(refusal),
        })
    }

    fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let found = verify_tls12_signature(message, certificate, signed, &self.algorithms);
        self.or_by_old_certificate(found, message, certificate, signed)
    }

    fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use SignatureScheme as S;
        let found = verify_tls13_signature(message, certificate, signed, &self.algorithms);
        if matches!(signed.scheme, S::RSA_PKCS1_SHA1 | S::RSA_PKCS1_SHA256 | S::RSA_PKCS1_SHA384 | S::RSA_PKCS1_SHA512)
        {
            // This version has no use for them.
            return found;
        }
        self.or_by_old_certificate(found, message, certificate, signed)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            let checked = ParsedCertificate::try_from(end_entity).and_then(|certificate| {
                let (roots, all) = (&authorities.roots, self.algorithms.all);
                verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, all)
            });
            checked.or_else(|refusal| self.second_look(refusal, end_entity, now))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a server asks of its clients' certificates.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    peers: PeerVerifier,
    library: Arc<dyn ClientCertVerifier>,
    is_mandatory: bool,
}

impl ClientVerifier {
    pub(super) fn new(
        authorities: Authorities,
        provider: &Arc<CryptoProvider>,
        is_mandatory: bool,
    ) -> Result<ClientVerifier, String> {
        let library = WebPkiClientVerifier::builder_with_provider(authorities.roots.clone(), provider.clone())
            .build()
            .map_err(|e| e.to_string())?;
        Ok(ClientVerifier { peers: PeerVerifier::new(Some(authorities), provider), library, is_mandatory })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.library.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.library.verify_client_cert(end_entity, intermediates, now) {
            Ok(verified) => Ok(verified),
            Err(refusal) => {
                self.peers.second_look(refusal, end_entity, now)?;
                Ok(ClientCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.peers.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.peers.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }
}
