use std::{error::Error, fmt};

use firehose_topic::TopicError;

use crate::{PacketKind, PropertyPlace, REMAINING_BYTES_MAX, Reason, Version, property};

/// Why bytes are not a packet. The peer is at fault, and its connection is to be closed, in 5.0 after a DISCONNECT (or
/// CONNACK) with [`DecodeError::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is, or will be, longer than the caller takes.
    PacketTooLarge {
        /// How long it is in bytes, as far as that is known.
        bytes: usize,
        /// The most that the caller takes.
        bytes_max: usize,
    },
    /// A packet kind that this version does not have: 0, or 15 (AUTH) before 5.0.
    PacketKind(u8),
    /// The reserved flags in the first byte are not as they must be.
    Flags(PacketKind, u8),
    /// The length in bytes after the fixed header is impossible for this packet.
    Length(PacketKind, usize),
    /// A variable byte integer is longer than four bytes.
    VarintTooLong(&'static str),
    /// A variable byte integer has more bytes than it needs.
    VarintNotMinimal(&'static str),
    /// The packet ends before, or within, this field.
    Truncated(&'static str),
    /// Bytes are left over behind the last field.
    TrailingBytes(PacketKind),
    /// A string is not UTF-8.
    NotUtf8(&'static str),
    /// A string contains U+0000.
    Nul(&'static str),
    /// The packet identifier is zero.
    PacketIdZero(PacketKind),
    /// Both QoS bits are set, in the field named.
    QoS(&'static str),
    /// A PUBLISH of QoS 0 has the DUP flag.
    DupWithoutQoS,
    /// A PUBLISH has no topic name, and no topic alias either.
    TopicMissing,
    /// The topic name is not one.
    Topic(TopicError),
    /// A reason or return code that this packet cannot have.
    ReasonCode(PacketKind, u8),
    /// An acknowledgement without any reason code.
    NoReasonCodes(PacketKind),
    /// CONNACK flags: a reserved bit is set.
    ConnAckFlags(u8),
    /// CONNACK says that there is a session, and that the connection is refused.
    SessionPresentWithError,
    /// The first packet is not a CONNECT.
    NotConnect(u8),
    /// The protocol name in CONNECT is neither `MQTT` nor `MQIsdp`.
    ProtocolName,
    /// A protocol level that does not exist with that name.
    UnsupportedVersion(u8),
    /// CONNECT flags: the reserved bit is set.
    ConnectFlagReserved,
    /// CONNECT flags: will QoS or will retain without a will.
    WillFlagsWithoutWill,
    /// CONNECT flags: a password without a user name, before 5.0.
    PasswordWithoutUserName,
    /// An empty client identifier where this version needs one.
    ClientIdEmpty(Version),
    /// SUBSCRIBE or UNSUBSCRIBE without any filter.
    NoFilters(PacketKind),
    /// Subscription options: a reserved bit is set.
    SubscribeOptionsReserved(u8),
    /// Subscription options: maximum QoS 3.
    MaximumQoS,
    /// Subscription options: retain handling 3.
    RetainHandling,
    /// A property identifier that does not exist.
    PropertyUnknown(u8),
    /// A property that may not stand here.
    PropertyNotAllowed(u8, PropertyPlace),
    /// A property that may stand once stands twice.
    PropertyTwice(u8),
    /// A property's value is outside its range.
    PropertyValue(u8),
    /// Authentication data without an authentication method, or AUTH without one.
    AuthMethodMissing,
}

impl DecodeError {
    /// The reason code to tell the peer (MQTT 5.0 section 4.13).
    pub fn reason(&self) -> Reason {
        match self {
            Self::PacketTooLarge { .. } => Reason::PacketTooLarge,
            Self::PacketKind(_)
            | Self::Flags(..)
            | Self::Length(..)
            | Self::VarintTooLong(_)
            | Self::VarintNotMinimal(_)
            | Self::Truncated(_)
            | Self::TrailingBytes(_)
            | Self::NotUtf8(_)
            | Self::Nul(_)
            | Self::QoS(_)
            | Self::DupWithoutQoS
            | Self::ReasonCode(..)
            | Self::ConnAckFlags(_)
            | Self::ConnectFlagReserved
            | Self::WillFlagsWithoutWill
            | Self::PasswordWithoutUserName
            | Self::SubscribeOptionsReserved(_)
            | Self::PropertyUnknown(_)
            | Self::PropertyNotAllowed(..) => Reason::MalformedPacket,
            // No name at all is a protocol error in PUBLISH (3.3.2.1), so it is one in a will too.
            Self::Topic(TopicError::Empty) => Reason::ProtocolError,
            Self::Topic(_) => Reason::MalformedPacket,
            Self::ProtocolName | Self::UnsupportedVersion(_) => Reason::UnsupportedProtocolVersion,
            Self::ClientIdEmpty(_) => Reason::ClientIdentifierNotValid,
            Self::PropertyValue(property::TOPIC_ALIAS) => Reason::TopicAliasInvalid,
            Self::PacketIdZero(_)
            | Self::TopicMissing
            | Self::NoReasonCodes(_)
            | Self::SessionPresentWithError
            | Self::NotConnect(_)
            | Self::NoFilters(_)
            | Self::MaximumQoS
            | Self::RetainHandling
            | Self::PropertyTwice(_)
            | Self::PropertyValue(_)
            | Self::AuthMethodMissing => Reason::ProtocolError,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PacketTooLarge { bytes, bytes_max } => {
                write!(f, "the packet has {bytes} bytes or more, {bytes_max} are allowed (MQTT-3.1.2-24)")
            }
            Self::PacketKind(kind) => write!(f, "packet type {kind} does not exist in this version (2.1.2)"),
            Self::Flags(kind, flags) => {
                write!(f, "{kind} has the reserved flags {flags:#06b} in its first byte (MQTT-2.1.3-1)")
            }
            Self::Length(kind, bytes) => {
                write!(f, "{kind} cannot have a remaining length of {bytes} (2.1.4)")
            }
            Self::VarintTooLong(what) => write!(f, "the {what} has more than four bytes (1.5.5)"),
            Self::VarintNotMinimal(what) => {
                write!(f, "the {what} uses more bytes than it needs (MQTT-1.5.5-1)")
            }
            Self::Truncated(what) => write!(f, "the packet ends within the {what} (2.1.4)"),
            Self::TrailingBytes(kind) => write!(f, "{kind} has bytes behind its last field (2.1.4)"),
            Self::NotUtf8(what) => write!(f, "the {what} is not UTF-8 (MQTT-1.5.4-1)"),
            Self::Nul(what) => write!(f, "the {what} contains U+0000 (MQTT-1.5.4-2)"),
            Self::PacketIdZero(kind) => write!(f, "{kind} has the packet identifier 0 (MQTT-2.2.1-3)"),
            Self::QoS(what) => write!(f, "the {what} has QoS 3 (MQTT-3.3.1-4, MQTT-3.1.2-12)"),
            Self::DupWithoutQoS => f.write_str("PUBLISH has the DUP flag at QoS 0 (MQTT-3.3.1-2)"),
            Self::TopicMissing => f.write_str("PUBLISH has neither a topic name nor a topic alias (3.3.2.1)"),
            Self::Topic(error) => error.fmt(f),
            Self::ReasonCode(kind, code) => write!(f, "{kind} cannot have the reason code {code:#04x} (2.4)"),
            Self::NoReasonCodes(kind) => write!(f, "{kind} has no reason code (MQTT-3.9.3-1, MQTT-3.11.3-1)"),
            Self::ConnAckFlags(flags) => {
                write!(f, "CONNACK has the reserved flags {flags:#04x} (MQTT-3.2.2-1)")
            }
            Self::SessionPresentWithError => f.write_str(
                "CONNACK refuses the connection, yet says that a session is present (MQTT-3.2.2-6)",
            ),
            Self::NotConnect(first) => {
                write!(f, "the first byte is {first:#04x}; a connection begins with CONNECT (MQTT-3.1.0-1)")
            }
            Self::ProtocolName => f.write_str("the protocol name is neither MQTT nor MQIsdp (MQTT-3.1.2-1)"),
            Self::UnsupportedVersion(level) => {
                write!(f, "protocol level {level} is none of 3.1, 3.1.1 and 5.0 (MQTT-3.1.2-2)")
            }
            Self::ConnectFlagReserved => f.write_str("CONNECT has the reserved flag set (MQTT-3.1.2-3)"),
            Self::WillFlagsWithoutWill => f.write_str(
                "CONNECT has a will QoS or will retain, but no will (MQTT-3.1.2-11, MQTT-3.1.2-13)",
            ),
            Self::PasswordWithoutUserName => {
                f.write_str("CONNECT has a password, but no user name (3.1.1: MQTT-3.1.2-22)")
            }
            Self::ClientIdEmpty(version) => {
                write!(
                    f,
                    "the client identifier is empty, which {version} forbids here (3.1.1: MQTT-3.1.3-8)"
                )
            }
            Self::NoFilters(kind) => write!(f, "{kind} has no topic filter (MQTT-3.8.3-2, MQTT-3.10.3-2)"),
            Self::SubscribeOptionsReserved(options) => {
                write!(f, "the subscription options {options:#04x} have reserved bits set (MQTT-3.8.3-5)")
            }
            Self::MaximumQoS => {
                f.write_str("the subscription options have QoS 3 (3.8.3.1; 3.1.1: MQTT-3.8.3-4)")
            }
            Self::RetainHandling => f.write_str("the subscription options have retain handling 3 (3.8.3.1)"),
            Self::PropertyUnknown(id) => write!(f, "there is no property {id:#04x} (2.2.2.2)"),
            Self::PropertyNotAllowed(id, place) => {
                write!(f, "{place} cannot have the property {} (2.2.2.2)", property::name(id))
            }
            Self::PropertyTwice(id) => {
                write!(f, "the property {} stands twice (2.2.2.2)", property::name(id))
            }
            Self::PropertyValue(id) => {
                write!(f, "the property {} has a value outside its range (2.2.2.2)", property::name(id))
            }
            Self::AuthMethodMissing => {
                f.write_str("there is no authentication method (3.1.2.11.10, 3.15.2.2.2)")
            }
        }
    }
}

impl Error for DecodeError {}

/// Why a packet cannot be encoded. The caller is at fault; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    TooLong(&'static str),
    /// The packet would be longer than [`REMAINING_BYTES_MAX`] after its fixed header.
    PacketTooLarge(usize),
    /// The buffer would grow beyond what a [`crate::Frame`] can say (4 GiB).
    BufferTooLarge,
    /// A packet identifier where there can be none (QoS 0), or none where there must be one.
    PacketId,
    /// This packet does not exist in this version.
    NotInVersion(PacketKind, Version),
    /// No peer would take the packet, for this reason.
    Invalid(DecodeError),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(what) => write!(f, "the {what} is longer than 65535 bytes"),
            Self::PacketTooLarge(bytes) => {
                write!(
                    f,
                    "the packet would have a remaining length of {bytes}, {REMAINING_BYTES_MAX} is the most"
                )
            }
            Self::BufferTooLarge => f.write_str("the buffer of frames would have more than 4 GiB"),
            Self::PacketId => f.write_str("a packet identifier belongs to QoS 1 and 2, and only to them"),
            Self::NotInVersion(kind, version) => write!(f, "MQTT {version} has no {kind}"),
            Self::Invalid(error) => write!(f, "the packet would be refused: {error}"),
        }
    }
}

impl Error for EncodeError {}

impl From<DecodeError> for EncodeError {
    fn from(error: DecodeError) -> Self {
        Self::Invalid(error)
    }
}
