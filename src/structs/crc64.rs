//! CRC-64 as RDB files and DUMP payloads carry it: the Jones polynomial, reflected, started from 0 and not inverted at
//! the end, so that a checksum can be carried on over any cut of the bytes.

#![allow(unsafe_code)]

/// The polynomial, least bit first.
const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9u64.reverse_bits();

/// `TABLES[k][b]`: the effect of byte `b`, followed by `k` zero bytes, on the checksum.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut behind = 1;
        while behind < 8 {
            let crc = tables[behind - 1][byte];
            tables[behind][byte] = crc >> 8 ^ tables[0][crc as u8 as usize];
            behind += 1;
        }
        byte += 1;
    }
    tables
}

/// Continues the checksum `crc` of earlier bytes (0 for none) with `bytes`.
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= folding::WORTHWHILE && folding::is_possible() {
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { folding::crc64(crc, bytes) };
    }
    by_tables(crc, bytes)
}

fn by_tables(mut crc: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let mixed = (crc ^ word).to_le_bytes();
        crc = 0;
        for (behind, byte) in mixed.iter().rev().enumerate() {
            crc ^= TABLES[behind][usize::from(*byte)];
        }
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    crc
}

/// Long strings, with the carry-less multiplication that most processors have.
///
/// A block of 16 bytes is a polynomial, its first bit the highest power. Only its remainder modulo the CRC's polynomial
/// counts. So a block is moved on by `d` bits, that is multiplied by `x^d`, by multiplying each of its halves by the
/// remainder of such a power: the result is a block again, to be added to the one there. The rest goes through the
/// tables.
#[cfg(target_arch = "x86_64")]
mod folding {
    use super::{POLYNOMIAL, by_tables};
    use std::arch::x86_64::{
        __m128i, _mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_storeu_si128,
        _mm_xor_si128,
    };

    /// From this length on folding is faster than the tables, bytes.
    pub(super) const WORTHWHILE: usize = 128;

    /// Blocks processed in parallel, as a multiplication has a long latency.
    const LANES: usize = 4;
    const BLOCK: usize = 16;

    /// The remainder of `x^n`, the highest power in the lowest bit.
    const fn power(n: usize) -> u64 {
        let mut rest = 1 << 63;
        let mut i = 0;
        while i < n {
            rest = if rest & 1 == 1 { rest >> 1 ^ POLYNOMIAL } else { rest >> 1 };
            i += 1;
        }
        rest
    }

    /// The factors for the first and the second half of a block that is moved on by `bits`. The product of two
    /// bit-reversed numbers has one power more than it should.
    const fn factors(bits: usize) -> (u64, u64) {
        (power(bits + 63), power(bits - 1))
    }

    const ONE: (u64, u64) = factors(8 * BLOCK);
    const ALL: (u64, u64) = factors(8 * BLOCK * LANES);

    pub(super) fn is_possible() -> bool {
        is_x86_feature_detected!("pclmulqdq")
    }

    /// # Safety
    /// The processor must have the instructions; see [`is_possible`].
    #[target_feature(enable = "pclmulqdq,sse2")]
    pub(super) unsafe fn crc64(crc: u64, bytes: &[u8]) -> u64 {
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        let (rounds, rest) = blocks.as_chunks::<LANES>();
        let Some((first, rounds)) = rounds.split_first() else { return by_tables(crc, bytes) };
        let mut lanes = first.map(|block| load(&block));
        lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi64_si128(crc as i64));
        for round in rounds {
            for (lane, block) in lanes.iter_mut().zip(round) {
                *lane = _mm_xor_si128(moved(*lane, ALL), load(block));
            }
        }
        let [mut sum, others @ ..] = lanes;
        for block in others {
            sum = _mm_xor_si128(moved(sum, ONE), block);
        }
        for block in rest {
            sum = _mm_xor_si128(moved(sum, ONE), load(block));
        }
        let mut last = [0; BLOCK];
        // SAFETY: there is room for a block.
        unsafe { _mm_storeu_si128(last.as_mut_ptr().cast(), sum) };
        by_tables(by_tables(0, &last), tail)
    }

    #[target_feature(enable = "sse2")]
    fn load(block: &[u8; BLOCK]) -> __m128i {
        // SAFETY: there is a block to read.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "pclmulqdq,sse2")]
    fn moved(block: __m128i, (first, second): (u64, u64)) -> __m128i {
        let factors = _mm_set_epi64x(second as i64, first as i64);
        _mm_xor_si128(_mm_clmulepi64_si128(block, factors, 0x00), _mm_clmulepi64_si128(block, factors, 0x11))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_checksums() {
        assert_eq!(crc64(0, b""), 0);
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn long_strings_of_every_length_agree_with_the_tables() {
        let bytes: Vec<u8> = (0..700u32).map(|i| ((i * i) >> 3) as u8).collect();
        for len in 0..bytes.len() {
            for crc in [0, 1, u64::MAX, 0xe9c6_d914_c4b8_d9ca] {
                assert_eq!(crc64(crc, &bytes[..len]), by_tables(crc, &bytes[..len]), "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_cut_agrees_with_the_published_parameters(bytes in any::<Vec<u8>>(), cut in any::<usize>()) {
            let want = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&bytes);
            let cut = cut % (bytes.len() + 1);
            prop_assert_eq!(crc64(crc64(0, &bytes[..cut]), &bytes[cut..]), want);
        }
    }
}
