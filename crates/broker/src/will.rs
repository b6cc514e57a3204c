//! Wills: what a CONNECT says of one, and what becomes of it when the connection ends. The state keeps them from before
//! CONNACK until they are published, and publishes them (`state_thread.rs`): a shard keeps no more than that there is one.

use crate::arrival::Arrival;
use crate::connection::Connection;
use crate::publish::{has_names_of_ours, keep_attributes};
use crate::shard::Shard;
use crate::state::{StoredWill, WillFate};
use firehose_auth::Identity;
use firehose_log::{AttributesBuf, Flags};
use firehose_mqtt::{Connect, Reason, Will, decode_connect};

impl Shard {
    /// Why a CONNECT is refused for its will. What its user may publish is not asked before the will is.
    pub(crate) fn will_refusal(&self, connect: &Connect<'_>, identity: &Identity) -> Option<Reason> {
        let will = connect.will.as_ref()?;
        let is_refused = !self.auth.may_have_will(identity)
            || firehose_auth::is_reserved(will.topic)
            || has_names_of_ours(will.properties);
        is_refused.then_some(Reason::NotAuthorized)
    }
}

impl Arrival {
    /// The will in its CONNECT, as it is stored.
    pub(crate) fn stored_will(&self) -> Option<StoredWill> {
        // The lobby decoded it before, within the limits.
        let (connect, _) = decode_connect(&self.input, usize::MAX).ok()??;
        let will = connect.will.as_ref()?;
        let mut attributes = AttributesBuf::new();
        let payload_utf8 = keep_attributes(&mut attributes, will.properties);
        Some(StoredWill {
            topic: will.topic.as_str().to_owned(),
            payload: will.payload.to_vec(),
            attributes: attributes.as_attributes().raw().to_vec(),
            flags: Flags::new(will.qos as u8, will.retain, payload_utf8).to_byte(),
            delay_secs: delay_secs(will),
            user: self.identity.name().map(str::to_owned),
        })
    }
}

/// Will Delay Interval.
pub(crate) fn delay_secs(will: &Will<'_>) -> u32 {
    will.properties.will_delay().unwrap_or(0)
}

impl Connection {
    /// What becomes of its will now that it ends. The bus's own end is not its clients' death.
    pub(crate) fn will_fate(&self, is_bus_stopping: bool) -> WillFate {
        match self.will_delay_secs {
            None => WillFate::Dropped,
            Some(_) if is_bus_stopping => WillFate::Kept,
            Some(delay_secs) => WillFate::Due { delay_secs },
        }
    }
}
