//! Data commands run against a bare context: a keyspace, a configuration and a session, without socket or server.

use super::context::{Ctx, DataFn, Session, Want};
use crate::catalog::row::Command;
use crate::config::Config;
use crate::keyspace::Keyspace;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::structs::table::HashSeed;

/// The bare context of commands under test.
pub(crate) struct Bare {
    pub(crate) ks: Keyspace,
    pub(crate) cfg: Config,
    pub(crate) caller: Caller,
    /// What the last command asked of the server.
    pub(crate) want: Option<Want>,
}

/// The session that commands run for.
pub(crate) struct Caller {
    pub(crate) must_obey: bool,
    pub(crate) denies_blocking: bool,
    pub(crate) keeps_past_keys: bool,
    pub(crate) reply_room: usize,
}

impl Session for Caller {
    fn must_obey(&self) -> bool {
        self.must_obey
    }
    fn denies_blocking(&self) -> bool {
        self.denies_blocking
    }
    fn is_script(&self) -> bool {
        false
    }
    fn is_outermost(&self) -> bool {
        true
    }
    fn keeps_past_keys(&self) -> bool {
        self.keeps_past_keys
    }
    fn reply_room(&self) -> usize {
        self.reply_room
    }
    fn reads_all_keys(&self, _args: Args<'_>) -> bool {
        true
    }
}

impl Bare {
    pub(crate) fn new() -> Bare {
        let caller =
            Caller { must_obey: false, denies_blocking: false, keeps_past_keys: false, reply_room: usize::MAX };
        let mut ks = Keyspace::new(16, false, HashSeed([7; 16]));
        ks.now_ms = 1_700_000_000_000;
        Bare { ks, cfg: Config::default(), caller, want: None }
    }

    /// Runs a command given as words, and gives its reply: lines are separated by blanks, an error begins with `-`.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let (function, row) = find(words[0], words.get(1).copied());
        let args = OwnedArgs::from_iter(words.iter().map(|word| word.as_bytes()));
        let mut out = Reply::new(false);
        self.want = None;
        let mut ctx = Ctx {
            ks: &mut self.ks,
            cfg: &self.cfg,
            out: &mut out,
            session: &self.caller,
            want: &mut self.want,
            db: 0,
            cmd: row,
        };
        match function(&mut ctx, args.as_args()) {
            Ok(()) => String::from_utf8_lossy(&out.buf).trim_end().replace("\r\n", " "),
            Err(error) => format!("-{error}"),
        }
    }

    /// How many changes were counted since this was last asked.
    pub(crate) fn changes(&mut self) -> u64 {
        std::mem::take(&mut self.ks.effects.dirty)
    }
}

fn find(name: &str, sub: Option<&str>) -> (DataFn, &'static Command) {
    let rows = super::ALL.iter().flat_map(|rows| rows.iter());
    let row = rows.into_iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no command {name}"));
    let row = row.subcommands.iter().find(|row| Some(row.sub_name()) == sub).unwrap_or(row);
    let described = Command::described(std::slice::from_ref(row));
    (row.run.expect("a command that runs"), &described[0])
}
