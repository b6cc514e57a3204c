//! A bus on free ports with its data in a temporary folder, and blocking clients.

use firehose_auth::{Access, AuthConfig, HashKind, PasswordFile};
use firehose_broker::action::Now;
use firehose_broker::bus::wall_us;
use firehose_broker::state::State;
use firehose_broker::{Bus, BusConfig, Limits};
use firehose_log::{Log, LogConfig, RealDisk, open};
use firehose_mqtt::{
    Connect, Decoded, Packet, Properties, PropertiesBuf, Property, Publish, QoS, Subscribe,
    SubscribeItemsBuf, SubscribeOptions, Version, decode, encode,
};
use firehose_net::{Address, Bound, ListenerConfig, Listeners, Protocol, Server};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Nobody waits that long, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bed {
    pub bus: Bus,
    pub tcp: SocketAddr,
    pub unix: PathBuf,
    server: Option<Server>,
    folder: Arc<tempfile::TempDir>,
}

impl Bed {
    /// A bus of three shards, with the user `alice` (password `secret`).
    pub fn start(limits: Limits) -> Bed {
        Bed::on(new_folder(), limits, |log| log)
    }

    /// The same, with a log that is changed.
    pub fn start_on(limits: Limits, change: impl FnOnce(Log) -> Log) -> Bed {
        Bed::on(new_folder(), limits, change)
    }

    /// Stops, and begins again on the same data.
    pub fn restart(mut self) -> Bed {
        self.stop();
        let (folder, limits) = (self.folder.clone(), Limits::clone(self.bus.limits()));
        drop(self);
        Bed::on(folder, limits, |log| log)
    }

    fn on(folder: Arc<tempfile::TempDir>, limits: Limits, change: impl FnOnce(Log) -> Log) -> Bed {
        let passwords = folder.path().join("passwd");
        let mut file = PasswordFile::default();
        file.set("alice", b"secret", HashKind::Sha512Pbkdf2).expect("set");
        file.write(&passwords).expect("written");
        let access = Access::new(AuthConfig { password_file: Some(passwords), ..AuthConfig::default() });
        let log = LogConfig::new(folder.path().join("data"));
        let log =
            open(LogConfig { disk_reserve_bytes: 0, ..log }, Arc::new(RealDisk::new()), 0).expect("opens");
        let config = BusConfig { shards: 3, limits, ..BusConfig::default() };
        let limits = Arc::new(config.limits.clone());
        let path = folder.path().join("state.redb");
        let now = Now { ms: 0, wall_us: wall_us() };
        let (state, _) =
            State::open(Arc::new(RealDisk::new()), &path, log.read.clone(), limits, now).expect("a state");
        let bus = Bus::start(config, change(log), state, access.expect("loads"));
        let unix = folder.path().join("mqtt.sock");
        let listener =
            |name: &str, address| ListenerConfig { name: name.into(), protocol: Protocol::Mqtt, address };
        let listeners = Listeners::bind(&[
            listener("tcp", Address::Tcp("127.0.0.1:0".into())),
            listener("unix", Address::Unix(unix.clone())),
        ])
        .expect("binds");
        let Bound::Tcp(tcp) = listeners.addresses()[0].1.clone() else { panic!("a TCP address") };
        let server = Some(Server::start(&bus, listeners, None).expect("starts"));
        Bed { bus, tcp, unix, server, folder }
    }

    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(PATIENCE);
            self.bus.stop();
        }
    }

    /// A socket on which nothing was sent.
    pub fn dial(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.tcp).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        Client { stream, version: Version::V5, input: Vec::new() }
    }

    pub fn dial_unix(&self) -> Client<UnixStream> {
        let stream = UnixStream::connect(&self.unix).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        Client { stream, version: Version::V5, input: Vec::new() }
    }

    /// An anonymous client that is connected.
    pub fn client(&self, version: Version, id: &str) -> Client<TcpStream> {
        let mut client = Client { version, ..self.dial() };
        client.connect(id, None);
        assert_eq!(client.next().as_deref(), Some("CONNACK Success"));
        client
    }

    /// Alice, who may publish to `alice/#`.
    pub fn alice(&self, version: Version, id: &str) -> Client<TcpStream> {
        let mut client = Client { version, ..self.dial() };
        client.connect(id, Some("secret"));
        assert_eq!(client.next().as_deref(), Some("CONNACK Success"));
        client
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
    }
}

pub struct Client<S> {
    pub stream: S,
    pub version: Version,
    pub input: Vec<u8>,
}

pub fn connect_bytes(version: Version, client_id: &str, password: Option<&str>) -> Vec<u8> {
    connect_with(version, client_id, password, true, Properties::EMPTY)
}

/// A CONNECT that asks for a session to go on.
pub fn session_bytes(version: Version, client_id: &str) -> Vec<u8> {
    let mut properties = PropertiesBuf::new();
    if version == Version::V5 {
        properties.push(&Property::SessionExpiry(3600)).expect("fits");
    }
    connect_with(version, client_id, None, false, properties.as_properties())
}

fn connect_with(
    version: Version,
    client_id: &str,
    password: Option<&str>,
    clean_start: bool,
    properties: Properties<'_>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let connect = Connect {
        version,
        clean_start,
        keep_alive_secs: 0,
        client_id,
        will: None,
        user_name: password.map(|_| "alice"),
        password: password.map(str::as_bytes),
        properties,
    };
    encode(&Packet::Connect(connect), version, &mut out).expect("a CONNECT");
    out
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    pub fn connect(&mut self, id: &str, password: Option<&str>) {
        let bytes = connect_bytes(self.version, id, password);
        self.send(&bytes);
    }

    pub fn send_packet(&mut self, packet: &Packet<'_>) {
        let mut out = Vec::new();
        encode(packet, self.version, &mut out).expect("a packet");
        self.send(&out);
    }

    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        let mut items = SubscribeItemsBuf::new();
        items.push(filter, SubscribeOptions { qos, ..SubscribeOptions::default() }).expect("fits");
        let packet_id = 1.try_into().expect("not zero");
        let subscribe = Subscribe { packet_id, properties: Properties::EMPTY, filters: items.as_items() };
        self.send_packet(&Packet::Subscribe(subscribe));
        assert!(self.next().expect("an answer").starts_with("SUBACK"));
    }

    pub fn publish(&mut self, topic: &str, payload: &str, packet_id: u16) {
        self.publish_with(topic, payload, packet_id, false);
    }

    pub fn retain(&mut self, topic: &str, payload: &str, packet_id: u16) {
        self.publish_with(topic, payload, packet_id, true);
    }

    fn publish_with(&mut self, topic: &str, payload: &str, packet_id: u16, retain: bool) {
        let qos = if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let packet_id = packet_id.try_into().ok();
        let (dup, properties) = (false, Properties::EMPTY);
        let payload = payload.as_bytes();
        self.send_packet(&Packet::Publish(Publish {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        }));
    }

    /// The next packet, in words; none: the connection was closed.
    pub fn next(&mut self) -> Option<String> {
        loop {
            match decode(&self.input, self.version, usize::MAX).expect("it conforms") {
                Decoded::Packet(packet, len) => {
                    let text = describe(&packet);
                    self.input.drain(..len);
                    return Some(text);
                }
                Decoded::Incomplete { .. } => {
                    let mut buffer = [0; 64 << 10];
                    match self.stream.read(&mut buffer) {
                        Ok(0) => return None,
                        Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                        Err(error) => panic!("nothing came: {error}"),
                    }
                }
            }
        }
    }
}

fn describe(packet: &Packet<'_>) -> String {
    let kind = packet.kind();
    match packet {
        Packet::Publish(publish) => String::from_utf8_lossy(publish.payload).into_owned(),
        Packet::ConnAck(connack) if connack.session_present => format!("{kind} present"),
        Packet::ConnAck(connack) => format!("{kind} {:?}", connack.reason),
        Packet::Disconnect(disconnect) => format!("{kind} {:?}", disconnect.reason),
        Packet::PubAck(ack) => format!("{kind} {}", ack.packet_id),
        _ => kind.to_string(),
    }
}

fn new_folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder"))
}
