//! How long to wait before the next attempt.

use std::time::Duration;

/// Growing pauses between attempts, each stretched or shortened at random so that many clients do not come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffConfig {
    /// The first pause.
    pub first: Duration,
    /// What each pause is multiplied with to give the next one; at least 1.
    pub factor: f64,
    /// No pause is longer, jitter included.
    pub max: Duration,
    /// By how much at most a pause differs from its nominal length: 0.25 is a quarter either way. From 0 to 1.
    pub jitter: f64,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), factor: 1.5, max: Duration::from_secs(60), jitter: 0.25 }
    }
}

/// The pauses of one series of attempts.
pub(crate) struct Backoff {
    config: BackoffConfig,
    nominal_secs: f64,
}

impl Backoff {
    pub(crate) fn new(config: BackoffConfig) -> Self {
        Self { config, nominal_secs: config.first.as_secs_f64() }
    }

    /// The next pause, with jitter from the system's random numbers.
    pub(crate) fn next(&mut self) -> Duration {
        // Without random numbers there is no jitter; nothing else depends on them.
        self.next_at(getrandom::u32().map_or(0.5, |r| f64::from(r) / f64::from(u32::MAX)))
    }

    /// Begins again with the first pause.
    pub(crate) fn reset(&mut self) {
        self.nominal_secs = self.config.first.as_secs_f64();
    }

    /// The next pause, where `random` (from 0 to 1) chooses its place between the shortest and the longest.
    fn next_at(&mut self, random: f64) -> Duration {
        let max_secs = self.config.max.as_secs_f64();
        let jitter = self.config.jitter.clamp(0.0, 1.0);
        let secs = self.nominal_secs * (1.0 - jitter + 2.0 * jitter * random);
        self.nominal_secs = (self.nominal_secs * self.config.factor.max(1.0)).min(max_secs);
        Duration::try_from_secs_f64(secs.clamp(0.0, max_secs)).unwrap_or(self.config.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(BackoffConfig::default());
        let pauses: Vec<f64> = (0..20).map(|_| backoff.next_at(0.5).as_secs_f64()).collect();
        assert_eq!(&pauses[..4], &[0.5, 0.75, 1.125, 1.6875]);
        assert_eq!(pauses[19], 60.0);
        backoff.reset();
        assert_eq!(backoff.next_at(0.5).as_secs_f64(), 0.5);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_below_the_longest_pause() {
        let config = BackoffConfig::default();
        for random in [0.0, 0.3, 1.0] {
            let pause = Backoff::new(config).next_at(random).as_secs_f64();
            assert!((0.375..=0.625).contains(&pause), "{pause}");
        }
        let mut late = Backoff::new(config);
        for _ in 0..30 {
            assert!(late.next_at(1.0) <= config.max);
        }
    }
}
