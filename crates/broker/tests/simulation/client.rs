//! A client, exact in what it sends: it keeps what MQTT says it keeps, over every crash of the bus.

use crate::group::Fate;
use crate::ledger::{Key, Ledger};
use crate::packets::{self, Got};
use crate::plan::ClientPlan;
use crate::publisher::Publisher;
use crate::reader::Reader;
use crate::retained::Scan;
use crate::will::Wills;
use firehose_broker::shard::Now;
use firehose_log::{Offset, Since};
use firehose_mqtt::{AckKind, PacketKind, Reason, RetainHandling, Version};
use std::collections::{BTreeMap, VecDeque};

/// How long a session outlives its connections, µs.
pub const SESSION_US: i64 = 3_600_000_000;

/// A SUBSCRIBE or UNSUBSCRIBE that is not acknowledged.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Of the subscription, and where it begins at the earliest (`None`: behind the head, as SUBACK comes).
    Subscribe {
        written: String,
        begins: Option<Offset>,
    },
    Unsubscribe {
        written: String,
    },
}

/// How far a client's connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    None,
    /// CONNECT is sent.
    Connecting(usize),
    Up(usize),
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub number: usize,
    pub plan: ClientPlan,
    pub link: Link,
    pub publisher: Publisher,
    pub reader: Reader,
    /// Shared subscriptions of its session, as they are written, with the identifiers they have had.
    pub(crate) shared: BTreeMap<String, Vec<u32>>,
    /// What the bus lets it have in flight.
    pub window: usize,
    /// Bytes of a packet that is not whole.
    input: Vec<u8>,
    /// Bytes of whole packets that came by this connection.
    taken: u64,
    asked: BTreeMap<u16, Asked>,
    next_asked: u16,
    next_subscription: u32,
    /// Answers to the bus that wait.
    acks: VecDeque<(AckKind, u16)>,
    /// Packet ids of PUBLISHes that it has not answered for good: with the message, for QoS 2.
    received: BTreeMap<u16, Received>,
    pub wills: Wills,
    /// Topics of its own that it has published a retained message to, and has not cleared: it does so once, so that
    /// nobody mistakes one clearing for another.
    pub single: Vec<String>,
    /// The bus has a session of it, which lives until this time by the wall clock, µs.
    pub session_until_us: Option<i64>,
    /// Clean Start of the present connection.
    pub starts_clean: bool,
    /// Session present of CONNACKs that nobody has looked at yet.
    pub presents: Vec<bool>,
    /// Why it was not let in, of CONNACKs that nobody has looked at yet.
    pub refusals: Vec<Reason>,
    /// The last cursor it got, and the event that it stands after.
    pub cursor: Option<(String, Offset)>,
    /// What it got, if anyone wants to know.
    pub told: Option<Vec<String>>,
    /// Told to leave by the bus: nothing may follow [MQTT-3.14.4-1].
    is_dismissed: bool,
    /// The time, ms.
    pub now_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Received {
    qos: u8,
    /// What names the message.
    key: Option<Key>,
    /// It came by this connection, so that it may not come again.
    now: bool,
    /// PUBREC is sent.
    recorded: bool,
}

impl Client {
    pub fn new(number: usize, plan: ClientPlan) -> Client {
        Client {
            number,
            link: Link::None,
            publisher: Publisher::new(number as u32, plan.version),
            reader: Reader::new(number as u32, plan.user.is_none()),
            shared: BTreeMap::new(),
            window: plan.window,
            input: Vec::new(),
            taken: 0,
            asked: BTreeMap::new(),
            next_asked: 0,
            next_subscription: 0,
            acks: VecDeque::new(),
            received: BTreeMap::new(),
            wills: Wills::default(),
            single: Vec::new(),
            session_until_us: None,
            starts_clean: false,
            presents: Vec::new(),
            refusals: Vec::new(),
            cursor: None,
            told: None,
            is_dismissed: false,
            now_ms: 0,
            plan,
        }
    }

    pub fn connection(&self) -> Option<usize> {
        match self.link {
            Link::None => None,
            Link::Connecting(number) | Link::Up(number) => Some(number),
        }
    }

    /// Whether nothing that it sent waits for an answer of the bus.
    pub fn check_answered(&self) {
        assert!(self.asked.is_empty(), "client {} waits for {:?}", self.number, self.asked);
        assert!(
            self.publisher.in_flight() == 0,
            "client {} waits for answers to {}",
            self.number,
            self.publisher.waiting()
        );
    }

    /// The connection is over; the log stands at `head`. `properly`: the bus has read the DISCONNECT.
    pub fn disconnected(&mut self, ledger: &mut Ledger, properly: bool, now: Now) {
        let head = ledger.head();
        self.wills.disconnected(properly);
        let had_one = self.session_until_us.is_some_and(|until_us| until_us > now.wall_us);
        // 3.x is told of what damage took by a new session.
        let is_damaged = self.plan.version != Version::V5 && !ledger.damaged.is_empty();
        let may_be_new = self.plan.may_be_overtaken || is_damaged || self.starts_clean || !had_one;
        let fate = match self.link {
            Link::Up(_) if !had_one => Fate::Ends,
            Link::Up(_) if self.plan.may_be_overtaken => Fate::Unsure,
            Link::Connecting(_) if may_be_new => Fate::Unsure,
            _ => Fate::Stays,
        };
        ledger.groups.disconnected(self.number, fate, now.ms);
        if matches!(self.link, Link::Connecting(_)) && may_be_new {
            self.doubt(ledger);
        }
        if let Some(until_us) = &mut self.session_until_us {
            *until_us = now.wall_us + SESSION_US;
        }
        self.link = Link::None;
        self.input.clear();
        self.taken = 0;
        self.acks.clear();
        self.asked.clear();
        self.is_dismissed = false;
        self.reader.disconnected(head);
        for subscription in &mut self.reader.subscriptions {
            // What was under way may have happened or not: it is asked for again.
            if subscription.ended.is_none() && !subscription.holds {
                subscription.from.1 = Offset::MAX;
            }
        }
        self.received.retain(|_, it| {
            it.now = false;
            it.qos == 2
        });
    }

    /// The bus may know nothing of the session any more.
    pub fn doubt(&mut self, ledger: &mut Ledger) {
        ledger.groups.unsure(self.number, self.now_ms);
        self.reader.doubt();
        self.publisher.doubt(ledger);
        self.received.clear();
        self.wills.forget();
        self.session_until_us = None;
    }

    /// What came from the bus; gives what it answers at once.
    pub fn receive(&mut self, bytes: &[u8], promptly: bool, ledger: &mut Ledger) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let (before, bytes) = (self.taken, input.len());
        let packets = packets::take_packets(&mut input, self.plan.version);
        self.taken += (bytes - input.len()) as u64;
        self.input = input;
        let mut answers = Vec::new();
        for got in packets {
            self.check_taken_back(&got, before + got.at as u64, ledger);
            if let Some(told) = &mut self.told {
                told.push(format!("client {} got {}", self.number, got.brief()));
            }
            answers.extend(self.packet(&got, ledger));
        }
        if promptly {
            answers.extend(self.acknowledge(usize::MAX));
        }
        answers
    }

    /// Sends so many of the acknowledgements that wait.
    pub fn acknowledge(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = count.min(self.acks.len());
        for (kind, id) in self.acks.drain(..count) {
            match (kind, self.received.get_mut(&id)) {
                (AckKind::PubRec, Some(received)) => received.recorded = true,
                (AckKind::PubAck | AckKind::PubComp, Some(_)) => drop(self.received.remove(&id)),
                _ => {}
            }
            bytes.extend(packets::ack(kind, id, self.plan.version));
        }
        bytes
    }

    fn packet(&mut self, got: &Got, ledger: &mut Ledger) -> Vec<u8> {
        assert!(!self.is_dismissed, "after DISCONNECT came {got:?}");
        match got.kind {
            PacketKind::ConnAck => return self.connected(got, ledger),
            PacketKind::Publish => self.published(got, ledger),
            PacketKind::PubAck => return self.publisher.answered(got, AckKind::PubAck, ledger),
            PacketKind::PubRec => return self.publisher.answered(got, AckKind::PubRec, ledger),
            PacketKind::PubComp => return self.publisher.answered(got, AckKind::PubComp, ledger),
            PacketKind::PubRel => {
                let known = self.received.get(&got.id).is_some_and(|it| it.recorded || !it.now);
                assert!(known || !self.received.contains_key(&got.id), "PUBREL before PUBREC: {got:?}");
                self.acks.push_back((AckKind::PubComp, got.id));
            }
            PacketKind::SubAck => self.subscribed(got, ledger),
            PacketKind::UnsubAck => self.unsubscribed(got, ledger),
            PacketKind::Disconnect => self.told_to_leave(got),
            _ => {}
        }
        Vec::new()
    }

    fn connected(&mut self, got: &Got, ledger: &mut Ledger) -> Vec<u8> {
        let Link::Connecting(connection) = self.link else { panic!("a CONNACK out of place: {got:?}") };
        self.wills.connected(got.reason == Reason::Success);
        if got.reason != Reason::Success {
            self.refusals.push(got.reason);
            return Vec::new();
        }
        self.link = Link::Up(connection);
        self.window = self.plan.window.min(usize::from(got.receive_max));
        let may = self.plan.persists && !self.starts_clean;
        assert!(!got.present || may, "a session that nobody asked for: {got:?}");
        self.presents.push(got.present);
        // A clean session of 3.x ends with its connection.
        let lives_on = self.plan.persists && (self.plan.version == Version::V5 || !self.starts_clean);
        self.session_until_us = lives_on.then_some(i64::MAX);
        if !got.present {
            ledger.groups.gone(self.number, self.now_ms);
            self.shared.clear();
        }
        ledger.groups.connected(self.number, connection, lives_on && !self.plan.may_be_overtaken);
        if got.present {
            self.reader.resumed(ledger);
            return self.publisher.send_again(ledger);
        }
        self.reader.forget();
        self.received.clear();
        self.publisher.start_anew(ledger)
    }

    /// What was taken back comes no more, but for what was out before.
    fn check_taken_back(&self, got: &Got, begins: u64, ledger: &Ledger) {
        let key = Key::parse(got.user("name").map_or(&got.payload, str::as_bytes));
        let Some((offset, connection)) = key.and_then(|key| ledger.place_of(&key)).zip(self.connection())
        else {
            return;
        };
        let may = ledger.taken_back.may_come(offset, connection, begins);
        assert!(may, "{offset} was taken back, and comes to client {}: {got:?}", self.number);
    }

    fn published(&mut self, got: &Got, ledger: &mut Ledger) {
        if let Some(cursor) = got.user("firehose-cursor")
            && let Ok(Since::After(place)) = Since::parse(cursor)
        {
            ledger.got_cursor(&place);
            self.cursor = Some((cursor.into(), place.offset));
        }
        let key = Key::parse(got.user("name").map_or(&got.payload, str::as_bytes));
        if got.qos > 0 {
            let before = self.received.get_mut(&got.id);
            if let Some(before) = before {
                assert!(!before.now, "packet id {} is in use: {got:?}, {before:?}", got.id);
                assert!(got.dup, "sent again without DUP: {got:?}");
                assert_eq!((before.qos, before.key), (got.qos, key), "another message: {got:?}");
                before.now = true;
                self.acks.push_back((AckKind::PubRec, got.id));
                return;
            }
            let now = self.received.values().filter(|it| it.now || it.recorded).count();
            let receive_max = if self.plan.version == Version::V5 { self.plan.receive_max } else { u16::MAX };
            assert!(now < usize::from(receive_max), "more than Receive Maximum: {got:?} {:?}", self.received);
            self.received.insert(got.id, Received { qos: got.qos, key, now: true, recorded: false });
            let kind = if got.qos == 2 { AckKind::PubRec } else { AckKind::PubAck };
            self.acks.push_back((kind, got.id));
        }
        if !self.got_shared(got, ledger) {
            self.reader.got(got, ledger);
        }
    }

    /// SUBSCRIBE of one filter. `begins`: where a replay begins, if it is one.
    pub fn subscribe(
        &mut self,
        written: &str,
        options: firehose_mqtt::SubscribeOptions,
        begins: Option<Offset>,
        ledger: &Ledger,
    ) -> Vec<u8> {
        let id = if self.plan.has_ids { self.next_subscription() } else { 0 };
        let qos = options.qos as u8;
        let known = self.reader.subscriptions.iter_mut();
        match known.filter(|it| it.ended.is_none()).find(|it| it.written == written) {
            Some(known) => {
                let is_new = known.from.1 == Offset::MAX;
                let before = known.scan.clone();
                known.scan = match options.retain_handling {
                    _ if known.replays() => None,
                    RetainHandling::Send => Some(Scan::asked(ledger.head())),
                    RetainHandling::SendIfNew if is_new => Some(Scan::unsure(ledger.head())),
                    _ => None,
                };
                known.older_scans.extend(before);
                known.older_scans.iter_mut().for_each(Scan::replaced);
                known.times += 1;
                known.qos = (known.qos.0.min(qos), known.qos.1.max(qos));
                known.ids.extend((id != 0).then_some(id));
            }
            None => {
                let from = begins.unwrap_or(ledger.head() + 1);
                let mut subscription = crate::reader::Subscription::new(written, id, qos, from);
                subscription.no_local = options.no_local;
                subscription.times = 1;
                let sends = options.retain_handling != RetainHandling::DoNotSend && begins.is_none();
                subscription.scan = sends.then(|| Scan::asked(ledger.head()));
                self.reader.subscriptions.push(subscription);
            }
        }
        let packet_id = self.ask(Asked::Subscribe { written: written.into(), begins });
        let wish = packets::SubscribeWish { packet_id, filter: written, options, id, since: None };
        packets::subscribe(self.plan.version, &wish)
    }

    pub fn unsubscribe(&mut self, written: &str) -> Vec<u8> {
        for it in self.reader.subscriptions.iter_mut().filter(|it| it.written == written) {
            it.holds = false;
            it.scan.iter_mut().for_each(Scan::replaced);
        }
        let packet_id = self.ask(Asked::Unsubscribe { written: written.into() });
        packets::unsubscribe(self.plan.version, packet_id, written)
    }

    /// A topic of its own, for one retained message and its clearing.
    pub fn single_topic(&mut self) -> String {
        let topic = format!("kept/single/{}/{}", self.number, self.publisher.number());
        self.single.push(topic.clone());
        topic
    }

    /// Whether a filter has a SUBSCRIBE or UNSUBSCRIBE under way.
    pub fn is_asking(&self, written: &str) -> bool {
        self.asked.values().any(|asked| match asked {
            Asked::Subscribe { written: known, .. } | Asked::Unsubscribe { written: known } => {
                known == written
            }
        })
    }

    pub(crate) fn ask(&mut self, asked: Asked) -> u16 {
        // Above those of the publisher.
        self.next_asked = self.next_asked % 60_000 + 1;
        let packet_id = 300 + self.next_asked;
        self.asked.insert(packet_id, asked);
        packet_id
    }

    pub(crate) fn next_subscription(&mut self) -> u32 {
        self.next_subscription += 1;
        self.next_subscription
    }

    fn subscribed(&mut self, got: &Got, ledger: &mut Ledger) {
        let Some(Asked::Subscribe { written, begins }) = self.asked.remove(&got.id) else {
            panic!("a SUBACK of nothing: {got:?}");
        };
        let cursor = got.user("firehose-cursor").map(Since::parse);
        let exact = match cursor {
            Some(Ok(Since::After(cursor))) => {
                ledger.got_cursor(&cursor);
                Some(cursor.offset + 1)
            }
            _ => None,
        };
        if let (Some(text), Some(next)) = (got.user("firehose-cursor"), exact) {
            self.cursor = Some((text.into(), next - 1));
        }
        if written.starts_with("$share/") {
            return self.granted_share(&written, got, ledger);
        }
        let known = self.reader.subscriptions.iter_mut();
        let Some(it) = known.filter(|it| it.ended.is_none()).find(|it| it.written == written) else { return };
        if got.reason.is_error() {
            let may = matches!(got.reason, Reason::QuotaExceeded | Reason::UnspecifiedError);
            assert!(may || it.filter.as_str().starts_with("secret"), "{written:?} refused: {got:?}");
            if !it.holds {
                (it.holds, it.ended) = (false, Some(0));
            }
            return;
        }
        let behind_head = exact.unwrap_or(ledger.head() + 1);
        if let Some(scan) = &mut it.scan {
            scan.begun(behind_head - 1, exact.is_some());
        }
        it.granted(match begins {
            Some(begins) => begins.max(ledger.oldest),
            None => behind_head,
        });
    }

    fn unsubscribed(&mut self, got: &Got, ledger: &mut Ledger) {
        let Some(Asked::Unsubscribe { written }) = self.asked.remove(&got.id) else {
            panic!("an UNSUBACK of nothing: {got:?}");
        };
        if written.starts_with("$share/") {
            let head = ledger.head();
            return ledger.groups.left(&(self.plan.user, written), self.number, head);
        }
        let all = self.reader.subscriptions.iter_mut();
        for it in all.filter(|it| it.written == written && it.ended.is_none()) {
            it.ended = Some(ledger.head());
        }
    }

    fn told_to_leave(&mut self, got: &Got) {
        self.is_dismissed = true;
        let allowed = [
            Reason::SessionTakenOver,
            Reason::KeepAliveTimeout,
            Reason::ServerShuttingDown,
            Reason::UnspecifiedError,
            Reason::QuotaExceeded,
        ];
        assert!(
            allowed.contains(&got.reason),
            "client {} is told {got:?}, in flight {}",
            self.number,
            self.publisher.waiting()
        );
    }
}
