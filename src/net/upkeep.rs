//! Upkeep of clients by the cron, a part of them each time and all of them about once a second: idle ones are closed,
//! buffers follow what is used of them, memory is counted.

use super::Client;
use super::output::{MAX_BUFFER_BYTES, MIN_BUFFER_BYTES};

/// Fewest clients looked at in one cron run.
pub const MIN_CLIENTS_PER_RUN: usize = 5;
/// Unused room of a query buffer that is left alone, bytes.
const QUERY_SPARE_BYTES: usize = 4 * 1024;
/// Query buffers up to this size shrink only when their client is idle, bytes.
const QUERY_BIG_BYTES: usize = 32 * 1024;
/// A client is idle after this, seconds.
const IDLE_SECONDS: i64 = 2;

pub fn fit_query_buffer(c: &mut Client, now_ms: i64) {
    let wanted = c.parser.wanted_len().map_or(0, |n| c.query_pos + n);
    let capacity = c.query.capacity();
    if capacity - c.query.len() > QUERY_SPARE_BYTES {
        if now_ms / 1000 - c.last_interaction_ms / 1000 > IDLE_SECONDS {
            c.query.shrink_to_fit();
        } else if capacity > QUERY_BIG_BYTES && capacity / 2 > c.query_peak {
            c.query.shrink_to(c.query_peak.max(wanted));
        }
    }
    // The next run looks at what is used from here on.
    c.query_peak = c.query.len().max(wanted);
}

pub enum Fit {
    Shrunk,
    Grown,
}

pub fn fit_reply_buffer(c: &mut Client, now_ms: i64, reset_ms: i64) -> Option<Fit> {
    let size = c.out.buffer_size();
    let (new, fit) = if size / 2 >= MIN_BUFFER_BYTES && c.reply_peak < size / 2 {
        (MIN_BUFFER_BYTES.max(c.reply_peak + 1), Some(Fit::Shrunk))
    } else if size < MAX_BUFFER_BYTES && c.reply_peak >= size {
        (MAX_BUFFER_BYTES.min(size * 2), Some(Fit::Grown))
    } else {
        (size, None)
    };
    if reset_ms >= 0 && now_ms - c.reply_peak_at_ms >= reset_ms {
        c.reply_peak = c.out.cur_len();
        c.reply_peak_at_ms = now_ms;
    }
    if fit.is_some() {
        c.out.resize(new);
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ClientId;

    fn client() -> Client {
        Client::new(ClientId { index: 0, generation: 0 }, 1, None, 0)
    }

    #[test]
    fn reply_buffers_follow_their_use() {
        let mut c = client();
        for expected in [2048, 4096, 8192, 16384, 16384] {
            c.reply_peak = c.out.buffer_size();
            fit_reply_buffer(&mut c, 0, -1);
            assert_eq!(c.out.buffer_size(), expected);
        }
        c.reply_peak = 10;
        fit_reply_buffer(&mut c, 0, -1);
        assert_eq!(c.out.buffer_size(), MIN_BUFFER_BYTES);
    }

    #[test]
    fn query_buffers_shrink_when_idle_or_far_too_large() {
        let mut c = client();
        c.query = Vec::with_capacity(400_000);
        c.query_peak = 100;
        fit_query_buffer(&mut c, 1000);
        assert!(c.query.capacity() < 32 * 1024);
        c.query = Vec::with_capacity(16 * 1024);
        fit_query_buffer(&mut c, 2000);
        assert!(c.query.capacity() >= 16 * 1024);
        fit_query_buffer(&mut c, 3000);
        assert_eq!(c.query.capacity(), 0);
    }
}
