//! The beginning of a connection: CONNECT and CONNACK.

use std::sync::Arc;
use std::time::Instant;

use firehose_mqtt::{
    ConnAck, Connect, Decoded, Packet, PropertiesBuf, Property, QoS, Reason, Version, decode, encode,
};
use rustls::ClientConfig;

use super::MqttConfig;
use super::connection::Connection;
use super::input::Input;
use crate::ClientError;
use crate::stream::Stream;

/// How many publications are in flight to a server that cannot say how many it takes.
const RECEIVE_MAXIMUM_V3: u16 = 20;

/// What the server said in CONNACK.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// Whether it goes on with a session.
    pub session_present: bool,
    /// The highest QoS that it takes.
    pub maximum_qos: QoS,
    /// Whether it keeps retained messages.
    pub retain_available: bool,
    /// How many publications it takes at once.
    pub receive_maximum: u16,
    /// The largest packet that it takes.
    pub maximum_packet_size: usize,
    /// The longest silence that it allows.
    pub keep_alive_secs: u16,
}

/// A connection that was not accepted.
pub(super) struct NotOpened {
    /// Why.
    pub(super) error: ClientError,
    /// Whether another version may be.
    pub(super) is_version: bool,
}

/// Connects, and waits for the server's yes.
pub(super) fn open(
    config: &MqttConfig,
    version: Version,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Connection, NotOpened> {
    let plain = |error| NotOpened { error, is_version: false };
    if config.interrupt.is_raised() {
        return Err(plain(ClientError::Interrupted));
    }
    let mut stream = Stream::connect(&config.url, tls, config.timeout, &config.interrupt).map_err(plain)?;
    let lost = |what: String| {
        plain(ClientError::Connection(format!("the connection to {} is lost: {what}", config.url)))
    };
    let connect = connect_packet(config, version).map_err(plain)?;
    stream.write_all(&connect).map_err(|error| lost(error.to_string()))?;
    let mut input = Input::default();
    let deadline = Instant::now() + config.timeout;
    loop {
        // who speaks 3.1.1 only says no in 3.1.1's words, whatever was asked
        if version == Version::V5 && input.bytes().starts_with(&[0x20, 2, 0, 1]) {
            let error = ClientError::Refused(format!("{} does not speak MQTT 5", config.url));
            return Err(NotOpened { error, is_version: true });
        }
        let decoded = decode(input.bytes(), version, config.packet_bytes_max);
        let decoded = decoded.map_err(|error| {
            plain(ClientError::Connection(format!("{} does not speak MQTT: {error}", config.url)))
        })?;
        if let Decoded::Packet(packet, taken) = decoded {
            let welcome = welcome(config, version, &packet)?;
            input.take(taken);
            return Ok(Connection::over(config, version, stream, input, welcome));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match input.fill(&mut stream, left) {
            _ if config.interrupt.is_raised() => return Err(plain(ClientError::Interrupted)),
            Ok(Some(0)) => return Err(lost("the server closed it before it said yes or no".into())),
            Ok(Some(_)) => {}
            Ok(None) if left.is_zero() => return Err(lost("the server does not answer".into())),
            Ok(None) => {}
            Err(error) => return Err(lost(error.to_string())),
        }
    }
}

fn connect_packet(config: &MqttConfig, version: Version) -> Result<Vec<u8>, ClientError> {
    let usage = |error| ClientError::Usage(format!("CONNECT cannot be made: {error}"));
    let mut properties = PropertiesBuf::new();
    if version == Version::V5 {
        if config.keep_session {
            properties.push(&Property::SessionExpiry(u32::MAX)).map_err(usage)?;
        }
        let packet_bytes_max = u32::try_from(config.packet_bytes_max).unwrap_or(u32::MAX);
        properties.push(&Property::MaximumPacketSize(packet_bytes_max)).map_err(usage)?;
    }
    let connect = Connect {
        version,
        clean_start: !config.keep_session,
        keep_alive_secs: config.keep_alive_secs,
        client_id: config.client_id.as_deref().unwrap_or(""),
        will: None,
        user_name: config.account.user.as_deref(),
        password: config.account.password.as_deref().map(str::as_bytes),
        properties: properties.as_properties(),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(connect), version, &mut bytes).map_err(usage)?;
    Ok(bytes)
}

/// The first packet, if it is a yes.
fn welcome(config: &MqttConfig, version: Version, packet: &Packet<'_>) -> Result<Welcome, NotOpened> {
    let Packet::ConnAck(ConnAck { session_present, reason, properties }) = packet else {
        let error = ClientError::Connection(format!("{} does not answer CONNECT with CONNACK", config.url));
        return Err(NotOpened { error, is_version: false });
    };
    if *reason != Reason::Success {
        let mut why = properties.reason_string().map_or(String::new(), |why| format!(": {why}"));
        // Most servers say so of a wrong password too: 3.1.1 has no code of its own for it.
        if version == Version::V311 && *reason == Reason::NotAuthorized && config.account.user.is_some() {
            why.push_str(" (is the user name right, and the password?)");
        }
        let error =
            ClientError::Refused(format!("{} refused the connection: {}{why}", config.url, reason.name()));
        return Err(NotOpened { error, is_version: *reason == Reason::UnsupportedProtocolVersion });
    }
    let five = version == Version::V5;
    Ok(Welcome {
        session_present: *session_present,
        maximum_qos: properties.maximum_qos().and_then(QoS::from_u8).unwrap_or(QoS::ExactlyOnce),
        retain_available: properties.retain_available() != Some(0),
        // 3.x has no such number, and mosquitto 2.0 loses what comes above its own
        receive_maximum: if five {
            properties.receive_maximum().unwrap_or(u16::MAX)
        } else {
            RECEIVE_MAXIMUM_V3
        },
        maximum_packet_size: properties.maximum_packet_size().map_or(256 << 20, |bytes| bytes as usize),
        keep_alive_secs: properties.server_keep_alive().unwrap_or(config.keep_alive_secs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use firehose_mqtt::Properties;

    #[test]
    fn who_gave_a_name_that_3_1_1_does_not_authorize_is_asked_whether_it_and_the_password_are_right() {
        let mut config = MqttConfig::new(crate::Url::parse("mqtt://127.0.0.1:1883").unwrap()).unwrap();
        let connack = |reason| ConnAck { session_present: false, reason, properties: Properties::EMPTY };
        let mut told = |version, user: Option<&str>| {
            config.account.user = user.map(str::to_owned);
            let connack = Packet::ConnAck(connack(Reason::NotAuthorized));
            welcome(&config, version, &connack).err().unwrap().error.to_string()
        };
        let plain = "mqtt://127.0.0.1:1883 refused the connection: not authorized";
        assert_eq!(told(Version::V311, None), plain);
        assert_eq!(told(Version::V5, Some("u")), plain);
        let asked = told(Version::V311, Some("u"));
        assert_eq!(asked, format!("{plain} (is the user name right, and the password?)"));
    }
}
