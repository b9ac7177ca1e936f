//! HyperLogLog: counts different elements approximately, in at most 12 kB.
//!
//! A value is a string that clients may read, write and restore, so only its header is relied on, which [`encoding`]
//! checks: `HYLL`, the encoding (0 dense, 1 sparse), three bytes of zero, and the cached count, 64 bits little-endian,
//! whose highest bit says that it is out of date. Then come the 16384 registers:
//!
//! * dense: six bits each, from the lowest bit of the first byte on;
//! * sparse: runs of equal registers, `00nnnnnn` for n+1 zeros, `01nnnnnn nnnnnnnn` for n+1 zeros, `1vvvvvnn` for n+1
//!   registers of the value v+1.
//!
//! Format: Redis's; elements are hashed with MurmurHash64A (Austin Appleby, public domain) and its seed, so that values
//! of both servers can be merged. The estimator is that of Otmar Ertl, "New cardinality estimation algorithms for
//! HyperLogLog sketches" (arXiv:1702.01284).

use std::fmt;

#[cfg(test)]
mod tests;

/// Bits of the hash that choose the register.
const INDEX_BITS: u32 = 14;
/// Bits of the hash that are left for the run of zeros.
const RUN_BITS: u32 = 64 - INDEX_BITS;
pub(crate) const REGISTERS: usize = 1 << INDEX_BITS;
/// Highest value a register can hold.
pub(crate) const REGISTER_MAX: u8 = 63;
const HASH_SEED: u64 = 0xadc8_3b19;

pub(crate) const HEADER_LEN: usize = 16;
const MAGIC: &[u8; 4] = b"HYLL";
const ENCODING_AT: usize = 4;
const CACHE_AT: usize = 8;
const STALE: u8 = 1 << 7;
/// Length of a dense value.
pub(crate) const DENSE_LEN: usize = HEADER_LEN + REGISTERS * 6 / 8;

const ZERO_MAX: usize = 64;
const LONG_ZERO_MAX: usize = REGISTERS;
const VALUE_MAX: u8 = 32;
const VALUE_RUN_MAX: usize = 4;
/// Runs that are checked for joining after a change.
const JOIN_SCAN: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Dense,
    Sparse,
}

/// The runs of a sparse value do not describe 16384 registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HyperLogLog: the runs do not describe all registers")
    }
}

impl std::error::Error for Corrupt {}

/// How a value is encoded; `None` for a string that is no HyperLogLog. All other functions here need a string that
/// passed.
pub(crate) fn encoding(value: &[u8]) -> Option<Encoding> {
    if value.len() < HEADER_LEN || !value.starts_with(MAGIC) {
        return None;
    }
    match value[ENCODING_AT] {
        0 if value.len() == DENSE_LEN => Some(Encoding::Dense),
        1 => Some(Encoding::Sparse),
        _ => None,
    }
}

/// A value that has seen no element.
pub(crate) fn empty() -> Vec<u8> {
    let mut value = header(Encoding::Sparse);
    Run::Zeros(REGISTERS).put(&mut value);
    value
}

/// A dense value that has seen no element.
pub(crate) fn empty_dense() -> Vec<u8> {
    let mut value = header(Encoding::Dense);
    value.resize(DENSE_LEN, 0);
    value
}

fn header(encoding: Encoding) -> Vec<u8> {
    let mut value = vec![0; HEADER_LEN];
    value[..MAGIC.len()].copy_from_slice(MAGIC);
    value[ENCODING_AT] = (encoding == Encoding::Sparse) as u8;
    value
}

/// The count as it was last stored, unless the value has changed since.
pub(crate) fn cached_count(value: &[u8]) -> Option<u64> {
    let count = u64::from_le_bytes(*value[CACHE_AT..].first_chunk()?);
    (value[HEADER_LEN - 1] & STALE == 0).then_some(count)
}

/// Stores the count.
pub(crate) fn set_cached_count(value: &mut [u8], count: u64) {
    value[CACHE_AT..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
}

/// Marks the stored count out of date.
pub(crate) fn forget_count(value: &mut [u8]) {
    value[HEADER_LEN - 1] |= STALE;
}

/// Registers of one value in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Zeros(usize),
    Values { value: u8, count: usize },
}

impl Run {
    fn count(self) -> usize {
        match self {
            Run::Zeros(count) | Run::Values { count, .. } => count,
        }
    }

    fn value(self) -> u8 {
        match self {
            Run::Zeros(_) => 0,
            Run::Values { value, .. } => value,
        }
    }

    /// The run at an offset before the end, and the bytes it takes. A missing second byte counts as zero.
    fn at(runs: &[u8], at: usize) -> (Run, usize) {
        let first = runs[at];
        match first >> 6 {
            0 => (Run::Zeros(usize::from(first) + 1), 1),
            1 => {
                let low = runs.get(at + 1).copied().unwrap_or(0);
                (Run::Zeros((usize::from(first & 0x3f) << 8 | usize::from(low)) + 1), 2)
            }
            _ => (Run::Values { value: (first >> 2 & 0x1f) + 1, count: usize::from(first & 3) + 1 }, 1),
        }
    }

    /// Appends the run in its shortest form; nothing for an empty one.
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Run::Zeros(0) | Run::Values { count: 0, .. } => {}
            Run::Zeros(count @ 1..=ZERO_MAX) => out.push(count as u8 - 1),
            Run::Zeros(count) => {
                debug_assert!(count <= LONG_ZERO_MAX);
                let field = count - 1;
                out.extend_from_slice(&[1 << 6 | (field >> 8) as u8, field as u8]);
            }
            Run::Values { value, count } => {
                debug_assert!((1..=VALUE_MAX).contains(&value) && count <= VALUE_RUN_MAX);
                out.push(1 << 7 | (value - 1) << 2 | (count as u8 - 1));
            }
        }
    }
}

/// The runs of a sparse value, as they are, with the bytes each takes (2 for the long form of zeros).
pub(crate) fn runs(value: &[u8]) -> impl Iterator<Item = (Run, usize)> + '_ {
    let runs = value.get(HEADER_LEN..).unwrap_or_default();
    let mut at = 0;
    std::iter::from_fn(move || {
        let (run, len) = (at < runs.len()).then(|| Run::at(runs, at))?;
        at += len;
        Some((run, len))
    })
}

/// Calls `f` with the first register of each run and the run, up to one that goes beyond the last register.
fn each_run(value: &[u8], mut f: impl FnMut(usize, Run)) -> Result<(), Corrupt> {
    let mut index = 0usize;
    for (run, _) in runs(value) {
        if index + run.count() > REGISTERS {
            return Err(Corrupt);
        }
        f(index, run);
        index += run.count();
    }
    if index == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

fn dense_get(registers: &[u8], index: usize) -> u8 {
    let bit = index * 6;
    let (at, shift) = (bit / 8, bit % 8);
    let high = registers.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([registers[at], high]) >> shift) as u8 & REGISTER_MAX
}

fn dense_put(registers: &mut [u8], index: usize, value: u8) {
    let bit = index * 6;
    let (at, shift) = (bit / 8, bit % 8);
    let (mask, bits) = (u16::from(REGISTER_MAX) << shift, u16::from(value) << shift);
    let ([mask_low, mask_high], [low, high]) = (mask.to_le_bytes(), bits.to_le_bytes());
    registers[at] = registers[at] & !mask_low | low;
    if mask_high != 0 {
        registers[at + 1] = registers[at + 1] & !mask_high | high;
    }
}

pub(crate) fn dense_register(value: &[u8], index: usize) -> u8 {
    dense_get(&value[HEADER_LEN..], index)
}

/// Sets a register of a dense value, whatever it was before.
pub(crate) fn set_dense_register(value: &mut [u8], index: usize, register: u8) {
    dense_put(&mut value[HEADER_LEN..], index, register & REGISTER_MAX);
}

/// Makes a value dense. The cached count stays.
pub(crate) fn make_dense(value: &mut Vec<u8>) -> Result<(), Corrupt> {
    if value[ENCODING_AT] == 0 {
        return Ok(());
    }
    let mut dense = empty_dense();
    dense[..HEADER_LEN].copy_from_slice(&value[..HEADER_LEN]);
    dense[ENCODING_AT] = 0;
    let registers = &mut dense[HEADER_LEN..];
    each_run(value, |index, run| {
        if run.value() > 0 {
            (index..index + run.count()).for_each(|i| dense_put(registers, i, run.value()));
        }
    })?;
    *value = dense;
    Ok(())
}

/// Counts an element. True when that changed a register. A sparse value that would need more than `sparse_max_bytes`
/// becomes dense.
pub(crate) fn add(value: &mut Vec<u8>, element: &[u8], sparse_max_bytes: usize) -> Result<bool, Corrupt> {
    let (index, register) = locate(element);
    raise(value, index, register, sparse_max_bytes)
}

/// The register of an element, and what its hash gives for it: the place of the lowest bit that is set, from 1 on.
fn locate(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, HASH_SEED);
    let rest = hash >> INDEX_BITS | 1 << RUN_BITS;
    (hash as usize & (REGISTERS - 1), rest.trailing_zeros() as u8 + 1)
}

/// Raises a register to a value. True when it was lower.
pub(crate) fn raise(value: &mut Vec<u8>, index: usize, register: u8, sparse_max_bytes: usize) -> Result<bool, Corrupt> {
    if value[ENCODING_AT] != 0 {
        match raise_sparse(value, index, register, sparse_max_bytes)? {
            Some(raised) => return Ok(raised),
            None => make_dense(value)?,
        }
    }
    let registers = &mut value[HEADER_LEN..];
    let raised = dense_get(registers, index) < register;
    if raised {
        dense_put(registers, index, register);
    }
    Ok(raised)
}

/// As `raise` for a sparse value; `None` when only a dense one can hold the result.
fn raise_sparse(
    value: &mut Vec<u8>,
    index: usize,
    register: u8,
    sparse_max_bytes: usize,
) -> Result<Option<bool>, Corrupt> {
    if register > VALUE_MAX {
        return Ok(None);
    }
    // The run that has the register, where it begins, and where the one before it does.
    let (mut at, mut before, mut first) = (HEADER_LEN, HEADER_LEN, 0);
    let (run, len) = loop {
        if at >= value.len() {
            return Err(Corrupt);
        }
        let (run, len) = Run::at(value, at);
        if index < first + run.count() {
            break (run, len);
        }
        before = at;
        at += len;
        first += run.count();
    };
    if at + len > value.len() {
        return Err(Corrupt);
    }
    if run.value() >= register {
        return Ok(Some(false));
    }
    let (left, right) = (index - first, first + run.count() - 1 - index);
    let part = |count| match run {
        Run::Zeros(_) => Run::Zeros(count),
        Run::Values { value, .. } => Run::Values { value, count },
    };
    let mut new = Vec::with_capacity(JOIN_SCAN);
    part(left).put(&mut new);
    Run::Values { value: register, count: 1 }.put(&mut new);
    part(right).put(&mut new);
    if new.len() > len {
        let needed = value.len() + new.len() - len;
        if needed > sparse_max_bytes {
            return Ok(None);
        }
        if needed > value.capacity() {
            // Small ones double, larger ones grow by steps.
            const STEP: usize = 300;
            value.reserve_exact((needed + needed.min(STEP)).min(sparse_max_bytes) - value.len());
        }
    }
    value.splice(at..at + len, new);
    join_runs(value, before);
    forget_count(value);
    Ok(Some(true))
}

/// Joins runs of the same value from an offset on, as far as one run can hold them.
fn join_runs(value: &mut Vec<u8>, mut at: usize) {
    for _ in 0..JOIN_SCAN {
        if at >= value.len() {
            return;
        }
        let (run, len) = Run::at(value, at);
        if let Run::Values { value: register, count } = run
            && at + 1 < value.len()
            && let (Run::Values { value: next, count: next_count }, _) = Run::at(value, at + 1)
            && next == register
            && count + next_count <= VALUE_RUN_MAX
        {
            value.remove(at);
            value[at] = 1 << 7 | (register - 1) << 2 | (count + next_count - 1) as u8;
            continue;
        }
        at += len;
    }
}

/// The union of several values: each register is the highest of theirs.
#[derive(Clone)]
pub(crate) struct Union {
    registers: Box<[u8; REGISTERS]>,
}

impl Default for Union {
    fn default() -> Union {
        Union { registers: Box::new([0; REGISTERS]) }
    }
}

impl Union {
    pub(crate) fn merge(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        if value[ENCODING_AT] != 0 {
            return each_run(value, |index, run| {
                if run.value() > 0 {
                    let registers = &mut self.registers[index..index + run.count()];
                    registers.iter_mut().for_each(|r| *r = (*r).max(run.value()));
                }
            });
        }
        for (four, packed) in self.registers.chunks_exact_mut(4).zip(value[HEADER_LEN..].chunks_exact(3)) {
            four.iter_mut().zip(unpack(packed)).for_each(|(r, other)| *r = (*r).max(other));
        }
        Ok(())
    }

    /// The registers that are not zero.
    pub(crate) fn set_registers(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        self.registers.iter().copied().enumerate().filter(|(_, r)| *r != 0)
    }

    pub(crate) fn count(&self) -> u64 {
        let mut histogram = Histogram::default();
        self.registers.iter().for_each(|r| histogram.add(*r, 1));
        histogram.estimate()
    }
}

/// Four registers from the three bytes that hold them.
fn unpack(packed: &[u8]) -> [u8; 4] {
    let bits = u32::from_le_bytes([packed[0], packed[1], packed[2], 0]);
    [0, 6, 12, 18].map(|shift| (bits >> shift) as u8 & REGISTER_MAX)
}

/// Estimates how many different elements a value has seen.
pub(crate) fn count(value: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = Histogram::default();
    if value[ENCODING_AT] == 0 {
        for packed in value[HEADER_LEN..].chunks_exact(3) {
            unpack(packed).into_iter().for_each(|r| histogram.add(r, 1));
        }
        return Ok(histogram.estimate());
    }
    let mut total = 0u64;
    for (run, _) in runs(value) {
        total += run.count() as u64;
        histogram.add(run.value(), run.count() as u64);
    }
    if total == REGISTERS as u64 { Ok(histogram.estimate()) } else { Err(Corrupt) }
}

/// How many registers have each value.
struct Histogram([u64; REGISTER_MAX as usize + 1]);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram([0; REGISTER_MAX as usize + 1])
    }
}

impl Histogram {
    fn add(&mut self, register: u8, count: u64) {
        self.0[usize::from(register & REGISTER_MAX)] += count;
    }

    fn estimate(&self) -> u64 {
        /// 1 / (2 ln 2)
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        let registers = REGISTERS as f64;
        let highest = RUN_BITS as usize + 1;
        let mut z = registers * tau((registers - self.0[highest] as f64) / registers);
        for count in self.0[1..highest].iter().rev() {
            z = (z + *count as f64) * 0.5;
        }
        z += registers * sigma(self.0[0] as f64 / registers);
        let estimate = (ALPHA * registers * registers / z).round();
        // With every register at its highest there is no estimate: the result is a number that no set has.
        if estimate.is_finite() { estimate as u64 } else { i64::MIN as u64 }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

fn murmur64a(data: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (data.len() as u64).wrapping_mul(M);
    let (words, tail) = data.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}
