//! LPOS: where elements of a list are. Its row is in `list`.

use super::list::{Wanted, list_of};
use super::prelude::*;
use super::{bounded_arg, int_arg};

struct PosOptions {
    rank: i64,
    count: Option<usize>,
    /// Elements looked at, 0 for all.
    max_len: usize,
}

impl PosOptions {
    fn parse(args: Args<'_>) -> Result<PosOptions, CmdError> {
        let mut options = PosOptions { rank: 1, count: None, max_len: 0 };
        let mut i = 3;
        while i < args.len() {
            let Some(value) = args.get(i + 1) else { return Err(error::SYNTAX) };
            let option = args.at(i);
            if option.eq_ignore_ascii_case(b"RANK") {
                options.rank = rank_arg(value)?;
            } else if option.eq_ignore_ascii_case(b"COUNT") {
                options.count = Some(bounded_arg(value, 0, "ERR COUNT can't be negative")? as usize);
            } else if option.eq_ignore_ascii_case(b"MAXLEN") {
                options.max_len = bounded_arg(value, 0, "ERR MAXLEN can't be negative")? as usize;
            } else {
                return Err(error::SYNTAX);
            }
            i += 2;
        }
        Ok(options)
    }
}

fn rank_arg(value: &[u8]) -> Result<i64, CmdError> {
    match int_arg(value)? {
        i64::MIN => {
            Err(CmdError::text(format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX)))
        }
        0 => Err(CmdError::of(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start \
             from the end of the list",
        )),
        rank => Ok(rank),
    }
}

pub(super) fn lpos(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let PosOptions { rank, count, max_len } = PosOptions::parse(args)?;
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else {
        if count.is_some() {
            ctx.out.array(0)
        } else {
            ctx.out.null()
        }
        return Ok(());
    };
    let list = list_of(entry)?;
    let len = list.len();
    let wanted = Wanted::new(&args[2]);
    let walk = if rank < 0 { list.walk_back(len.saturating_sub(1)) } else { list.walk(0) };
    let mut walk = walk.take(if max_len == 0 { usize::MAX } else { max_len });
    let mut passed = 0;
    let mut next_match = || {
        let at = passed + walk.position(|item| wanted.is(item))?;
        passed = at + 1;
        Some(if rank < 0 { len - 1 - at } else { at })
    };
    let skipped = rank.unsigned_abs() - 1;
    // There are no more matches than elements, so a RANK beyond that skips all.
    let all_skipped = skipped >= len as u64 || (0..skipped).any(|_| next_match().is_none());
    let mut next_match = || if all_skipped { None } else { next_match() };
    match count {
        None => match next_match() {
            Some(index) => ctx.out.int(index as i64),
            None => ctx.out.null(),
        },
        Some(count) => {
            let mark = ctx.out.open();
            let mut found = 0;
            while (count == 0 || found < count)
                && let Some(index) = next_match()
            {
                ctx.out.int(index as i64);
                found += 1;
            }
            ctx.out.close_array(mark, found);
        }
    }
    Ok(())
}
