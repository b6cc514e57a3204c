//! Whether a client saw the same at both brokers.

use std::collections::BTreeMap;

use crate::seen::{Delivery, Origin, Seen, WILL};

/// What one client saw at both brokers in the same stretch of a session.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// At mosquitto.
    pub mosquitto: Vec<Seen>,
    /// At firehose.
    pub firehose: Vec<Seen>,
}

impl Pair {
    /// How they differ, a line for each difference. Messages may come in any order that the standard allows; the rest has
    /// one order. What no broker may do counts as a difference also where both do it.
    pub fn differences(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, seen) in self.sides() {
            let wrong = seen.iter().filter(|seen| matches!(seen, Seen::Wrong(_) | Seen::TooMany(_)));
            lines.extend(wrong.map(|wrong| format!("{name}: {wrong}")));
            lines.extend(disorder(seen).into_iter().map(|what| format!("{name}: {what}")));
        }
        let others = |seen: &[Seen]| -> Vec<Seen> {
            seen.iter().filter(|seen| seen.message().is_none()).cloned().collect()
        };
        let (mosquitto, firehose) = (others(&self.mosquitto), others(&self.firehose));
        if mosquitto != firehose {
            let list = |seen: &[Seen]| seen.iter().map(Seen::to_string).collect::<Vec<_>>().join("; ");
            lines.push(format!("mosquitto: {}", list(&mosquitto)));
            lines.push(format!("firehose:  {}", list(&firehose)));
        }
        let (mosquitto, firehose) = self.unmatched();
        lines.extend(mosquitto.into_iter().map(|delivery| format!("only mosquitto: {delivery}")));
        lines.extend(firehose.into_iter().map(|delivery| format!("only firehose:  {delivery}")));
        lines
    }

    /// The messages that came at one broker only: mosquitto's, firehose's.
    pub fn unmatched(&self) -> (Vec<Delivery>, Vec<Delivery>) {
        let messages =
            |seen: &[Seen]| -> Vec<Delivery> { seen.iter().filter_map(Seen::message).cloned().collect() };
        let (mut mosquitto, mut firehose) = (messages(&self.mosquitto), messages(&self.firehose));
        mosquitto.retain(|delivery| match firehose.iter().position(|other| other == delivery) {
            Some(at) => {
                firehose.remove(at);
                false
            }
            None => true,
        });
        (mosquitto, firehose)
    }

    /// Takes one message out of what mosquitto sent.
    pub fn forget_at_mosquitto(&mut self, delivery: &Delivery) {
        forget(&mut self.mosquitto, delivery);
    }

    /// Takes one message out of what firehose sent.
    pub fn forget_at_firehose(&mut self, delivery: &Delivery) {
        forget(&mut self.firehose, delivery);
    }

    fn sides(&self) -> [(&'static str, &[Seen]); 2] {
        [("mosquitto", &self.mosquitto), ("firehose", &self.firehose)]
    }
}

fn forget(seen: &mut Vec<Seen>, delivery: &Delivery) {
    let at = seen.iter().position(|seen| seen.message() == Some(delivery));
    at.into_iter().for_each(|at| drop(seen.remove(at)));
}

/// What one client published to one topic at one QoS comes in the order in which they were published [MQTT-4.6.0-6]. Further
/// copies may come later.
fn disorder(seen: &[Seen]) -> Vec<String> {
    let mut last: BTreeMap<(usize, &str, u8), Origin> = BTreeMap::new();
    let mut known = Vec::new();
    let mut lines = Vec::new();
    // What was retained is not in this order, and a will has its place when it is due.
    for delivery in seen.iter().filter_map(Seen::message).filter(|delivery| !delivery.retain) {
        let Some(origin) = delivery.origin().filter(|it| it.place != WILL && !known.contains(it)) else {
            continue;
        };
        known.push(origin);
        let before = last.insert((origin.client, &delivery.topic, origin.qos), origin);
        if before.is_some_and(|before| before > origin) {
            lines.push(format!("too late, by the order of [MQTT-4.6.0-6]: {delivery}"));
        }
    }
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::seen::payload;

    /// A message to topic `a` at QoS 1.
    pub(crate) fn delivered(step: usize) -> Delivery {
        Delivery {
            topic: "a".into(),
            payload: payload(Origin { client: 0, step, place: 0, qos: 1 }, 1),
            qos: 1,
            retain: false,
            identifiers: Vec::new(),
            expiry_secs: None,
            properties: Vec::new(),
        }
    }

    fn seen(steps: &[usize]) -> Vec<Seen> {
        steps.iter().map(|step| Seen::Delivered(delivered(*step))).collect()
    }

    #[test]
    fn equal_and_in_order_is_no_difference() {
        let pair = Pair { mosquitto: seen(&[1, 2]), firehose: seen(&[1, 2]) };
        assert_eq!(pair.differences(), [""; 0]);
    }

    #[test]
    fn a_lost_a_doubled_and_a_late_message_are_differences() {
        let pair = |firehose: &[usize]| Pair { mosquitto: seen(&[1, 2]), firehose: seen(firehose) };
        assert!(pair(&[1]).differences()[0].starts_with("only mosquitto"));
        assert!(pair(&[1, 2, 2]).differences()[0].starts_with("only firehose"));
        assert!(pair(&[2, 1]).differences()[0].contains("4.6.0-6"));
    }

    #[test]
    fn what_nobody_may_do_is_a_difference_even_if_both_do_it() {
        let wrong = vec![Seen::Wrong("x".into())];
        assert_eq!(Pair { mosquitto: wrong.clone(), firehose: wrong }.differences().len(), 2);
    }

    #[test]
    fn the_rest_has_one_order() {
        let pair = Pair {
            mosquitto: vec![Seen::Told(0x8e), Seen::Closed],
            firehose: vec![Seen::Closed, Seen::Told(0x8e)],
        };
        assert_eq!(pair.differences().len(), 2);
    }
}
