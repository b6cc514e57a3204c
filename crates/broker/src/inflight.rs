//! QoS 1 and 2 messages that were sent to a client and not yet acknowledged.
//!
//! Packet ids are given one after the other, so the window is a queue and an id is a place in it. It keeps no
//! payload: the log has those.

use firehose_mqtt::QoS;
use std::collections::VecDeque;

/// How many times the window's size the queue may grow while its oldest message waits for its acknowledgement.
const STRAGGLER_FACTOR: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// PUBLISH at QoS 1 sent: waits for PUBACK.
    Sent1,
    /// PUBLISH at QoS 2 sent: waits for PUBREC.
    Sent2,
    /// PUBREL sent: waits for PUBCOMP.
    Released,
    /// Acknowledged, behind one that is not.
    Done,
}

/// The window of one client.
#[derive(Debug)]
pub struct Inflight {
    entries: VecDeque<State>,
    /// Packet id of the front entry.
    front_id: u16,
    unacknowledged: usize,
    max: usize,
}

/// What to do about an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The message is through; the window has more room.
    Through,
    /// Answer with PUBREL.
    Release,
    /// Nothing waits under this packet id.
    Unknown,
}

impl Inflight {
    /// A window of `max` messages, at least 1 (the client's Receive Maximum, or `inflight_max`).
    pub fn new(max: u16) -> Inflight {
        Inflight { entries: VecDeque::new(), front_id: 1, unacknowledged: 0, max: usize::from(max.max(1)) }
    }

    /// How many messages may be sent now.
    pub fn room(&self) -> usize {
        let places = (self.max * STRAGGLER_FACTOR).min(usize::from(u16::MAX)) - self.entries.len();
        (self.max - self.unacknowledged).min(places)
    }

    /// The packet id of the message that is sent `ahead` messages from now (0: the next one).
    pub fn packet_id(&self, ahead: usize) -> u16 {
        ((usize::from(self.front_id) - 1 + self.entries.len() + ahead) % usize::from(u16::MAX)) as u16 + 1
    }

    /// A message was sent under `packet_id(0)`.
    pub fn sent(&mut self, qos: QoS) {
        let state = if qos == QoS::ExactlyOnce { State::Sent2 } else { State::Sent1 };
        self.entries.push_back(state);
        self.unacknowledged += 1;
    }

    /// PUBACK.
    pub fn puback(&mut self, packet_id: u16) -> Acknowledged {
        self.finish(packet_id, State::Sent1)
    }

    /// PUBREC; `failed`: with a reason of 0x80 or more, which ends the exchange [MQTT-4.13.2-1].
    pub fn pubrec(&mut self, packet_id: u16, failed: bool) -> Acknowledged {
        if failed {
            return self.finish(packet_id, State::Sent2);
        }
        match self.entry(packet_id) {
            Some(state) if matches!(state, State::Sent2 | State::Released) => {
                *state = State::Released;
                Acknowledged::Release
            }
            _ => Acknowledged::Unknown,
        }
    }

    /// PUBCOMP.
    pub fn pubcomp(&mut self, packet_id: u16) -> Acknowledged {
        self.finish(packet_id, State::Released)
    }

    /// Whether nothing waits for an acknowledgement.
    pub fn is_empty(&self) -> bool {
        self.unacknowledged == 0
    }

    fn finish(&mut self, packet_id: u16, expected: State) -> Acknowledged {
        match self.entry(packet_id) {
            Some(state) if *state == expected => *state = State::Done,
            _ => return Acknowledged::Unknown,
        }
        self.unacknowledged -= 1;
        while self.entries.front().is_some_and(|state| *state == State::Done) {
            self.entries.pop_front();
            self.front_id = if self.front_id == u16::MAX { 1 } else { self.front_id + 1 };
        }
        Acknowledged::Through
    }

    fn entry(&mut self, packet_id: u16) -> Option<&mut State> {
        let ids = usize::from(u16::MAX);
        let place = (usize::from(packet_id) + ids - usize::from(self.front_id)) % ids;
        self.entries.get_mut(place).filter(|_| packet_id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_go_round_without_zero() {
        let mut window = Inflight::new(10);
        for expected in (1..=u16::MAX).chain(1..=3) {
            assert_eq!(window.packet_id(0), expected);
            window.sent(QoS::AtLeastOnce);
            assert_eq!(window.puback(expected), Acknowledged::Through);
        }
        assert!(window.is_empty());
    }

    #[test]
    fn the_window_closes_and_opens() {
        let mut window = Inflight::new(2);
        window.sent(QoS::AtLeastOnce);
        window.sent(QoS::ExactlyOnce);
        assert_eq!(window.room(), 0);
        assert_eq!(window.puback(2), Acknowledged::Unknown, "2 is a QoS 2 message");
        assert_eq!(window.pubrec(2, false), Acknowledged::Release);
        assert_eq!(
            window.pubrec(2, false),
            Acknowledged::Release,
            "a PUBREC that comes twice is answered twice"
        );
        assert_eq!(window.room(), 0, "counts until PUBCOMP");
        assert_eq!(window.pubcomp(2), Acknowledged::Through);
        assert_eq!(window.pubcomp(2), Acknowledged::Unknown);
        assert_eq!(window.room(), 1);
        assert_eq!(window.packet_id(0), 3, "1 still waits, so 1 and 2 are not given again");
    }

    #[test]
    fn a_straggler_closes_the_window_in_the_end() {
        let mut window = Inflight::new(2);
        window.sent(QoS::AtLeastOnce);
        for id in 2..=8 {
            assert_eq!(window.room(), 1);
            window.sent(QoS::AtLeastOnce);
            assert_eq!(window.puback(id), Acknowledged::Through);
        }
        assert_eq!(window.room(), 0);
        assert_eq!(window.puback(1), Acknowledged::Through);
        assert_eq!(window.room(), 2);
    }

    #[test]
    fn a_failed_pubrec_ends_the_exchange() {
        let mut window = Inflight::new(2);
        window.sent(QoS::ExactlyOnce);
        assert_eq!(window.pubrec(1, true), Acknowledged::Through);
        assert!(window.is_empty());
        assert_eq!(window.pubrec(0, false), Acknowledged::Unknown);
    }
}
