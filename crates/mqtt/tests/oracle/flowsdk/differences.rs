use std::fmt;

use firehose_mqtt::{Connect, DecodeError, Packet, Property, Reason, Version};
use firehose_topic::{TopicFilter, parse_share};

use super::case::Case;
use Version::{V5, V31, V311};

/// A way in which our codec and flowsdk's are known to differ.
pub struct Difference {
    pub what: &'static str,
    /// The statement, or where there is none the section, that decides.
    pub statement: &'static str,
    pub right: Right,
    /// Whether this is why the two differ here.
    pub explains: fn(&Case<'_>) -> bool,
    pub examples: &'static [(Version, &'static [u8])],
}

/// Who does as the standard has it.
pub enum Right {
    Firehose,
    /// The standard allows both, or contradicts itself, or one codec asks what the other leaves to its server.
    Both,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = match self.right {
            Right::Firehose => "firehose is right",
            Right::Both => "both are right",
        };
        write!(f, "{}; {right}: {}", self.what, self.statement)
    }
}

pub const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "flowsdk refuses a will without payload, an empty user name and an empty password in 5.0",
        statement: "5.0: 1.5.4 and 1.5.6 let strings and binary data have 0 to 65,535 bytes, \
                    MQTT-3.1.3-11 and -12 ask for UTF-8 alone",
        right: Right::Firehose,
        explains: |case| {
            let Some(Packet::Connect(connect)) = case.packet() else { return false };
            case.version == V5 && has_empty_field(&connect) && case.is_refused_with("cannot be empty")
        },
        examples: &[
            (V5, b"\x10\x14\0\x04MQTT\x05\x06\0\0\0\0\x01a\0\0\x01t\0\0"),
            (V5, b"\x10\x10\0\x04MQTT\x05\x82\0\0\0\0\x01a\0\0"),
            (V5, b"\x10\x10\0\x04MQTT\x05\x42\0\0\0\0\x01a\0\0"),
        ],
    },
    Difference {
        what: "flowsdk's codec checks topic filters, and No Local on shared ones; ours leaves that to the broker",
        statement: "MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.7.3-1, MQTT-4.8.2-1, MQTT-4.8.2-2, MQTT-3.8.3-4",
        right: Right::Both,
        explains: |case| {
            let v5 = case.version == V5;
            case.flowsdk_refuses().is_some()
                && match case.packet() {
                    Some(Packet::Subscribe(packet)) => packet
                        .filters
                        .into_iter()
                        .any(|item| is_bad_filter(item.filter, item.options.no_local, v5)),
                    Some(Packet::Unsubscribe(packet)) => {
                        packet.filters.into_iter().any(|filter| is_bad_filter(filter, false, v5))
                    }
                    _ => false,
                }
        },
        examples: &[
            (V5, b"\x82\x08\0\x01\0\0\x02a#\0"),
            (V311, b"\x82\x07\0\x01\0\x02+a\0"),
            (V311, b"\xa2\x04\0\x01\0\0"),
            (V5, b"\x82\x0f\0\x01\0\0\x09$share//t\0"),
            (V5, b"\x82\x10\0\x01\0\0\x0a$share/g/t\x04"),
        ],
    },
    Difference {
        what: "flowsdk refuses a remaining length of more bytes than it needs also before 5.0",
        statement: "MQTT-1.5.5-1 is of 5.0 alone; before, 2.2.3 (3.1.1) and 2.1 (3.1) ask for four bytes at most",
        right: Right::Firehose,
        explains: |case| case.version != V5 && case.is_refused_with("encoding is not minimal"),
        examples: &[(V311, b"\xc0\x80\0"), (V311, b"\x30\x83\0\0\x01"), (V31, b"\x30\x83\0\0\x01a")],
    },
    Difference {
        what: "flowsdk looks at the flags in the fixed header of all packets of 3.1, not of PUBLISH alone",
        statement: "3.1: by 2.1 and the packets' own sections DUP may be set when a packet is sent again, \
                    and what else is there is not used; MQTT-2.2.2-2 is of 3.1.1",
        right: Right::Firehose,
        explains: |case| {
            case.version == V31
                && case.bytes[0] >> 4 != 3
                && (case.is_refused_with("fixed header flags")
                    || case.is_refused_with("Expected CONNECT packet"))
        },
        examples: &[
            (V31, b"\xc1\0"),
            (V31, b"\x6a\x02\0\x01"),
            (V31, b"\x18\x0f\0\x06MQIsdp\x03\x02\0\0\0\x01a"),
        ],
    },
    Difference {
        what: "flowsdk refuses DUP at QoS 0 in 3.1",
        statement: "3.1: 2.1 gives DUP no meaning there, and does not forbid it; MQTT-3.3.1-2 is of 3.1.1",
        right: Right::Firehose,
        explains: |case| case.version == V31 && case.is_refused_with("DUP must be zero"),
        examples: &[(V31, b"\x38\x03\0\x01a")],
    },
    Difference {
        what: "flowsdk looks at the reserved bit of CONNECT, and at will bits without a will, in 3.1",
        statement: "3.1: by 3.1 bit 0 is not used, will QoS and will retain are disregarded without the will flag; \
                    MQTT-3.1.2-3, -11, -13 and -15 are of 3.1.1",
        right: Right::Firehose,
        explains: |case| {
            case.version == V31
                && (case.is_refused_with("CONNECT reserved flag")
                    || case.is_refused_with("require the Will flag")
                    || case.is_refused_with("Will QoS cannot exceed 2"))
        },
        examples: &[
            (V31, b"\x10\x0f\0\x06MQIsdp\x03\x03\0\0\0\x01a"),
            (V31, b"\x10\x0f\0\x06MQIsdp\x03\x22\0\0\0\x01a"),
            (V31, b"\x10\x0f\0\x06MQIsdp\x03\x1a\0\0\0\x01a"),
        ],
    },
    Difference {
        what: "flowsdk refuses a CONNECT of 3.1 that says user name or password, and ends before it",
        statement: "3.1: by 3.1 the remaining length takes precedence over these flags",
        right: Right::Firehose,
        explains: |case| {
            let Some(Packet::Connect(connect)) = case.packet() else { return false };
            case.version == V31 && connect.password.is_none() && case.is_refused_with("Buffer Too Short")
        },
        examples: &[
            (V31, b"\x10\x0f\0\x06MQIsdp\x03\x82\0\0\0\x01a"),
            (V31, b"\x10\x12\0\x06MQIsdp\x03\xc2\0\0\0\x01a\0\x01u"),
        ],
    },
    Difference {
        what: "flowsdk looks at more than the QoS bits of a subscription in 3.1",
        statement: "3.1: by 3.8 the upper six bits are not used; MQTT-3.8.3-4 is of 3.1.1",
        right: Right::Firehose,
        explains: |case| case.version == V31 && case.is_refused_with("Invalid QoS level in payload"),
        examples: &[(V31, b"\x82\x06\0\x01\0\x01a\x04")],
    },
    Difference {
        what: "flowsdk looks at the first byte of CONNACK in 3.1, and takes it for Session Present",
        statement: "3.1: by 3.2 the byte is reserved and not used; MQTT-3.2.2-1 to -4 are of 3.1.1",
        right: Right::Firehose,
        explains: |case| {
            case.version == V31
                && matches!(case.packet(), Some(Packet::ConnAck(_)))
                && case.bytes[2] != 0
                && (case.theirs.is_ok() || case.is_refused_with("ession"))
        },
        examples: &[(V31, b"\x20\x02\x01\0"), (V31, b"\x20\x02\x02\0"), (V31, b"\x20\x02\x01\x05")],
    },
    Difference {
        what: "flowsdk refuses reason 0x8C in DISCONNECT",
        statement: "5.0: MQTT-3.14.2-1 asks for a value of 3.14.2.1, which has not got it; the table in 2.4 lists it \
                    for DISCONNECT",
        right: Right::Both,
        explains: |case| {
            let Some(Packet::Disconnect(packet)) = case.packet() else { return false };
            packet.reason == Reason::BadAuthenticationMethod && case.is_refused_with("Invalid reason code")
        },
        examples: &[(V5, b"\xe0\x01\x8c")],
    },
    Difference {
        what: "flowsdk refuses an empty Assigned Client Identifier",
        statement: "5.0: MQTT-3.2.2-16 keeps a server from sending it, and nothing makes a client refuse it",
        right: Right::Both,
        explains: |case| {
            let Some(Packet::ConnAck(packet)) = case.packet() else { return false };
            packet.properties.iter().any(|property| property == Property::AssignedClientId(""))
                && case.is_refused_with("Assigned Client Identifier cannot be empty")
        },
        examples: &[(V5, b"\x20\x06\0\0\x03\x12\0\0")],
    },
    Difference {
        what: "flowsdk takes an empty client identifier in 3.1, and in 3.1.1 without Clean Session",
        statement: "3.1: by 3.1 it has 1 to 23 characters; 3.1.1: by MQTT-3.1.3-8 a server answers with code 2",
        right: Right::Both,
        explains: |case| matches!(case.we_refuse(), Some(DecodeError::ClientIdEmpty(V31 | V311))),
        examples: &[
            (V311, b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0"),
            (V31, b"\x10\x0e\0\x06MQIsdp\x03\x02\0\0\0\0"),
        ],
    },
    Difference {
        what: "flowsdk takes, and writes, an AUTH with a reason and without an authentication method",
        statement: "5.0: by 3.15.2.2.2 it is a protocol error to omit it; by 3.15.2.1 only all may be left out",
        right: Right::Firehose,
        explains: |case| case.we_refuse() == Some(DecodeError::AuthMethodMissing) && case.bytes[0] == 0xf0,
        examples: &[(V5, b"\xf0\x02\0\0"), (V5, b"\xf0\x02\x18\0")],
    },
];

impl Case<'_> {
    /// Whether only flowsdk refuses it, and says this.
    fn is_refused_with(&self, words: &str) -> bool {
        self.flowsdk_refuses().is_some_and(|error| error.contains(words))
    }
}

fn has_empty_field(connect: &Connect<'_>) -> bool {
    connect.will.is_some_and(|will| will.payload.is_empty())
        || connect.user_name.is_some_and(str::is_empty)
        || connect.password.is_some_and(<[u8]>::is_empty)
}

/// Whether the broker would refuse it; before 5.0 flowsdk does not know shared subscriptions.
fn is_bad_filter(filter: &str, no_local: bool, v5: bool) -> bool {
    match parse_share(filter).filter(|_| v5) {
        Some(share) => share.is_err() || no_local,
        None => TopicFilter::new(filter).is_err(),
    }
}
