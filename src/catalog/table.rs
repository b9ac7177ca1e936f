//! The command table: every row by name, found without copying or lower-casing the name.

use super::latency_counts::LatencyCounts;
use super::row::{Begin, Command, Find, Group, flag};
use crate::resp::Args;

/// A command or subcommand: its index in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CmdRef(pub(crate) u16);

#[derive(Debug)]
pub struct Registered {
    pub row: &'static Command,
    /// The name it is called by: `rename-command` may have changed it.
    pub(crate) name: String,
    pub(crate) parent: Option<CmdRef>,
    pub(crate) subcommands: Vec<CmdRef>,
    /// Where its keys are, in the simple and usual cases.
    pub(crate) keys: KeyRange,
    /// Where it names a member or field of its only key's value, if it does.
    pub(crate) member: Option<MemberAt>,
    /// It takes next to no time when its arguments and its reply are small.
    pub(crate) is_quick: bool,
    args: (usize, usize),
    pub(crate) stats: CommandStats,
}

/// Which argument is the first member or field (where there are several, the others follow it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberAt {
    BehindKey,
    End,
}

impl MemberAt {
    /// A guess, for speed only: a wrong one prefetches memory in vain.
    fn of(row: &Command) -> Option<MemberAt> {
        let of_one_key = KeyRange::of(row).positions(4).eq([1]) && row.arity.unsigned_abs() >= 3;
        match row.group {
            Group::Set | Group::Hash if of_one_key => Some(MemberAt::BehindKey),
            // Scores stand before their members.
            Group::SortedSet if of_one_key && row.has(flag::DENYOOM) => Some(MemberAt::End),
            Group::SortedSet if of_one_key => Some(MemberAt::BehindKey),
            _ => None,
        }
    }

    pub(crate) fn index(self, argc: usize) -> usize {
        match self {
            MemberAt::BehindKey => 2.min(argc - 1),
            MemberAt::End => argc - 1,
        }
    }
}

/// The arguments that are keys: from `first` to `last` (negative: counted from the end), each `step`th. None if `first`
/// is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyRange {
    first: u16,
    last: i16,
    step: u16,
}

impl KeyRange {
    fn of(row: &Command) -> KeyRange {
        let Some(spec) = row.keys.first() else { return KeyRange::default() };
        match (&spec.begin, &spec.find) {
            (Begin::Index(first), Find::Range { last, step, limit: 0 }) => {
                // Commands look at the key of their last key specification first or last; a guess, for speed only.
                let last = if *last >= 0 { *first as i16 + *last as i16 } else { *last as i16 };
                KeyRange { first: *first as u16, last, step: (*step as u16).max(1) }
            }
            _ => KeyRange::default(),
        }
    }

    /// Whether of `argc` arguments the one after the name is the only key, as with most commands.
    #[inline]
    pub(crate) fn is_first_argument(self, argc: usize) -> bool {
        (self.first, self.last) == (1, 1) && argc > 1
    }

    /// The positions of the keys among `argc` arguments.
    pub(crate) fn positions(self, argc: usize) -> impl Iterator<Item = usize> {
        let last =
            if self.last >= 0 { self.last as usize } else { (argc as isize + self.last as isize).max(0) as usize };
        let end = if self.first == 0 { 0 } else { (last + 1).min(argc) };
        // Counting the steps before the first, as `step_by` does, costs a division.
        let (mut next, step) = (self.first as usize, self.step.max(1) as usize);
        std::iter::from_fn(move || {
            let at = next;
            next += step;
            (at < end).then_some(at)
        })
    }
}

/// Statistics of a command, as INFO commandstats has them.
#[derive(Debug, Default)]
pub(crate) struct CommandStats {
    pub(crate) calls: u64,
    pub(crate) us: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    latency: LatencyCounts,
}

impl CommandStats {
    /// Counts `calls` calls that took `us` microseconds together; `tracking`: their latency goes into the histogram.
    pub(crate) fn count(&mut self, calls: u32, us: u64, tracking: bool) {
        self.calls += u64::from(calls);
        self.us += us;
        if !tracking {
            return;
        }
        match calls {
            0 => {}
            1 => self.latency.note(us, 1),
            _ => {
                let (each, longer) = (us / u64::from(calls), (us % u64::from(calls)) as u32);
                self.latency.note(each, calls - longer);
                self.latency.note(each + 1, longer);
            }
        }
    }

    /// The distribution of its latencies.
    pub(crate) fn latency(&self) -> &LatencyCounts {
        &self.latency
    }
}

pub struct CommandTable {
    entries: Vec<Registered>,
    /// How many of them are no subcommands and have a name.
    top_level: usize,
    /// By the names that they are called by.
    names: NameIndex,
    /// By their own names, whatever `rename-command` says: those of ACL rules.
    own_names: NameIndex,
    /// The commands of each category, by the number of its bit: one bit for each [`CmdRef`].
    categories: Vec<Vec<u64>>,
}

impl Registered {
    /// The smallest and the largest number of arguments, name included.
    pub(crate) fn arg_counts(&self) -> (usize, usize) {
        self.args
    }
}

impl CommandTable {
    /// A table of these rows, in this order, each before its subcommands.
    pub(crate) fn new(rows: impl IntoIterator<Item = &'static Command>) -> CommandTable {
        let mut table = CommandTable {
            entries: Vec::new(),
            top_level: 0,
            names: NameIndex::default(),
            own_names: NameIndex::default(),
            categories: vec![Vec::new(); u32::BITS as usize],
        };
        for row in rows {
            let cmd = table.add(row, None);
            for sub in row.subcommands {
                let sub = table.add(sub, Some(cmd));
                table.entries[cmd.0 as usize].subcommands.push(sub);
            }
        }
        table.names = NameIndex::build(&table.entries, |entry| &entry.name);
        table.own_names = NameIndex::build(&table.entries, |entry| entry.row.name);
        table.top_level = table.top_level().count();
        for (i, entry) in table.entries.iter().enumerate() {
            let of_entry = entry.row.categories();
            let of_bits = table.categories.iter_mut().enumerate().filter(|(bit, _)| of_entry >> bit & 1 == 1);
            for (_, commands) in of_bits {
                commands.resize(commands.len().max(i / 64 + 1), 0);
                commands[i / 64] |= 1 << (i % 64);
            }
        }
        table
    }

    fn add(&mut self, row: &'static Command, parent: Option<CmdRef>) -> CmdRef {
        let cmd = CmdRef(self.entries.len() as u16);
        self.entries.push(Registered {
            row,
            name: row.name.to_string(),
            parent,
            subcommands: Vec::new(),
            keys: KeyRange::of(row),
            member: MemberAt::of(row),
            is_quick: row.has(flag::FAST) || row.complexity == "O(1)",
            args: row.arg_counts(),
            stats: CommandStats::default(),
        });
        cmd
    }

    /// The command of this name, whatever the case of its letters.
    pub(crate) fn find(&self, name: &[u8]) -> Option<CmdRef> {
        self.names.find(name, |cmd| &self.entries[cmd.0 as usize].name)
    }

    /// The command with this own name, whatever `rename-command` says.
    pub(crate) fn find_own(&self, name: &[u8]) -> Option<CmdRef> {
        self.own_names.find(name, |cmd| self.entries[cmd.0 as usize].row.name)
    }

    /// The subcommand of a container.
    pub(crate) fn find_sub(&self, container: CmdRef, name: &[u8]) -> Option<CmdRef> {
        self.get(container)
            .subcommands
            .iter()
            .copied()
            .find(|s| self.get(*s).row.sub_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// What a call with this name and first argument runs: the subcommand where there are subcommands.
    pub(crate) fn resolve(&self, name: &[u8], first_arg: Option<&[u8]>) -> Resolved {
        let Some(cmd) = self.find(name) else { return Resolved::Unknown };
        let entry = self.get(cmd);
        match first_arg {
            Some(arg) if !entry.subcommands.is_empty() => match self.find_sub(cmd, arg) {
                Some(sub) => Resolved::Found(sub),
                None => Resolved::UnknownSub,
            },
            _ => Resolved::Found(cmd),
        }
    }

    /// What these arguments, name first, call, if there is such a command.
    #[inline(never)]
    pub(crate) fn resolve_whole(&self, args: Args<'_>) -> Option<CmdRef> {
        match self.resolve(args.get(0)?, args.get(1)) {
            Resolved::Found(cmd) => Some(cmd),
            Resolved::Unknown | Resolved::UnknownSub => None,
        }
    }

    /// A command by its full name, `config|set`.
    pub(crate) fn find_full(&self, name: &[u8]) -> Option<CmdRef> {
        match memchr::memchr(b'|', name) {
            Some(bar) => self.find_sub(self.find(&name[..bar])?, &name[bar + 1..]),
            None => self.find(name),
        }
    }

    /// Whether it is a subcommand or has some: then its name alone does not say what is run.
    pub(crate) fn has_to_do_with_subcommands(&self, cmd: CmdRef) -> bool {
        let entry = self.get(cmd);
        entry.parent.is_some() || !entry.subcommands.is_empty()
    }

    pub(crate) fn get(&self, cmd: CmdRef) -> &Registered {
        &self.entries[cmd.0 as usize]
    }

    pub(crate) fn stats_mut(&mut self, cmd: CmdRef) -> &mut CommandStats {
        &mut self.entries[cmd.0 as usize].stats
    }

    /// The commands of a category, given as its bit: one bit for each [`CmdRef`].
    pub(crate) fn in_category(&self, bit: u32) -> &[u64] {
        self.categories.get(bit.trailing_zeros() as usize).map_or(&[], Vec::as_slice)
    }

    /// The commands that are no subcommands.
    pub fn top_level(&self) -> impl Iterator<Item = &Registered> {
        self.entries.iter().filter(|e| e.parent.is_none() && !e.name.is_empty())
    }

    /// How many there are of these.
    pub(crate) fn top_level_count(&self) -> usize {
        self.top_level
    }

    /// All commands, containers before their subcommands.
    pub(crate) fn refs(&self) -> impl Iterator<Item = CmdRef> + use<> {
        (0..self.entries.len() as u16).map(CmdRef)
    }

    pub fn all(&self) -> impl Iterator<Item = &Registered> {
        self.entries.iter()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Registered> {
        self.entries.iter_mut()
    }

    /// Renames a command, or takes its name away when `to` is empty.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<(), RenameError> {
        let cmd = self.find(from.as_bytes()).ok_or(RenameError::NoSuchCommand)?;
        if !to.is_empty() && self.find(to.as_bytes()).is_some_and(|taken| taken != cmd) {
            return Err(RenameError::NameTaken);
        }
        self.entries[cmd.0 as usize].name = to.to_string();
        self.names = NameIndex::build(&self.entries, |entry| &entry.name);
        self.top_level = self.top_level().count();
        Ok(())
    }
}

/// What `rename-command` can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenameError {
    NoSuchCommand,
    NameTaken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    Found(CmdRef),
    Unknown,
    /// The container is there, the subcommand is not.
    UnknownSub,
}

/// Open addressing over the names, hashed and compared without regard to case.
#[derive(Default)]
struct NameIndex {
    places: Vec<Option<CmdRef>>,
}

impl NameIndex {
    /// An index of what `name` calls the entries; those without a name are left out.
    fn build(entries: &[Registered], name: impl Fn(&Registered) -> &str) -> NameIndex {
        let named = || entries.iter().enumerate().filter(|(_, e)| e.parent.is_none() && !name(e).is_empty());
        let mut index = NameIndex { places: vec![None; (named().count() * 4).next_power_of_two().max(8)] };
        for (i, entry) in named() {
            let mut at = index.start(name(entry).as_bytes());
            while index.places[at].is_some() {
                at = (at + 1) & (index.places.len() - 1);
            }
            index.places[at] = Some(CmdRef(i as u16));
        }
        index
    }

    /// `name_of` is what the index was built with.
    fn find<'a>(&self, name: &[u8], name_of: impl Fn(CmdRef) -> &'a str) -> Option<CmdRef> {
        let mut at = self.start(name);
        loop {
            let cmd = (*self.places.get(at)?)?;
            if name_of(cmd).as_bytes().eq_ignore_ascii_case(name) {
                return Some(cmd);
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    /// FNV-1a over the lower-case name.
    fn start(&self, name: &[u8]) -> usize {
        let hash =
            name.iter().fold(0x811c_9dc5u32, |h, b| (h ^ b.to_ascii_lowercase() as u32).wrapping_mul(0x0100_0193));
        (hash ^ hash >> 15) as usize & self.places.len().saturating_sub(1)
    }
}
