//! Who asks: nobody in particular, or a user of the password file by HTTP Basic (RFC 7617).

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firehose_auth::{Access, Identity, Refused};
use tokio::sync::Semaphore;

use crate::Problem;
use crate::shares::{Peer, Shares};

/// How many passwords are checked at once: each costs some 50 ms of a core and, with argon2, tens of MiB.
const CHECKS_MAX: usize = 2;
/// How many requests may wait for a check.
const WAITING_MAX: usize = 64;
/// And how many of one address.
const WAITING_PER_ADDRESS_MAX: usize = 8;

/// Checks credentials beside the async thread, a few at a time.
#[derive(Debug)]
pub struct Login {
    access: Access,
    checks: Semaphore,
    waiting: Semaphore,
    waiting_of: Shares,
}

impl Login {
    /// By these rules.
    pub fn new(access: Access) -> Self {
        Login {
            access,
            checks: Semaphore::new(CHECKS_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            waiting_of: Shares::new(WAITING_PER_ADDRESS_MAX),
        }
    }

    /// The rules.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Who makes a request with these headers, from there.
    pub(crate) async fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Identity, Problem> {
        let Some((user, password)) = credentials(headers)? else {
            return self.access.current().authenticate(None, None).map_err(problem);
        };
        let too_many =
            || Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many passwords are being checked: try again");
        let own = self.waiting_of.of(peer);
        let _own = own.map(|own| own.try_acquire_owned().map_err(|_| too_many())).transpose()?;
        let _waiting = self.waiting.try_acquire().map_err(|_| too_many())?;
        let _check =
            self.checks.acquire().await.map_err(|_| Problem::unavailable("the server is stopping"))?;
        let rules = self.access.current();
        let check = move || rules.authenticate(Some(&user), Some(&password));
        match tokio::task::spawn_blocking(check).await {
            Ok(answer) => answer.map_err(problem),
            Err(_) => Err(Problem::unavailable("the password could not be checked: try again")),
        }
    }
}

/// The user and the password of the Authorization header; none: there is no such header.
fn credentials(headers: &HeaderMap) -> Result<Option<(String, Vec<u8>)>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let malformed =
        || Problem::new(StatusCode::UNAUTHORIZED, "the Authorization header is not of the Basic scheme");
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, encoded) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| malformed())?;
    let colon = decoded.iter().position(|b| *b == b':').ok_or_else(malformed)?;
    let user = String::from_utf8(decoded[..colon].to_vec()).map_err(|_| malformed())?;
    Ok(Some((user, decoded[colon + 1..].to_vec())))
}

fn problem(refused: Refused) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        match refused {
            Refused::BadUserNameOrPassword => "no such user, or another password",
            Refused::NotAuthorized => {
                "this server is not read without an account: give a user and a password"
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(value: &'static str) -> Result<Option<(String, Vec<u8>)>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        credentials(&headers)
    }

    #[test]
    fn basic_credentials_are_read_up_to_the_first_colon() {
        assert_eq!(read("Basic dTpwOnc="), Ok(Some(("u".into(), b"p:w".to_vec()))));
        assert_eq!(read("bAsIc dTo="), Ok(Some(("u".into(), vec![]))));
        assert_eq!(credentials(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn other_credentials_are_refused() {
        for value in ["Bearer x", "Basic", "Basic !!!", "Basic dQ==", "Basic /zo="] {
            assert!(read(value).is_err(), "{value}");
        }
    }
}
