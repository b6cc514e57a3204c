//! Client ids that the server draws: `auto-`, 128 random bits, and a check that only this bus can compute, so that an
//! id that comes back is known to be one of ours (DESIGN section 4, "Anonymous").

use firehose_broker::arrival::{Scope, Secret, home_shard};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PREFIX: &str = "auto-";
const RANDOM_DIGITS: usize = 32;
const CHECK_BYTES: usize = 8;

/// Draws and knows ids.
pub struct ClientIds {
    secret: Secret,
}

impl ClientIds {
    /// With the bus's secret: ids are known again after a restart.
    pub fn new(secret: Secret) -> ClientIds {
        ClientIds { secret }
    }

    /// An id whose home is the given shard.
    ///
    /// # Errors
    /// When the system has no random numbers to give.
    pub fn draw(&self, scope: &Scope, shard: usize, shards: usize) -> Result<Box<str>, getrandom::Error> {
        loop {
            let mut random = [0; RANDOM_DIGITS / 2];
            getrandom::fill(&mut random)?;
            let body = hex(&random);
            let id = format!("{PREFIX}{body}{}", self.check(&body));
            if home_shard(scope.hash_with(&self.secret, &id), shards) == shard {
                return Ok(id.into());
            }
        }
    }

    /// Whether the id was drawn here.
    pub fn knows(&self, id: &str) -> bool {
        id.strip_prefix(PREFIX)
            .and_then(|rest| rest.split_at_checked(RANDOM_DIGITS))
            .is_some_and(|(body, check)| self.check(body) == check)
    }

    fn check(&self, body: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.id_key()) else { return String::new() };
        mac.update(body.as_bytes());
        hex(&mac.finalize().into_bytes()[..CHECK_BYTES])
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_drawn_for_a_shard_and_known_again() {
        let secret = Secret::new([7; 32]);
        let ids = ClientIds::new(secret.clone());
        let scope = Scope { user: None, address: None };
        for shard in 0..3 {
            let id = ids.draw(&scope, shard, 3).unwrap();
            assert_eq!(home_shard(scope.hash_with(&secret, &id), 3), shard);
            assert!(ids.knows(&id));
            assert_ne!(ids.draw(&scope, shard, 3).unwrap(), id, "each is another");
            assert!(!ClientIds::new(Secret::new([8; 32])).knows(&id), "another bus does not know it");
            assert!(!ids.knows(&id[..id.len() - 1]));
        }
        assert!(!ids.knows("auto-"));
        assert!(!ids.knows("auto-ä"));
    }
}
