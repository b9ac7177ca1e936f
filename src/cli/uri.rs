//! `redis://[[user:]password@]host[:port][/db]`, the argument of `-u`; `rediss://` for TLS.

use super::options::{Options, leading_int};

/// Sets the options that a URI gives; the error says what is wrong with it.
pub(crate) fn apply(options: &mut Options, uri: &[u8]) -> Result<(), String> {
    let uri = String::from_utf8_lossy(uri).into_owned();
    let lower = uri.to_ascii_lowercase();
    let scheme = ["redis://", "rediss://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let Some(scheme) = scheme else { return Err("Invalid URI scheme".into()) };
    options.is_tls |= scheme == "rediss://";
    let mut rest = &uri[scheme.len()..];
    if let Some((login, after)) = rest.split_once('@') {
        let password = match login.split_once(':') {
            Some((user, password)) => {
                options.user = Some(percent_decode(user)?);
                password
            }
            None => login,
        };
        options.auth = Some(percent_decode(password)?);
        rest = after;
    }
    let (address, db) = match rest.split_once('/') {
        Some((address, db)) => (address, Some(db)),
        None => (rest, None),
    };
    let (host, port) = match address.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if !address.is_empty() {
        options.host = host.to_string();
    }
    if let Some(port) = port {
        options.port = u16::try_from(leading_int(port.as_bytes())).map_err(|_| "Invalid server port.".to_string())?;
    }
    if let Some(db) = db.filter(|db| !db.is_empty()) {
        options.db = leading_int(db.as_bytes());
    }
    Ok(())
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else {
            return Err("Incomplete URI encoding".into());
        };
        let digit = |b: u8| char::from(b).to_digit(16);
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return Err("Illegal character in URI encoding".into());
        };
        out.push((high << 4 | low) as u8);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<Options, String> {
        let mut options = Options::default();
        apply(&mut options, uri.as_bytes()).map(|()| options)
    }

    #[test]
    fn parts_of_a_uri() {
        let o = read("redis://me:p%40ss@example:7000/3").unwrap();
        assert_eq!(o.user.as_deref(), Some(&b"me"[..]));
        assert_eq!(o.auth.as_deref(), Some(&b"p@ss"[..]));
        assert_eq!((o.host.as_str(), o.port, o.db), ("example", 7000, 3));
        let o = read("REDIS://secret@").unwrap();
        assert_eq!(o.auth.as_deref(), Some(&b"secret"[..]));
        assert_eq!((o.host.as_str(), o.port), ("127.0.0.1", 6379));
        let o = read("redis://[::1]:7001").unwrap();
        assert_eq!((o.host.as_str(), o.port), ("::1", 7001));
        assert_eq!(read("redis:///2").unwrap().db, 2);
        assert!(!o.is_tls);
        let o = read("rediss://localhost").unwrap();
        assert!(o.is_tls && o.host == "localhost");
    }

    #[test]
    fn bad_uris() {
        assert_eq!(read("http://x").unwrap_err(), "Invalid URI scheme");
        assert_eq!(read("redis://a%4@x").unwrap_err(), "Incomplete URI encoding");
        assert_eq!(read("redis://a%zz@x").unwrap_err(), "Illegal character in URI encoding");
    }
}
