//! LCS: the longest common subsequence of two strings.

use super::int_arg;
use super::prelude::*;

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: i64,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, CmdError> {
        let mut o = Options::default();
        let mut i = 3;
        while i < args.len() {
            let is = |name: &[u8]| args[i].eq_ignore_ascii_case(name);
            if is(b"IDX") {
                o.idx = true;
            } else if is(b"LEN") {
                o.len = true;
            } else if is(b"WITHMATCHLEN") {
                o.with_match_len = true;
            } else if is(b"MINMATCHLEN") && i + 1 < args.len() {
                o.min_match_len = int_arg(&args[i + 1])?.max(0);
                i += 1;
            } else {
                return Err(error::SYNTAX);
            }
            i += 1;
        }
        if o.len && o.idx {
            return Err(CmdError::of("ERR If you want both the length and indexes, please just use IDX."));
        }
        Ok(o)
    }
}

pub(crate) fn lcs(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    const NOT_STRINGS: CmdError = CmdError::of("ERR The specified keys must contain string values");
    // Both keys are looked up before an error about either.
    let mut text_at = |key: &[u8]| match ctx.ks.read(ctx.db, key) {
        None => Some(Vec::new()),
        Some(entry) => entry.value_bytes(&mut IntBuf::new()).map(<[u8]>::to_vec),
    };
    let (a, b) = (text_at(&args[1]), text_at(&args[2]));
    let (Some(a), Some(b)) = (a, b) else { return Err(NOT_STRINGS) };
    let options = Options::parse(args)?;
    let table_bytes = (a.len() as u64 + 1).saturating_mul(b.len() as u64 + 1).saturating_mul(4);
    if a.len() >= u32::MAX as usize - 1 || b.len() >= u32::MAX as usize - 1 {
        return Err(CmdError::of("ERR String too long for LCS"));
    }
    if table_bytes > ctx.cfg.proto_max_bulk_len {
        return Err(CmdError::of("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"));
    }
    let table = Table::new(&a, &b)
        .ok_or(CmdError::of("ERR Insufficient memory, failed allocating transient memory for LCS"))?;
    let out = &mut *ctx.out;
    if options.idx {
        out.map(2);
        out.bulk(b"matches");
        let mark = out.open();
        let mut count = 0;
        table.walk(|m| {
            if i64::from(m.len) < options.min_match_len {
                return;
            }
            out.array(2 + options.with_match_len as usize);
            for start in [m.a, m.b] {
                out.array(2);
                out.int(i64::from(start));
                out.int(i64::from(start + m.len - 1));
            }
            if options.with_match_len {
                out.int(i64::from(m.len));
            }
            count += 1;
        });
        out.close_array(mark, count);
        out.bulk(b"len");
        out.int(i64::from(table.len()));
    } else if options.len {
        out.int(i64::from(table.len()));
    } else {
        let mut pieces = Vec::new();
        table.walk(|m| pieces.push(m));
        let mut text = Vec::with_capacity(table.len() as usize);
        for m in pieces.iter().rev() {
            text.extend_from_slice(&a[m.a as usize..(m.a + m.len) as usize]);
        }
        out.bulk(&text);
    }
    Ok(())
}

/// A stretch that both strings have in common, at these offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    a: u32,
    b: u32,
    len: u32,
}

/// The lengths of the longest common subsequences of all pairs of prefixes.
struct Table<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Row `i`: the prefix of `a` of that length.
    lengths: Vec<u32>,
}

impl<'a> Table<'a> {
    /// `None` when there is no memory for it.
    fn new(a: &'a [u8], b: &'a [u8]) -> Option<Table<'a>> {
        let width = b.len() + 1;
        let mut lengths = Vec::new();
        lengths.try_reserve_exact((a.len() + 1) * width).ok()?;
        lengths.resize((a.len() + 1) * width, 0u32);
        for (i, x) in a.iter().enumerate() {
            let (above, row) = lengths[i * width..(i + 2) * width].split_at_mut(width);
            for (j, y) in b.iter().enumerate() {
                row[j + 1] = if x == y { above[j] + 1 } else { above[j + 1].max(row[j]) };
            }
        }
        Some(Table { a, b, lengths })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * (self.b.len() + 1) + j]
    }

    /// Length of the subsequence.
    fn len(&self) -> u32 {
        self.at(self.a.len(), self.b.len())
    }

    /// Calls `emit` with the stretches of the subsequence, the last first.
    fn walk(&self, mut emit: impl FnMut(Match)) {
        let (mut i, mut j) = (self.a.len(), self.b.len());
        let mut current: Option<Match> = None;
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match &mut current {
                    // A match always extends the current stretch towards the front.
                    Some(m) => *m = Match { a: i as u32, b: j as u32, len: m.len + 1 },
                    None => current = Some(Match { a: i as u32, b: j as u32, len: 1 }),
                }
            } else {
                if let Some(m) = current.take() {
                    emit(m);
                }
                // On a tie the second string is shortened; this decides between subsequences of equal length.
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
            }
        }
        if let Some(m) = current {
            emit(m);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_come_from_the_end() {
        let table = Table::new(b"ohmytext", b"mynewtext").unwrap();
        let mut got = Vec::new();
        table.walk(|m| got.push(m));
        assert_eq!(table.len(), 6);
        assert_eq!(got, vec![Match { a: 4, b: 5, len: 4 }, Match { a: 2, b: 0, len: 2 }]);
    }

    #[test]
    fn nothing_in_common() {
        let table = Table::new(b"", b"abc").unwrap();
        table.walk(|_| panic!("no match"));
        assert_eq!(table.len(), 0);
    }
}
