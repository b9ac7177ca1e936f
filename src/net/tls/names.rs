//! OpenSSL's names of protocols and cipher suites, as directives and options have them, and what of them there is here.

use rustls::crypto::CryptoProvider;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

/// A suite of TLS 1.2, with the words of OpenSSL's cipher lists that name it among others.
struct Suite12 {
    /// The number of the suite (IANA).
    id: u16,
    name: &'static str,
    words: &'static [&'static str],
}

const RSA: &[&str] = &["aRSA"];
const ECDSA: &[&str] = &["aECDSA", "ECDSA"];
/// What is true of all of them. RSA by itself, in OpenSSL, is the exchange of keys by RSA, and is in none.
const COMMON: &[&str] =
    &["ALL", "DEFAULT", "COMPLEMENTOFDEFAULT", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2", "FIPS"];

/// In the order in which a server prefers them, as OpenSSL's default has them.
const SUITES_12: &[Suite12] = &[
    Suite12 {
        id: 0xc02c,
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        words: &["AES", "AESGCM", "AES256", "SHA384", "SUITEB192"],
    },
    Suite12 { id: 0xc030, name: "ECDHE-RSA-AES256-GCM-SHA384", words: &["AES", "AESGCM", "AES256", "SHA384"] },
    Suite12 { id: 0xcca9, name: "ECDHE-ECDSA-CHACHA20-POLY1305", words: &["CHACHA20"] },
    Suite12 { id: 0xcca8, name: "ECDHE-RSA-CHACHA20-POLY1305", words: &["CHACHA20"] },
    Suite12 {
        id: 0xc02b,
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        words: &["AES", "AESGCM", "AES128", "SHA256", "SUITEB128"],
    },
    Suite12 { id: 0xc02f, name: "ECDHE-RSA-AES128-GCM-SHA256", words: &["AES", "AESGCM", "AES128", "SHA256"] },
];

const SUITES_13: &[(u16, &str)] =
    &[(0x1302, "TLS_AES_256_GCM_SHA384"), (0x1303, "TLS_CHACHA20_POLY1305_SHA256"), (0x1301, "TLS_AES_128_GCM_SHA256")];

/// What OpenSSL has besides. (Its lists know hundreds of names more, which are skipped there, too.)
const ABSENT_13: &[&str] = &["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"];

impl Suite12 {
    /// Whether a word of a cipher list means this suite: its name, or several words with `+`, all of which fit.
    fn is_meant_by(&self, word: &str) -> bool {
        let authentication = if self.name.contains("-RSA-") { RSA } else { ECDSA };
        word.split('+').all(|part| {
            part == self.name || COMMON.contains(&part) || authentication.contains(&part) || self.words.contains(&part)
        })
    }
}

/// The suites of TLS 1.2 that a cipher list names, in its order: words with `:`, `,` or blanks in between, each with `!` (never),
/// `-` (not so far) or `+` (to the end) before it.
fn suites_12(list: &str) -> Vec<u16> {
    let mut chosen: Vec<u16> = Vec::new();
    let mut never: Vec<u16> = Vec::new();
    for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let (mark, word) = match word.split_at(1) {
            (mark @ ("!" | "-" | "+"), rest) => (mark, rest),
            _ => ("", word),
        };
        let meant: Vec<u16> = SUITES_12.iter().filter(|s| s.is_meant_by(word)).map(|s| s.id).collect();
        match mark {
            "!" | "-" => {
                chosen.retain(|id| !meant.contains(id));
                if mark == "!" {
                    never.extend(meant);
                }
            }
            "+" => {
                let (last, first): (Vec<u16>, Vec<u16>) = chosen.iter().partition(|id| meant.contains(id));
                chosen = [first, last].concat();
            }
            _ => chosen.extend(meant.into_iter().filter(|id| !never.contains(id)).collect::<Vec<_>>()),
        }
        let mut seen = Vec::new();
        chosen.retain(|id| {
            !seen.contains(id) && {
                seen.push(*id);
                true
            }
        });
    }
    chosen
}

/// The suites of TLS 1.3 in a list of names.
fn suites_13(list: &str, notices: &mut Vec<String>) -> Result<Vec<u16>, String> {
    let mut chosen = Vec::new();
    for name in list.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        match SUITES_13.iter().find(|(_, known)| *known == name) {
            Some((id, _)) => chosen.push(*id),
            None if ABSENT_13.contains(&name) => notices.push(format!("the cipher suite {name} is not available here")),
            None => return Err(format!("unknown cipher suite {name}")),
        }
    }
    Ok(chosen)
}

/// The suites that the directives allow, of the protocols that are on. `""` leaves the default.
pub(super) fn restrict(
    provider: &mut CryptoProvider,
    ciphers: &str,
    ciphersuites: &str,
    versions: &[&'static SupportedProtocolVersion],
    notices: &mut Vec<String>,
) -> Result<(), String> {
    let available = std::mem::take(&mut provider.cipher_suites);
    let of_id = |id: &u16| available.iter().find(|s| u16::from(s.suite()) == *id).copied();
    let default =
        |old: bool| available.iter().copied().filter(move |s| old == matches!(s, SupportedCipherSuite::Tls12(_)));
    let mut chosen: Vec<SupportedCipherSuite> = match ciphersuites {
        "" => default(false).collect(),
        list => {
            suites_13(list, notices).map_err(|e| format!("tls-ciphersuites: {e}"))?.iter().filter_map(of_id).collect()
        }
    };
    let new = chosen.len();
    match ciphers {
        "" => chosen.extend(default(true)),
        list => chosen.extend(suites_12(list).iter().filter_map(of_id)),
    }
    let is_on = |wanted: &SupportedProtocolVersion| versions.contains(&wanted);
    let lacks_new = is_on(&version::TLS13) && new == 0;
    let lacks_old = is_on(&version::TLS12) && chosen.len() == new;
    if lacks_old && !ciphers.is_empty() {
        return Err(format!(
            "tls-ciphers '{ciphers}' names no cipher suite that is available here: those with ECDHE and AES-GCM or \
             ChaCha20 are, those with RSA or DHE key exchange or CBC are not"
        ));
    }
    if lacks_new {
        return Err(format!("tls-ciphersuites '{ciphersuites}' names no cipher suite that is available here"));
    }
    provider.cipher_suites = chosen;
    Ok(())
}

/// The protocols a list names, `""` for the default.
pub(super) fn protocols(
    list: &str,
    notices: &mut Vec<String>,
) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    if list.is_empty() {
        return Ok(vec![&version::TLS13, &version::TLS12]);
    }
    let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
    for name in list.split_ascii_whitespace() {
        match name.to_ascii_lowercase().as_str() {
            "tlsv1.3" => versions.push(&version::TLS13),
            "tlsv1.2" => versions.push(&version::TLS12),
            "tlsv1" | "tlsv1.1" => {
                notices.push(format!("tls-protocols: {name} is not available here, and is left out"))
            }
            _ => {
                return Err("Invalid tls-protocols specified. Use a combination of 'TLSv1', 'TLSv1.1', 'TLSv1.2' and \
                            'TLSv1.3'."
                    .into());
            }
        }
    }
    if versions.is_empty() {
        return Err(format!(
            "tls-protocols '{list}' names no protocol that is available here: TLSv1.2 and TLSv1.3 are"
        ));
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<&'static str> {
        suites_12(list).iter().map(|id| SUITES_12.iter().find(|s| s.id == *id).unwrap().name).collect()
    }

    #[test]
    fn cipher_lists_are_read_as_openssl_reads_them() {
        assert_eq!(names("DEFAULT:!MEDIUM").len(), 6);
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(names("ECDHE+AESGCM+aRSA"), ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(names("CHACHA20:AES128:!aECDSA"), ["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"]);
        // What is gone for good does not come back, what was only taken out does.
        assert_eq!(names("!AES128:ALL:!aECDSA:AES128:-CHACHA20"), ["ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(names("aRSA:-AES:AES256+aRSA").last(), Some(&"ECDHE-RSA-AES256-GCM-SHA384"));
        assert_eq!(names("aRSA:+AES256:@STRENGTH").last(), Some(&"ECDHE-RSA-AES256-GCM-SHA384"));
        assert!(names("AES128-SHA256:kRSA:DHE-RSA-AES256-GCM-SHA384").is_empty());
    }

    #[test]
    fn what_is_not_there_is_said() {
        let read = |protocol: &str, ciphers: &str, suites: &str| {
            let mut notices = Vec::new();
            let versions = protocols(protocol, &mut notices)?;
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            restrict(&mut provider, ciphers, suites, &versions, &mut notices)?;
            Ok::<_, String>((provider.cipher_suites.len(), notices.len()))
        };
        assert_eq!(read("", "", ""), Ok((9, 0)));
        assert_eq!(read("TLSv1.2", "AES128+aRSA", ""), Ok((4, 0)));
        assert_eq!(read("TLSv1.3 TLSv1.1", "nothing", "TLS_AES_128_CCM_SHA256:TLS_AES_128_GCM_SHA256"), Ok((1, 2)));
        for (protocol, ciphers, suites, why) in [
            ("TLSv1", "", "", "'TLSv1'"),
            ("SSLv3", "", "", "Invalid tls-protocols"),
            ("", "AES128-SHA256", "", "'AES128-SHA256'"),
            ("", "", "TLS_NONE", "unknown cipher suite TLS_NONE"),
            ("", "", "TLS_AES_128_CCM_SHA256", "no cipher suite"),
        ] {
            let refused = read(protocol, ciphers, suites).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
