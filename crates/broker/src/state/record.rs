//! The records of the state file: postcard behind a version byte.

use crate::limits::AddressKey;
use crate::state::stored::{SessionName, StoredGroup, StoredSubscription, StoredWill};
use firehose_log::Offset;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version that is written. A record of another one counts as one that cannot be read.
const VERSION: u8 = 1;

/// What is known of a session besides its life, its subscriptions and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    /// The user; none: anonymous.
    pub user: Option<Box<str>>,
    /// The scope's address.
    pub scope_address: Option<u64>,
    /// MQTT's client id.
    pub client_id: Box<str>,
    /// The client id was drawn by a server.
    pub assigned: bool,
    /// Whom the caps per address count it for.
    pub address: Option<AddressKey>,
}

impl SessionRecord {
    /// Whether it is the session of this name, not of another with the same hash.
    pub(crate) fn is_of(&self, name: &SessionName) -> bool {
        self.user == name.scope.user
            && self.scope_address == name.scope.address
            && self.client_id == name.client_id
    }
}

/// Until when a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How long it lives on after its connection, in seconds; `u32::MAX`: for ever.
    pub expiry_secs: u32,
    /// When its connection ended, in microseconds since 1970; none: it is connected.
    pub left_us: Option<i64>,
}

/// Stands for "connected" in the file.
const CONNECTED: i64 = i64::MIN;

impl Life {
    /// As it stands in the file.
    pub(crate) fn to_stored(self) -> (u32, i64) {
        (self.expiry_secs, self.left_us.unwrap_or(CONNECTED))
    }

    /// From the file.
    pub(crate) fn from_stored((expiry_secs, left_us): (u32, i64)) -> Life {
        Life { expiry_secs, left_us: Some(left_us).filter(|left| *left != CONNECTED) }
    }

    /// When it ends, in microseconds since 1970; none: not while it is connected, or never.
    pub(crate) fn end_us(self) -> Option<i64> {
        let left_us = self.left_us.filter(|_| self.expiry_secs != u32::MAX)?;
        Some(left_us.saturating_add(i64::from(self.expiry_secs) * 1_000_000))
    }
}

/// All subscriptions of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubscriptionsRecord {
    /// Every PUBLISH carries its cursor.
    pub cursors: bool,
    /// The subscriptions.
    pub subscriptions: Vec<StoredSubscription>,
}

/// A group of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    /// Whose it is; none: of the anonymous.
    pub user: Option<Box<str>>,
    /// `$share/<name>/<filter>`.
    pub written: Box<str>,
    /// How far it is, as it says itself.
    pub group: StoredGroup,
    /// What stands in the progress of members, as far as the group has not heard of it, ascending.
    pub taken: Vec<Offset>,
}

/// A will and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WillRecord {
    /// The client id of its session.
    pub client_id: Box<str>,
    /// How long the session lives on after its connection: the will is not later than its end.
    pub expiry_secs: u32,
    /// What is published.
    pub will: StoredWill,
    /// Its delay was over: nothing calls it back.
    pub due: bool,
}

/// The bytes of a record.
pub(crate) fn encode(record: &impl Serialize) -> Result<Vec<u8>, String> {
    postcard::to_extend(record, vec![VERSION]).map_err(|error| error.to_string())
}

/// The record in these bytes; none if this version cannot read it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, record)) => postcard::from_bytes(record).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> SessionRecord {
        SessionRecord {
            user: None,
            scope_address: Some(7),
            client_id: "c".into(),
            assigned: false,
            address: None,
        }
    }

    #[test]
    fn a_record_is_read_back_and_one_of_another_version_is_not() {
        let mut bytes = encode(&record()).unwrap();
        assert_eq!(decode(&bytes), Some(record()));
        bytes[0] = VERSION + 1;
        assert_eq!(decode::<SessionRecord>(&bytes), None);
        assert_eq!(decode::<SessionRecord>(&[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            decode::<SessionRecord>(&bytes);
            decode::<SubscriptionsRecord>(&bytes);
            decode::<WillRecord>(&bytes);
            decode::<GroupRecord>(&bytes);
            decode::<crate::state::Progress>(&bytes);
        }
    }
}
