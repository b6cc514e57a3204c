//! QoS 1 and 2 messages that were sent to a client and not yet acknowledged.
//!
//! Packet ids are given one after the other, so the window is a queue and an id is a place in it. It keeps no
//! payload: the log has those. The window of a session that outlives its connection knows where they are.

use crate::state::{StoredInflight, StoredState};
use firehose_log::Offset;
use firehose_mqtt::QoS;
use std::collections::VecDeque;

/// How many times the window's size the queue may grow while its oldest message waits for its acknowledgement.
const STRAGGLER_FACTOR: usize = 4;
/// Stands for the lane of a shared subscription that the session has left.
const LEFT: u16 = u16::MAX;
/// How many packet ids there are.
const IDS: usize = u16::MAX as usize;

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

/// Which event a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its offset; 0: it is not in the log.
    pub offset: Offset,
    /// It was sent as a retained message.
    pub retain: bool,
    /// The lane of the shared subscription that brought it; 0: none did.
    pub shared: u16,
}

/// The window of one client.
#[derive(Debug)]
pub struct Inflight {
    entries: VecDeque<State>,
    /// Beside each entry, if the session may outlive its connection.
    places: Option<VecDeque<Place>>,
    /// Packet id of the front entry.
    front_id: u16,
    /// How often all packet ids have been given.
    rounds: u64,
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
    /// What waits under this packet id waits for another kind of acknowledgement.
    Mismatch,
}

impl Inflight {
    /// A window of `max` messages, at least 1 (the client's Receive Maximum, or `inflight_max`).
    pub fn new(max: u16) -> Inflight {
        Inflight {
            entries: VecDeque::new(),
            places: None,
            front_id: 1,
            rounds: 0,
            unacknowledged: 0,
            max: usize::from(max.max(1)),
        }
    }

    /// The window of a session that goes on, as it was stored: messages in the order in which they were sent, with
    /// holes where others were acknowledged, and the id that the next one gets. It knows where its messages are.
    pub fn resumed(max: u16, stored: &[StoredInflight], next_id: u16) -> Inflight {
        let mut window = Inflight { places: Some(VecDeque::new()), ..Inflight::new(max) };
        window.front_id = stored.first().map_or(next_id, |first| first.packet_id).max(1);
        for it in stored {
            let at = window.place_of(it.packet_id);
            // Ids that do not ascend cannot come from here.
            if it.packet_id == 0 || at < window.entries.len() {
                continue;
            }
            window.skip_to(at);
            let state = match it.state {
                StoredState::Sent1 => State::Sent1,
                StoredState::Sent2 => State::Sent2,
                StoredState::Released => State::Released,
            };
            window.push(state, Place { offset: it.offset, retain: it.retain, shared: it.shared });
        }
        let next = window.place_of(next_id);
        if next_id != 0 && next > window.entries.len() && !stored.is_empty() {
            window.skip_to(next);
        }
        window
    }

    /// How many messages may be sent now.
    pub fn room(&self) -> usize {
        let places = (self.max * STRAGGLER_FACTOR).min(IDS).saturating_sub(self.entries.len());
        self.max.saturating_sub(self.unacknowledged).min(places)
    }

    /// How many of `waiting` messages, which count as unacknowledged, may be sent again now.
    pub fn room_again(&self, waiting: usize) -> usize {
        self.max.saturating_sub(self.unacknowledged.saturating_sub(waiting))
    }

    /// The packet id of the message that is sent `ahead` messages from now (0: the next one).
    pub fn packet_id(&self, ahead: usize) -> u16 {
        ((usize::from(self.front_id) - 1 + self.entries.len() + ahead) % IDS) as u16 + 1
    }

    /// Which of all messages that it has had is the one that waits under this packet id: it ascends in the order in which
    /// they were sent. Packet ids are given again, numbers are not.
    pub fn number(&self, packet_id: u16) -> u64 {
        self.front_number() + self.place_of(packet_id) as u64
    }

    /// The number of the message that is sent under `packet_id(0)`.
    pub fn next_number(&self) -> u64 {
        self.front_number() + self.entries.len() as u64
    }

    /// A message was sent under `packet_id(0)`.
    pub fn sent(&mut self, qos: QoS, place: impl FnOnce() -> Place) {
        let state = if qos == QoS::ExactlyOnce { State::Sent2 } else { State::Sent1 };
        let place = if self.places.is_some() { place() } else { Place::default() };
        self.push(state, place);
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
            Some(State::Sent1) => Acknowledged::Mismatch,
            _ => Acknowledged::Unknown,
        }
    }

    /// PUBCOMP.
    pub fn pubcomp(&mut self, packet_id: u16) -> Acknowledged {
        self.finish(packet_id, State::Released)
    }

    /// The message cannot be sent again: QoS 1 is through, QoS 2 goes on as if it had been received.
    pub fn give_up(&mut self, packet_id: u16) -> Acknowledged {
        match self.puback(packet_id) {
            Acknowledged::Through => Acknowledged::Through,
            _ => self.pubrec(packet_id, false),
        }
    }

    /// From now on it knows where its messages are; of those that it has it does not.
    pub fn keep_places(&mut self) {
        let entries = self.entries.len();
        self.places.get_or_insert_with(|| std::iter::repeat_n(Place::default(), entries).collect());
    }

    /// Forgets which shared subscription brought messages; gives their offsets.
    pub fn forget_shared(&mut self, lane: u16) -> Vec<Offset> {
        let places = self.places.iter_mut().flatten().zip(&self.entries);
        let of_lane = places.filter(|(place, state)| place.shared == lane && **state != State::Done);
        of_lane
            .map(|(place, _)| {
                place.shared = LEFT;
                place.offset
            })
            .collect()
    }

    /// Whether nothing waits for an acknowledgement.
    pub fn is_empty(&self) -> bool {
        self.unacknowledged == 0
    }

    /// What waits under a packet id.
    pub fn get(&self, packet_id: u16) -> Option<StoredInflight> {
        self.stored_at(self.place_of(packet_id)).filter(|_| packet_id != 0)
    }

    /// Everything that waits, in the order in which it was sent.
    pub fn stored(&self) -> impl Iterator<Item = StoredInflight> {
        (0..self.entries.len()).filter_map(|at| self.stored_at(at))
    }

    fn stored_at(&self, at: usize) -> Option<StoredInflight> {
        let state = match self.entries.get(at)? {
            State::Sent1 => StoredState::Sent1,
            State::Sent2 => StoredState::Sent2,
            State::Released => StoredState::Released,
            State::Done => return None,
        };
        let place = self.places.as_ref().and_then(|places| places.get(at)).copied().unwrap_or_default();
        let packet_id = ((usize::from(self.front_id) - 1 + at) % IDS) as u16 + 1;
        Some(StoredInflight {
            packet_id,
            state,
            offset: place.offset,
            retain: place.retain,
            shared: place.shared,
        })
    }

    fn push(&mut self, state: State, place: Place) {
        self.entries.push_back(state);
        self.unacknowledged += usize::from(state != State::Done);
        if let Some(places) = &mut self.places {
            places.push_back(place);
        }
    }

    fn skip_to(&mut self, at: usize) {
        while self.entries.len() < at {
            self.push(State::Done, Place::default());
        }
    }

    fn finish(&mut self, packet_id: u16, expected: State) -> Acknowledged {
        match self.entry(packet_id) {
            Some(state) if *state == expected => *state = State::Done,
            None | Some(State::Done) => return Acknowledged::Unknown,
            Some(_) => return Acknowledged::Mismatch,
        }
        self.unacknowledged -= 1;
        while self.entries.front().is_some_and(|state| *state == State::Done) {
            self.entries.pop_front();
            if let Some(places) = &mut self.places {
                places.pop_front();
            }
            self.front_id = if self.front_id == u16::MAX {
                self.rounds += 1;
                1
            } else {
                self.front_id + 1
            };
        }
        Acknowledged::Through
    }

    fn entry(&mut self, packet_id: u16) -> Option<&mut State> {
        let at = self.place_of(packet_id);
        self.entries.get_mut(at).filter(|_| packet_id != 0)
    }

    fn front_number(&self) -> u64 {
        self.rounds * IDS as u64 + u64::from(self.front_id) - 1
    }

    fn place_of(&self, packet_id: u16) -> usize {
        (usize::from(packet_id) + IDS - usize::from(self.front_id)) % IDS
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
            let number = window.next_number();
            window.sent(QoS::AtLeastOnce, Place::default);
            assert_eq!((window.number(expected), window.next_number()), (number, number + 1));
            assert_eq!(window.puback(expected), Acknowledged::Through);
        }
        assert!(window.is_empty());
    }

    #[test]
    fn an_id_under_which_something_waits_is_not_given_again() {
        for waiting in [1, 40_000, u16::MAX] {
            let mut window = Inflight::new(u16::MAX);
            for _ in 1..waiting {
                window.sent(QoS::AtLeastOnce, Place::default);
            }
            (1..waiting).for_each(|id| assert_eq!(window.puback(id), Acknowledged::Through));
            assert_eq!(window.packet_id(0), waiting);
            window.sent(QoS::ExactlyOnce, Place::default);
            while window.room() > 0 {
                assert_ne!(window.packet_id(0), waiting);
                window.sent(QoS::AtLeastOnce, Place::default);
                if !window.packet_id(0).is_multiple_of(3) {
                    let sent = window.packet_id(usize::from(u16::MAX) - 1);
                    assert_eq!(window.puback(sent), Acknowledged::Through);
                }
            }
            assert_eq!(window.pubrec(waiting, false), Acknowledged::Release);
            assert_eq!(window.pubcomp(waiting), Acknowledged::Through);
            assert!(window.room() > 0);
        }
    }

    #[test]
    fn the_window_closes_and_opens() {
        let mut window = Inflight::new(2);
        window.sent(QoS::AtLeastOnce, Place::default);
        window.sent(QoS::ExactlyOnce, Place::default);
        assert_eq!(window.room(), 0);
        assert_eq!(window.puback(2), Acknowledged::Mismatch, "2 is a QoS 2 message");
        assert_eq!(window.pubcomp(2), Acknowledged::Mismatch, "its PUBREL was not sent");
        assert_eq!(window.pubrec(1, false), Acknowledged::Mismatch, "1 is a QoS 1 message");
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
        window.sent(QoS::AtLeastOnce, Place::default);
        for id in 2..=8 {
            assert_eq!(window.room(), 1);
            window.sent(QoS::AtLeastOnce, Place::default);
            assert_eq!(window.puback(id), Acknowledged::Through);
        }
        assert_eq!(window.room(), 0);
        assert_eq!(window.puback(1), Acknowledged::Through);
        assert_eq!(window.room(), 2);
    }

    #[test]
    fn a_failed_pubrec_ends_the_exchange() {
        let mut window = Inflight::new(2);
        window.sent(QoS::ExactlyOnce, Place::default);
        assert_eq!(window.pubrec(1, true), Acknowledged::Through);
        assert!(window.is_empty());
        assert_eq!(window.pubrec(0, false), Acknowledged::Unknown);
    }

    fn stored(packet_id: u16, state: StoredState, offset: Offset) -> StoredInflight {
        StoredInflight { packet_id, state, offset, retain: false, shared: 0 }
    }

    #[test]
    fn a_window_with_holes_comes_back_as_it_was_stored() {
        let list = [
            stored(u16::MAX - 1, StoredState::Sent1, 7),
            stored(2, StoredState::Released, 9),
            stored(3, StoredState::Sent2, 0),
        ];
        let mut window = Inflight::resumed(4, &list, 6);
        assert_eq!(window.stored().collect::<Vec<_>>(), list);
        assert_eq!(window.packet_id(0), 6);
        assert_eq!(window.room(), 1);
        window.sent(QoS::ExactlyOnce, || Place { offset: 11, retain: true, shared: 0 });
        assert_eq!(window.get(6).map(|it| (it.offset, it.retain)), Some((11, true)));
        assert_eq!(window.puback(u16::MAX), Acknowledged::Unknown, "it was acknowledged before");
        assert_eq!(window.puback(u16::MAX - 1), Acknowledged::Through);
        assert_eq!(window.pubcomp(2), Acknowledged::Through);
        assert_eq!(window.give_up(3), Acknowledged::Release);
        assert_eq!(window.pubcomp(3), Acknowledged::Through);
        assert_eq!(window.get(6).map(|it| it.state), Some(StoredState::Sent2));
        assert_eq!(window.packet_id(0), 7);
    }

    #[test]
    fn a_window_that_became_smaller_sends_again_step_by_step() {
        let list: Vec<_> = (1..=10).map(|id| stored(id, StoredState::Sent1, id.into())).collect();
        let mut window = Inflight::resumed(2, &list, 11);
        assert_eq!((window.room(), window.room_again(10)), (0, 2));
        assert_eq!(window.room_again(8), 0, "two are on their way");
        assert_eq!(window.puback(1), Acknowledged::Through);
        assert_eq!(window.room_again(8), 1);
        for id in 2..=10 {
            assert_eq!(window.puback(id), Acknowledged::Through);
        }
        assert_eq!((window.room(), window.packet_id(0)), (2, 11));
    }

    #[test]
    fn an_empty_window_goes_on_with_the_next_id_and_nonsense_is_left_out() {
        assert_eq!(Inflight::resumed(2, &[], 500).packet_id(0), 500);
        assert_eq!(Inflight::resumed(2, &[], 0).packet_id(0), 1);
        let list = [
            stored(5, StoredState::Sent1, 1),
            stored(5, StoredState::Sent2, 2),
            stored(0, StoredState::Sent2, 2),
        ];
        assert_eq!(Inflight::resumed(2, &list, 0).stored().count(), 1);
    }
}
