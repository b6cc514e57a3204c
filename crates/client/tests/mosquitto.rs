//! The client against another broker: Debian's mosquitto, plain and over TLS.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firehose_client::{
    ClientError, Message, MqttConfig, Publisher, Roots, Subscriber, SubscriberConfig, Update, Url,
};
use firehose_mqtt::{QoS, Version};
use tempfile::TempDir;

struct Mosquitto {
    folder: TempDir,
    child: Child,
    plain: u16,
    tls: u16,
}

impl Mosquitto {
    fn start() -> Mosquitto {
        let folder = tempfile::tempdir().expect("a temporary folder");
        certificates(folder.path());
        let (plain, tls) = (free_port(), free_port());
        let text = format!(
            "allow_anonymous true\nuser root\nlistener {plain} 127.0.0.1\nlistener {tls} 127.0.0.1\ncertfile {0}/server.crt\n\
             keyfile {0}/server.key\n",
            folder.path().display()
        );
        fs::write(folder.path().join("conf"), text).expect("it can be written");
        let child = run(folder.path());
        let mosquitto = Mosquitto { folder, child, plain, tls };
        mosquitto.wait();
        mosquitto
    }

    fn restart(&mut self) {
        self.stop();
        self.child = run(self.folder.path());
        self.wait();
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.tls)).is_err() {
            assert!(Instant::now() < until, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn config(&self, version: Option<Version>) -> MqttConfig {
        let url = Url::parse(&format!("mqtt://127.0.0.1:{}", self.plain)).expect("it is valid");
        MqttConfig { version, ..MqttConfig::new(url).expect("it is MQTT") }
    }

    fn tls_config(&self, host: &str, roots: Roots) -> MqttConfig {
        let url = Url::parse(&format!("mqtts://{host}:{}", self.tls)).expect("it is valid");
        MqttConfig { roots, ..MqttConfig::new(url).expect("it is MQTT") }
    }

    fn cafile(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(folder: &Path) -> Child {
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(folder.join("conf")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("mosquitto is installed")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// An authority, and a certificate of it for `localhost` and 127.0.0.1.
fn certificates(folder: &Path) {
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").expect("it can be written");
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for arguments in [
        format!("req -x509 {new_key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"),
        format!("req {new_key} -keyout server.key -out server.csr -subj /CN=localhost"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names".into(),
    ] {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(folder).stderr(Stdio::null());
        assert!(command.status().expect("openssl is installed").success(), "{arguments}");
    }
}

fn subscriber(mqtt: MqttConfig, qos: QoS) -> Result<Subscriber, ClientError> {
    Subscriber::open(SubscriberConfig { mqtt, filters: vec!["t/#".into(), "u".into()], qos, since: None })
}

/// The next message; notes are passed over.
fn message(subscriber: &mut Subscriber) -> Message {
    loop {
        match subscriber.receive(Some(Instant::now() + Duration::from_secs(30))).expect("it goes on") {
            Update::Message(message) => return *message,
            Update::Note(_) => {}
            Update::Nothing => panic!("no message came"),
        }
    }
}

#[test]
fn messages_of_every_quality_arrive_once_in_both_versions() {
    let mosquitto = Mosquitto::start();
    for version in [Version::V311, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut subscriber = subscriber(mosquitto.config(Some(version)), qos).expect("it subscribes");
            let mut publisher = Publisher::open(mosquitto.config(Some(version))).expect("it connects");
            for number in 0..200 {
                publisher.publish("t/n", number.to_string().as_bytes(), qos, false).expect("it is sent");
            }
            publisher.finish().expect("all are acknowledged");
            for number in 0..200 {
                let message = message(&mut subscriber);
                assert_eq!((message.topic.as_str(), message.qos), ("t/n", qos));
                assert_eq!(message.payload, number.to_string().into_bytes());
            }
            subscriber.close();
        }
    }
}

#[test]
fn large_messages_arrive_whole() {
    let mosquitto = Mosquitto::start();
    let mut subscriber = subscriber(mosquitto.config(None), QoS::AtLeastOnce).expect("it subscribes");
    let mut publisher = Publisher::open(mosquitto.config(None)).expect("it connects");
    let payload: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    publisher.publish("u", &payload, QoS::AtLeastOnce, false).expect("it is sent");
    publisher.publish("u", b"", QoS::AtLeastOnce, false).expect("it is sent");
    publisher.finish().expect("all are acknowledged");
    assert_eq!(message(&mut subscriber).payload, payload);
    assert_eq!(message(&mut subscriber).payload, b"");
}

#[test]
fn tls_is_spoken_with_those_whom_a_trusted_authority_vouches_for() {
    let mosquitto = Mosquitto::start();
    let trusted = || Roots::File(mosquitto.cafile());
    for host in ["localhost", "127.0.0.1"] {
        let mut subscriber =
            subscriber(mosquitto.tls_config(host, trusted()), QoS::ExactlyOnce).expect("it is trusted");
        let mut publisher = Publisher::open(mosquitto.tls_config(host, trusted())).expect("it is trusted");
        let payload = vec![7; 300_000];
        publisher.publish("t", &payload, QoS::ExactlyOnce, false).expect("it is sent");
        publisher.finish().expect("it is acknowledged");
        assert_eq!(message(&mut subscriber).payload, payload);
    }
    certificates(&mosquitto.folder.path().join(".").canonicalize().expect("it is there"));
    let other_authority = mosquitto.tls_config("localhost", trusted());
    assert!(matches!(Publisher::open(other_authority), Err(ClientError::Connection(_))));
    let no_certificate = mosquitto.tls_config("localhost", Roots::File(mosquitto.folder.path().join("conf")));
    assert!(matches!(Publisher::open(no_certificate), Err(ClientError::Usage(_))));
}

#[test]
fn a_subscriber_goes_on_when_its_broker_comes_back() {
    let mut mosquitto = Mosquitto::start();
    let mut subscriber = subscriber(mosquitto.config(None), QoS::AtLeastOnce).expect("it subscribes");
    mosquitto.restart();
    let mut notes = Vec::new();
    while notes.iter().all(|note: &String| !note.starts_with("connected")) {
        match subscriber.receive(Some(Instant::now() + Duration::from_secs(60))).expect("it goes on") {
            Update::Note(note) => notes.push(note),
            other => panic!("{other:?}"),
        }
    }
    let mut publisher = Publisher::open(mosquitto.config(None)).expect("it connects");
    publisher.publish("t/after", b"x", QoS::AtLeastOnce, false).expect("it is sent");
    publisher.finish().expect("it is acknowledged");
    assert_eq!(message(&mut subscriber).topic, "t/after");
}

#[test]
fn a_kept_session_has_what_came_meanwhile() {
    let mosquitto = Mosquitto::start();
    let config = || MqttConfig { client_id: Some("me".into()), keep_session: true, ..mosquitto.config(None) };
    subscriber(config(), QoS::ExactlyOnce).expect("it subscribes").close();
    let mut publisher = Publisher::open(mosquitto.config(None)).expect("it connects");
    for number in 0..20 {
        publisher.publish("t/n", &[number], QoS::ExactlyOnce, false).expect("it is sent");
    }
    publisher.finish().expect("all are acknowledged");
    let mut subscriber = subscriber(config(), QoS::ExactlyOnce).expect("it subscribes");
    for number in 0..20 {
        assert_eq!(message(&mut subscriber).payload, [number]);
    }
}

#[test]
fn an_interrupt_ends_a_wait() {
    let mosquitto = Mosquitto::start();
    let config = mosquitto.config(None);
    let interrupt = config.interrupt.clone();
    let mut subscriber = subscriber(config, QoS::AtMostOnce).expect("it subscribes");
    let waiting = std::thread::spawn(move || subscriber.receive(None).map(|_| ()));
    interrupt.raise();
    assert_eq!(waiting.join().expect("it ends"), Err(ClientError::Interrupted));
}

#[test]
fn a_server_that_is_not_there_or_speaks_something_else_is_told() {
    let mosquitto = Mosquitto::start();
    let url = Url::parse(&format!("mqtt://127.0.0.1:{}", free_port())).expect("it is valid");
    let nobody = MqttConfig::new(url).expect("it is MQTT");
    assert!(matches!(Publisher::open(nobody), Err(ClientError::Connection(_))));
    let url = Url::parse(&format!("mqtt://127.0.0.1:{}", mosquitto.tls)).expect("it is valid");
    let without_tls = MqttConfig::new(url).expect("it is MQTT");
    assert!(matches!(Publisher::open(without_tls), Err(ClientError::Connection(_))));
    let since = Some(firehose_log::Since::Earliest);
    let past = SubscriberConfig {
        mqtt: mosquitto.config(None),
        filters: vec!["#".into()],
        qos: QoS::AtMostOnce,
        since,
    };
    assert!(matches!(Subscriber::open(past), Err(ClientError::Refused(_))), "it has no past to read");
    for url in ["ws://h", "wss://h", "http://h"] {
        assert!(matches!(MqttConfig::new(Url::parse(url).expect("it is valid")), Err(ClientError::Usage(_))));
    }
}
