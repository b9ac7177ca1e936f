//! Questions asked of the server before a run: where the masters of a cluster are, and what its configuration says.

use super::options::Options;
use crate::net::Conn;
use crate::net::tls::WaitingStream;
use crate::resp::Reply as Writer;
use crate::resp::reply_reader::{Reply, ReplyReader};
use crate::structs::slots::{SLOT_COUNT, key_slot};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// For each node, the hash tags of the slots that it serves.
pub(crate) type Tags = Vec<Vec<[u8; 3]>>;

/// A server to put load on.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) socket: Option<PathBuf>,
    /// Its node ID in the cluster.
    pub(crate) id: Option<String>,
    /// Hash tags of its slots, in a cluster.
    pub(crate) tags: Vec<[u8; 3]>,
    /// `save` and `appendonly` as CONFIG GET shows them, where it does.
    pub(crate) save: Option<String>,
    pub(crate) appendonly: Option<String>,
}

impl Target {
    /// `host:port`, or the socket's path.
    pub(crate) fn name(&self) -> String {
        match &self.socket {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// A non-blocking connection; under TLS the handshake is yet to come.
    pub(crate) fn connect(&self, options: &Options) -> io::Result<Conn> {
        match &self.socket {
            Some(path) => {
                let s = UnixStream::connect(path)?;
                s.set_nonblocking(true)?;
                Ok(Conn::Unix(mio::net::UnixStream::from_std(s)))
            }
            None => {
                let s = self.tcp()?;
                s.set_nonblocking(true)?;
                s.set_nodelay(true)?;
                let s = mio::net::TcpStream::from_std(s);
                match options.tls() {
                    None => Ok(Conn::Tcp(s)),
                    Some(tls) => Conn::of_tool(s, tls.context().map_err(io::Error::other)?, tls.sni.as_deref()),
                }
            }
        }
    }

    fn tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for addr in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect(addr) {
                Ok(s) => return Ok(s),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn ask(&self, options: &Options, words: &[&[u8]]) -> Result<Reply, String> {
        let failed =
            |e: io::Error| format!("Could not connect to Redis at {}: {}", self.name(), crate::cli::describe_error(&e));
        let answer = match &self.socket {
            Some(path) => ask_on(UnixStream::connect(path).map_err(failed)?, options, words),
            None => {
                let s = self.tcp().map_err(failed)?;
                match options.tls() {
                    None => ask_on(s, options, words),
                    Some(tls) => {
                        let context = tls.context().map_err(|e| failed(io::Error::other(e)))?;
                        let s = WaitingStream::connect(s, context, tls.sni.as_deref(), None).map_err(failed)?;
                        ask_on(s, options, words)
                    }
                }
            }
        };
        answer.map_err(|reason| format!("Node {} replied with error:\n{reason}", self.name()))
    }
}

/// What every connection sends first: credentials, protocol, database. Returns the bytes and the number of replies to
/// expect.
pub(crate) fn greeting(options: &Options) -> (Vec<u8>, usize) {
    let mut out = Writer::default();
    let mut replies = 0;
    let mut say = |words: &[&[u8]]| {
        out.command(words.iter().copied());
        replies += 1;
    };
    match (&options.user, &options.password) {
        (Some(user), Some(password)) => say(&[b"AUTH", user, password]),
        (None, Some(password)) => say(&[b"AUTH", password]),
        _ => {}
    }
    if options.tracking {
        say(&[b"CLIENT", b"TRACKING", b"on"]);
    }
    if options.resp3 {
        say(&[b"HELLO", b"3"]);
    }
    if options.db != 0 && !options.cluster {
        say(&[b"SELECT", options.db.to_string().as_bytes()]);
    }
    (out.buf, replies)
}

fn ask_on(mut stream: impl Read + Write, options: &Options, words: &[&[u8]]) -> Result<Reply, String> {
    let (mut bytes, greetings) = greeting(options);
    let mut request = Writer::default();
    request.command(words.iter().copied());
    bytes.extend_from_slice(&request.buf);
    stream.write_all(&bytes).map_err(|e| e.to_string())?;
    let mut reader = ReplyReader::new();
    let mut chunk = [0u8; 16384];
    for nth in 0.. {
        let reply = loop {
            if let Some(reply) = reader.next_reply().map_err(|e| format!("{e:?}"))? {
                break reply;
            }
            match stream.read(&mut chunk).map_err(|e| e.to_string())? {
                0 => return Err("The server closed the connection".into()),
                n => reader.feed(&chunk[..n]),
            }
        };
        if nth == greetings {
            return Ok(reply);
        }
        if let Some(error) = reply.error() {
            return Err(String::from_utf8_lossy(error).into_owned());
        }
    }
    unreachable!("the loop above ends by returning")
}

/// The servers to load: the one that was named, or the masters of its cluster.
pub(crate) fn targets(options: &Options) -> Result<Vec<Target>, String> {
    let named = Target {
        host: options.host.clone(),
        port: options.port,
        socket: options.socket.clone(),
        id: None,
        tags: Vec::new(),
        save: None,
        appendonly: None,
    };
    let mut targets = if options.cluster { masters(options, &named)? } else { vec![named] };
    for target in &mut targets {
        target.save = config(options, target, "save")?;
        target.appendonly = config(options, target, "appendonly")?;
    }
    Ok(targets)
}

fn config(options: &Options, target: &Target, name: &str) -> Result<Option<String>, String> {
    let reply = target.ask(options, &[b"CONFIG", b"GET", name.as_bytes()])?;
    Ok(reply.pairs().first().map(|(_, value)| value.text_lossy()))
}

/// The masters with their slots, from CLUSTER SLOTS.
fn masters(options: &Options, seed: &Target) -> Result<Vec<Target>, String> {
    let reply = seed.ask(options, &[b"CLUSTER", b"SLOTS"])?;
    if let Some(error) = reply.error() {
        return Err(format!(
            "Cluster node {0} replied with error:\n{1}\nFailed to fetch cluster configuration from {0}",
            seed.name(),
            String::from_utf8_lossy(error)
        ));
    }
    let tags = tags_by_slot();
    let mut targets: Vec<Target> = Vec::new();
    for range in reply.elements().unwrap_or_default() {
        let parts = range.elements().unwrap_or_default();
        let (Some(from), Some(to), Some(node)) = (
            parts.first().and_then(Reply::integer),
            parts.get(1).and_then(Reply::integer),
            parts.get(2).and_then(Reply::elements),
        ) else {
            return Err("CLUSTER SLOTS gave a reply of an unknown form".into());
        };
        let host = node.first().map(Reply::text_lossy).filter(|h| !h.is_empty()).unwrap_or_else(|| seed.host.clone());
        let port = node.get(1).and_then(Reply::integer).unwrap_or(0) as u16;
        let at = targets.iter().position(|t| t.host == host && t.port == port).unwrap_or_else(|| {
            let id = node.get(2).map(Reply::text_lossy);
            targets.push(Target { host, port, socket: None, id, tags: Vec::new(), save: None, appendonly: None });
            targets.len() - 1
        });
        let slots = from.clamp(0, SLOT_COUNT as i64 - 1) as usize..=to.clamp(0, SLOT_COUNT as i64 - 1) as usize;
        targets[at].tags.extend_from_slice(&tags[slots]);
    }
    if targets.is_empty() {
        return Err(format!("Invalid cluster: {} knows of no master with slots", seed.name()));
    }
    Ok(targets)
}

/// The tags of these nodes as the first of them that answers sees the cluster now.
pub(crate) fn current_tags(options: &Options, nodes: &[Target]) -> Result<Tags, String> {
    let mut failure = String::new();
    for node in nodes {
        match masters(options, node) {
            Ok(found) => {
                let tags_of = |node: &Target| {
                    let same = found.iter().find(|other| other.host == node.host && other.port == node.port);
                    same.map(|other| other.tags.clone()).unwrap_or_default()
                };
                return Ok(nodes.iter().map(tags_of).collect());
            }
            Err(reason) => failure = reason,
        }
    }
    Err(failure)
}

/// A three-letter hash tag for every slot.
fn tags_by_slot() -> Vec<[u8; 3]> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut tags = vec![[0u8; 3]; SLOT_COUNT];
    let mut missing = SLOT_COUNT;
    for a in LETTERS {
        for b in LETTERS {
            for c in LETTERS {
                let tag = [*a, *b, *c];
                let place = &mut tags[key_slot(&tag) as usize];
                if place[0] == 0 {
                    *place = tag;
                    missing -= 1;
                }
            }
        }
    }
    assert_eq!(missing, 0, "three letters reach every slot");
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_tag() {
        for (slot, tag) in tags_by_slot().iter().enumerate() {
            assert_eq!(key_slot(tag) as usize, slot);
        }
    }
}
