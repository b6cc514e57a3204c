use std::{error::Error, fmt};

use firehose_topic::TopicName;

use crate::{
    DecodeError, EncodeError, PacketKind, Properties, PropertyPlace, QoS, Reason, Version,
    fixed_header::{FixedHeader, Header},
    reader::Reader,
    writer::{put_binary, put_packet, put_u16},
};

/// CONNECT (MQTT 5.0 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What the client speaks.
    pub version: Version,
    /// 5.0: start a new session; 3.x (clean session): and forget it at the end.
    pub clean_start: bool,
    /// The longest silence of the client in seconds; 0: any.
    pub keep_alive_secs: u16,
    /// Empty when the server shall choose one; never in 3.1, and in 3.1.1 only with a clean session.
    pub client_id: &'a str,
    /// To be published when the client is lost.
    pub will: Option<Will<'a>>,
    /// Who it says it is.
    pub user_name: Option<&'a str>,
    /// In 5.0 also without a user name.
    pub password: Option<&'a [u8]>,
    /// None before 5.0.
    pub properties: Properties<'a>,
}

/// The will in a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// How surely it is delivered.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Where it is published.
    pub topic: TopicName<'a>,
    /// The message.
    pub payload: &'a [u8],
    /// None before 5.0.
    pub properties: Properties<'a>,
}

/// Why the first packet of a connection is not a CONNECT that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// What is wrong.
    pub error: DecodeError,
    /// In which version the client would understand a CONNACK; `None`: close without one.
    pub answer: Option<Version>,
}

impl ConnectError {
    /// What to tell the client; encode it for the version in [`ConnectError::answer`]
    /// ([`Reason::connack_v3`] before 5.0, where only codes 1 and 2 say what is meant).
    pub fn reason(&self) -> Reason {
        self.error.reason()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for ConnectError {}

impl From<DecodeError> for ConnectError {
    fn from(error: DecodeError) -> Self {
        Self { error, answer: None }
    }
}

/// Decodes the first packet of a connection and finds out its version. `None`: it is not whole yet. Gives the packet and
/// how many bytes it took.
///
/// Whatever cannot become a CONNECT of at most `packet_bytes_max` bytes is an error as early as that can be told.
pub fn decode_connect(
    input: &[u8],
    packet_bytes_max: usize,
) -> Result<Option<(Connect<'_>, usize)>, ConnectError> {
    let Some(&first) = input.first() else { return Ok(None) };
    if first >> 4 != PacketKind::Connect as u8 {
        return Err(DecodeError::NotConnect(first).into());
    }
    match FixedHeader::read(input, None, packet_bytes_max)? {
        Header::Incomplete(_) => Ok(None),
        Header::Whole(header) => {
            let body = Reader(&input[header.len..header.total]);
            Ok(Some((Connect::decode(header.flags, header.minimal, body)?, header.total)))
        }
    }
}

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

impl<'a> Connect<'a> {
    pub(crate) fn decode(
        header_flags: u8,
        minimal: bool,
        mut body: Reader<'a>,
    ) -> Result<Self, ConnectError> {
        let version = read_version(&mut body)?;
        let error = |error| ConnectError { error, answer: is_answered(&error, version).then_some(version) };
        if version != Version::V31 && header_flags != 0 {
            return Err(error(DecodeError::Flags(PacketKind::Connect, header_flags)));
        }
        if version == Version::V5 && !minimal {
            return Err(error(DecodeError::VarintNotMinimal("remaining length")));
        }
        Self::decode_rest(version, body).map_err(error)
    }

    fn decode_rest(version: Version, mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let flags = body.u8("connect flags")?;
        check_flags(flags, version)?;
        let keep_alive_secs = body.u16("keep alive")?;
        let v5 = version == Version::V5;
        let properties =
            if v5 { Properties::read(&mut body, PropertyPlace::Connect)? } else { Properties::EMPTY };
        let client_id = body.string("client identifier")?;
        let clean_start = flags & CLEAN_START != 0;
        if client_id.is_empty() && (version == Version::V31 || version == Version::V311 && !clean_start) {
            return Err(DecodeError::ClientIdEmpty(version));
        }
        let will = if flags & WILL != 0 { Some(Will::decode(flags, &mut body, v5)?) } else { None };
        // 3.1 lets a client set these flags and end the packet before the fields (its section 3.1).
        let present =
            |flag, body: &Reader<'_>| flags & flag != 0 && (version != Version::V31 || !body.is_empty());
        let user_name = if present(USER_NAME, &body) { Some(body.string("user name")?) } else { None };
        let password = if present(PASSWORD, &body) { Some(body.binary("password")?) } else { None };
        body.end(PacketKind::Connect)?;
        Ok(Self { version, clean_start, keep_alive_secs, client_id, will, user_name, password, properties })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let v5 = self.version == Version::V5;
        let flag = |set: bool, flag| if set { flag } else { 0 };
        let mut flags = flag(self.clean_start, CLEAN_START)
            | flag(self.user_name.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD);
        if let Some(will) = &self.will {
            flags |= WILL | flag(will.retain, WILL_RETAIN) | (will.qos as u8) << 3;
        }
        check_flags(flags, self.version)?;
        if self.client_id.is_empty()
            && (self.version == Version::V31 || self.version == Version::V311 && !self.clean_start)
        {
            return Err(DecodeError::ClientIdEmpty(self.version).into());
        }
        put_packet(out, (PacketKind::Connect as u8) << 4, |out| {
            put_binary(out, self.version.protocol_name().as_bytes(), "protocol name")?;
            out.extend_from_slice(&[self.version.level(), flags]);
            put_u16(out, self.keep_alive_secs);
            if v5 {
                self.properties.write(out, PropertyPlace::Connect)?;
            }
            put_binary(out, self.client_id.as_bytes(), "client identifier")?;
            if let Some(will) = &self.will {
                if v5 {
                    will.properties.write(out, PropertyPlace::Will)?;
                }
                put_binary(out, will.topic.as_str().as_bytes(), "will topic")?;
                put_binary(out, will.payload, "will payload")?;
            }
            if let Some(user_name) = self.user_name {
                put_binary(out, user_name.as_bytes(), "user name")?;
            }
            if let Some(password) = self.password {
                put_binary(out, password, "password")?;
            }
            Ok(())
        })
    }
}

impl<'a> Will<'a> {
    fn decode(flags: u8, body: &mut Reader<'a>, v5: bool) -> Result<Self, DecodeError> {
        let qos = QoS::from_u8(flags >> 3 & 3).ok_or(DecodeError::QoS("will"))?;
        let properties = if v5 { Properties::read(body, PropertyPlace::Will)? } else { Properties::EMPTY };
        let topic = TopicName::from_bytes(body.binary("will topic")?).map_err(DecodeError::Topic)?;
        let payload = body.binary("will payload")?;
        Ok(Self { qos, retain: flags & WILL_RETAIN != 0, topic, payload, properties })
    }
}

fn read_version(body: &mut Reader<'_>) -> Result<Version, ConnectError> {
    let name = body.binary("protocol name")?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::ProtocolName.into());
    }
    let level = body.u8("protocol level")?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        // What comes after 5 will understand 5's CONNACK rather than 3's.
        _ => Err(ConnectError {
            error: DecodeError::UnsupportedVersion(level),
            answer: Some(if level & 0x7f > 5 { Version::V5 } else { Version::V311 }),
        }),
    }
}

/// Before 5.0 a CONNECT that does not conform is not answered [MQTT-3.1.4-1], but for what has a code of its own. In 5.0
/// it may be; one that ends before its client identifier does is from nobody.
fn is_answered(error: &DecodeError, version: Version) -> bool {
    match error {
        DecodeError::ClientIdEmpty(_) => true,
        DecodeError::Truncated("connect flags" | "keep alive" | "client identifier") => false,
        _ => version == Version::V5,
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // 3.1 does not use the reserved bit, and the will's bits only with a will.
    if version != Version::V31 {
        if flags & 1 != 0 {
            return Err(DecodeError::ConnectFlagReserved);
        }
        if flags & WILL == 0 && flags & (WILL_RETAIN | 0b0001_1000) != 0 {
            return Err(DecodeError::WillFlagsWithoutWill);
        }
    }
    if flags & WILL != 0 && flags & 0b0001_1000 == 0b0001_1000 {
        return Err(DecodeError::QoS("will"));
    }
    if version != Version::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(DecodeError::PasswordWithoutUserName);
    }
    Ok(())
}
