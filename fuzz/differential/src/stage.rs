//! The clients of a session at one broker.

use std::net::SocketAddr;

use firehose_mqtt::{QoS, SubscribeOptions, Version};

use crate::{
    client::{Client, Named},
    model::Play,
    seen::{Seen, WILL},
    session::{Action, Ending, Filter, Message, Options, Role, Step, Will},
};

/// The clients, and behind them one that sees everything: what it saw has passed the broker.
pub struct Stage {
    clients: Vec<Client>,
}

/// What the witness subscribes to: every topic of the sessions.
const EVERYTHING: [&str; 2] = ["#", "$d/#"];

impl Stage {
    /// Clients whose identifiers begin with `run`, which no other session at the broker has.
    pub fn new(address: SocketAddr, run: &str, roles: &[Role]) -> Self {
        let client = |(number, role)| Client::new(format!("{run}-{number}"), role, address);
        let witness = Role { version: Version::V5, shares: false, receive_maximum: None };
        let roles = roles.iter().copied().chain([witness]);
        let mut stage = Self { clients: roles.enumerate().map(client).collect() };
        let witness = stage.witness();
        witness.connect(&Options { clean: true, ..Options::resuming() }, (0, 0, 0));
        let options = SubscribeOptions {
            qos: QoS::ExactlyOnce,
            retain_as_published: true,
            ..SubscribeOptions::default()
        };
        witness.subscribe(&EVERYTHING.map(|filter| Filter { filter, options }), None);
        stage
    }

    /// A client acknowledges what it held back.
    pub fn release(&mut self, client: usize) {
        self.clients[client].release();
    }

    /// Does what a step says; the answers that it asks for have come then.
    pub fn perform(&mut self, step: &Step, play: &Play) {
        let client = &mut self.clients[step.client];
        let name = |place| (step.client, step.number, place);
        match &play.action {
            Action::Connect(options) => client.connect(options, name(WILL)),
            Action::Subscribe { filters, identifier } => client.subscribe(filters, *identifier),
            Action::Unsubscribe(filters) => client.unsubscribe(filters),
            Action::Publish(messages) => {
                let named =
                    messages.iter().enumerate().map(|(place, message)| Named { message, name: name(place) });
                client.publish(&named.collect::<Vec<_>>());
            }
            Action::Resend(message, broken) => {
                client.publish_again(&Named { message, name: name(0) }, *broken, &play.again);
            }
            Action::Hold(holding) => client.hold(*holding),
            Action::Release => client.release(),
            Action::End(ending) => client.end(*ending),
            Action::Expire(message) => client.publish(&[Named { message, name: name(0) }]),
            Action::Lapse { will, will_delay_secs, expiry_secs } => {
                let will = Some(Will { delay_secs: *will_delay_secs, ..will.clone() });
                client
                    .connect(&Options { expiry_secs: *expiry_secs, will, ..Options::resuming() }, name(WILL));
                client.end(Ending::Abrupt);
            }
        }
    }

    /// Takes what has come for anyone. Tells whether there was something.
    pub fn sweep(&mut self) -> bool {
        self.clients.iter_mut().fold(false, |something, client| client.sweep() | something)
    }

    /// Takes what comes until a whole sweep brings nothing: with a broker of one thread, all that there is.
    pub fn settle(&mut self) {
        while self.sweep() {}
    }

    /// Takes what each client saw, the witness last.
    pub fn take_seen(&mut self) -> Vec<Vec<Seen>> {
        self.clients.iter_mut().map(Client::take_seen).collect()
    }

    /// Ends all sessions, and leaves nothing retained on these topics.
    pub fn clear(&mut self, topics: &[&'static str]) {
        let count = self.clients.len() - 1;
        for client in &mut self.clients[..count] {
            // Whoever leaves properly leaves no will behind.
            if !client.is_connected() {
                client.connect(&Options::resuming(), (0, 0, 0));
            }
            client.end(Ending::Normal);
            client.connect(&Options { clean: true, ..Options::resuming() }, (0, 0, 0));
            client.end(Ending::Normal);
        }
        self.settle();
        let empty = |&topic: &&'static str| Message {
            topic,
            qos: QoS::AtLeastOnce,
            retain: true,
            payload_bytes: 0,
            properties: Vec::new(),
            by_alias: false,
        };
        let messages: Vec<Message> = topics.iter().map(empty).collect();
        let named: Vec<Named<'_>> =
            messages.iter().map(|message| Named { message, name: (0, 0, 0) }).collect();
        self.witness().publish(&named);
        self.settle();
        self.witness().end(Ending::Normal);
        self.take_seen();
    }

    fn witness(&mut self) -> &mut Client {
        self.clients.last_mut().expect("there is always the witness")
    }
}
