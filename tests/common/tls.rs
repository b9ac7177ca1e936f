//! Certificates for tests of TLS, and servers and clients that use them.
#![allow(dead_code)]

use crate::common::{self, TestServer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An authority and what it has issued, as files: `ca.crt`, and `NAME.crt` with `NAME.key`.
pub(crate) struct Certs {
    pub(crate) dir: TempDir,
    authority: rcgen::Certificate,
    key: KeyPair,
}

impl Certs {
    /// With certificates for a `server` and a `client`.
    pub(crate) fn new() -> Certs {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let authority = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
        let certs = Certs { dir, authority, key };
        certs.issue("server", 1);
        certs.issue("client", 2);
        certs
    }

    /// A certificate for this host, with a serial number.
    pub(crate) fn issue(&self, name: &str, serial: u64) {
        self.issue_until(name, serial, None);
    }

    /// The same, that ends on a day: year, month and day.
    pub(crate) fn issue_until(&self, name: &str, serial: u64, end: Option<(i32, u8, u8)>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial.into());
        if let Some((year, month, day)) = end {
            params.not_after = rcgen::date_time_ymd(year, month, day);
        }
        let issued = params.signed_by(&key, &self.authority, &self.key).unwrap();
        fs::write(self.path(&format!("{name}.crt")), issued.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Options of a server that listens with TLS.
    pub(crate) fn server_options(&self, tls_port: u16) -> Vec<String> {
        let mut options = vec!["--tls-port".to_owned(), tls_port.to_string()];
        for (option, file) in
            [("--tls-cert-file", "server.crt"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.crt")]
        {
            options.extend([option.to_owned(), self.text(file)]);
        }
        options
    }

    /// Options of the tools.
    pub(crate) fn tool_options(&self) -> Vec<String> {
        let files = [("--cacert", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key")];
        let mut options = vec!["--tls".to_owned()];
        files.iter().for_each(|(option, file)| options.extend([(*option).to_owned(), self.text(file)]));
        options
    }

    /// A client of redis-rs that shows a certificate, if one is named.
    pub(crate) fn client(&self, port: u16, certificate: Option<&str>) -> redis::Client {
        let read = |name: String| fs::read(self.path(&name)).unwrap();
        let client_tls = certificate.map(|name| redis::ClientTlsConfig {
            client_cert: read(format!("{name}.crt")),
            client_key: read(format!("{name}.key")),
        });
        let root_cert = Some(read("ca.crt".into()));
        let certificates = redis::TlsCertificates { client_tls, root_cert };
        redis::Client::build_with_tls(format!("rediss://127.0.0.1:{port}/"), certificates).unwrap()
    }

    pub(crate) fn connect(&self, port: u16) -> redis::Connection {
        self.client(port, Some("client")).get_connection().expect("a connection with TLS")
    }
}

/// A server that listens on a plain port and on one with TLS.
pub(crate) struct TlsServer {
    pub(crate) server: TestServer,
    pub(crate) tls_port: u16,
}

impl TlsServer {
    pub(crate) fn start(certs: &Certs, options: &[&str]) -> TlsServer {
        TlsServer::start_binary(Path::new(common::SERVER), certs, options)
    }

    pub(crate) fn start_binary(binary: &Path, certs: &Certs, options: &[&str]) -> TlsServer {
        let tls_port = common::free_port();
        let with_tls = certs.server_options(tls_port);
        let all: Vec<&str> = with_tls.iter().map(String::as_str).chain(options.iter().copied()).collect();
        TlsServer { server: TestServer::start_binary(binary, &all), tls_port }
    }
}
