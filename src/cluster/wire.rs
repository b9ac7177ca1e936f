//! Packets of the cluster bus, byte for byte as Redis 7.2 writes them (protocol version 1, signature `RCmb`).
//!
//! Owns only the layout: [`decode`] turns one whole packet into a [`Packet`] or says what is wrong with it, [`encode`]
//! is its inverse. Integers are big endian. The meaning of packets is in `gossip`. The layout is that of `clusterMsg`
//! in Redis's `cluster.h`: a header of 2,256 bytes, then a body that depends on the type.

use std::fmt;

use super::node::{Epochs, NodeFlags, NodeId, Secret};
use crate::config::is_node_name;
use crate::structs::slots::{SLOT_BYTES, SlotSet};

/// Bytes of the header, which is also the shortest packet.
pub(crate) const HEADER_LEN: usize = 2256;
/// Bytes that give the length of a packet: signature and length.
pub(crate) const PREFIX_LEN: usize = 8;
/// The most bytes a packet may have. Redis sets no bound; this one only keeps a broken peer from making us reserve
/// memory without end (a published message is at most 512 MiB).
pub(crate) const MAX_PACKET_LEN: usize = 600 * 1024 * 1024;

pub(super) const SIGNATURE: &[u8; 4] = b"RCmb";
const VERSION: u16 = 1;
const IP_LEN: usize = 46;
const GOSSIP_LEN: usize = 104;
const UPDATE_LEN: usize = 8 + NodeId::LEN + SLOT_BYTES;
const EXT_HEADER_LEN: usize = 8;
const EXT_SECRET: u16 = 4;
/// Our own extension, far from the numbers that Redis and Valkey count up.
const EXT_CLUSTER_NAME: u16 = 0x4858;

const AT_LENGTH: usize = 4;
const AT_VERSION: usize = 8;
const AT_PORT: usize = 10;
const AT_TYPE: usize = 12;
const AT_COUNT: usize = 14;
const AT_CURRENT_EPOCH: usize = 16;
const AT_CONFIG_EPOCH: usize = 24;
const AT_OFFSET: usize = 32;
const AT_SENDER: usize = 40;
const AT_SLOTS: usize = 80;
const AT_REPLICA_OF: usize = 2128;
const AT_IP: usize = 2168;
const AT_EXTENSIONS: usize = 2214;
const AT_SECOND_PORT: usize = 2246;
const AT_BUS_PORT: usize = 2248;
const AT_FLAGS: usize = 2250;
const AT_STATE: usize = 2252;
const AT_MFLAGS: usize = 2253;
const AT_SECOND_MFLAGS: usize = 2254;

/// Second byte of message flags, of which neither Redis nor Valkey knows any: the sender is one of ours.
const MFLAG_OURS: u8 = 1 << 7;
/// In the second byte, too: the agreed epoch is a lesser one than the config epoch, of the sender or of whom it tells, and stands
/// among the bytes that Redis and Valkey do not use.
const MFLAG_OWN_EPOCH: u8 = 1 << 6;
const MFLAG_OWN_EPOCH_TOLD: u8 = 1 << 5;
const AT_AGREED_EPOCH: usize = 2216;
const AT_AGREED_EPOCH_TOLD: usize = 2224;

/// First message flag: the sender, a master, has paused its clients for a manual failover.
pub(crate) const MFLAG_PAUSED: u8 = 1;
/// First message flag: vote although the master is up (manual failover).
pub(crate) const MFLAG_FORCE_ACK: u8 = 1 << 1;
/// First message flag: ping extensions follow the gossip section.
pub(crate) const MFLAG_EXTENSIONS: u8 = 1 << 2;
/// In a vote: the voter holds no lease, so that another one may have its place. Redis does not look at this bit.
pub(crate) const MFLAG_NO_LEASE: u8 = 1 << 7;

/// Number of packet types.
pub(crate) const TYPE_COUNT: usize = 11;

/// The type of a packet, with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub(crate) enum PacketType {
    /// Are you there? Answered by a PONG.
    Ping = 0,
    /// The answer to a PING, also sent unasked to spread news.
    Pong = 1,
    /// A PING that asks to be added to the receiver's cluster.
    Meet = 2,
    /// A node was agreed to have failed.
    Fail = 3,
    /// A message published to a channel.
    Publish = 4,
    /// A replica asks for a vote.
    AuthRequest = 5,
    /// A master grants its vote.
    AuthAck = 6,
    /// The newer owner of slots about which the receiver is out of date.
    Update = 7,
    /// A replica asks its master to pause its clients.
    MfStart = 8,
    /// A message between modules.
    Module = 9,
    /// A message published to a sharded channel.
    PublishShard = 10,
}

impl PacketType {
    /// All types, in the order of their numbers.
    pub(crate) const ALL: [PacketType; TYPE_COUNT] = [
        PacketType::Ping,
        PacketType::Pong,
        PacketType::Meet,
        PacketType::Fail,
        PacketType::Publish,
        PacketType::AuthRequest,
        PacketType::AuthAck,
        PacketType::Update,
        PacketType::MfStart,
        PacketType::Module,
        PacketType::PublishShard,
    ];

    /// The name CLUSTER INFO and log lines use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PacketType::Ping => "ping",
            PacketType::Pong => "pong",
            PacketType::Meet => "meet",
            PacketType::Fail => "fail",
            PacketType::Publish => "publish",
            PacketType::AuthRequest => "auth-req",
            PacketType::AuthAck => "auth-ack",
            PacketType::Update => "update",
            PacketType::MfStart => "mfstart",
            PacketType::Module => "module",
            PacketType::PublishShard => "publishshard",
        }
    }

    /// The type with this number; `None`: unknown.
    pub(crate) fn from_number(number: u16) -> Option<PacketType> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// What every packet says of its sender.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    /// The port clients use (the TLS one when the bus itself is TLS).
    pub(crate) port: u16,
    /// The other client port, 0 if there is none.
    pub(crate) second_port: u16,
    pub(crate) bus_port: u16,
    /// The cluster's epoch, as the sender knows it.
    pub(crate) current_epoch: u64,
    /// Those of the sender, or of its master if it is a replica. Of a node that does not say what was agreed on, all was.
    pub(crate) epochs: Epochs,
    /// Replication offset, bytes: written by a master, processed by a replica.
    pub(crate) offset: u64,
    pub(crate) sender: NodeId,
    /// Slots of the sender, or of its master if it is a replica.
    pub(crate) slots: SlotSet,
    /// The sender's master, if it is a replica.
    pub(crate) replica_of: Option<NodeId>,
    /// The announced address; empty if the receiver is to use that of the connection.
    pub(crate) ip: String,
    pub(crate) flags: NodeFlags,
    /// Whether the cluster is up, as the sender sees it.
    pub(crate) state_ok: bool,
    /// `MFLAG_*` bits of the first flag byte.
    pub(crate) mflags: u8,
    /// The sender is one of ours, neither a Redis nor a Valkey.
    pub(crate) is_ours: bool,
}

/// What a PING, PONG or MEET says about a third node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gossip {
    pub(crate) id: NodeId,
    /// When the sender last pinged it, unix seconds.
    pub(crate) ping_sent_s: u32,
    /// When the sender last had its pong, unix seconds.
    pub(crate) pong_received_s: u32,
    pub(crate) ip: String,
    /// Its client port (see [`Header::port`]).
    pub(crate) port: u16,
    pub(crate) bus_port: u16,
    /// Its flags, as the sender sees them.
    pub(crate) flags: NodeFlags,
    /// Its other client port.
    pub(crate) second_port: u16,
}

/// Additions to a PING, PONG or MEET. Of an unknown type only the number is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Extension {
    /// The announced host name.
    Hostname(String),
    /// The announced name for people.
    HumanName(String),
    /// A node that was forgotten, and for how many more seconds it must not be added again.
    Forgotten(NodeId, u64),
    /// The shard of the sender.
    ShardId(NodeId),
    /// By what the nodes of a cluster of Redis 8 know each other's connections. Never sent: in Valkey 9 the same number stands
    /// for something else, which is shorter.
    Secret(Secret),
    /// The name of the sender's cluster.
    ClusterName(String),
    /// A type this version does not know.
    Unknown(u16),
}

/// What follows the header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body<'a> {
    /// PING, PONG or MEET, which differ by type only.
    Ping {
        kind: PacketType,
        /// What the sender knows of other nodes.
        gossip: Vec<Gossip>,
        extensions: Vec<Extension>,
    },
    Fail(NodeId),
    /// A published message.
    Publish {
        /// Whether the channel is sharded.
        sharded: bool,
        channel: &'a [u8],
        message: &'a [u8],
    },
    /// A replica asks for a vote.
    AuthRequest,
    /// A master votes.
    AuthAck,
    /// A newer owner of slots.
    Update {
        /// The owner's.
        epochs: Epochs,
        node: NodeId,
        /// The slots it owns.
        slots: SlotSet,
    },
    /// A replica asks its master to pause clients.
    MfStart,
    /// A message between modules.
    Module {
        /// Id of the sending module; opaque, so its bytes are not swapped.
        module_id: u64,
        /// Type of the message.
        kind: u8,
        payload: &'a [u8],
    },
    /// A type newer than this protocol version: only its header counts.
    Unknown(u16),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packet<'a> {
    pub(crate) header: Header,
    pub(crate) body: Body<'a>,
}

/// Why bytes are not a packet we accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// The first four bytes are not `RCmb`, or the length cannot be one. The stream is lost.
    BadPrefix,
    /// Fewer bytes than the header says, or more.
    Length {
        /// The type's number.
        packet_type: u16,
        /// The length in the header.
        said: usize,
        /// The length that the content needs.
        needed: usize,
    },
    /// Another protocol version.
    Version(u16),
    /// An identifier that is not 40 characters of `a-z0-9`.
    NodeId {
        /// Offset of the field in the packet.
        offset: usize,
    },
    /// An address with bytes that no address contains.
    Address {
        /// Offset of the field in the packet.
        offset: usize,
    },
    /// An extension whose length is no multiple of eight.
    ExtensionPadding {
        /// The type's number.
        packet_type: u16,
        /// The extension's length.
        len: u32,
    },
    /// An extension that reaches beyond the packet, or is too short for its type.
    ExtensionLength {
        /// The type's number.
        packet_type: u16,
        /// The packet's length.
        total: usize,
    },
}

impl WireError {
    fn type_name(number: u16) -> &'static str {
        PacketType::from_number(number).map_or("unknown", PacketType::name)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::BadPrefix => write!(f, "Bad message length or signature received on the Cluster bus."),
            WireError::Length { packet_type, said, needed } => write!(
                f,
                "Received invalid {} packet of length {said} but expected length {needed}",
                Self::type_name(*packet_type)
            ),
            WireError::Version(v) => write!(f, "Received packet of unknown protocol version {v}"),
            WireError::NodeId { offset } => {
                write!(f, "Received packet with an invalid node id at byte {offset}")
            }
            WireError::Address { offset } => write!(f, "Received packet with an invalid address at byte {offset}"),
            WireError::ExtensionPadding { packet_type, len } => {
                write!(f, "Received a {} packet without proper padding ({len} bytes)", Self::type_name(*packet_type))
            }
            WireError::ExtensionLength { packet_type, total } => write!(
                f,
                "Received invalid {} packet with extension data that exceeds total packet length ({total})",
                Self::type_name(*packet_type)
            ),
        }
    }
}

impl std::error::Error for WireError {}

/// The length of the packet that starts with `bytes`, `None` while fewer than [`PREFIX_LEN`] bytes are there.
pub(crate) fn packet_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    if bytes.len() < PREFIX_LEN {
        // A wrong signature shows before the length is complete.
        let n = bytes.len().min(SIGNATURE.len());
        return if bytes[..n] == SIGNATURE[..n] { Ok(None) } else { Err(WireError::BadPrefix) };
    }
    let len = be32(bytes, AT_LENGTH) as usize;
    if &bytes[..4] != SIGNATURE || !(HEADER_LEN..=MAX_PACKET_LEN).contains(&len) {
        return Err(WireError::BadPrefix);
    }
    Ok(Some(len))
}

/// The type's number of a packet that [`packet_len`] accepts; for statistics before validation.
pub(crate) fn packet_type(bytes: &[u8]) -> u16 {
    if bytes.len() < HEADER_LEN { u16::MAX } else { be16(bytes, AT_TYPE) }
}

/// Reads one whole packet.
pub(crate) fn decode(bytes: &[u8]) -> Result<Packet<'_>, WireError> {
    // 0: not even its length is there.
    let said = packet_len(bytes)?.unwrap_or(0);
    let number = packet_type(bytes);
    if said == 0 || said != bytes.len() {
        return Err(WireError::Length { packet_type: number, said, needed: bytes.len() });
    }
    let version = be16(bytes, AT_VERSION);
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let wrong_len = |needed: usize| WireError::Length { packet_type: number, said, needed };
    let exactly = |needed: usize| {
        if said == needed { Ok(()) } else { Err(wrong_len(needed)) }
    };
    let data = &bytes[HEADER_LEN..];

    let body = match PacketType::from_number(number) {
        Some(kind @ (PacketType::Ping | PacketType::Pong | PacketType::Meet)) => decode_ping(kind, bytes)?,
        Some(PacketType::Fail) => {
            exactly(HEADER_LEN + NodeId::LEN)?;
            Body::Fail(node_id(bytes, HEADER_LEN)?)
        }
        Some(kind @ (PacketType::Publish | PacketType::PublishShard)) => {
            if data.len() < 8 {
                return Err(wrong_len(HEADER_LEN + 8));
            }
            let (channel_len, message_len) = (be32(data, 0) as usize, be32(data, 4) as usize);
            exactly(HEADER_LEN + 8 + channel_len + message_len)?;
            let (channel, message) = data[8..].split_at(channel_len);
            Body::Publish { sharded: kind == PacketType::PublishShard, channel, message }
        }
        Some(PacketType::AuthRequest) => exactly(HEADER_LEN).map(|()| Body::AuthRequest)?,
        Some(PacketType::AuthAck) => exactly(HEADER_LEN).map(|()| Body::AuthAck)?,
        Some(PacketType::MfStart) => exactly(HEADER_LEN).map(|()| Body::MfStart)?,
        Some(PacketType::Update) => {
            exactly(HEADER_LEN + UPDATE_LEN)?;
            Body::Update {
                epochs: epochs(bytes, be64(data, 0), MFLAG_OWN_EPOCH_TOLD, AT_AGREED_EPOCH_TOLD),
                node: node_id(bytes, HEADER_LEN + 8)?,
                slots: slot_set(data, 8 + NodeId::LEN),
            }
        }
        Some(PacketType::Module) => {
            if data.len() < 13 {
                return Err(wrong_len(HEADER_LEN + 13));
            }
            exactly(HEADER_LEN + 13 + be32(data, 8) as usize)?;
            let module_id = u64::from_ne_bytes(data[..8].try_into().expect("eight bytes"));
            Body::Module { module_id, kind: data[12], payload: &data[13..] }
        }
        None => Body::Unknown(number),
    };
    Ok(Packet { header: decode_header(bytes)?, body })
}

/// A config epoch, with the agreed one where a flag tells that there is another one.
fn epochs(b: &[u8], config: u64, flag: u8, at: usize) -> Epochs {
    let are_own = b[AT_SECOND_MFLAGS] & (MFLAG_OURS | flag) == MFLAG_OURS | flag;
    Epochs { config, agreed: if are_own { be64(b, at).min(config) } else { config } }
}

fn decode_header(b: &[u8]) -> Result<Header, WireError> {
    let replica_of = if b[AT_REPLICA_OF..AT_REPLICA_OF + NodeId::LEN].iter().all(|&c| c == 0) {
        None
    } else {
        Some(node_id(b, AT_REPLICA_OF)?)
    };
    Ok(Header {
        port: be16(b, AT_PORT),
        second_port: be16(b, AT_SECOND_PORT),
        bus_port: be16(b, AT_BUS_PORT),
        current_epoch: be64(b, AT_CURRENT_EPOCH),
        epochs: epochs(b, be64(b, AT_CONFIG_EPOCH), MFLAG_OWN_EPOCH, AT_AGREED_EPOCH),
        offset: be64(b, AT_OFFSET),
        sender: node_id(b, AT_SENDER)?,
        slots: slot_set(b, AT_SLOTS),
        replica_of,
        ip: address(b, AT_IP)?,
        flags: NodeFlags::from_bits(be16(b, AT_FLAGS)),
        state_ok: b[AT_STATE] == 0,
        mflags: b[AT_MFLAGS],
        is_ours: b[AT_SECOND_MFLAGS] & MFLAG_OURS != 0,
    })
}

fn decode_ping(kind: PacketType, bytes: &[u8]) -> Result<Body<'static>, WireError> {
    let packet_type = kind as u16;
    let said = bytes.len();
    let count = usize::from(be16(bytes, AT_COUNT));
    let mut at = HEADER_LEN + count * GOSSIP_LEN;
    if at > said {
        return Err(WireError::Length { packet_type, said, needed: at });
    }
    let mut gossip = Vec::with_capacity(count);
    for i in 0..count {
        let base = HEADER_LEN + i * GOSSIP_LEN;
        gossip.push(Gossip {
            id: node_id(bytes, base)?,
            ping_sent_s: be32(bytes, base + 40),
            pong_received_s: be32(bytes, base + 44),
            ip: address(bytes, base + 48)?,
            port: be16(bytes, base + 94),
            bus_port: be16(bytes, base + 96),
            flags: NodeFlags::from_bits(be16(bytes, base + 98)),
            second_port: be16(bytes, base + 100),
        });
    }
    let mut extensions = Vec::new();
    if bytes[AT_MFLAGS] & MFLAG_EXTENSIONS != 0 {
        let too_long = WireError::ExtensionLength { packet_type, total: said };
        for _ in 0..be16(bytes, AT_EXTENSIONS) {
            if said - at < EXT_HEADER_LEN {
                return Err(too_long);
            }
            let len = be32(bytes, at);
            if !len.is_multiple_of(8) {
                return Err(WireError::ExtensionPadding { packet_type, len });
            }
            let len = len as usize;
            if len < EXT_HEADER_LEN || len > said - at {
                return Err(too_long);
            }
            let content = &bytes[at + EXT_HEADER_LEN..at + len];
            extensions.push(decode_extension(be16(bytes, at + 4), content, &too_long)?);
            at += len;
        }
    }
    if at != said {
        return Err(WireError::Length { packet_type, said, needed: at });
    }
    Ok(Body::Ping { kind, gossip, extensions })
}

fn decode_extension(number: u16, content: &[u8], too_long: &WireError) -> Result<Extension, WireError> {
    Ok(match number {
        0 => Extension::Hostname(text(content)),
        1 => Extension::HumanName(text(content)),
        2 if content.len() >= NodeId::LEN + 8 => Extension::Forgotten(node_id(content, 0)?, be64(content, NodeId::LEN)),
        3 if content.len() >= NodeId::LEN => Extension::ShardId(node_id(content, 0)?),
        2 | 3 => return Err(too_long.clone()),
        EXT_SECRET => match content.first_chunk() {
            Some(secret) if content.len() == secret.len() => Extension::Secret(*secret),
            _ => Extension::Unknown(EXT_SECRET),
        },
        EXT_CLUSTER_NAME => Extension::ClusterName(text(content)),
        other => Extension::Unknown(other),
    })
}

/// Writes a packet. Extensions of unknown type are not written.
///
/// Panics if the content does not fit its length fields (more than 65,535 gossip entries, a message beyond 4 GiB).
pub(crate) fn encode(header: &Header, body: &Body<'_>) -> Vec<u8> {
    let room = match body {
        // With room for the usual extensions.
        Body::Ping { gossip, .. } => gossip.len() * GOSSIP_LEN + 64,
        _ => 0,
    };
    let mut out = Vec::with_capacity(HEADER_LEN + room);
    out.resize(HEADER_LEN, 0);
    let mut mflags = header.mflags & !MFLAG_EXTENSIONS;
    let mut told = None;
    let (packet_type, count, extension_count) = match body {
        Body::Ping { kind, gossip, extensions } => {
            for g in gossip {
                encode_gossip(&mut out, g);
            }
            let written = extensions.iter().filter(|e| encode_extension(&mut out, e)).count();
            if written > 0 {
                mflags |= MFLAG_EXTENSIONS;
            }
            (*kind as u16, gossip.len(), written)
        }
        Body::Fail(node) => {
            out.extend_from_slice(node.as_bytes());
            (PacketType::Fail as u16, 0, 0)
        }
        Body::Publish { sharded, channel, message } => {
            out.reserve_exact(8 + channel.len() + message.len());
            out.extend_from_slice(&fit::<u32>(channel.len()).to_be_bytes());
            out.extend_from_slice(&fit::<u32>(message.len()).to_be_bytes());
            out.extend_from_slice(channel);
            out.extend_from_slice(message);
            (if *sharded { PacketType::PublishShard } else { PacketType::Publish } as u16, 0, 0)
        }
        Body::AuthRequest => (PacketType::AuthRequest as u16, 0, 0),
        Body::AuthAck => (PacketType::AuthAck as u16, 0, 0),
        Body::Update { epochs, node, slots } => {
            told = Some(*epochs);
            out.extend_from_slice(&epochs.config.to_be_bytes());
            out.extend_from_slice(node.as_bytes());
            out.extend_from_slice(&slots.to_bytes());
            (PacketType::Update as u16, 0, 0)
        }
        Body::MfStart => (PacketType::MfStart as u16, 0, 0),
        Body::Module { module_id, kind, payload } => {
            out.extend_from_slice(&module_id.to_ne_bytes());
            out.extend_from_slice(&fit::<u32>(payload.len()).to_be_bytes());
            out.push(*kind);
            out.extend_from_slice(payload);
            (PacketType::Module as u16, 0, 0)
        }
        Body::Unknown(number) => (*number, 0, 0),
    };
    encode_header(&mut out, header, (packet_type, count, extension_count), (mflags, told));
    out
}

/// Fills in the header of a packet that is there as a whole but for that: its type, how many entries and extensions it has, and the
/// epochs that it tells of another node.
fn encode_header(
    out: &mut [u8],
    header: &Header,
    (packet_type, count, extension_count): (u16, usize, usize),
    (mflags, told): (u8, Option<Epochs>),
) {
    let total: u32 = fit(out.len());
    header.slots.write_to(&mut out[AT_SLOTS..AT_SLOTS + SLOT_BYTES]);
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, SIGNATURE);
    put(AT_LENGTH, &total.to_be_bytes());
    put(AT_VERSION, &VERSION.to_be_bytes());
    put(AT_PORT, &header.port.to_be_bytes());
    put(AT_TYPE, &packet_type.to_be_bytes());
    put(AT_COUNT, &fit::<u16>(count).to_be_bytes());
    put(AT_CURRENT_EPOCH, &header.current_epoch.to_be_bytes());
    put(AT_CONFIG_EPOCH, &header.epochs.config.to_be_bytes());
    put(AT_OFFSET, &header.offset.to_be_bytes());
    put(AT_SENDER, header.sender.as_bytes());
    if let Some(master) = &header.replica_of {
        put(AT_REPLICA_OF, master.as_bytes());
    }
    put(AT_IP, &padded_ip(&header.ip));
    put(AT_EXTENSIONS, &fit::<u16>(extension_count).to_be_bytes());
    put(AT_SECOND_PORT, &header.second_port.to_be_bytes());
    put(AT_BUS_PORT, &header.bus_port.to_be_bytes());
    put(AT_FLAGS, &header.flags.bits().to_be_bytes());
    put(AT_STATE, &[u8::from(!header.state_ok)]);
    put(AT_MFLAGS, &[mflags]);
    let mut second_mflags = if header.is_ours { MFLAG_OURS } else { 0 };
    let all =
        [(Some(header.epochs), MFLAG_OWN_EPOCH, AT_AGREED_EPOCH), (told, MFLAG_OWN_EPOCH_TOLD, AT_AGREED_EPOCH_TOLD)];
    for (epochs, flag, at) in all {
        if let Some(epochs) = epochs.filter(|epochs| epochs.are_own()) {
            second_mflags |= flag;
            put(at, &epochs.agreed.to_be_bytes());
        }
    }
    put(AT_SECOND_MFLAGS, &[second_mflags]);
}

fn encode_gossip(out: &mut Vec<u8>, g: &Gossip) {
    out.extend_from_slice(g.id.as_bytes());
    out.extend_from_slice(&g.ping_sent_s.to_be_bytes());
    out.extend_from_slice(&g.pong_received_s.to_be_bytes());
    out.extend_from_slice(&padded_ip(&g.ip));
    out.extend_from_slice(&g.port.to_be_bytes());
    out.extend_from_slice(&g.bus_port.to_be_bytes());
    out.extend_from_slice(&g.flags.bits().to_be_bytes());
    out.extend_from_slice(&g.second_port.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
}

fn encode_extension(out: &mut Vec<u8>, extension: &Extension) -> bool {
    let (number, mut content) = match extension {
        Extension::Hostname(name) => (0u16, [name.as_bytes(), &[0]].concat()),
        Extension::HumanName(name) => (1, [name.as_bytes(), &[0]].concat()),
        Extension::Forgotten(id, ttl_s) => (2, [&id.as_bytes()[..], &ttl_s.to_be_bytes()].concat()),
        Extension::ShardId(id) => (3, id.as_bytes().to_vec()),
        Extension::ClusterName(name) => (EXT_CLUSTER_NAME, [name.as_bytes(), &[0]].concat()),
        Extension::Secret(secret) => (EXT_SECRET, secret.to_vec()),
        Extension::Unknown(_) => return false,
    };
    content.resize(content.len().next_multiple_of(8), 0);
    out.extend_from_slice(&fit::<u32>(EXT_HEADER_LEN + content.len()).to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&content);
    true
}

fn fit<T: TryFrom<usize>>(n: usize) -> T {
    T::try_from(n).unwrap_or_else(|_| panic!("{n} does not fit a length field of the bus"))
}

fn padded_ip(ip: &str) -> [u8; IP_LEN] {
    let mut out = [0; IP_LEN];
    let n = ip.len().min(IP_LEN - 1);
    out[..n].copy_from_slice(&ip.as_bytes()[..n]);
    out
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

fn slot_set(b: &[u8], at: usize) -> SlotSet {
    SlotSet::from_bytes(b[at..at + SLOT_BYTES].try_into().expect("a whole bitmap"))
}

fn node_id(b: &[u8], at: usize) -> Result<NodeId, WireError> {
    NodeId::parse(&b[at..at + NodeId::LEN]).ok_or(WireError::NodeId { offset: at })
}

/// Addresses end at the first NUL and reach nodes.conf and replies, so nothing that would break a line may pass.
fn address(b: &[u8], at: usize) -> Result<String, WireError> {
    let field = &b[at..at + IP_LEN];
    let len = memchr::memchr(0, field).unwrap_or(IP_LEN - 1);
    let ok = |c: &u8| c.is_ascii_graphic() && !matches!(c, b',' | b'"' | b'\'' | b'\\');
    if !field[..len].iter().all(ok) {
        return Err(WireError::Address { offset: at });
    }
    Ok(String::from_utf8_lossy(&field[..len]).into_owned())
}

/// A NUL-terminated name. Names that could not be written to nodes.conf and read back count as not announced.
fn text(content: &[u8]) -> String {
    let name = &content[..memchr::memchr(0, content).unwrap_or(content.len())];
    if is_node_name(name) { String::from_utf8_lossy(name).into_owned() } else { String::new() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The address, host name and human name of a packet with these bytes; `None`: it is refused.
    pub(in super::super) fn heard(ip: &[u8], hostname: &[u8], human_name: &[u8]) -> Option<(String, String, String)> {
        let mut field = [0; IP_LEN];
        let len = ip.len().min(IP_LEN - 1);
        field[..len].copy_from_slice(&ip[..len]);
        Some((address(&field, 0).ok()?, text(hostname), text(human_name)))
    }

    fn id(n: u8) -> NodeId {
        NodeId::parse(&[b'a' + n % 26; 40]).unwrap()
    }

    fn header() -> Header {
        Header {
            port: 7000,
            second_port: 0,
            bus_port: 17000,
            current_epoch: 9,
            epochs: Epochs { config: 3, agreed: 2 },
            offset: 1234,
            sender: id(1),
            slots: (0..100).collect(),
            replica_of: Some(id(2)),
            ip: "127.0.0.1".into(),
            flags: NodeFlags::from_bits(17),
            state_ok: false,
            mflags: MFLAG_PAUSED,
            is_ours: true,
        }
    }

    #[test]
    fn sizes_are_those_of_redis() {
        let h = header();
        assert_eq!(encode(&h, &Body::AuthRequest).len(), 2256);
        assert_eq!(encode(&h, &Body::Fail(id(3))).len(), 2296);
        assert_eq!(
            encode(&h, &Body::Update { epochs: Epochs::agreed_on(1), node: id(3), slots: SlotSet::default() }).len(),
            4352
        );
        let ping = Body::Ping { kind: PacketType::Ping, gossip: vec![], extensions: vec![Extension::ShardId(id(4))] };
        assert_eq!(encode(&h, &ping).len(), 2256 + 48);
        let named = Body::Ping {
            kind: PacketType::Pong,
            gossip: vec![],
            extensions: vec![Extension::Hostname("12345678".into())],
        };
        assert_eq!(encode(&h, &named).len(), 2256 + 8 + 16, "the terminating NUL is part of the name");
    }

    /// Number 4 is a secret of 40 bytes in Redis 8 and an address, which is shorter, in Valkey 9.
    #[test]
    fn a_secret_of_redis_8_is_told_from_an_address_of_valkey_9() {
        let of = |extension| {
            let ping = Body::Ping { kind: PacketType::Ping, gossip: vec![], extensions: vec![extension] };
            let mut b = encode(&header(), &ping);
            b[HEADER_LEN + 4..HEADER_LEN + 6].copy_from_slice(&EXT_SECRET.to_be_bytes());
            match decode(&b).unwrap().body {
                Body::Ping { mut extensions, .. } => extensions.remove(0),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(Extension::ShardId(id(4))), Extension::Secret(*id(4).as_bytes()));
        assert_eq!(of(Extension::HumanName("10.0.0.1".into())), Extension::Unknown(EXT_SECRET));
    }

    #[test]
    fn rejects_with_the_reason() {
        let h = header();
        let good = encode(&h, &Body::AuthRequest);
        let mut b = good.clone();
        b[0] = b'X';
        assert_eq!(decode(&b), Err(WireError::BadPrefix));
        let mut b = good.clone();
        b[9] = 2;
        assert_eq!(decode(&b), Err(WireError::Version(2)));
        assert!(matches!(decode(&good[..2000]), Err(WireError::Length { .. })));
        let mut b = good.clone();
        b[AT_SENDER] = b'!';
        assert_eq!(decode(&b), Err(WireError::NodeId { offset: AT_SENDER }));
        let mut b = good.clone();
        b[AT_IP] = b'\n';
        assert_eq!(decode(&b), Err(WireError::Address { offset: AT_IP }));
        let ping = Body::Ping { kind: PacketType::Ping, gossip: vec![], extensions: vec![Extension::ShardId(id(4))] };
        let good = encode(&h, &ping);
        let mut b = good.clone();
        b[HEADER_LEN + 3] = 47;
        assert!(matches!(decode(&b), Err(WireError::ExtensionPadding { len: 47, .. })));
        let mut b = good.clone();
        b[HEADER_LEN + 3] = 56;
        assert!(matches!(decode(&b), Err(WireError::ExtensionLength { .. })));
        let mut b = good;
        b[AT_COUNT + 1] = 1;
        assert!(matches!(decode(&b), Err(WireError::Length { needed: 2360, .. })));
    }

    /// Packets that Redis 7.2.6 sent: understood, and written again byte for byte.
    #[test]
    fn packets_of_redis() {
        let meet: &[u8] = include_bytes!("../../tests/data/cluster/meet-from-replica.bin");
        let pong: &[u8] = include_bytes!("../../tests/data/cluster/pong.bin");
        let master: &[u8] = include_bytes!("../../tests/data/cluster/meet-from-master.bin");
        for bytes in [meet, pong, master] {
            let packet = decode(bytes).unwrap();
            assert_eq!(encode(&packet.header, &packet.body), bytes);
        }
        let packet = decode(meet).unwrap();
        let Body::Ping { kind, gossip, extensions } = &packet.body else { panic!("{:?}", packet.body) };
        assert_eq!(*kind, PacketType::Meet);
        assert_eq!(packet.header.slots.ranges(), [(0, 5000), (5002, 6000)], "those of its master");
        assert_eq!(packet.header.flags, NodeFlags::MYSELF | NodeFlags::REPLICA);
        assert_eq!(gossip.len(), 1);
        assert!(gossip.iter().all(|g| g.ip == "127.0.0.1" && g.port + 10000 == g.bus_port && g.second_port == 0));
        let own = format!("host-{}.example", packet.header.port);
        assert_eq!(extensions[0], Extension::Hostname(own));
        assert_eq!(extensions[1], Extension::HumanName(format!("node{}", packet.header.port)));
        assert!(matches!(extensions[2], Extension::ShardId(_)));
    }

    fn any_id() -> impl Strategy<Value = NodeId> {
        proptest::collection::vec(prop_oneof![b'a'..=b'z', b'0'..=b'9'], 40).prop_map(|v| NodeId::parse(&v).unwrap())
    }

    fn any_gossip() -> impl Strategy<Value = Gossip> {
        (any_id(), any::<(u32, u32, u16, u16, u16, u16)>(), "[0-9a-f.:]{0,45}").prop_map(|(id, n, ip)| Gossip {
            id,
            ping_sent_s: n.0,
            pong_received_s: n.1,
            ip,
            port: n.2,
            bus_port: n.3,
            flags: NodeFlags::from_bits(n.4),
            second_port: n.5,
        })
    }

    fn any_extension() -> impl Strategy<Value = Extension> {
        prop_oneof![
            "[a-z0-9.-]{0,60}".prop_map(Extension::Hostname),
            "[a-z0-9.-]{0,60}".prop_map(Extension::HumanName),
            (any_id(), any::<u64>()).prop_map(|(id, ttl)| Extension::Forgotten(id, ttl)),
            any_id().prop_map(Extension::ShardId),
        ]
    }

    fn any_header() -> impl Strategy<Value = Header> {
        (
            any::<(u16, u16, u16, u64, u64, u64, u16, bool)>(),
            any_id(),
            proptest::option::of(any_id()),
            "[0-9a-f.:]{0,45}",
            proptest::collection::vec(0u16..16384, 0..40),
            0u8..4,
        )
            .prop_map(|(n, sender, replica_of, ip, slots, mflags)| Header {
                port: n.0,
                second_port: n.1,
                bus_port: n.2,
                current_epoch: n.3,
                epochs: Epochs { config: n.4, agreed: if n.7 { n.4.min(n.3) } else { n.4 } },
                offset: n.5,
                sender,
                slots: slots.into_iter().collect(),
                replica_of,
                ip,
                flags: NodeFlags::from_bits(n.6),
                state_ok: n.7,
                mflags,
                is_ours: n.7,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pings_survive_the_wire(h in any_header(),
                                  gossip in proptest::collection::vec(any_gossip(), 0..20),
                                  extensions in proptest::collection::vec(any_extension(), 0..6)) {
            let body = Body::Ping { kind: PacketType::Meet, gossip, extensions: extensions.clone() };
            let bytes = encode(&h, &body);
            prop_assert_eq!(packet_len(&bytes), Ok(Some(bytes.len())));
            let mut expected = h;
            if !extensions.is_empty() { expected.mflags |= MFLAG_EXTENSIONS; }
            prop_assert_eq!(decode(&bytes), Ok(Packet { header: expected, body }));
        }

        #[test]
        fn other_packets_survive_the_wire(h in any_header(), node in any_id(), epoch: u64, sharded: bool, kind: u8,
                                          a in proptest::collection::vec(any::<u8>(), 0..200),
                                          b in proptest::collection::vec(any::<u8>(), 0..200)) {
            for body in [
                Body::Fail(node), Body::AuthRequest, Body::AuthAck, Body::MfStart, Body::Unknown(300),
                Body::Update { epochs: Epochs { config: epoch, agreed: if h.is_ours { epoch / 2 } else { epoch } }, node, slots: (5..900).collect() },
                Body::Publish { sharded, channel: &a, message: &b },
                Body::Module { module_id: epoch, kind, payload: &a },
            ] {
                let bytes = encode(&h, &body);
                prop_assert_eq!(decode(&bytes), Ok(Packet { header: h.clone(), body }));
            }
        }

        #[test]
        fn damage_never_panics(h in any_header(), gossip in proptest::collection::vec(any_gossip(), 0..5),
                               extensions in proptest::collection::vec(any_extension(), 0..4),
                               damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..30),
                               cut in any::<proptest::sample::Index>()) {
            let mut bytes = encode(&h, &Body::Ping { kind: PacketType::Ping, gossip, extensions });
            for (at, value) in &damage {
                // Mostly damages fields that are interpreted, not the slot bitmap.
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let _ = decode(&bytes);
            assert!(decode(b"").is_err());
            let cut = cut.index(bytes.len() + 1);
            let _ = packet_len(&bytes[..cut]);
            let _ = decode(&bytes[..cut]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u16..13, mflags: u8, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = encode(&header(), &Body::Unknown(kind));
            bytes.extend_from_slice(&tail);
            let len = bytes.len() as u32;
            bytes[AT_LENGTH..AT_LENGTH + 4].copy_from_slice(&len.to_be_bytes());
            bytes[AT_MFLAGS] = mflags;
            bytes[AT_COUNT + 1] = mflags % 4;
            bytes[AT_EXTENSIONS + 1] = 3;
            let _ = decode(&bytes);
        }
    }
}
