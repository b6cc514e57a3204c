//! A session: what several clients do, step by step. It does not say what comes of it.

use std::fmt;

use firehose_mqtt::{Property, QoS, SubscribeOptions, Version};

/// What is played against both brokers.
#[derive(Clone, Debug)]
pub struct Session {
    /// From which it was made.
    pub seed: u64,
    /// Who takes part; steps name them by their place here.
    pub clients: Vec<Role>,
    /// What they do, in this order, each when all is quiet after the one before.
    pub steps: Vec<Step>,
}

/// What a client is for a whole session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// What it speaks.
    pub version: Version,
    /// Whether it joins shared subscriptions. One of 3.x has no others then: nothing in a message would tell by which it came.
    pub shares: bool,
    /// Receive Maximum of all its connections (5.0). None for one that shares: what mosquitto 2.0 keeps back cannot be told
    /// from what another member got.
    pub receive_maximum: Option<u16>,
}

/// One client does one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its place in the session as it was made; it keeps it when others are left out.
    pub number: usize,
    /// Whose place in [`Session::clients`].
    pub client: usize,
    /// What it does. What it cannot do just then is left out.
    pub action: Action,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connects; if it is connected, by a second connection, which takes over.
    Connect(Options),
    /// One SUBSCRIBE, with a Subscription Identifier (5.0).
    Subscribe { filters: Vec<Filter>, identifier: Option<u32> },
    /// One UNSUBSCRIBE.
    Unsubscribe(Vec<&'static str>),
    /// Several PUBLISH in one piece, and their handshakes to the end.
    Publish(Vec<Message>),
    /// A PUBLISH whose connection breaks; on the next one it is sent again, if the handshake asks for it.
    Resend(Message, Break),
    /// From now on it does not acknowledge what it is sent, or not to the end.
    Hold(Holding),
    /// It acknowledges all of it, and goes on so.
    Release,
    /// Its connection ends.
    End(Ending),
    /// Its connection breaks, and time passes: more than the shorter of its will's delay and its session's expiry.
    Lapse { will: Will, will_delay_secs: u32, expiry_secs: u32 },
    /// A PUBLISH, and more time passes than its Message Expiry Interval.
    Expire(Message),
}

/// How to connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Clean Start, or clean session.
    pub clean: bool,
    /// Session Expiry Interval (5.0).
    pub expiry_secs: u32,
    /// Maximum Packet Size (5.0).
    pub packet_bytes_max: Option<u32>,
    /// Topic Alias Maximum (5.0).
    pub aliases_max: Option<u16>,
    /// To be published when the connection is lost.
    pub will: Option<Will>,
}

/// A will.
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// What is published.
    pub message: Message,
    /// Will Delay Interval (5.0); 0: none.
    pub delay_secs: u32,
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Also `$share/…`.
    pub filter: &'static str,
    /// Before 5.0 only its QoS counts.
    pub options: SubscribeOptions,
}

/// What is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where.
    pub topic: &'static str,
    /// How surely.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// About so many bytes: at least its name has room. 0: none at all.
    pub payload_bytes: usize,
    /// Of 5.0; without a topic alias.
    pub properties: Vec<Property<'static>>,
    /// Whether it goes by a topic alias (5.0), as far as the server takes some.
    pub by_alias: bool,
}

/// Where the handshake of a PUBLISH breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// After PUBLISH: the acknowledgement is lost.
    Published,
    /// At QoS 2, after PUBREL: PUBCOMP is lost.
    Released,
}

/// What is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing is.
    All,
    /// At QoS 2 PUBREC is sent; PUBACK and PUBCOMP are not.
    Completion,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// DISCONNECT.
    Normal,
    /// DISCONNECT with another Session Expiry Interval (5.0).
    NormalExpiring(u32),
    /// DISCONNECT 0x04 (5.0): with the will.
    WithWill,
    /// Without DISCONNECT.
    Abrupt,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "session of seed {}", self.seed)?;
        for (client, role) in self.clients.iter().enumerate() {
            let receive_maximum = match role.receive_maximum {
                Some(maximum) => format!(", Receive Maximum {maximum}"),
                None => String::new(),
            };
            let shares = if role.shares { ", may share" } else { "" };
            writeln!(f, "  client {client}: MQTT {}{shares}{receive_maximum}", role.version)?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {:>2}, client {}: {:?}", self.number, self.client, self.action)
    }
}
