//! HTTP/1.1 as far as the port for operators speaks it: requests to read, without bodies. Bytes in, requests and responses out.
//!
//! Whatever is not understood is answered with an error, after which the connection ends: nothing that follows it can be taken
//! for a request that it is not.

use std::net::IpAddr;

/// The longest head of a request, bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    ContentTooLarge,
    UriTooLong,
    Misdirected,
    TooManyRequests,
    HeadersTooLarge,
    Unavailable,
    VersionNotSupported,
}

impl Status {
    /// The number, and what it is called.
    pub(crate) fn line(self) -> (u16, &'static str) {
        match self {
            Status::Ok => (200, "OK"),
            Status::BadRequest => (400, "Bad Request"),
            Status::Unauthorized => (401, "Unauthorized"),
            Status::Forbidden => (403, "Forbidden"),
            Status::NotFound => (404, "Not Found"),
            Status::MethodNotAllowed => (405, "Method Not Allowed"),
            Status::ContentTooLarge => (413, "Content Too Large"),
            Status::UriTooLong => (414, "URI Too Long"),
            Status::Misdirected => (421, "Misdirected Request"),
            Status::TooManyRequests => (429, "Too Many Requests"),
            Status::HeadersTooLarge => (431, "Request Header Fields Too Large"),
            Status::Unavailable => (503, "Service Unavailable"),
            Status::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}

/// A request to read something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Only the head of the response is asked for.
    pub(crate) is_head: bool,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// HTTP/1.0 knows no chunks.
    pub(crate) is_1_0: bool,
    pub(crate) keeps_alive: bool,
    pub(crate) host: String,
    pub(crate) origin: Option<String>,
    /// What the browser says of who asks: `Sec-Fetch-Site` and `Sec-Fetch-Mode`.
    pub(crate) site: String,
    pub(crate) mode: String,
    pub(crate) accept: String,
    pub(crate) authorization: Option<String>,
}

/// What is found at the start of what came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The head is not complete.
    Partial,
    /// A request, and how many bytes it took.
    Request(Box<Request>, usize),
    Bad(Status),
}

/// Reads a request.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let len = match head.parse(&bytes[..bytes.len().min(MAX_HEAD_BYTES)]) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Parsed::Partial,
        Ok(httparse::Status::Partial) => {
            let is_line_whole = bytes[..MAX_HEAD_BYTES].contains(&b'\n');
            return Parsed::Bad(if is_line_whole { Status::HeadersTooLarge } else { Status::UriTooLong });
        }
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(Status::HeadersTooLarge),
        Err(httparse::Error::Version) => return Parsed::Bad(Status::VersionNotSupported),
        Err(_) => return Parsed::Bad(Status::BadRequest),
    };
    match understand(&head) {
        Ok(request) => Parsed::Request(Box::new(request), len),
        Err(status) => Parsed::Bad(status),
    }
}

fn understand(head: &httparse::Request<'_, '_>) -> Result<Request, Status> {
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Status::MethodNotAllowed),
    };
    let is_1_0 = head.version == Some(0);
    let mut request = Request { is_head, is_1_0, keeps_alive: !is_1_0, ..Request::default() };
    let mut hosts = 0;
    for header in head.headers.iter() {
        let value = || std::str::from_utf8(header.value).map(|v| v.trim().to_owned()).map_err(|_| Status::BadRequest);
        match header.name.to_ascii_lowercase().as_str() {
            "host" => {
                hosts += 1;
                request.host = value()?;
            }
            "origin" => request.origin = Some(value()?),
            "sec-fetch-site" => request.site = value()?,
            "sec-fetch-mode" => request.mode = value()?,
            "accept" => request.accept = value()?,
            "authorization" => request.authorization = Some(value()?),
            "connection" => {
                let value = value()?.to_ascii_lowercase();
                let has = |word: &str| value.split(',').any(|option| option.trim() == word);
                request.keeps_alive = !has("close") && (!is_1_0 || has("keep-alive"));
            }
            "content-length" if value()? == "0" => {}
            "content-length" | "transfer-encoding" => return Err(Status::ContentTooLarge),
            _ => {}
        }
    }
    let target = head.path.unwrap_or_default();
    let target = match target.strip_prefix("http://").or(target.strip_prefix("https://")) {
        // As to a proxy: the host is part of it.
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            request.host = rest[..end].to_owned();
            hosts = 1;
            if rest[end..].is_empty() { "/" } else { &rest[end..] }
        }
        None => target,
    };
    if hosts > 1 || (hosts == 0 && !is_1_0) || !target.starts_with('/') {
        return Err(Status::BadRequest);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (request.path, request.query) = (path.to_owned(), query.to_owned());
    Ok(request)
}

impl Request {
    /// The value of a parameter of the query, as it stands there.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut all = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        all.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether the name it was sent to is one of ours: an address, `localhost`, or one of `names` (`*`: any). Any other may have
    /// been made to lead here by a site that wants to read this through a browser.
    pub(crate) fn is_for_us<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        let name = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.rsplit_once(':').map_or(&*self.host, |(name, _)| name),
        };
        let is_local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
        // Who sends no name at all, as HTTP/1.0 may, is no browser.
        is_local || name.is_empty() || names.any(|known| known == "*" || known.eq_ignore_ascii_case(name))
    }

    /// Whether a page of another site asks for it. That one leads here by a link is no harm.
    pub(crate) fn is_from_elsewhere(&self) -> bool {
        let ours = |origin: &str| {
            let host = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
            host.is_some_and(|host| host.eq_ignore_ascii_case(&self.host))
        };
        let is_followed_link = self.mode == "navigate" && self.path == "/";
        self.origin.as_deref().is_some_and(|origin| !ours(origin))
            || (matches!(&*self.site, "cross-site" | "same-site") && !is_followed_link)
    }

    /// Name and password, if it has any that can be read.
    pub(crate) fn credentials(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (scheme, encoded) = self.authorization.as_deref()?.split_once(' ')?;
        let both = base64(encoded.trim()).filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let colon = both.iter().position(|b| *b == b':')?;
        Some((both[..colon].to_vec(), both[colon + 1..].to_vec()))
    }
}

/// Decodes base64 (RFC 4648), padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLen {
    Known(usize),
    /// It comes in chunks.
    Chunks,
    /// It ends with the connection.
    ToTheEnd,
}

/// What browsers are told with every response: to load nothing from elsewhere, run nothing that stands in the page, keep nothing,
/// and let no other page show it.
const SAFETY: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
     Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
     Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";

/// The head of a response; `more`: whole header lines.
pub(crate) fn head(status: Status, content_type: &str, len: BodyLen, keeps_alive: bool, more: &str) -> Vec<u8> {
    let (code, reason) = status.line();
    let length = match len {
        BodyLen::Known(len) => format!("Content-Length: {len}\r\n"),
        BodyLen::Chunks => "Transfer-Encoding: chunked\r\n".into(),
        BodyLen::ToTheEnd => String::new(),
    };
    let connection = if keeps_alive { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: {content_type}\r\n{length}Connection: {connection}\r\n{SAFETY}{more}\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request, len) => {
                assert_eq!(len, text.len());
                *request
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_read() {
        let r = request("GET /metrics?slots=1&x HTTP/1.1\r\nHost: a:1\r\nAccept: */*\r\n\r\n");
        assert_eq!(
            (&*r.path, r.parameter("slots"), r.parameter("x"), r.parameter("y")),
            ("/metrics", Some("1"), Some(""), None)
        );
        assert!(r.keeps_alive && !r.is_head);
        assert!(!request("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n").keeps_alive);
        assert!(!request("HEAD / HTTP/1.0\r\n\r\n").keeps_alive);
        assert!(request("HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keeps_alive);
        assert_eq!(request("GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n").host, "b");
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHo"), Parsed::Partial);
        assert_eq!(parse(b""), Parsed::Partial);
        let two = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b";
        assert!(matches!(parse(two), Parsed::Request(_, 28)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let long = "x".repeat(MAX_HEAD_BYTES);
        let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
        for (text, status) in [
            ("PUT / HTTP/1.1\r\nHost: a\r\n\r\n", Status::MethodNotAllowed),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Status::VersionNotSupported),
            ("PING\r\n", Status::BadRequest),
            ("*1\r\n$4\r\nPING\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Status::BadRequest),
            ("GET metrics HTTP/1.1\r\nHost: a\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Status::ContentTooLarge),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Status::ContentTooLarge),
            (&format!("GET /{long}"), Status::UriTooLong),
            (&format!("GET / HTTP/1.1\r\nHost: {long}"), Status::HeadersTooLarge),
            (&format!("GET / HTTP/1.1\r\n{many}\r\n"), Status::HeadersTooLarge),
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Bad(status), "{text}");
        }
    }

    #[test]
    fn other_names_and_other_sites_are_told_apart() {
        let names = ["redis.example.com"];
        for (host, ours) in [
            ("127.0.0.1:9121", true),
            ("[::1]:9121", true),
            ("LocalHost", true),
            ("Redis.Example.com:80", true),
            ("evil.example.com:9121", false),
            ("127.0.0.1.evil.com", false),
        ] {
            let r = Request { host: host.into(), ..Request::default() };
            assert_eq!(r.is_for_us(names.into_iter()), ours, "{host}");
            assert!(r.is_for_us(["*"].into_iter()));
        }
        let from = |origin: Option<&str>, site: &str, mode: &str, path: &str| {
            let (origin, host) = (origin.map(str::to_owned), "127.0.0.1:9".to_owned());
            let r =
                Request { host, origin, site: site.into(), mode: mode.into(), path: path.into(), ..Request::default() };
            r.is_from_elsewhere()
        };
        assert!(!from(None, "", "", "/metrics"));
        assert!(!from(Some("http://127.0.0.1:9"), "same-origin", "cors", "/api/state"));
        assert!(from(Some("http://evil"), "", "", "/metrics"));
        assert!(from(Some("null"), "", "", "/metrics"));
        assert!(from(None, "cross-site", "no-cors", "/metrics"));
        assert!(!from(None, "cross-site", "navigate", "/"));
        assert!(from(None, "cross-site", "navigate", "/metrics"));
    }

    #[test]
    fn credentials_are_decoded() {
        let with = |text: &str| Request { authorization: Some(text.into()), ..Request::default() }.credentials();
        assert_eq!(with("Basic YWxpY2U6czpw"), Some((b"alice".to_vec(), b"s:p".to_vec())));
        assert_eq!(with("basic Onh5"), Some((b"".to_vec(), b"xy".to_vec())));
        assert_eq!(with("Basic Zm9v"), None);
        assert_eq!(with("Bearer YWxpY2U6czpw"), None);
        assert_eq!(with("Basic !!"), None);
        assert_eq!(base64("+/+/AA=="), Some(vec![0xfb, 0xff, 0xbf, 0]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn arbitrary_heads_never_panic(
            method in "[A-Z]{0,8}", target in "[ -~]{0,40}", version in "[0-2]\\.[0-9]",
            headers in proptest::collection::vec(("[a-zA-Z-]{0,20}|host|origin|authorization|connection", "[ -\u{ff}]{0,30}"), 0..9),
        ) {
            let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let text = format!("{method} {target} HTTP/{version}\r\n{lines}\r\n");
            if let Parsed::Request(request, len) = parse(text.as_bytes()) {
                prop_assert!(len <= text.len() && request.path.starts_with('/'));
                let _ = (request.credentials(), request.is_from_elsewhere(), request.is_for_us([].into_iter()));
            }
        }
    }
}
