//! MQTT packets: decode, encode, and frames that are encoded once for many readers. Versions 3.1, 3.1.1 and 5.0.
//!
//! Sans-I/O: bytes go in, borrowed packets come out, and the other way round; nothing here blocks, waits or keeps
//! state. [`decode`] looks only at whole packets and says how many bytes one will have, never more than the caller
//! allows; for PUBLISH, the acknowledgements and the pings it allocates nothing. In fact no decoder allocates:
//! properties, filters and reason codes are validated where they lie and read again when they are iterated.
//!
//! What a [`Packet`] from [`decode`] promises: every rule that one packet by itself can break was checked (flags,
//! lengths, UTF-8, identifiers, which property in which packet, how often, which values). What needs more than the
//! packet is left to the broker: who may send it, whether an identifier or an alias is known, the syntax of topic
//! filters (so that each can be refused by itself).
//!
//! ```
//! use firehose_mqtt::{Decoded, Packet, QoS, Version, decode};
//!
//! let bytes = b"\x30\x0cfirehose\x00"; // 14 bytes long, of which we have 11
//! assert_eq!(decode(bytes, Version::V311, 100)?, Decoded::Incomplete { need: 14 });
//!
//! let bytes = b"\x30\x05\x00\x03a/bhello";
//! let Decoded::Packet(Packet::Publish(publish), 7) = decode(bytes, Version::V311, 100)? else { panic!() };
//! assert_eq!((publish.topic, publish.qos, publish.payload), ("a/b", QoS::AtMostOnce, &b""[..]));
//! # Ok::<(), firehose_mqtt::DecodeError>(())
//! ```

mod ack;
mod auth;
mod connack;
mod connect;
mod decode;
mod disconnect;
mod encode;
mod error;
mod fixed_header;
mod frame;
mod packet;
mod properties;
mod property;
mod publish;
mod qos;
mod reader;
mod reason;
mod suback;
mod subscribe;
mod unsubscribe;
mod version;
mod writer;

pub use ack::{Ack, AckKind, encode_ack};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, ConnectError, Will, decode_connect};
pub use decode::{Decoded, decode};
pub use disconnect::Disconnect;
pub use encode::{PINGREQ, PINGRESP, encode};
pub use error::{DecodeError, EncodeError};
pub use fixed_header::REMAINING_BYTES_MAX;
pub use frame::{Frame, Layout, encode_publish, patch, patch_message_expiry};
pub use packet::{Packet, PacketKind};
pub use properties::{Properties, PropertiesBuf, PropertyIter, PropertyPlace};
pub use property::Property;
pub use publish::Publish;
pub use qos::QoS;
pub use reason::Reason;
pub use suback::{Reasons, ReasonsBuf, SubAck, UnsubAck};
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeItem, SubscribeItems, SubscribeItemsBuf, SubscribeOptions,
};
pub use unsubscribe::{Unsubscribe, UnsubscribeItems, UnsubscribeItemsBuf};
pub use version::Version;

/// A packet identifier: never zero (MQTT-2.2.1-3).
pub type PacketId = std::num::NonZeroU16;
