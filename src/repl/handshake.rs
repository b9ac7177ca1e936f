//! A replica's handshake with its master, from the established connection to the answer to PSYNC.
//!
//! A state machine without I/O: it takes bytes and the time and returns what to send, log and do. One reply is expected
//! for each command that was sent, in order. Once it reports an [`Outcome`] it has taken exactly the bytes up to the end
//! of that reply; what follows belongs to the bulk transfer or to the replication stream. Connecting, the transfer
//! itself and what becomes of the cached master are the caller's.

use super::LogLine;
use super::history::{REPL_ID_LEN, ReplId};
use crate::resp::encode::command;
use crate::sys::build::HEXAD_VERSION;

/// A capability that begins so tells which version of Hexad the replica runs.
pub(crate) const VERSION_CAPABILITY: &str = "hexad-";

/// Longest reply line that is accepted, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// What the replica tells its master about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct HandshakeConfig {
    /// `masteruser`; used only with a password.
    pub(crate) user: Option<Vec<u8>>,
    /// `masterauth`.
    pub(crate) password: Option<Vec<u8>>,
    /// Port to announce: `replica-announce-port`, else the port clients use.
    pub(crate) listening_port: u16,
    /// `replica-announce-ip`.
    pub(crate) announce_ip: Option<String>,
    /// The history to continue: the id, and the offset of the next byte wanted.
    pub(crate) resume: Option<(ReplId, i64)>,
    /// Whether the PSYNC asks the other side to take over as the master.
    pub(crate) failover: bool,
    /// The cluster node this is.
    pub(crate) node_id: Option<Vec<u8>>,
}

/// What the master was last asked, and so what the next reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Ping,
    Auth,
    /// The REPLCONFs, in this order.
    Port,
    Ip,
    Capa,
    NodeId,
    Psync,
    /// Nothing: the handshake is over.
    Over,
}

/// How the handshake ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Partial resynchronization: the stream follows. The master names its id unless it is very old.
    Continue { id: Option<ReplId> },
    /// A dataset follows, belonging to this history; `None` when the master's answer was not understood.
    FullResync { from: Option<(ReplId, i64)> },
    /// PSYNC is not understood: SYNC was sent, and a dataset without history follows.
    Sync,
    /// The link is to be closed and tried again later. `psync_refused` says that the master's answer to PSYNC is the
    /// reason.
    Failed { psync_refused: bool },
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write these bytes to the master.
    Send(Vec<u8>),
    Log(LogLine),
    /// The handshake is over.
    Done(Outcome),
}

/// The handshake. See the module's description.
#[derive(Debug)]
pub(crate) struct Handshake {
    config: HandshakeConfig,
    step: Step,
    line: Vec<u8>,
    last_io_ms: u64,
}

impl Handshake {
    /// The connection is up: pings the master and introduces this server.
    pub(crate) fn start(config: HandshakeConfig, now_ms: u64) -> (Self, Vec<Action>) {
        let handshake = Handshake { config, step: Step::Ping, line: Vec::new(), last_io_ms: now_ms };
        let fired = Action::Log(LogLine::notice("Non blocking connect for SYNC fired the event."));
        let introduction = Action::Send(handshake.introduction());
        (handshake, vec![fired, introduction])
    }

    /// Which reply is awaited.
    #[cfg(test)]
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Takes bytes from the master. Returns how many of them were used and what to do; all are used unless the handshake
    /// is over.
    pub(crate) fn receive(&mut self, bytes: &[u8], now_ms: u64) -> (usize, Vec<Action>) {
        let mut actions = Vec::new();
        let mut used = 0;
        while self.step != Step::Over && used < bytes.len() {
            let rest = &bytes[used..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                used = bytes.len();
                self.line.extend_from_slice(rest);
                if self.line.len() > MAX_LINE {
                    self.no_response("the reply is too long", &mut actions);
                }
                break;
            };
            used += end + 1;
            self.line.extend_from_slice(&rest[..end]);
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            self.last_io_ms = now_ms;
            let line = std::mem::take(&mut self.line);
            self.reply(&line, &mut actions);
        }
        (used, actions)
    }

    /// The connection ended or failed for this `reason`.
    pub(crate) fn disconnected(&mut self, reason: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.step != Step::Over {
            self.no_response(reason, &mut actions);
        }
        actions
    }

    /// Whether the master has been silent for more than `timeout_ms`, with the line to log.
    pub(crate) fn timed_out(&self, now_ms: u64, timeout_ms: u64) -> Option<LogLine> {
        let silent = self.step != Step::Over && now_ms.saturating_sub(self.last_io_ms) > timeout_ms;
        silent.then(|| LogLine::warning("Timeout connecting to the MASTER..."))
    }

    fn reply(&mut self, line: &[u8], actions: &mut Vec<Action>) {
        let text = String::from_utf8_lossy(line);
        let is_error = line.first() == Some(&b'-');
        match self.step {
            Step::Ping => {
                // A master that wants a password first is alive as well; very old ones say it in their own words.
                let alive = line.first() == Some(&b'+')
                    || [&b"-NOAUTH"[..], b"-NOPERM", b"-ERR operation not permitted"]
                        .iter()
                        .any(|start| line.starts_with(start));
                if !alive {
                    actions.push(warning(format!("Error reply to PING from master: '{text}'")));
                    return self.finish(Outcome::Failed { psync_refused: false }, actions);
                }
                actions.push(notice("Master replied to PING, replication can continue..."));
                self.step = if self.config.password.is_some() { Step::Auth } else { Step::Port };
            }
            Step::Auth => {
                if is_error {
                    actions.push(warning(format!("Unable to AUTH to MASTER: {text}")));
                    return self.finish(Outcome::Failed { psync_refused: false }, actions);
                }
                self.step = Step::Port;
            }
            Step::Port => {
                self.note_refusal(is_error, "listening-port", &text, actions);
                self.step = if self.config.announce_ip.is_some() { Step::Ip } else { Step::Capa };
            }
            Step::Ip => {
                self.note_refusal(is_error, "ip-address", &text, actions);
                self.step = Step::Capa;
            }
            Step::Capa => {
                self.note_refusal(is_error, "capa", &text, actions);
                match self.config.node_id {
                    Some(_) => self.step = Step::NodeId,
                    None => self.ask_for_stream(actions),
                }
            }
            Step::NodeId => {
                self.note_refusal(is_error, "set-cluster-node-id", &text, actions);
                self.ask_for_stream(actions);
            }
            Step::Psync => self.psync_reply(line, &text, actions),
            Step::Over => {}
        }
    }

    fn note_refusal(&self, is_error: bool, option: &str, text: &str, actions: &mut Vec<Action>) {
        if is_error {
            actions.push(notice(format!("(Non critical) Master does not understand REPLCONF {option}: {text}")));
        }
    }

    /// Everything the master is to know before PSYNC, in one go: the replies come one by one, and a refused PING or AUTH
    /// makes the rest void. PSYNC has to wait for all of them, as masters refuse it while replies have not left.
    fn introduction(&self) -> Vec<u8> {
        let mut out = command(&[b"PING"]);
        if let Some(password) = &self.config.password {
            match &self.config.user {
                Some(user) => out.extend(command(&[b"AUTH", user, password])),
                None => out.extend(command(&[b"AUTH", password])),
            }
        }
        let port = self.config.listening_port.to_string();
        out.extend(command(&[b"REPLCONF", b"listening-port", port.as_bytes()]));
        if let Some(ip) = &self.config.announce_ip {
            out.extend(command(&[b"REPLCONF", b"ip-address", ip.as_bytes()]));
        }
        // Masters pass over what they do not know.
        let version = format!("{VERSION_CAPABILITY}{HEXAD_VERSION}");
        out.extend(command(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2", b"capa", version.as_bytes()]));
        if let Some(id) = &self.config.node_id {
            // As Valkey 9: so a master that stops can name the replica that is to take over.
            out.extend(command(&[b"REPLCONF", b"SET-CLUSTER-NODE-ID", id]));
        }
        out
    }

    fn ask_for_stream(&mut self, actions: &mut Vec<Action>) {
        let (id, offset) = match &self.config.resume {
            Some((id, offset)) => {
                actions.push(notice(format!("Trying a partial resynchronization (request {id}:{offset}).")));
                (id.as_bytes().to_vec(), offset.to_string())
            }
            None => {
                actions.push(notice("Partial resynchronization not possible (no cached master)"));
                (b"?".to_vec(), "-1".to_owned())
            }
        };
        let mut arguments: Vec<&[u8]> = vec![b"PSYNC", &id, offset.as_bytes()];
        if self.config.failover {
            arguments.push(b"FAILOVER");
        }
        actions.push(Action::Send(command(&arguments)));
        self.step = Step::Psync;
    }

    fn psync_reply(&mut self, line: &[u8], text: &str, actions: &mut Vec<Action>) {
        if line.is_empty() {
            return; // The master is alive and still deciding.
        }
        if let Some(rest) = line.strip_prefix(b"+FULLRESYNC") {
            let from = parse_full_resync(rest);
            actions.push(match &from {
                Some((id, offset)) => notice(format!("Full resync from master: {id}:{offset}")),
                None => warning("Master replied with wrong +FULLRESYNC syntax."),
            });
            return self.finish(Outcome::FullResync { from }, actions);
        }
        if let Some(rest) = line.strip_prefix(b"+CONTINUE") {
            actions.push(notice("Successful partial resynchronization with master."));
            let id = rest.strip_prefix(b" ").and_then(ReplId::from_bytes);
            return self.finish(Outcome::Continue { id }, actions);
        }
        if line.starts_with(b"-NOMASTERLINK") || line.starts_with(b"-LOADING") {
            actions.push(notice(format!("Master is currently unable to PSYNC but should be in the future: {text}")));
            return self.finish(Outcome::Failed { psync_refused: true }, actions);
        }
        actions.push(if line.starts_with(b"-ERR") {
            notice(format!("Master does not support PSYNC or is in error state (reply: {text})"))
        } else {
            warning(format!("Unexpected reply to PSYNC from master: {text}"))
        });
        if self.config.failover {
            // The other side would not take over: asking it for its dataset instead would lose ours.
            return self.finish(Outcome::Failed { psync_refused: true }, actions);
        }
        actions.push(notice("Retrying with SYNC..."));
        actions.push(Action::Send(b"SYNC\r\n".to_vec()));
        self.finish(Outcome::Sync, actions);
    }

    fn no_response(&mut self, reason: &str, actions: &mut Vec<Action>) {
        actions.push(warning(format!("Failed to read response from the server: {reason}")));
        let psync_refused = self.step == Step::Psync;
        actions.push(if psync_refused {
            warning("Master did not reply to PSYNC, will try later")
        } else {
            warning("Master did not respond to command during SYNC handshake")
        });
        self.finish(Outcome::Failed { psync_refused }, actions);
    }

    fn finish(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        self.step = Step::Over;
        self.line = Vec::new();
        actions.push(Action::Done(outcome));
    }
}

fn notice(text: impl Into<String>) -> Action {
    Action::Log(LogLine::notice(text))
}

fn warning(text: impl Into<String>) -> Action {
    Action::Log(LogLine::warning(text))
}

/// ` <id> <offset>`: exactly 40 bytes of id.
fn parse_full_resync(rest: &[u8]) -> Option<(ReplId, i64)> {
    let rest = rest.strip_prefix(b" ")?;
    let (id, offset) = rest.split_at_checked(REPL_ID_LEN)?;
    let offset = std::str::from_utf8(offset.strip_prefix(b" ")?).ok()?.trim().parse().ok()?;
    Some((ReplId::from_bytes(id)?, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn config() -> HandshakeConfig {
        HandshakeConfig { listening_port: 6380, ..HandshakeConfig::default() }
    }

    /// Answers each command sent with the next reply, and collects what was sent, logged and concluded.
    fn run(config: HandshakeConfig, replies: &[&str]) -> (String, Vec<String>, Option<Outcome>, Vec<u8>) {
        let (mut handshake, actions) = Handshake::start(config, 0);
        let (mut sent, mut logged, mut outcome, mut rest) = (String::new(), Vec::new(), None, Vec::new());
        let mut take = |actions: Vec<Action>| {
            for action in actions {
                match action {
                    Action::Send(bytes) => sent.push_str(&String::from_utf8_lossy(&bytes)),
                    Action::Log(line) => logged.push(line.text),
                    Action::Done(done) => assert!(outcome.replace(done).is_none(), "it ends once"),
                }
            }
        };
        take(actions);
        for reply in replies {
            let (used, actions) = handshake.receive(reply.as_bytes(), 1);
            take(actions);
            rest.extend_from_slice(&reply.as_bytes()[used..]);
        }
        (sent, logged, outcome, rest)
    }

    #[test]
    fn a_first_sync_is_a_full_one() {
        let full = format!("\n\n+FULLRESYNC {ID} 42\r\n$5\r\nREDIS");
        let (sent, logged, outcome, rest) = run(config(), &["+PONG\r\n", "+OK\r\n", "+OK\r\n", &full]);
        assert!(
            sent.starts_with("*1\r\n$4\r\nPING\r\n*3\r\n$8\r\nREPLCONF\r\n$14\r\nlistening-port\r\n$4\r\n6380\r\n")
        );
        assert!(sent.ends_with("*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"));
        assert_eq!(
            logged,
            [
                "Non blocking connect for SYNC fired the event.",
                "Master replied to PING, replication can continue...",
                "Partial resynchronization not possible (no cached master)",
                &format!("Full resync from master: {ID}:42"),
            ]
        );
        assert_eq!(outcome, Some(Outcome::FullResync { from: Some((ReplId::from_bytes(ID.as_bytes()).unwrap(), 42)) }));
        assert_eq!(rest, b"$5\r\nREDIS");
    }

    #[test]
    fn introduces_itself_with_all_it_has() {
        let resume = Some((ReplId::from_bytes(ID.as_bytes()).unwrap(), 77));
        let config = HandshakeConfig {
            user: Some(b"bob".to_vec()),
            password: Some(b"secret".to_vec()),
            announce_ip: Some("10.0.0.1".into()),
            resume,
            failover: true,
            node_id: Some(b"abc".to_vec()),
            ..config()
        };
        let replies = ["-NOAUTH x\r\n", "+OK\r\n+OK\r\n-ERR what\r\n+OK\r\n-ERR no\r\n", "+CONTINUE\r\n*1\r\n"];
        let (sent, logged, outcome, rest) = run(config, &replies);
        assert!(sent.contains("*3\r\n$4\r\nAUTH\r\n$3\r\nbob\r\n$6\r\nsecret\r\n*3\r\n$8\r\nREPLCONF"));
        assert!(sent.contains("ip-address\r\n$8\r\n10.0.0.1\r\n"));
        assert!(sent.contains("*3\r\n$8\r\nREPLCONF\r\n$19\r\nSET-CLUSTER-NODE-ID\r\n$3\r\nabc\r\n"));
        assert!(
            logged.contains(
                &"(Non critical) Master does not understand REPLCONF set-cluster-node-id: -ERR no".to_owned()
            )
        );
        assert!(sent.ends_with(&format!("PSYNC\r\n$40\r\n{ID}\r\n$2\r\n77\r\n$8\r\nFAILOVER\r\n")));
        assert!(
            logged.contains(&"(Non critical) Master does not understand REPLCONF ip-address: -ERR what".to_owned())
        );
        assert!(logged.contains(&format!("Trying a partial resynchronization (request {ID}:77).")));
        assert_eq!(outcome, Some(Outcome::Continue { id: None }));
        assert_eq!(rest, b"*1\r\n");
    }

    #[test]
    fn answers_to_psync() {
        let before = ["+PONG\r\n", "+OK\r\n", "+OK\r\n"];
        let with = |last: &str| {
            let replies = [before[0], before[1], before[2], last];
            let (sent, logged, outcome, _) = run(config(), &replies);
            (sent, logged.last().unwrap().clone(), outcome.unwrap())
        };
        let (_, last, outcome) = with("-LOADING busy\r\n");
        assert_eq!(last, "Master is currently unable to PSYNC but should be in the future: -LOADING busy");
        assert_eq!(outcome, Outcome::Failed { psync_refused: true });
        assert_eq!(with("-NOMASTERLINK Can't\r\n").2, Outcome::Failed { psync_refused: true });
        for old in ["-ERR unknown command\r\n", "-MASTERDOWN x\r\n", "+what\r\n"] {
            let (sent, last, outcome) = with(old);
            assert!(sent.ends_with("SYNC\r\n"));
            assert_eq!(last, "Retrying with SYNC...");
            assert_eq!(outcome, Outcome::Sync);
        }
        assert_eq!(with("+FULLRESYNC abc 1\r\n").2, Outcome::FullResync { from: None });
        let id = ReplId::from_bytes(ID.as_bytes());
        assert_eq!(with(&format!("+CONTINUE {ID}\r\n")).2, Outcome::Continue { id });
    }

    #[test]
    fn gives_up_on_refusals_and_silence() {
        let refused = Some(Outcome::Failed { psync_refused: false });
        assert_eq!(run(config(), &["-LOADING x\r\n"]).2, refused);
        let with_password = HandshakeConfig { password: Some(b"x".to_vec()), ..config() };
        let (_, logged, outcome, _) = run(with_password, &["+PONG\r\n", "-WRONGPASS no\r\n"]);
        assert_eq!(logged.last().unwrap(), "Unable to AUTH to MASTER: -WRONGPASS no");
        assert_eq!(outcome, refused);

        let (mut handshake, _) = Handshake::start(config(), 1_000);
        assert_eq!(handshake.timed_out(61_000, 60_000), None);
        assert!(handshake.timed_out(61_001, 60_000).is_some());
        handshake.receive(b"+PONG\r\n", 50_000);
        assert_eq!(handshake.timed_out(61_001, 60_000), None);
        let actions = handshake.disconnected("Connection reset by peer");
        assert!(matches!(actions.last(), Some(Action::Done(Outcome::Failed { psync_refused: false }))));
        assert!(handshake.disconnected("again").is_empty());
    }

    proptest! {
        /// Whatever a master says, in whatever pieces, the machine ends at most once, uses what it may, and says the same.
        #[test]
        fn arbitrary_bytes_in_any_pieces(
            lines in prop::collection::vec(prop_oneof![
                Just(b"+PONG\r\n".to_vec()),
                Just(b"+OK\r\n".to_vec()),
                Just(b"\n".to_vec()),
                Just(b"-ERR x\r\n".to_vec()),
                Just(format!("+FULLRESYNC {ID} 9\r\n").into_bytes()),
                Just(format!("+CONTINUE {ID}\r\n").into_bytes()),
                prop::collection::vec(any::<u8>(), 0..50),
            ], 0..10),
            cuts in prop::collection::vec(any::<usize>(), 0..10),
            password in any::<bool>(),
        ) {
            let stream = lines.concat();
            let config = HandshakeConfig { password: password.then(|| b"pw".to_vec()), ..config() };
            let (mut whole, _) = Handshake::start(config.clone(), 0);
            let (used, actions) = whole.receive(&stream, 5);
            prop_assert!(used == stream.len() || whole.step() == Step::Over);

            let (mut cut_up, _) = Handshake::start(config, 0);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
            ends.sort_unstable();
            let (mut at, mut pieces_used, mut pieces_actions) = (0, 0, Vec::new());
            for end in ends {
                let (used, actions) = cut_up.receive(&stream[at..end], 5);
                pieces_used += used;
                pieces_actions.extend(actions);
                at = end;
            }
            prop_assert_eq!(used, pieces_used);
            prop_assert_eq!(&actions, &pieces_actions);
            prop_assert!(actions.iter().filter(|action| matches!(action, Action::Done(_))).count() <= 1);
        }
    }
}
