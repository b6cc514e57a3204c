//! CONNACK, which says truthfully what is there and what is not.

use crate::arrival::Arrival;
use crate::limits::Limits;
use firehose_mqtt::{ConnAck, Connect, Packet, PropertiesBuf, Property, Reason, Version, encode};

/// What a client is granted.
pub(crate) struct Granted {
    /// The largest packet it may send.
    pub(crate) sends_bytes_max: usize,
    /// Topic aliases it may set.
    pub(crate) aliases_max: u16,
    /// How long it may be silent.
    pub(crate) keep_alive_secs: u16,
    /// How long its session lives on.
    pub(crate) expiry_secs: u32,
    /// Its session goes on.
    pub(crate) session_present: bool,
}

/// Answers a CONNECT. How long the answer is does not depend on whether the session goes on.
pub(crate) fn write_connack(
    out: &mut Vec<u8>,
    connect: &Connect<'_>,
    arrival: &Arrival,
    reason: Reason,
    limits: &Limits,
    granted: &Granted,
) {
    let mut properties = PropertiesBuf::new();
    if connect.version == Version::V5 && reason == Reason::Success {
        let mut say = |property: Property<'_>| {
            let _ = properties.push(&property);
        };
        if connect.properties.session_expiry().unwrap_or(0) != granted.expiry_secs {
            say(Property::SessionExpiry(granted.expiry_secs));
        }
        say(Property::ReceiveMaximum(limits.inflight_max));
        say(Property::MaximumPacketSize(u32::try_from(granted.sends_bytes_max).unwrap_or(u32::MAX)));
        if arrival.assigned && connect.client_id.is_empty() {
            say(Property::AssignedClientId(&arrival.client_id));
        }
        say(Property::TopicAliasMaximum(granted.aliases_max));
        if granted.keep_alive_secs != connect.keep_alive_secs {
            say(Property::ServerKeepAlive(granted.keep_alive_secs));
        }
    }
    let session_present = granted.session_present && reason == Reason::Success;
    let packet = ConnAck { session_present, reason, properties: properties.as_properties() };
    let _ = encode(&Packet::ConnAck(packet), connect.version, out);
}
