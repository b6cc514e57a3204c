//! rumqttc, as ../run has its clients.

use std::env::args;
use std::error::Error;
use std::io::stdin;

const QUEUE: usize = 1000;
const PACKET_BYTES_MAX: u32 = 1 << 20;

type Outcome = Result<(), Box<dyn Error>>;

struct Message {
    qos: u8,
    retain: bool,
    payload: Vec<u8>,
    topic: String,
}

struct Reading {
    qos: u8,
    count: usize,
    filter: String,
    since: String,
    name: String,
}

/// What both versions have: the same words for types that are not the same.
macro_rules! client {
    () => {
        pub fn publish(port: u16, name: &str, messages: &[Message]) -> Outcome {
            let mut options = options(name, port);
            options.set_credentials("sender", "sesame");
            let (client, mut connection) = Client::new(options, QUEUE);
            for m in messages {
                client.publish(&m.topic, qos(m.qos).ok_or("no such QoS")?, m.retain, m.payload.clone())?;
            }
            let mut left = messages.len();
            for event in connection.iter() {
                match event? {
                    Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => left -= 1,
                    Event::Outgoing(Outgoing::Publish(0)) => left -= 1,
                    Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                    _ => continue,
                }
                if left == 0 {
                    client.disconnect()?;
                }
            }
            Err("not disconnected".into())
        }

        pub fn subscribe(port: u16, reading: &Reading) -> Outcome {
            let (client, mut connection) = Client::new(options(&reading.name, port), QUEUE);
            ask(&client, reading, qos(reading.qos).ok_or("no such QoS")?)?;
            let mut left = reading.count;
            for event in connection.iter() {
                match event? {
                    Event::Incoming(Packet::SubAck(answer)) => match &answer.return_codes[..] {
                        [SubscribeReasonCode::Success(qos)] => println!("ready {}", *qos as u8),
                        refused => return Err(format!("refused: {refused:?}").into()),
                    },
                    Event::Incoming(Packet::Publish(m)) if left > 0 => {
                        let topic = str::from_utf8(m.topic.as_ref())?;
                        println!("any {} {} {} {topic}", m.qos as u8, m.retain as u8, hex(&m.payload));
                        left -= 1;
                        if left == 0 {
                            client.disconnect()?;
                        }
                    }
                    Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                    _ => {}
                }
            }
            Err("not disconnected".into())
        }
    };
}

mod v3 {
    use super::*;
    use rumqttc::{Client, Event, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode, qos as number};

    client!();

    fn options(name: &str, port: u16) -> MqttOptions {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
        options
    }

    fn ask(client: &Client, reading: &Reading, qos: QoS) -> Outcome {
        Ok(client.subscribe(&reading.filter, qos)?)
    }

    fn qos(n: u8) -> Option<QoS> {
        number(n).ok()
    }
}

mod v5 {
    use super::*;
    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::v5::{Packet, SubscribeProperties, SubscribeReasonCode};
    use rumqttc::v5::mqttbytes::{QoS, qos};
    use rumqttc::v5::{Client, Event, MqttOptions};

    client!();

    fn options(name: &str, port: u16) -> MqttOptions {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        options
    }

    fn ask(client: &Client, reading: &Reading, qos: QoS) -> Outcome {
        if reading.since == "-" {
            return Ok(client.subscribe(&reading.filter, qos)?);
        }
        let user_properties = vec![("since".to_owned(), reading.since.clone())];
        let properties = SubscribeProperties { id: None, user_properties };
        Ok(client.subscribe_with_properties(&reading.filter, qos, properties)?)
    }
}

fn main() -> Outcome {
    let words: Vec<String> = args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pub", port, "5", name] => v5::publish(port.parse()?, name, &messages()?),
        ["pub", port, "3.1.1", name] => v3::publish(port.parse()?, name, &messages()?),
        ["sub", port, version, qos, count, filter, _route, since, name] => {
            let reading = Reading {
                qos: qos.parse()?,
                count: count.parse()?,
                filter: (*filter).to_owned(),
                since: (*since).to_owned(),
                name: (*name).to_owned(),
            };
            let subscribe = if *version == "5" { v5::subscribe } else { v3::subscribe };
            subscribe(port.parse()?, &reading)
        }
        _ => Err("pub PORT VERSION NAME | sub PORT VERSION QOS COUNT FILTER ROUTE SINCE NAME".into()),
    }
}

fn messages() -> Result<Vec<Message>, Box<dyn Error>> {
    let message = |line: String| {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [qos, retain, payload, topic] = words[..] else {
            return Err(format!("no message: {line}").into());
        };
        Ok(Message {
            qos: qos.parse()?,
            retain: retain == "1",
            payload: bytes(payload)?,
            topic: topic.to_owned(),
        })
    };
    stdin().lines().map(|line| message(line?)).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?);
    hex.as_bytes().chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
