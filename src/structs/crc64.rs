//! tmp
use crc::{CRC_64_REDIS, Crc, Table};
static T: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);
pub fn update(crc: u64, bytes: &[u8]) -> u64 {
    let mut d = T.digest_with_initial(crc.reverse_bits());
    d.update(bytes);
    d.finalize()
}
