//! Wills: what a CONNECT says of one, and what becomes of it when the connection ends. The state keeps them from before
//! CONNACK until they are published, and publishes them (`state_thread.rs`): a shard keeps that of a client that is connected
//! in case the state loses its file (`rescue.rs`).

use crate::connection::Connection;
use crate::publish::{has_names_of_ours, keep_attributes};
use crate::shard::Shard;
use crate::state::{StoredWill, WillFate};
use firehose_auth::Identity;
use firehose_log::{AttributesBuf, Flags};
use firehose_mqtt::{Connect, Reason};

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

/// The will in a CONNECT of this identity's, as it is stored.
pub(crate) fn stored_will(connect: &Connect<'_>, identity: &Identity) -> Option<StoredWill> {
    let will = connect.will.as_ref()?;
    let mut attributes = AttributesBuf::new();
    let payload_utf8 = keep_attributes(&mut attributes, will.properties);
    Some(StoredWill {
        topic: will.topic.as_str().to_owned(),
        payload: will.payload.to_vec(),
        attributes: attributes.as_attributes().raw().to_vec(),
        flags: Flags::new(will.qos as u8, will.retain, payload_utf8).to_byte(),
        delay_secs: will.properties.will_delay().unwrap_or(0),
        user: identity.name().map(str::to_owned),
    })
}

impl Connection {
    /// What becomes of its will now that it ends. The bus's own end is not its clients' death.
    pub(crate) fn will_fate(&self, is_bus_stopping: bool) -> WillFate {
        match self.will.as_deref() {
            None => WillFate::Dropped,
            Some(_) if is_bus_stopping => WillFate::Kept,
            Some(will) => WillFate::Due { delay_secs: will.delay_secs },
        }
    }
}
