//! Codes that show that a packet of the bus comes from who knows the cluster's secret, and that it comes once.
//!
//! A link begins with a greeting of each side, who opened it first: [`MAGIC`] and a random number. The keys of a link, one
//! for each direction, are made of the secret and both numbers, so what was recorded on another link is of no use. After
//! every packet follows its code: HMAC-SHA-256 of how many there were before it, and of the packet, cut to 16 bytes; so
//! nothing can be repeated, left out or moved to another place. Who opens a link uses its first secret; the other side finds
//! out by the first packet which of its own that is. No packet reaches the state machine before its code was checked.
//!
//! Bytes in, bytes and packets' lengths out; sockets are the server's.

use sha2::{Digest, Sha256};
use std::rc::Rc;

use super::wire::{self, PacketType, WireError};

/// What a link with codes begins with; no packet does.
pub(crate) const MAGIC: &[u8; 8] = b"HexSeal1";
const NONCE_LEN: usize = 16;
const GREETING_LEN: usize = MAGIC.len() + NONCE_LEN;
const CODE_LEN: usize = 16;
/// Before the other side has shown that it knows the secret it sends no more than a packet of some thousand nodes needs.
const FIRST_PACKET_LEN: usize = 1 << 20;

pub(crate) type Nonce = [u8; NONCE_LEN];

/// `cluster-secret`, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Secrets {
    /// What links are opened with, and what is accepted.
    accepted: Vec<Rc<[u8]>>,
    /// Links may come without codes; ours have none.
    accepts_plain: bool,
    opens_plain: bool,
}

impl Secrets {
    /// Words: secrets, and `-` for none.
    pub(crate) fn parse(text: &str) -> Secrets {
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        Secrets {
            accepted: words.iter().filter(|word| **word != "-").map(|word| word.as_bytes().into()).collect(),
            accepts_plain: words.is_empty() || words.contains(&"-"),
            opens_plain: words.first().is_none_or(|first| *first == "-"),
        }
    }

    /// What shows to a node of the cluster, elsewhere than on the bus, that we know the secret with which links are opened.
    pub(super) fn proof(&self, of: &[u8]) -> Option<[u8; 32]> {
        self.accepted.first().filter(|_| !self.opens_plain).map(|secret| proof(secret, of))
    }

    /// All that show it to us.
    pub(super) fn proofs(&self, of: &[u8]) -> impl Iterator<Item = [u8; 32]> {
        self.accepted.iter().map(move |secret| proof(secret, of))
    }
}

fn proof(secret: &[u8], of: &[u8]) -> [u8; 32] {
    Mac::new(secret).code(&[b"hexad connection ", of])
}

/// A number for a client that nobody without the key can tell, and that is no other client's.
pub(super) fn challenge(key: &[u8; 32], client: u64) -> [u8; 32] {
    Mac::new(key).code(&[b"hexad challenge ", &client.to_be_bytes()])
}

/// The state of an HMAC with its key taken in.
#[derive(Clone)]
struct Mac {
    inner: Sha256,
    outer: Sha256,
}

impl Mac {
    fn new(key: &[u8]) -> Mac {
        let mut block = [0u8; 64];
        if key.len() > block.len() {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let keyed = |pad: u8| Sha256::new_with_prefix(block.map(|b| b ^ pad));
        Mac { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        parts.iter().for_each(|part| inner.update(part));
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        outer.finalize().into()
    }
}

/// One direction of a link.
#[derive(Clone)]
struct Direction {
    mac: Mac,
    /// How many packets there were.
    count: u64,
}

impl Direction {
    fn new(secret: &[u8], opener: &Nonce, other: &Nonce, name: &[u8]) -> Direction {
        Direction { mac: Mac::new(&Mac::new(secret).code(&[b"hexad bus ", name, opener, other])), count: 0 }
    }

    fn next(&mut self, packet: &[u8]) -> [u8; CODE_LEN] {
        let code = self.mac.code(&[&self.count.to_be_bytes(), packet]);
        self.count += 1;
        *code.first_chunk().expect("a longer code")
    }

    /// Whether this is the code; the time it takes tells nothing of how much of it is right.
    fn accepts(&mut self, packet: &[u8], code: &[u8]) -> bool {
        let right = self.next(packet);
        right.iter().zip(code).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

enum Stage {
    /// Packets go as they are.
    Plain,
    /// We opened the link and have greeted.
    Greeted(Rc<[u8]>, Nonce),
    /// Nothing came yet on a link that the other side opened.
    Accepted,
    /// Which of our secrets the other side uses shows with its first packet.
    Unproven(Vec<(Direction, Direction)>),
    /// To the other side, and from it.
    Sealed(Box<(Direction, Direction)>),
}

/// Why a link breaks off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// What came is no packet at all.
    Wire(WireError),
    /// It has no code, or a wrong one, or there is no secret for it.
    Refused(&'static str),
}

impl From<WireError> for Broken {
    fn from(e: WireError) -> Broken {
        Broken::Wire(e)
    }
}

/// What begins the bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Too little.
    None,
    /// A greeting of so many bytes; the link may be used now, and this is to be sent first.
    Greeting(usize, Option<Vec<u8>>),
    /// A packet of so many bytes, followed by so many bytes of code.
    Packet(usize, usize),
}

/// A packet and its code.
type Sealed<'a> = (&'a [u8], &'a [u8]);

/// The codes of a link.
pub(crate) struct Seal {
    stage: Stage,
    secrets: Secrets,
    /// On a link that we open with codes: packets that wait until the other side has greeted, and for our PING or MEET, which
    /// is to be the first, as it is short. `None`: it was sent, or there are no codes.
    held: Option<Vec<Rc<[u8]>>>,
}

impl Seal {
    /// For a link that we open; what is to be sent first, after which the other side's greeting is to be waited for.
    pub(crate) fn open(secrets: &Secrets, nonce: Nonce) -> (Seal, Option<Vec<u8>>) {
        let first = secrets.accepted.first().filter(|_| !secrets.opens_plain);
        let greeting = first.map(|_| [&MAGIC[..], &nonce].concat());
        let stage = first.map_or(Stage::Plain, |secret| Stage::Greeted(secret.clone(), nonce));
        let held = first.map(|_| Vec::new());
        (Seal { stage, secrets: secrets.clone(), held }, greeting)
    }

    /// For a link that the other side opened.
    pub(crate) fn accept(secrets: &Secrets) -> Seal {
        let plain_only = secrets.accepted.is_empty();
        let stage = if plain_only { Stage::Plain } else { Stage::Accepted };
        Seal { stage, secrets: secrets.clone(), held: None }
    }

    /// Whether the other side's greeting is waited for before anything is sent.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.stage, Stage::Greeted(..))
    }

    /// Whether a link like this may stand under other secrets.
    pub(crate) fn is_good_under(&self, secrets: &Secrets) -> bool {
        match &self.stage {
            Stage::Plain => secrets.accepts_plain,
            // Nothing came on it yet, so it could still become one without codes.
            Stage::Accepted if self.secrets.accepts_plain && !secrets.accepts_plain => false,
            // All that were accepted when it began are still: it does not matter which of them it has.
            _ => self.secrets.accepted.iter().all(|secret| secrets.accepted.contains(secret)),
        }
    }

    /// Whether packets go without codes.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.stage, Stage::Plain)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held.iter().flatten().map(|packet| packet.len()).sum()
    }

    /// A packet that is to be sent: what goes out now, codes included.
    pub(crate) fn outgoing(&mut self, packet: Rc<[u8]>) -> Vec<Rc<[u8]>> {
        let number = wire::packet_type(&packet);
        let is_first = !self.waits() && [PacketType::Ping, PacketType::Meet].iter().any(|kind| *kind as u16 == number);
        let packets = match &mut self.held {
            Some(held) if !is_first => {
                held.push(packet);
                return Vec::new();
            }
            held => std::iter::once(packet).chain(held.take().into_iter().flatten()),
        };
        let with_code = packets.flat_map(|packet| {
            let code = self.code_of(&packet);
            std::iter::once(packet).chain(code)
        });
        with_code.collect()
    }

    /// What follows a packet that is sent.
    fn code_of(&mut self, packet: &[u8]) -> Option<Rc<[u8]>> {
        match &mut self.stage {
            Stage::Sealed(directions) => Some(Rc::from(&directions.0.next(packet)[..])),
            _ => None,
        }
    }

    /// Looks at what came and was not taken yet. `nonce` is for a greeting of ours, if one is due.
    pub(crate) fn take(&mut self, bytes: &[u8], nonce: impl FnOnce() -> Nonce) -> Result<Taken, Broken> {
        match &mut self.stage {
            Stage::Plain => Ok(match wire::packet_len(bytes)? {
                Some(len) if bytes.len() >= len => Taken::Packet(len, 0),
                _ => Taken::None,
            }),
            Stage::Greeted(secret, ours) => {
                let Some(theirs) = greeting(bytes)? else { return Ok(Taken::None) };
                let directions = [&b"opener"[..], b"other"].map(|name| Direction::new(secret, ours, &theirs, name));
                self.stage = Stage::Sealed(Box::new(directions.into()));
                Ok(Taken::Greeting(GREETING_LEN, None))
            }
            Stage::Accepted => {
                if self.secrets.accepts_plain && bytes.first() == wire::SIGNATURE.first() {
                    self.stage = Stage::Plain;
                    return self.take(bytes, nonce);
                }
                let Some(theirs) = greeting(bytes)? else { return Ok(Taken::None) };
                let ours = nonce();
                let of = |secret: &Rc<[u8]>| {
                    let [from, to] =
                        [&b"opener"[..], b"other"].map(|name| Direction::new(secret, &theirs, &ours, name));
                    (to, from)
                };
                self.stage = Stage::Unproven(self.secrets.accepted.iter().map(of).collect());
                Ok(Taken::Greeting(GREETING_LEN, Some([&MAGIC[..], &ours].concat())))
            }
            Stage::Unproven(candidates) => {
                let Some((packet, code)) = sealed(bytes, FIRST_PACKET_LEN)? else { return Ok(Taken::None) };
                let at = candidates.iter_mut().position(|(_, from)| from.accepts(packet, code));
                let at = at.ok_or(Broken::Refused("its first packet has the code of another secret"))?;
                let len = packet.len();
                self.stage = Stage::Sealed(Box::new(candidates.swap_remove(at)));
                Ok(Taken::Packet(len, CODE_LEN))
            }
            Stage::Sealed(directions) => {
                let Some((packet, code)) = sealed(bytes, wire::MAX_PACKET_LEN)? else { return Ok(Taken::None) };
                if !directions.1.accepts(packet, code) {
                    return Err(Broken::Refused("a packet has a wrong code"));
                }
                Ok(Taken::Packet(packet.len(), CODE_LEN))
            }
        }
    }
}

/// The number in a greeting that is there as a whole.
fn greeting(bytes: &[u8]) -> Result<Option<Nonce>, Broken> {
    let shown = bytes.len().min(MAGIC.len());
    if bytes[..shown] != MAGIC[..shown] {
        return Err(Broken::Refused("its packets have no code"));
    }
    Ok(bytes.get(MAGIC.len()..).and_then(|rest| rest.first_chunk().copied()))
}

/// A packet that is there as a whole, and its code.
fn sealed(bytes: &[u8], longest: usize) -> Result<Option<Sealed<'_>>, Broken> {
    let Some(len) = wire::packet_len(bytes)? else { return Ok(None) };
    if len > longest {
        return Err(Broken::Refused("its first packet is too long"));
    }
    Ok(bytes.get(..len + CODE_LEN).map(|whole| whole.split_at(len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, ClusterConfig, Env};
    use proptest::prelude::*;

    const FIRST: &str = "the-first-secret-of-all";
    const OTHER: &str = "another-secret-which";

    fn packet(seed: u64) -> Vec<u8> {
        let c = Cluster::new(ClusterConfig::default(), seed, 1000);
        wire::encode(&c.header(0, &Env::at(1000)), &wire::Body::MfStart)
    }

    /// Two ends of a link after their greetings, with the bytes that each sent.
    fn greeted(opener: &str, other: &str, nonces: [u8; 2]) -> Result<([Seal; 2], [Vec<u8>; 2]), Broken> {
        let (mut a, hello) = Seal::open(&Secrets::parse(opener), [nonces[0]; NONCE_LEN]);
        let mut b = Seal::accept(&Secrets::parse(other));
        let hello = hello.unwrap_or_default();
        let mut answer = Vec::new();
        if !hello.is_empty() {
            match b.take(&hello, || [nonces[1]; NONCE_LEN])? {
                Taken::Greeting(GREETING_LEN, Some(bytes)) => answer = bytes,
                taken => panic!("{taken:?}"),
            }
            assert!(a.waits());
            assert_eq!(a.take(&answer, || unreachable!()), Ok(Taken::Greeting(GREETING_LEN, None)));
        }
        assert!(!a.waits());
        Ok(([a, b], [hello, answer]))
    }

    fn send(from: &mut Seal, packet: &[u8]) -> Vec<u8> {
        let code = from.code_of(packet);
        [packet, code.as_deref().unwrap_or_default()].concat()
    }

    /// RFC 4231, cases 2 and 6.
    #[test]
    fn the_codes_are_those_of_the_standard() {
        let hex = |code: [u8; 32]| code.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(Mac::new(b"Jefe").code(&[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(Mac::new(&[0xaa; 131]).code(&[b"Test Using Larger Than Block-Size Key - Hash Key First"])),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn only_who_knows_a_secret_can_prove_it() {
        let (both, none, open) =
            (Secrets::parse(&format!("{FIRST} {OTHER}")), Secrets::parse(""), format!("- {OTHER}"));
        let accepts = |secrets: &Secrets, proof: Option<[u8; 32]>, of: &[u8]| {
            secrets.proofs(of).any(|accepted| proof == Some(accepted))
        };
        for (secret, is_accepted) in [(FIRST, true), (OTHER, true), ("one-that-nobody-accepts", false), ("", false)] {
            let proof = Secrets::parse(secret).proof(b"this");
            assert_eq!(proof.is_some(), !secret.is_empty());
            assert_eq!([accepts(&both, proof, b"this"), accepts(&both, proof, b"that")], [is_accepted, false]);
            assert!(!accepts(&none, proof, b"this"));
        }
        // Links that are opened without codes show nothing.
        assert_eq!(Secrets::parse(&open).proof(b"this"), None);
    }

    #[test]
    fn who_knows_one_of_the_secrets_is_heard() {
        let (first, other, both) = (FIRST, OTHER, format!("{FIRST} {OTHER}"));
        let open_first = format!("- {first}");
        for (opener, accepts, is_heard) in [
            (first, first, true),
            (first, other, false),
            (other, &both[..], true),
            (&both, first, true),
            ("", "", true),
            ("", first, false),
            (first, "", false),
            ("", &open_first, true),
            (&open_first, "", true),
            (first, &open_first, true),
        ] {
            let heard = greeted(opener, accepts, [1, 2]).and_then(|([mut a, mut b], _)| {
                for n in 0..3 {
                    let (there, back) = (packet(n), packet(n + 10));
                    let bytes = send(&mut a, &there);
                    let Taken::Packet(len, code) = b.take(&bytes, || [0; 16])? else { panic!("a whole packet") };
                    assert_eq!((len, len + code), (there.len(), bytes.len()));
                    let bytes = send(&mut b, &back);
                    let Taken::Packet(len, code) = a.take(&bytes, || [0; 16])? else { panic!("a whole packet") };
                    assert_eq!((len, len + code), (back.len(), bytes.len()));
                }
                Ok(())
            });
            assert_eq!(heard.is_ok(), is_heard, "{opener} {accepts}: {heard:?}");
        }
    }

    /// Before it the other side takes no long ones: what is published while a link comes to stand is long.
    #[test]
    fn our_ping_is_the_first_packet_on_a_link() {
        let header = Cluster::new(ClusterConfig::default(), 1, 1000).header(0, &Env::at(1000));
        let of = |body: wire::Body<'_>| -> Rc<[u8]> { wire::encode(&header, &body).into() };
        let message = vec![b'x'; 2 << 20];
        let published = of(wire::Body::Publish { sharded: false, channel: b"news", message: &message });
        let ping = of(wire::Body::Ping { kind: PacketType::Ping, gossip: vec![], extensions: vec![] });
        let (mut a, hello) = Seal::open(&Secrets::parse(FIRST), [1; NONCE_LEN]);
        let mut b = Seal::accept(&Secrets::parse(FIRST));
        assert_eq!(a.outgoing(published.clone()).len(), 0);
        assert_eq!(a.held_bytes(), published.len());
        let Ok(Taken::Greeting(_, Some(answer))) = b.take(&hello.unwrap(), || [2; NONCE_LEN]) else { panic!("greets") };
        a.take(&answer, || unreachable!()).unwrap();
        assert_eq!(a.outgoing(published.clone()).len(), 0, "still");
        let sent = a.outgoing(ping.clone());
        assert_eq!((sent.len(), a.held_bytes()), (6, 0));
        let mut rest = &sent.concat()[..];
        for packet in [&ping, &published, &published] {
            assert_eq!(b.take(rest, || [0; 16]), Ok(Taken::Packet(packet.len(), CODE_LEN)));
            rest = &rest[packet.len() + CODE_LEN..];
        }
        assert_eq!(a.outgoing(published).len(), 2);
    }

    #[test]
    fn nothing_is_heard_twice_or_elsewhere_or_changed() {
        let link = |nonces| greeted(FIRST, FIRST, nonces).unwrap().0;
        let [mut a, mut b] = link([1, 2]);
        let (first, second) = (send(&mut a, &packet(1)), send(&mut a, &packet(2)));
        let wrong = Err(Broken::Refused("a packet has a wrong code"));
        let refused = Err(Broken::Refused("its first packet has the code of another secret"));
        let taken = |seal: &mut Seal, bytes: &[u8]| seal.take(bytes, || [0; 16]);
        assert_eq!(taken(&mut b, &second), refused, "not in its turn");
        assert_eq!(taken(&mut link([1, 2])[1], &first), Ok(Taken::Packet(first.len() - CODE_LEN, CODE_LEN)));
        assert_eq!(taken(&mut link([1, 3])[1], &first), refused, "recorded on another link");
        let [mut a, mut b] = link([5, 6]);
        let bytes = send(&mut a, &packet(1));
        assert!(taken(&mut b, &bytes).is_ok());
        assert_eq!(taken(&mut b, &bytes), wrong, "twice");
        let [mut a, mut b] = link([7, 8]);
        assert!(taken(&mut b, &send(&mut a, &packet(1))).is_ok());
        let reflected = send(&mut b, &packet(2));
        assert_eq!(taken(&mut b, &reflected), wrong, "its own");
        for at in [9, 100, 2255, 2256, 2271] {
            let [mut a, mut b] = link([9, 10]);
            let mut bytes = send(&mut a, &packet(1));
            bytes[at] ^= 1;
            assert_eq!(taken(&mut b, &bytes), refused, "byte {at}");
        }
    }

    #[test]
    fn a_change_of_secrets_keeps_the_links_that_are_still_good() {
        let is_good = |old: &str, new: &str| Seal::accept(&Secrets::parse(old)).is_good_under(&Secrets::parse(new));
        let (a, b) = (FIRST, OTHER);
        assert!(is_good(a, &format!("{a} {b}")) && is_good(a, &format!("{b} {a}")));
        assert!(!is_good(a, b) && !is_good(&format!("{a} {b}"), b));
        assert!(is_good("", "") && is_good("", &format!("- {a}")) && !is_good("", a));
        assert!(!is_good(a, ""));
    }

    /// Until something came on it, it could still turn out to be one without codes.
    #[test]
    fn a_silent_link_ends_when_codes_become_necessary() {
        let (optional, necessary) = (Secrets::parse(&format!("- {FIRST}")), Secrets::parse(FIRST));
        let mut seal = Seal::accept(&optional);
        assert!(seal.is_good_under(&optional) && !seal.is_good_under(&necessary));
        let (_, hello) = Seal::open(&necessary, [1; NONCE_LEN]);
        seal.take(&hello.unwrap(), || [2; NONCE_LEN]).unwrap();
        assert!(seal.is_good_under(&necessary), "it has greeted");
    }

    proptest! {
        #[test]
        fn whatever_comes_panics_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..3000,
            at in 0usize..2300,
        ) {
            let secret = Secrets::parse(FIRST);
            prop_assert!(!matches!(Seal::accept(&secret).take(&bytes, || [1; 16]), Ok(Taken::Packet(..))));
            let mut seal = Seal::accept(&secret);
            let hello = [&MAGIC[..], &[3; 16]].concat();
            seal.take(&hello, || [1; 16]).unwrap();
            let mut whole = packet(1);
            whole.extend_from_slice(&bytes);
            whole.truncate(cut);
            if let Some(byte) = whole.get_mut(at) {
                *byte ^= 0x55;
            }
            prop_assert!(!matches!(seal.take(&whole, || [1; 16]), Ok(Taken::Packet(..))));
        }
    }
}
