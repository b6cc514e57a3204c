//! How long to wait before trying again: longer each time, and never all clients at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits of half a second, doubled up to half a minute, each cut by a random part of up to a half.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// From the shortest wait on.
    pub(crate) fn new() -> Self {
        Backoff { next: FIRST }
    }

    /// Something worked: the next wait is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait this time.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        let mut random = [0; 4];
        // without randomness the wait is the whole one: the clients are spread a little less
        let part = match getrandom::fill(&mut random) {
            Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
            Err(_) => 0.0,
        };
        whole.mul_f64(1.0 - part / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new();
        let first = backoff.wait();
        assert!(first >= FIRST / 2 && first <= FIRST);
        for _ in 0..20 {
            assert!(backoff.wait() <= LONGEST);
        }
        assert!(backoff.wait() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
