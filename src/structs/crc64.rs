//! CRC-64 as RDB files and DUMP payloads carry it: the Jones polynomial, reflected, started from 0 and not inverted at
//! the end, so that a checksum can be carried on over any cut of the bytes.

/// The polynomial, least bit first.
const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9u64.reverse_bits();

/// `TABLES[k][b]`: what byte `b` does to the checksum with `k` zero bytes behind it.
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

/// The checksum of what `crc` is the checksum of (0 for nothing), followed by `bytes`.
pub fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_checksums() {
        assert_eq!(crc64(0, b""), 0);
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
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
