//! Who has given wrong passwords to the port for operators of late, and has to wait.

use std::collections::VecDeque;
use std::net::IpAddr;

/// So many wrong passwords from an address are let pass, in this time, milliseconds.
const MOST: u32 = 5;
const WINDOW_MS: i64 = 60_000;
/// Addresses that are remembered.
const ADDRESSES: usize = 256;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    /// Address, wrong passwords, and when the last one came; the latest last.
    failures: VecDeque<(IpAddr, u32, i64)>,
}

impl Logins {
    /// For how long this address has to wait before it may try again, milliseconds.
    pub(crate) fn wait_ms(&self, from: IpAddr, now_ms: i64) -> Option<i64> {
        let (_, count, last_ms) = self.failures.iter().find(|(address, ..)| *address == from)?;
        let left = last_ms + WINDOW_MS - now_ms;
        (*count >= MOST && left > 0).then_some(left)
    }

    /// A password was wrong.
    pub(crate) fn failed(&mut self, from: IpAddr, now_ms: i64) {
        let at = self.failures.iter().position(|(address, ..)| *address == from);
        let before = at.and_then(|at| self.failures.remove(at));
        let count = before.filter(|(_, _, last_ms)| now_ms - last_ms < WINDOW_MS).map_or(0, |(_, count, _)| count);
        self.failures.push_back((from, count + 1, now_ms));
        if self.failures.len() > ADDRESSES {
            self.failures.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_wrong_passwords_have_to_wait() {
        let (a, b) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([1, 2, 3, 5]));
        let mut logins = Logins::default();
        for i in 0..MOST {
            assert_eq!(logins.wait_ms(a, 0), None, "{i}");
            logins.failed(a, 0);
        }
        assert_eq!((logins.wait_ms(a, 1000), logins.wait_ms(b, 1000)), (Some(WINDOW_MS - 1000), None));
        assert_eq!(logins.wait_ms(a, WINDOW_MS), None);
        logins.failed(a, WINDOW_MS);
        assert_eq!(logins.wait_ms(a, WINDOW_MS), None, "it began anew");
        (0..1000u32).for_each(|n| logins.failed(IpAddr::from(n.to_be_bytes()), 0));
        assert_eq!(logins.failures.len(), ADDRESSES);
    }
}
