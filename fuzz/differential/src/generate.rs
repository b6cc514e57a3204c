//! Random sessions. Every one is valid: whatever comes of it, no client did anything that the standard forbids.

use firehose_mqtt::{Property, QoS, RetainHandling, SubscribeOptions, Version};

use crate::{
    random::Random,
    session::{Action, Break, Ending, Filter, Holding, Message, Options, Role, Session, Step, Will},
};

/// Every topic of a session.
pub const TOPICS: [&str; 12] =
    ["a", "b", "a/b", "a/c", "a/b/c", "b/c", "b/b/c", "/a", "a/", "a//b", "$d/a", "é/日本"];
const FILTERS: [&str; 24] = [
    "#", "+", "a", "b", "a/b", "a/#", "a/+", "+/b", "+/+", "a/+/c", "a/b/#", "+/#", "/+", "/#", "+/a", "a/",
    "a//b", "a//+", "$d/#", "$d/+", "+/b/#", "b/#", "b/+/c", "é/+",
];
const SHARED: [&str; 6] =
    ["$share/g/a/#", "$share/g/b/#", "$share/g/+", "$share/h/a/b", "$share/h/#", "$share/h/+/+"];
/// Longer than any session lasts.
const LONG_SECS: u32 = 3_600;
/// Clients that take only small packets take the small messages of a session and none of the large ones.
const PACKET_BYTES: u32 = 400;
const LARGE_BYTES: usize = 1_000;

/// The session of a seed.
pub fn session(seed: u64) -> Session {
    let mut random = Random::new(seed);
    let count = 2 + random.below(5);
    let shares = random.chance(40);
    let clients: Vec<Role> = (0..count).map(|_| role(&mut random, shares)).collect();
    // Time passes in one of 25 sessions: each pause takes seconds.
    let pauses = random.chance(4);
    let mut actions = Vec::new();
    for (client, role) in clients.iter().enumerate() {
        actions.push((client, Action::Connect(options(&mut random, *role))));
        if random.chance(75) {
            actions.push((client, subscribe(&mut random, *role)));
        }
    }
    for _ in 0..8 + random.below(32) {
        let client = random.below(count);
        actions.push((client, action(&mut random, clients[client])));
    }
    if pauses {
        let at = random.below(actions.len() + 1).max(2 * count).min(actions.len());
        let client = random.below(count);
        actions.insert(at, (client, pause(&mut random)));
    }
    let step = |(number, (client, action))| Step { number, client, action };
    Session { seed, clients, steps: actions.into_iter().enumerate().map(step).collect() }
}

fn role(random: &mut Random, shares: bool) -> Role {
    let version =
        random.pick(&[Version::V31, Version::V311, Version::V311, Version::V5, Version::V5, Version::V5]);
    let shares = shares && random.chance(60);
    let limited = version == Version::V5 && !shares && random.chance(40);
    let receive_maximum = limited.then(|| 1 + random.below(4) as u16);
    Role { version, shares, receive_maximum }
}

fn action(random: &mut Random, role: Role) -> Action {
    match random.below(100) {
        0..12 => Action::Connect(options(random, role)),
        12..27 => subscribe(random, role),
        27..33 => {
            let shared = is_shared(random, role);
            Action::Unsubscribe((0..=random.below(3)).map(|_| filter(random, shared)).collect())
        }
        33..70 => Action::Publish(messages(random, role)),
        70..75 => Action::Resend(message(random, role), random.pick(&[Break::Published, Break::Released])),
        75..80 => Action::Hold(random.pick(&[Holding::All, Holding::Completion])),
        80..84 => Action::Release,
        _ => Action::End(match random.below(10) {
            0..4 => Ending::Normal,
            4 => Ending::NormalExpiring(random.pick(&[0, LONG_SECS])),
            5 => Ending::WithWill,
            _ => Ending::Abrupt,
        }),
    }
}

/// Only 5.0 has what time changes.
fn pause(random: &mut Random) -> Action {
    let role = Role { version: Version::V5, shares: false, receive_maximum: None };
    let mut message = message(random, role);
    if random.chance(50) {
        message.properties.retain(|property| !matches!(property, Property::MessageExpiry(_)));
        message.properties.push(Property::MessageExpiry(2));
        return Action::Expire(message);
    }
    let (will_delay_secs, expiry_secs) = random.pick(&[(1, LONG_SECS), (LONG_SECS, 1), (1, 1), (0, 1)]);
    Action::Lapse { will: Will { message: named(message), delay_secs: 0 }, will_delay_secs, expiry_secs }
}

fn options(random: &mut Random, role: Role) -> Options {
    let expiry_secs = match random.below(10) {
        0..4 => 0,
        4..9 => LONG_SECS,
        _ => u32::MAX,
    };
    // What is too large for a member may be given to another, or not.
    let packet_bytes_max = (!role.shares && random.chance(15)).then_some(PACKET_BYTES);
    let aliases_max = random.chance(50).then(|| random.below(4) as u16);
    let will = random.chance(40).then(|| Will {
        message: named(message(random, role)),
        delay_secs: if random.chance(30) { LONG_SECS } else { 0 },
    });
    Options { clean: random.chance(40), expiry_secs, packet_bytes_max, aliases_max, will }
}

fn subscribe(random: &mut Random, role: Role) -> Action {
    let shared = is_shared(random, role);
    let filters = (0..1 + random.below(3)).map(|_| {
        let filter = filter(random, shared);
        Filter { filter, options: subscribe_options(random, role, filter) }
    });
    let mut filters: Vec<Filter> = filters.collect();
    // Twice the same filter in one packet is as if it stood there once.
    filters.sort_by_key(|filter| filter.filter);
    filters.dedup_by_key(|filter| filter.filter);
    let identifier = match (role.version, shared) {
        (Version::V5, true) => Some(crate::shared::IDENTIFIER),
        (Version::V5, false) if random.chance(50) => Some(1 + random.below(200) as u32),
        _ => None,
    };
    Action::Subscribe { filters, identifier }
}

/// Of 3.x, the QoS only.
fn subscribe_options(random: &mut Random, role: Role, filter: &str) -> SubscribeOptions {
    let qos = qos(random);
    if role.version != Version::V5 {
        return SubscribeOptions { qos, ..SubscribeOptions::default() };
    }
    let handling =
        [RetainHandling::Send, RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    // Mostly the same for a filter: mosquitto 2.0 keeps those of the first SUBSCRIBE, and what that touches is not compared.
    let usual: u32 = filter.bytes().map(u32::from).sum();
    let mut mostly = |usual: bool| usual != random.chance(3);
    let (no_local, retain_as_published) = (mostly(usual.is_multiple_of(5)), mostly(usual.is_multiple_of(3)));
    SubscribeOptions {
        qos,
        no_local: no_local && !filter.starts_with("$share/"),
        retain_as_published,
        retain_handling: random.pick(&handling),
    }
}

fn is_shared(random: &mut Random, role: Role) -> bool {
    role.shares && (role.version != Version::V5 || random.chance(40))
}

fn filter(random: &mut Random, shared: bool) -> &'static str {
    if shared { random.pick(&SHARED) } else { random.pick(&FILTERS) }
}

fn messages(random: &mut Random, role: Role) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for _ in 0..1 + random.below(5) {
        let mut message = message(random, role);
        // Which of two is retained would be chance: QoS 2 counts from PUBLISH or from PUBREL [MQTT-4.3.3].
        if let Some(before) = messages.iter().find(|before| before.retain && before.topic == message.topic) {
            message.qos = before.qos;
        }
        messages.push(message);
    }
    messages
}

fn message(random: &mut Random, role: Role) -> Message {
    let retain = random.chance(30);
    let payload_bytes = match random.below(20) {
        0..3 if retain => 0,
        3 => LARGE_BYTES + random.below(2 * LARGE_BYTES),
        _ => 1 + random.below(40),
    };
    let properties = if role.version == Version::V5 { properties(random) } else { Vec::new() };
    Message {
        topic: random.pick(&TOPICS),
        qos: qos(random),
        retain,
        payload_bytes,
        properties,
        by_alias: random.chance(30),
    }
}

/// With a payload: what becomes of a will is known by its name.
fn named(message: Message) -> Message {
    Message { payload_bytes: message.payload_bytes.max(1), ..message }
}

fn properties(random: &mut Random) -> Vec<Property<'static>> {
    let each = [
        Property::PayloadFormat(1),
        Property::MessageExpiry(LONG_SECS),
        Property::ContentType("text/plain; charset=utf-8"),
        Property::ResponseTopic("answers/here"),
        Property::CorrelationData(&[0, 0xff, b'c']),
    ];
    let mut properties: Vec<_> = each.into_iter().filter(|_| random.chance(15)).collect();
    if random.chance(25) {
        let user = [("b", "1"), ("a", ""), ("b", "2"), ("", "ü")];
        let count = 1 + random.below(user.len());
        properties.extend(
            (0..count).map(|_| random.pick(&user)).map(|(name, value)| Property::UserProperty(name, value)),
        );
    }
    properties
}

fn qos(random: &mut Random) -> QoS {
    random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

#[cfg(test)]
mod tests {
    use firehose_topic::{TopicFilter, TopicName, parse_share};

    use super::*;

    #[test]
    fn a_seed_gives_the_same_session_again() {
        assert_eq!(session(3).to_string(), session(3).to_string());
        assert_ne!(session(3).to_string(), session(4).to_string());
    }

    #[test]
    fn topics_and_filters_are_valid() {
        assert!(TOPICS.iter().all(|topic| TopicName::new(topic).is_ok()));
        assert!(
            FILTERS.iter().all(|filter| TopicFilter::new(filter).is_ok() && parse_share(filter).is_none())
        );
        assert!(SHARED.iter().all(|filter| matches!(parse_share(filter), Some(Ok(_)))));
    }

    #[test]
    fn every_kind_of_step_comes_up() {
        let names: std::collections::BTreeSet<String> = (0..300)
            .flat_map(|seed| session(seed).steps)
            .map(|step| format!("{:?}", step.action).split(['(', ' ']).next().unwrap_or_default().to_owned())
            .collect();
        let all = [
            "Connect",
            "End",
            "Expire",
            "Hold",
            "Lapse",
            "Publish",
            "Release",
            "Resend",
            "Subscribe",
            "Unsubscribe",
        ];
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), all);
    }
}
