//! SipHash-1-3 of a whole string at once: the hash of keys and members in tables.
//!
//! Algorithm: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with one round for each word of the message
//! and three at the end.

/// The four words that are mixed.
struct State([u64; 4]);

impl State {
    fn new([k0, k1]: [u64; 2]) -> State {
        State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v2 = v2.wrapping_add(*v3);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v1);
        *v0 = v0.wrapping_add(*v3);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.rotate_left(32);
    }

    #[inline(always)]
    fn take(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }
}

/// The hash of `text` under a key of 16 bytes.
#[inline]
pub(crate) fn hash13(key: &[u8; 16], text: &[u8]) -> u64 {
    let (words, _) = key.as_chunks::<8>();
    let mut state = State::new([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        state.take(u64::from_le_bytes(*word));
    }
    // The last word: the bytes that are left, and the length modulo 256 in the highest one.
    let left = match text.last_chunk::<8>() {
        // In two steps, as a shift by all 64 bits is not defined.
        Some(last) => u64::from_le_bytes(*last) >> 8 >> (56 - 8 * rest.len()),
        None => short_word(rest),
    };
    state.take((text.len() as u64) << 56 | left);
    state.0[2] ^= 0xff;
    for _ in 0..3 {
        state.round();
    }
    state.0[0] ^ state.0[1] ^ state.0[2] ^ state.0[3]
}

/// Less than eight bytes as a number. Overlapping pieces agree where they overlap.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4))
        }
        _ if len == 0 => 0,
        _ => [0, len / 2, len - 1].into_iter().fold(0, |word, at| word | u64::from(bytes[at]) << (8 * at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    #[test]
    fn strings_of_every_length_have_the_hash_of_the_algorithm() {
        let key = std::array::from_fn(|i| 7 * i as u8 + 1);
        let text: Vec<u8> = (0..600usize).map(|i| (i * i + 3 * i) as u8).collect();
        for len in 0..text.len() {
            let expected = SipHasher13::new_with_key(&key).hash(&text[..len]);
            assert_eq!(hash13(&key, &text[..len]), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_key_and_string_have_the_hash_of_the_algorithm(key: [u8; 16], text: Vec<u8>) {
            prop_assert_eq!(hash13(&key, &text), SipHasher13::new_with_key(&key).hash(&text));
        }
    }
}
