//! HyperLogLog commands: approximate counts of different elements, in string values.

use super::prelude::*;
use crate::keyspace::Entry;
use crate::structs::hll::{self, Corrupt, Encoding, Run};

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Hyperloglog, "pfadd", pfadd)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("element").optional().multiple()])
        .since("2.8.9")
        .complexity("O(1) for each element.")
        .summary("Adds elements to a HyperLogLog, which is created when it is not there."),
    command(Group::Hyperloglog, "pfcount", pfcount)
        .flags(flag::MAY_REPLICATE | flag::READONLY)
        .keys(&[KeySpec::range(key::RW | key::ACCESS, 1, -1, 1)
            .notes("RW because it may change the internal representation of the key, and propagate to replicas")])
        .args(&[Arg::key("key", 0).multiple()])
        .since("2.8.9")
        .complexity("O(1) for one key, whose count is stored with it; O(N) where N is the number of keys for several.")
        .summary("Gives the approximate number of different elements that HyperLogLogs have seen."),
    command(Group::Hyperloglog, "pfdebug", pfdebug)
        .flags(flag::ADMIN | flag::DENYOOM | flag::WRITE | flag::SYSCMD)
        .keys(&[KeySpec::range(key::RW | key::ACCESS, 2, 0, 1)])
        .args(&[Arg::string("subcommand"), Arg::key("key", 0)])
        .since("2.8.9")
        .complexity("O(1), or O(N) where N is the number of registers.")
        .summary("Shows or changes how a HyperLogLog is stored."),
    command(Group::Hyperloglog, "pfmerge", pfmerge)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[
            KeySpec::range(key::RW | key::ACCESS | key::INSERT, 1, 0, 1),
            KeySpec::range(key::RO | key::ACCESS, 2, -1, 1),
        ])
        .args(&[Arg::key("destkey", 0), Arg::key("sourcekey", 1).optional().multiple()])
        .since("2.8.9")
        .complexity("O(N) where N is the number of keys.")
        .summary("Merges HyperLogLogs into one."),
    command(Group::Hyperloglog, "pfselftest", pfselftest)
        .flags(flag::ADMIN | flag::SYSCMD)
        .since("2.8.9")
        .complexity("O(1), but many times.")
        .summary("Tests the HyperLogLog implementation."),
];

const NOT_HLL: CmdError = CmdError::of("WRONGTYPE Key is not a valid HyperLogLog string value.");
const CORRUPT: CmdError = CmdError::of("INVALIDOBJ Corrupted HLL object detected");

fn corrupt(_: Corrupt) -> CmdError {
    CORRUPT
}

/// The bytes of a HyperLogLog.
fn hll_of(entry: &Entry) -> Result<(&[u8], Encoding), CmdError> {
    match entry.value() {
        ValueRef::Str { bytes, .. } => hll::encoding(bytes).map(|e| (bytes, e)).ok_or(NOT_HLL),
        ValueRef::Int(_) => Err(NOT_HLL),
        ValueRef::Object(_) => Err(error::WRONG_TYPE),
    }
}

fn pfadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let sparse_max = ctx.cfg.hll_sparse_max_bytes;
    let mut added = 0;
    let is_new = match ctx.ks.write(ctx.db, key) {
        Some(entry) => hll_of(&entry).map(|_| false)?,
        None => true,
    };
    if is_new {
        ctx.ks.insert(ctx.db, key, NewValue::RawStr(&hll::empty()), None);
        added += 1;
    }
    if let Some(mut entry) = ctx.ks.dbs[ctx.db].get_mut(key)
        && let Some(mut value) = entry.make_raw_mut()
    {
        for element in args.from(2).iter() {
            added += u64::from(hll::add(&mut value, element, sparse_max).map_err(corrupt)?);
        }
        if added > 0 {
            hll::forget_count(&mut value);
        }
    }
    if added > 0 {
        ctx.changed(notify::STRING, "pfadd", key, added);
    }
    ctx.out.just_int((added > 0) as i64)
}

fn pfcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = if args.len() == 2 { count_one(ctx, &args[1])? } else { union_of(ctx, args.from(1))?.0.count() };
    ctx.out.just_int(count as i64)
}

/// The count of one key. If it is not cached in the value, it is stored there: a change, although this is a read.
fn count_one(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<u64, CmdError> {
    let Some(mut entry) = ctx.ks.read_mut(ctx.db, key) else { return Ok(0) };
    hll_of(&entry)?;
    let Some(value) = entry.str_bytes_mut() else { return Err(NOT_HLL) };
    if let Some(count) = hll::cached_count(value) {
        return Ok(count);
    }
    let count = hll::count(value).map_err(corrupt)?;
    hll::set_cached_count(value, count);
    drop(entry);
    ctx.ks.signal_modified(ctx.db, key);
    ctx.dirty(1);
    Ok(count)
}

/// The registers of all keys together, and whether one of them is dense.
fn union_of(ctx: &mut Ctx<'_>, keys: Args<'_>) -> Result<(hll::Union, bool), CmdError> {
    let mut union = hll::Union::default();
    let mut dense = false;
    for key in keys.iter() {
        let Some(entry) = ctx.ks.read(ctx.db, key) else { continue };
        let (value, encoding) = hll_of(entry)?;
        dense |= encoding == Encoding::Dense;
        union.merge(value).map_err(corrupt)?;
    }
    Ok((union, dense))
}

fn pfmerge(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let sparse_max = ctx.cfg.hll_sparse_max_bytes;
    let (union, dense) = union_of(ctx, args.from(1))?;
    if ctx.ks.write(ctx.db, key).is_none() {
        ctx.ks.insert(ctx.db, key, NewValue::RawStr(&hll::empty()), None);
    }
    if let Some(mut entry) = ctx.ks.dbs[ctx.db].get_mut(key)
        && let Some(mut value) = entry.make_raw_mut()
    {
        if dense {
            hll::make_dense(&mut value).map_err(corrupt)?;
        }
        for (index, register) in union.set_registers() {
            hll::raise(&mut value, index, register, sparse_max).map_err(corrupt)?;
        }
        hll::forget_count(&mut value);
    }
    ctx.changed(notify::STRING, "pfadd", key, 1);
    ctx.out.just_ok()
}

fn pfdebug(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let name = args[1].to_ascii_lowercase();
    let Some(mut entry) = ctx.ks.write(ctx.db, &args[2]) else {
        return Err(CmdError::of("ERR The specified key does not exist"));
    };
    let encoding = hll_of(&entry)?.1;
    let Some(mut value) = entry.make_raw_mut() else { return Err(NOT_HLL) };
    let mut make_dense = || match encoding {
        Encoding::Dense => Ok(false),
        Encoding::Sparse => hll::make_dense(&mut value).map(|()| true).map_err(corrupt),
    };
    let mut converted = false;
    match name.as_slice() {
        b"getreg" => {
            converted = make_dense()?;
            ctx.out.array(hll::REGISTERS);
            (0..hll::REGISTERS).for_each(|i| ctx.out.int(i64::from(hll::dense_register(&value, i))));
        }
        b"decode" => {
            if encoding == Encoding::Dense {
                return Err(CmdError::of("ERR HLL encoding is not sparse"));
            }
            let runs = hll::runs(&value).map(|(run, len)| match run {
                Run::Zeros(count) if len == 1 => format!("z:{count}"),
                Run::Zeros(count) => format!("Z:{count}"),
                Run::Values { value, count } => format!("v:{value},{count}"),
            });
            ctx.out.bulk_str(&runs.collect::<Vec<_>>().join(" "));
        }
        b"encoding" => ctx.out.simple(match encoding {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        }),
        b"todense" => {
            converted = make_dense()?;
            ctx.out.int(converted as i64);
        }
        _ => {
            drop(value);
            let mut text = b"ERR Unknown PFDEBUG subcommand '".to_vec();
            text.extend_from_slice(&args[1]);
            text.push(b'\'');
            return Err(CmdError::bytes(text));
        }
    }
    drop(value);
    drop(entry);
    // Another encoding is another value, so it is propagated.
    ctx.dirty(converted as u64);
    Ok(())
}

fn pfselftest(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    test_registers()?;
    test_estimates(ctx.cfg.hll_sparse_max_bytes)?;
    ctx.out.just_ok()
}

fn failed(text: String) -> CmdError {
    CmdError::text(format!("ERR TESTFAILED {text}"))
}

/// Checks that registers keep their values, whatever is set in their neighbours.
fn test_registers() -> CmdResult {
    const ROUNDS: usize = 1000;
    let mut value = hll::empty_dense();
    let mut wanted = vec![0; hll::REGISTERS];
    for _ in 0..ROUNDS {
        for (i, register) in wanted.iter_mut().enumerate() {
            *register = fastrand::u8(..=hll::REGISTER_MAX);
            hll::set_dense_register(&mut value, i, *register);
        }
        for (i, register) in wanted.iter().enumerate() {
            let got = hll::dense_register(&value, i);
            if got != *register {
                return Err(failed(format!("Register {i} should be {register} but is {got}")));
            }
        }
    }
    Ok(())
}

/// Checks that estimates are within the error that the number of registers promises, and the same in both encodings.
fn test_estimates(sparse_max: usize) -> CmdResult {
    const LAST: u64 = 10_000_000;
    /// In standard errors; a run that exceeds it is most unlikely.
    const TOLERANCE: f64 = 6.0;
    let error = 1.04 / (hll::REGISTERS as f64).sqrt();
    let seed = fastrand::u64(..);
    let (mut dense, mut value) = (hll::empty_dense(), hll::empty());
    let mut checkpoint = 1;
    for n in 1..=LAST {
        let element = (n ^ seed).to_ne_bytes();
        hll::add(&mut dense, &element, sparse_max).map_err(corrupt)?;
        hll::add(&mut value, &element, sparse_max).map_err(corrupt)?;
        if n != checkpoint {
            continue;
        }
        if n < sparse_max as u64 / 2 && hll::encoding(&value) != Some(Encoding::Sparse) {
            return Err(failed("sparse encoding not used".to_string()));
        }
        let estimate = hll::count(&dense).map_err(corrupt)?;
        if hll::count(&value).map_err(corrupt)? != estimate {
            return Err(failed("dense/sparse disagree".to_string()));
        }
        // Of ten elements, two may well share a register.
        let allowed = if n == 10 { 1 } else { (error * TOLERANCE * n as f64).ceil() as u64 };
        if estimate.abs_diff(n) > allowed {
            return Err(failed(format!("Too big error. card:{n} abserr:{}", estimate.abs_diff(n))));
        }
        checkpoint *= 10;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn what_was_added_is_counted() {
        let mut bare = Bare::new();
        assert_eq!((bare.run("pfadd h a b c"), bare.run("pfadd h a"), bare.changes()), (":1".into(), ":0".into(), 4));
        assert_eq!((bare.run("pfadd g c d"), bare.run("pfcount h g")), (":1".into(), ":4".into()));
        bare.run("set s text");
        assert_eq!(bare.run("pfcount s"), "-WRONGTYPE Key is not a valid HyperLogLog string value.");
    }
}
