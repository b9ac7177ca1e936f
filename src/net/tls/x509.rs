//! What of a certificate is looked at here: its validity and number for INFO, and the parts that its signature is checked
//! with where the library refuses to look at it at all, as it does with version 1.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};

/// The parts of a certificate, as DER (RFC 5280).
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// 1 to 3.
    pub(super) version: u8,
    pub(super) serial: &'a [u8],
    /// The content of the names.
    pub(super) issuer: &'a [u8],
    /// Unix seconds.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// The content of the subject's public key, algorithm and key.
    pub(super) public_key: &'a [u8],
    /// What is signed, and how.
    signed: &'a [u8],
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// An element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// With its head.
    whole: &'a [u8],
    /// What follows it.
    after: &'a [u8],
}

/// The first element.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some(Element { tag, content, whole: &der[..der.len() - after.len()], after })
}

/// The content of the first element, which has to be of this kind; moves on to what follows.
fn take<'a>(der: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let found = element(der)?;
    *der = found.after;
    (found.tag == kind).then_some(found.content)
}

impl<'a> Parts<'a> {
    pub(super) fn of(certificate: &'a [u8]) -> Option<Parts<'a>> {
        let mut outer = certificate;
        let mut outer = take(&mut outer, SEQUENCE)?;
        let Element { content: mut inner, whole: signed, after, .. } = element(outer)?;
        outer = after;
        let mut version = 1;
        if inner.first() == Some(&VERSION) {
            let mut number = take(&mut inner, VERSION)?;
            version = take(&mut number, INTEGER)?.first()? + 1;
        }
        let serial = take(&mut inner, INTEGER)?;
        take(&mut inner, SEQUENCE)?;
        let issuer = take(&mut inner, SEQUENCE)?;
        let mut validity = take(&mut inner, SEQUENCE)?;
        let not_before = time(&mut validity)?;
        let not_after = time(&mut validity)?;
        take(&mut inner, SEQUENCE)?;
        let public_key = take(&mut inner, SEQUENCE)?;
        let signature_algorithm = take(&mut outer, SEQUENCE)?;
        let signature = bits(take(&mut outer, BIT_STRING)?)?;
        Some(Parts {
            version,
            serial,
            issuer,
            not_before,
            not_after,
            public_key,
            signed,
            signature_algorithm,
            signature,
        })
    }

    /// Whether the holder of a public key has signed this certificate.
    pub(super) fn is_signed_by(&self, public_key: &[u8], algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let fits = |a: &&&dyn SignatureVerificationAlgorithm| a.signature_alg_id().as_ref() == self.signature_algorithm;
        algorithms.iter().filter(fits).any(|a| is_signature(*a, public_key, self.signed, self.signature))
    }

    pub(super) fn is_valid_at(&self, now_s: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now_s)
    }
}

/// Whether a signature is one with this public key, the content of its element.
pub(super) fn is_signature(
    algorithm: &dyn SignatureVerificationAlgorithm,
    mut public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Some(kind) = take(&mut public_key, SEQUENCE) else { return false };
    let Some(key) = take(&mut public_key, BIT_STRING).and_then(bits) else { return false };
    algorithm.public_key_alg_id().as_ref() == kind && algorithm.verify_signature(key, message, signature).is_ok()
}

/// The content of an element that is one by itself.
pub(super) fn content(mut der: &[u8]) -> Option<&[u8]> {
    take(&mut der, SEQUENCE)
}

/// Whole bytes of a bit string.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, in Unix seconds.
fn time(der: &mut &[u8]) -> Option<i64> {
    let Element { tag, content, after, .. } = element(der)?;
    *der = after;
    let digits = content.strip_suffix(b"Z")?;
    let number =
        |digits: &[u8]| digits.iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')));
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |i: usize| number(&rest[2 * i..2 * i + 2]);
    let (month, day) = (part(0)?, part(1)?);
    Some(days_since_1970(year, month, day) * 86400 + part(2)? * 3600 + part(3)? * 60 + part(4)?)
}

/// Days of the Gregorian calendar; years begin in March, so that the day that comes and goes is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_before_month + day - 719_469
}

/// What INFO tells of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Hexadecimal digits.
    pub(crate) serial: String,
    /// Unix seconds.
    pub(crate) not_after: i64,
}

impl CertificateFacts {
    /// Those of the certificate that ends first.
    pub(super) fn of_first_to_end(certificates: &[CertificateDer<'_>]) -> Option<CertificateFacts> {
        let facts = certificates.iter().filter_map(|der| {
            let parts = Parts::of(der)?;
            let serial: &[u8] = if let [0, rest @ ..] = parts.serial { rest } else { parts.serial };
            let serial = serial.iter().map(|b| format!("{b:02X}")).collect();
            Some(CertificateFacts { serial, not_after: parts.not_after })
        });
        facts.min_by_key(|facts| facts.not_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_unix_seconds() {
        let read = |tag: u8, text: &str| {
            let der = [&[tag, text.len() as u8], text.as_bytes()].concat();
            time(&mut der.as_slice())
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(read(UTC_TIME, "240229120000Z"), Some(1_709_208_000));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(read(GENERALIZED_TIME, "500101000000Z"), None);
        assert_eq!(read(UTC_TIME, "24022912000xZ"), None);
    }

    #[test]
    fn parts_of_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["example".into()]).unwrap();
        params.serial_number = Some(0x1234u64.into());
        params.not_after = rcgen::date_time_ymd(2040, 3, 1);
        let certificate = params.self_signed(&key).unwrap();
        let parts = Parts::of(certificate.der()).unwrap();
        assert_eq!((parts.version, parts.serial), (3, &[0x12, 0x34][..]));
        assert_eq!(parts.not_after, 2_214_172_800);
        assert!(parts.is_valid_at(1_800_000_000) && !parts.is_valid_at(2_214_172_801));
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        assert!(parts.is_signed_by(parts.public_key, algorithms.all));
        let other = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&other).unwrap();
        assert!(!parts.is_signed_by(Parts::of(other.der()).unwrap().public_key, algorithms.all));
        // What is cut off, or is something else, has no parts.
        let der = certificate.der();
        (0..der.len()).for_each(|len| assert!(Parts::of(&der[..len]).is_none(), "{len}"));
        let facts = CertificateFacts::of_first_to_end(&[certificate.der().clone()]).unwrap();
        assert_eq!(facts, CertificateFacts { serial: "1234".into(), not_after: 2_214_172_800 });
    }
}
