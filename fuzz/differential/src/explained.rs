//! Every difference that is no fault of firehose's, each with the statement that allows it or that mosquitto does not keep.
//!
//! A rule changes what was seen so that its own difference is gone, and tells how often it found it. Whatever is left is
//! unexplained. How often each rule was needed is printed, so that one that is no longer needed is seen.

use firehose_mqtt::{PacketKind, Reason};

use crate::{
    compare::Pair,
    model::{Cause, Due, State},
    seen::{Delivery, Seen},
};

/// A kind of difference.
pub struct Rule {
    /// Its name in the output.
    pub name: &'static str,
    /// The statement that decides, of MQTT 5.0 where not said otherwise.
    pub statement: &'static str,
    /// Why it is none of firehose's faults.
    pub why: &'static str,
    apply: fn(&Scene<'_>, &mut Pair) -> usize,
}

/// Who saw it.
pub struct Scene<'a> {
    /// The client's place in the session.
    pub client: usize,
    /// The state of its session.
    pub state: &'a State,
    /// Whether it has a Receive Maximum, and messages have waited or may have been too large.
    pub limited: bool,
    /// What firehose sent it before, if so.
    pub history: &'a [Delivery],
    /// The wills that were due and that mosquitto has overlooked.
    pub overlooked: &'a [Due],
    /// Those that were due and that it has not.
    pub due: &'a [Due],
}

/// The places in [`RULES`] of those for groups, which are compared as a whole.
pub const SHARE_LOST: usize = 0;
/// See [`SHARE_LOST`].
pub const SHARE_RETAINED: usize = 1;

/// All of them. The order matters: a rule sees what those before it left.
pub const RULES: &[Rule] = &[
    Rule {
        name: "group whose member was lost",
        statement: "MQTT-4.8.2-4, 4.8.2-5",
        why: "what a member had been given when its session ended goes to another member, or to nobody; \
            mosquitto gives to members that are away, firehose to those that are there",
        apply: |_, _| 0,
    },
    Rule {
        name: "retained to a group",
        statement: "3.8.4, 4.8.2",
        why: "mosquitto 2.0 sends retained messages to a client of 3.x that subscribes to a shared subscription",
        apply: |_, _| 0,
    },
    Rule {
        name: "taken over in silence",
        statement: "MQTT-3.1.4-3",
        why: "mosquitto 2.0 closes a connection of 5.0 that is taken over without DISCONNECT 0x8E",
        apply: taken_over,
    },
    Rule {
        name: "will at takeover",
        statement: "3.1.4, MQTT-3.1.2-8",
        why: "mosquitto 2.0 does not publish the will of a client whose session is taken over",
        apply: will_at_takeover,
    },
    Rule {
        name: "will at the session's end",
        statement: "MQTT-3.1.2-8, 3.1.3.2.2",
        why: "mosquitto 2.0 does not publish a delayed will when the session ends before the delay is over",
        apply: will_at_session_end,
    },
    Rule {
        name: "will to whom it is of",
        statement: "3.1.4",
        why: "mosquitto 2.0 publishes the will of a session that is taken over before that session is gone, and sends it there",
        apply: will_to_itself,
    },
    Rule {
        name: "options replaced",
        statement: "MQTT-3.8.4-3",
        why: "mosquitto 2.0 keeps No Local and Retain As Published of the first SUBSCRIBE when a filter comes again",
        apply: options_replaced,
    },
    Rule {
        name: "own retained, No Local",
        statement: "MQTT-3.8.3-3",
        why: "mosquitto 2.0 sends a client with No Local what it had published itself, if it was retained",
        apply: own_retained,
    },
    Rule {
        name: "PUBREL twice",
        statement: "3.7.2.1",
        why: "who sends PUBREL again after a lost PUBCOMP is told 0x92 by firehose and 0x00 by mosquitto; neither is an error",
        apply: unknown_release,
    },
    Rule {
        name: "connack limits",
        statement: "3.2.2.3",
        why: "each server announces its own limits, and leaves out those that it does not have",
        apply: connack_limits,
    },
    Rule {
        name: "expiry countdown",
        statement: "MQTT-3.3.2-6",
        why: "what has waited for a part of a second may have counted it or not",
        apply: expiry_countdown,
    },
    Rule {
        name: "Receive Maximum exceeded",
        statement: "MQTT-3.3.4-9, 4.9.0-2",
        why: "mosquitto 2.0 sends more at once, of QoS 2 and when several subscriptions match",
        apply: too_many,
    },
    Rule {
        name: "overlap copies",
        statement: "MQTT-3.3.4-2, 3.3.4-3",
        why: "mosquitto sends a copy for each subscription that matches, firehose one with the highest QoS and all identifiers",
        apply: overlap_copies,
    },
    Rule {
        name: "own copies lost with No Local",
        statement: "MQTT-3.3.4-2, 3.8.3-3",
        why: "mosquitto 2.0 keeps back what comes by other subscriptions, too, when one that matches has No Local",
        apply: lost_with_no_local,
    },
    Rule {
        name: "stuck behind Receive Maximum",
        statement: "MQTT-4.9.0-2, 4.4.0-1",
        why: "mosquitto 2.0 does not send a client with a Receive Maximum all that has waited or comes after what was too large, or does so late",
        apply: stuck,
    },
];

/// How often each rule was needed.
pub type Tally = [u64; RULES.len()];

/// Explains what can be explained; gives what is left, and how often each rule was needed.
pub fn explain(scene: &Scene<'_>, pair: &Pair) -> (Vec<String>, Tally) {
    let mut tally = Tally::default();
    let mut left = pair.differences();
    let mut pair = pair.clone();
    for (rule, count) in RULES.iter().zip(&mut tally) {
        if left.is_empty() {
            break;
        }
        *count = (rule.apply)(scene, &mut pair) as u64;
        if *count > 0 {
            left = pair.differences();
        }
    }
    (left, tally)
}

fn taken_over(_: &Scene<'_>, pair: &mut Pair) -> usize {
    let taken_over = Seen::Told(Reason::SessionTakenOver as u8);
    let told = |seen: &[Seen]| seen.iter().filter(|seen| **seen == taken_over).count();
    let more = told(&pair.firehose).saturating_sub(told(&pair.mosquitto));
    if more > 0 {
        pair.mosquitto.retain(|seen| *seen != taken_over);
        pair.firehose.retain(|seen| *seen != taken_over);
    }
    more
}

fn connack_limits(_: &Scene<'_>, pair: &mut Pair) -> usize {
    let announced = |seen: &[Seen]| -> Vec<Vec<String>> {
        let properties = seen.iter().filter_map(|seen| match seen {
            Seen::Connected { properties, .. } => Some(properties.clone()),
            _ => None,
        });
        properties.collect()
    };
    let limits = |property: &String| !property.starts_with("AssignedClientId");
    let (mosquitto, firehose) = (announced(&pair.mosquitto), announced(&pair.firehose));
    for seen in pair.mosquitto.iter_mut().chain(&mut pair.firehose) {
        if let Seen::Connected { properties, .. } = seen {
            properties.retain(|property| !limits(property));
        }
    }
    mosquitto.iter().zip(&firehose).filter(|(one, other)| one != other).count()
}

fn expiry_countdown(_: &Scene<'_>, pair: &mut Pair) -> usize {
    let (_, firehose) = pair.unmatched();
    let mut count = 0;
    for seen in &mut pair.mosquitto {
        let Seen::Delivered(delivery) = seen else { continue };
        let near = |other: &&Delivery| {
            let (Some(here), Some(there)) = (delivery.expiry_secs, other.expiry_secs) else { return false };
            here.abs_diff(there) == 1
                && other.is_copy_of(&Delivery { expiry_secs: Some(there), ..delivery.clone() })
        };
        if let Some(other) = firehose.iter().find(near) {
            delivery.expiry_secs = other.expiry_secs;
            count += 1;
        }
    }
    count
}

fn too_many(_: &Scene<'_>, pair: &mut Pair) -> usize {
    let before = pair.mosquitto.len();
    pair.mosquitto.retain(|seen| !matches!(seen, Seen::TooMany(_)));
    before - pair.mosquitto.len()
}

/// Each copy of mosquitto's must be contained in the one of firehose's.
fn lost_with_no_local(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    let (mosquitto, firehose) = pair.unmatched();
    let mut count = 0;
    for one in firehose.iter().filter(|one| scene.state.has_no_local(one)) {
        let is_part = |copy: &&Delivery| {
            let known = copy.identifiers.iter().all(|identifier| one.identifiers.contains(identifier));
            copy.is_copy_of(one) && copy.qos <= one.qos && copy.retain <= one.retain && known
        };
        let parts: Vec<&Delivery> = mosquitto.iter().filter(is_part).collect();
        let is_own = match one.origin() {
            Some(origin) => origin.client == scene.client,
            None => !parts.is_empty(),
        };
        if is_own {
            parts.into_iter().for_each(|part| pair.forget_at_mosquitto(part));
            pair.forget_at_firehose(one);
            count += 1;
        }
    }
    count
}

/// mosquitto may send later what firehose has sent, or never.
fn stuck(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    if !scene.limited {
        return 0;
    }
    let (mosquitto, firehose) = pair.unmatched();
    let sent: Vec<Delivery> = pair.firehose.iter().filter_map(Seen::message).cloned().collect();
    let was_sent = |delivery: &Delivery| {
        scene.history.iter().chain(&sent).any(|before| before.payload == delivery.payload)
    };
    firehose.iter().for_each(|delivery| pair.forget_at_firehose(delivery));
    let late: Vec<&Delivery> = mosquitto.iter().filter(|delivery| was_sent(delivery)).collect();
    late.iter().for_each(|delivery| pair.forget_at_mosquitto(delivery));
    firehose.len() + late.len()
}

fn overlap_copies(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    let (mut count, mut merged) = (0, Vec::<Delivery>::new());
    let of = |seen: &[Seen], one: &Delivery| -> Vec<Delivery> {
        let copies = seen.iter().filter_map(Seen::message).filter(|other| other.is_copy_of(one));
        copies.cloned().collect()
    };
    for one in pair.unmatched().0 {
        if merged.iter().any(|other| other.is_copy_of(&one)) {
            continue;
        }
        let (mosquitto, firehose) = (of(&pair.mosquitto, &one), of(&pair.firehose, &one));
        let mut matching = scene.state.matching(scene.client, &one).into_iter();
        let Some(each) = matching.find(|count| count * firehose.len() == mosquitto.len()) else { continue };
        // Several without payload may have been published meanwhile: the copies of each stand side by side.
        let mut wanted: Vec<Delivery> = mosquitto.chunks(each.max(1)).map(union).collect();
        let mut found = firehose.clone();
        wanted.sort_unstable();
        found.sort_unstable();
        if each > 1 && found == wanted {
            count += mosquitto.len() - firehose.len();
            merged.push(one);
        }
    }
    let is_merged =
        |seen: &Seen| seen.message().is_some_and(|one| merged.iter().any(|other| other.is_copy_of(one)));
    pair.mosquitto.retain(|seen| !is_merged(seen));
    pair.firehose.retain(|seen| !is_merged(seen));
    count
}

/// One message in the place of several copies: the highest QoS, an identifier for each subscription that has one, also if
/// it is the same; retained if one is.
fn union(copies: &[Delivery]) -> Delivery {
    let mut union = copies[0].clone();
    union.qos = copies.iter().map(|copy| copy.qos).max().unwrap_or_default();
    union.retain = copies.iter().any(|copy| copy.retain);
    union.identifiers = copies.iter().flat_map(|copy| &copy.identifiers).copied().collect();
    union.identifiers.sort_unstable();
    union
}

fn will_at_takeover(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    overlooked(scene, pair, Cause::TakenOver)
}

fn will_at_session_end(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    overlooked(scene, pair, Cause::SessionEnded)
}

/// Wills that were due for that cause and that mosquitto has overlooked.
fn overlooked(scene: &Scene<'_>, pair: &mut Pair, cause: Cause) -> usize {
    let due = |delivery: &Delivery| {
        let origin = delivery.origin();
        scene.overlooked.iter().any(|due| due.cause == cause && Some(due.origin) == origin)
    };
    let before = pair.firehose.len();
    pair.firehose.retain(|seen| !seen.message().is_some_and(due));
    before - pair.firehose.len()
}

fn will_to_itself(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    let is_own = |delivery: &Delivery| {
        let origin = delivery.origin().filter(|origin| origin.client == scene.client);
        scene.due.iter().any(|due| due.cause == Cause::TakenOver && Some(due.origin) == origin)
    };
    let (mosquitto, _) = pair.unmatched();
    for delivery in mosquitto.iter().filter(|delivery| is_own(delivery)) {
        pair.forget_at_mosquitto(delivery);
    }
    mosquitto.iter().filter(|delivery| is_own(delivery)).count()
}

/// What such a subscription touches is not compared: others may bring further copies of the same.
fn options_replaced(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    let (mosquitto, firehose) = pair.unmatched();
    let touched: Vec<Delivery> =
        mosquitto.into_iter().chain(firehose).filter(|delivery| scene.state.has_changed(delivery)).collect();
    let is_touched = |seen: &Seen| {
        seen.message().is_some_and(|delivery| touched.iter().any(|other| other.is_copy_of(delivery)))
    };
    pair.mosquitto.retain(|seen| !is_touched(seen));
    pair.firehose.retain(|seen| !is_touched(seen));
    touched.len()
}

fn own_retained(scene: &Scene<'_>, pair: &mut Pair) -> usize {
    let (mosquitto, _) = pair.unmatched();
    let mut count = 0;
    for delivery in mosquitto.iter().filter(|delivery| delivery.retain) {
        let is_own = delivery.origin().is_some_and(|origin| origin.client == scene.client);
        if is_own && scene.state.has_no_local(delivery) {
            pair.forget_at_mosquitto(delivery);
            count += 1;
        }
    }
    count
}

fn unknown_release(_: &Scene<'_>, pair: &mut Pair) -> usize {
    let unknown = Reason::PacketIdentifierNotFound as u8;
    let mut count = 0;
    for seen in &mut pair.firehose {
        if let Seen::Acknowledged { kind: PacketKind::PubComp, reason, .. } = seen
            && *reason == unknown
        {
            *reason = 0;
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use firehose_mqtt::{QoS, SubscribeOptions};

    use super::*;
    use crate::{compare::tests::delivered, session::Filter};

    /// What is left of a pair, and how often each rule was needed, for a client with these subscriptions.
    fn explained(filters: &[&'static str], mosquitto: &[Delivery], firehose: &[Delivery]) -> (usize, Tally) {
        let mut state = State::default();
        for filter in filters {
            let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
            state.filters.insert(filter, Filter { filter, options });
        }
        let seen = |all: &[Delivery]| all.iter().cloned().map(Seen::Delivered).collect();
        let pair = Pair { mosquitto: seen(mosquitto), firehose: seen(firehose) };
        let scene =
            Scene { client: 1, state: &state, limited: false, history: &[], overlooked: &[], due: &[] };
        let (left, tally) = explain(&scene, &pair);
        (left.len(), tally)
    }

    fn copy(qos: u8, identifiers: &[u32]) -> Delivery {
        Delivery { qos, identifiers: identifiers.to_vec(), ..delivered(1) }
    }

    #[test]
    fn one_copy_with_the_highest_qos_and_all_identifiers_stands_for_one_for_each_subscription() {
        let copies = [copy(0, &[7]), copy(2, &[7])];
        let (left, tally) = explained(&["a", "#"], &copies, &[copy(2, &[7, 7])]);
        assert_eq!((left, tally.iter().sum::<u64>()), (0, 1));
        for wrong in [copy(1, &[7, 7]), copy(2, &[7])] {
            assert_ne!(explained(&["a", "#"], &copies, &[wrong]).0, 0);
        }
    }

    #[test]
    fn a_copy_for_which_there_is_no_subscription_is_a_difference() {
        assert_ne!(explained(&["a"], &[copy(2, &[]), copy(2, &[])], &[copy(2, &[])]).0, 0);
        assert_ne!(explained(&["a", "#"], &[copy(2, &[]), copy(2, &[])], &[]).0, 0);
    }

    #[test]
    fn what_is_stuck_at_mosquitto_may_come_later_but_nothing_that_firehose_never_sent() {
        let state = State::default();
        let seen = |all: &[usize]| all.iter().map(|step| Seen::Delivered(delivered(*step))).collect();
        let left = |history: &[Delivery], mosquitto: &[usize], firehose: &[usize]| {
            let scene = Scene { client: 1, state: &state, limited: true, history, overlooked: &[], due: &[] };
            explain(&scene, &Pair { mosquitto: seen(mosquitto), firehose: seen(firehose) }).0.len()
        };
        assert_eq!(left(&[], &[1], &[1, 1, 2]), 0);
        assert_eq!(left(&[delivered(2)], &[2], &[]), 0);
        assert_ne!(left(&[], &[2], &[]), 0);
    }

    #[test]
    fn a_second_of_expiry_is_explained_and_two_are_not() {
        let expires = |secs| [Delivery { expiry_secs: Some(secs), ..delivered(1) }];
        assert_eq!(explained(&["a"], &expires(60), &expires(59)).0, 0);
        assert_ne!(explained(&["a"], &expires(60), &expires(58)).0, 0);
    }

    #[test]
    fn every_rule_has_a_name_of_its_own_a_statement_and_a_reason() {
        for (place, rule) in RULES.iter().enumerate() {
            assert!(!rule.statement.is_empty() && !rule.why.is_empty());
            assert!(RULES[..place].iter().all(|other| other.name != rule.name), "{}", rule.name);
        }
    }
}
