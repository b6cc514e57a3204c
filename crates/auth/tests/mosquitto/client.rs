use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::broker::Broker;

/// As much of an MQTT 3.1.1 client as the comparison needs: QoS 0, one packet at a time.
pub struct Client {
    socket: TcpStream,
    /// Payloads that came while something else was waited for.
    received: Vec<Vec<u8>>,
}

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xD0;

impl Client {
    /// Connects; none if the broker refuses this user.
    pub fn connect(
        broker: &Broker,
        client_id: &str,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Option<Self> {
        let socket = TcpStream::connect(broker.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Self { socket, received: Vec::new() };
        let flags = 2 | if user.is_some() { 0x80 } else { 0 } | if password.is_some() { 0x40 } else { 0 };
        let mut body = string("MQTT");
        body.extend([4, flags, 0, 0]);
        for text in [Some(client_id), user, password].into_iter().flatten() {
            body.extend(string(text));
        }
        client.send(0x10, &body);
        (client.wait_for(CONNACK)[1] == 0).then_some(client)
    }

    pub fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1];
        body.extend(string(filter));
        body.push(0);
        self.send(0x82, &body);
        assert_eq!(self.wait_for(SUBACK), [0, 1, 0]);
    }

    /// Publishes to each topic its place in the list.
    pub fn publish_numbered(&mut self, topics: &[String]) {
        for (number, topic) in topics.iter().enumerate() {
            let mut body = string(topic);
            body.extend(number.to_string().bytes());
            self.send(PUBLISH, &body);
        }
    }

    /// Waits until the broker has done all before this, and gives the payloads that came since the last ping.
    pub fn ping(&mut self) -> Vec<Vec<u8>> {
        self.send(0xC0, &[]);
        self.wait_for(PINGRESP);
        std::mem::take(&mut self.received)
    }

    fn send(&mut self, first_byte: u8, body: &[u8]) {
        let mut packet = vec![first_byte];
        let mut length = body.len();
        loop {
            let more = length > 0x7F;
            packet.push(u8::try_from(length & 0x7F).unwrap() | if more { 0x80 } else { 0 });
            length >>= 7;
            if !more {
                break;
            }
        }
        packet.extend(body);
        self.socket.write_all(&packet).unwrap();
    }

    fn wait_for(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (first_byte, body) = self.read_packet();
            if first_byte == kind {
                return body;
            }
            assert_eq!(first_byte, PUBLISH, "an unexpected packet");
            let topic_bytes = usize::from(u16::from_be_bytes([body[0], body[1]]));
            self.received.push(body[2 + topic_bytes..].to_vec());
        }
    }

    fn read_packet(&mut self) -> (u8, Vec<u8>) {
        let first_byte = self.read_byte();
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.read_byte();
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).expect("the broker closed or is silent");
        (first_byte, body)
    }

    fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.socket.read_exact(&mut byte).expect("the broker closed or is silent");
        byte[0]
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
