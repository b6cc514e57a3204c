//! What a client may expect of its subscriptions, held against what comes: every later matching event, each once, in
//! order, or a range that is said to be gone.

use crate::ledger::{Entry, Key, Ledger};
use crate::packets::Got;
use crate::plan::{UNLOGGED, may_use};
use crate::retained::{Scan, Wanted};
use firehose_log::{Offset, Since};
use firehose_topic::{TopicFilter, TopicName};
use std::collections::{BTreeMap, BTreeSet};

/// One subscription, as the client knows it.
#[derive(Debug)]
pub struct Subscription {
    pub filter: TopicFilter,
    /// As it was sent: with `$replay/<from>/`.
    pub written: String,
    /// Identifiers it has had.
    pub ids: Vec<u32>,
    /// The lowest and the highest QoS it has been granted.
    pub qos: (u8, u8),
    pub no_local: bool,
    /// Retained messages that come with it: of the last SUBSCRIBE.
    pub scan: Option<Scan>,
    /// Those of SUBSCRIBEs before it.
    pub older_scans: Vec<Scan>,
    /// How many times it was asked for.
    pub times: usize,
    /// Acknowledged, and no UNSUBSCRIBE under way: what matches has to come.
    pub holds: bool,
    /// It ended; what is not newer than this may still come.
    pub ended: Option<Offset>,
    /// What matches may come from the first on, and has to come from the second on.
    pub from: (Offset, Offset),
    /// Everything below that has to come has come.
    floor: Offset,
    /// The newest that came by this connection.
    newest: Offset,
    seen: BTreeSet<Offset>,
}

impl Subscription {
    pub fn new(written: &str, id: u32, qos: u8, from: Offset) -> Subscription {
        let filter = match written.strip_prefix("$replay/") {
            Some(rest) => rest.split_once('/').expect("a filter").1,
            None => written,
        };
        Subscription {
            filter: TopicFilter::new(filter).expect("a filter"),
            written: written.into(),
            ids: if id == 0 { Vec::new() } else { vec![id] },
            qos: (qos, qos),
            no_local: false,
            scan: None,
            older_scans: Vec::new(),
            times: 0,
            holds: false,
            ended: None,
            from: (from, Offset::MAX),
            floor: Offset::MAX,
            newest: 0,
            seen: BTreeSet::new(),
        }
    }

    pub fn replays(&self) -> bool {
        self.written.starts_with("$replay/")
    }

    fn scans(&mut self) -> impl Iterator<Item = &mut Scan> {
        self.scan.iter_mut().chain(&mut self.older_scans)
    }

    /// It was asked for more than once: so may retained messages come.
    fn holds_twice(&self) -> bool {
        self.times > 1
    }

    /// SUBACK: it holds, and what matches has to come from this offset on.
    pub fn granted(&mut self, from: Offset) {
        if self.from.1 == Offset::MAX {
            self.from.1 = from;
            self.floor = from;
        }
        self.holds = true;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    /// The client's number.
    client: u32,
    is_anonymous: bool,
    pub subscriptions: Vec<Subscription>,
    /// Ranges that the bus has declared to be gone.
    gaps: Vec<(Offset, Offset)>,
    /// What messages of QoS 0 have declared on this connection.
    told: BTreeSet<String>,
    /// What was sent at QoS 0 up to here may have been lost with a connection.
    lossy: Offset,
    /// The session has outlived a connection.
    pub resumed: bool,
    /// The session may have been replaced by a new one, and the client has not heard of it.
    is_unsure: bool,
    /// Publications that are in no log: the newest of each publisher.
    unlogged: BTreeMap<(u32, String), u32>,
    /// Events received.
    pub count: u64,
}

impl Reader {
    pub fn new(client: u32, is_anonymous: bool) -> Reader {
        Reader {
            client,
            is_anonymous,
            subscriptions: Vec::new(),
            gaps: Vec::new(),
            told: BTreeSet::new(),
            lossy: 0,
            resumed: false,
            is_unsure: false,
            unlogged: BTreeMap::new(),
            count: 0,
        }
    }

    /// The session is gone.
    pub fn forget(&mut self) {
        self.subscriptions.clear();
        self.gaps.clear();
        (self.lossy, self.resumed, self.is_unsure) = (0, false, false);
    }

    /// The connection ended when the log stood at `head`.
    pub fn disconnected(&mut self, head: Offset) {
        self.lossy = self.lossy.max(head);
        self.unlogged.clear();
        self.told.clear();
        for it in &mut self.subscriptions {
            it.newest = 0;
            it.scans().for_each(Scan::disconnected);
        }
    }

    /// The CONNACK that may have said that the session is a new one was not heard: MQTT has nothing to tell it later.
    pub fn doubt(&mut self) {
        self.is_unsure = true;
    }

    /// The session goes on, and the log stands at `head`. The connection before may have been written to until now.
    pub fn resumed(&mut self, ledger: &Ledger) {
        self.resumed = true;
        self.lossy = self.lossy.max(ledger.head());
    }

    /// The log was cut back to `head` by a power cut: what came after it is no more.
    pub fn cut(&mut self, head: Offset) {
        self.lossy = self.lossy.min(head);
        for it in &mut self.subscriptions {
            it.seen.split_off(&(head + 1));
            it.scans().for_each(|scan| scan.cut(head));
            it.floor = if it.floor == Offset::MAX { it.floor } else { it.floor.min(head + 1) };
            it.from = (it.from.0.min(head + 1), if it.holds { it.from.1.min(head + 1) } else { it.from.1 });
            it.ended = it.ended.map(|ended| ended.min(head));
        }
    }

    /// A PUBLISH came, and it is not one that came before under the same packet id.
    pub fn got(&mut self, got: &Got, ledger: &Ledger) {
        self.count += 1;
        for (_, gap) in got.user.iter().filter(|(name, _)| name == "firehose-gap") {
            self.gaps.push(ledger.declared(gap));
            // More than one lane may have to tell the same.
            let is_lane = self.subscriptions.len() == 1 && self.subscriptions[0].times < 2;
            let is_new = got.qos > 0 || self.told.insert(gap.clone()) || !is_lane;
            assert!(is_new, "told twice on one connection: {got:?}");
        }
        let topic = TopicName::new(&got.topic).expect("a topic name");
        assert!(may_use(self.is_anonymous, &got.topic), "not allowed to read: {got:?}");
        if TopicFilter::new(UNLOGGED).expect("a filter").matches(topic) {
            return self.got_unlogged(got);
        }
        if self.is_unsure {
            return;
        }
        let has_ids = self.subscriptions.iter().any(|it| !it.ids.is_empty());
        if got.dup && got.ids.is_empty() && has_ids {
            // Its subscription has ended, but its delivery had begun.
            return;
        }
        let asked = self.asked(got);
        if got.retain {
            return self.got_retained(got, &asked, ledger);
        }
        let Some(offset) = self.place_of(got, &asked, ledger) else {
            panic!("an event that is not in the log, or came before: {got:?}");
        };
        let entry = ledger.get(offset).unwrap_or_else(|| panic!("event {offset} is none: {got:?}"));
        assert_eq!((&entry.topic, &entry.payload), (&got.topic, &got.payload), "at {offset}");
        self.check_qos(got, entry, &asked);
        // Without identifiers the first copy may have come by any of them, before the others began.
        let least =
            asked.iter().map(|index| self.subscriptions[*index].qos.0).min().filter(|_| got.ids.is_empty());
        for index in asked {
            let it = &self.subscriptions[index];
            // What is sent again names every subscription that matches: also those whose lane brought it before.
            let is_settled = got.dup && it.seen.contains(&offset);
            // Without identifiers it may be for one that holds.
            let is_other = it.ended.is_some() || offset < it.from.0;
            let is_over = is_other && got.ids.is_empty() && self.subscriptions.len() > 1;
            if !is_settled && !is_over {
                self.advance(index, offset, least, got, ledger);
            }
        }
    }

    /// Everything that has to have come by now has.
    pub fn check_complete(&self, head: Offset, ledger: &Ledger) {
        if self.is_unsure {
            return;
        }
        for it in self.subscriptions.iter().filter(|it| it.holds && it.ended.is_none()) {
            // What retention or damage took is told with the next message.
            let is_told = |offset: &Offset| *offset >= ledger.oldest && !ledger.is_damaged(*offset);
            let missing = self.missing(it, head, ledger).filter(is_told);
            if let Some(offset) = missing.last() {
                let entry = ledger.get(offset);
                panic!(
                    "client {} waits for event {offset} of {head}, {entry:?}, by {:?} from {:?} floor {}",
                    self.client, it.written, it.from, it.floor
                );
            }
            if it.ids.is_empty() && self.subscriptions.len() > 1 {
                // Nobody can say which copy is whose.
                continue;
            }
            let (client, is_anonymous) = (self.client, self.is_anonymous);
            let wanted =
                Wanted { client, filter: &it.filter, qos: it.qos.0, no_local: it.no_local, is_anonymous };
            if let Some(offset) = it.scan.as_ref().and_then(|scan| scan.missing(&wanted, ledger)) {
                let entry = ledger.get(offset);
                panic!(
                    "client {client} waits for the retained {offset}, {entry:?}, by {:?}, damaged: {:?}",
                    it.written, ledger.damaged
                );
            }
        }
    }

    /// A retained message came.
    fn got_retained(&mut self, got: &Got, asked: &[usize], ledger: &Ledger) {
        let name = got.user("name").map_or(&got.payload[..], str::as_bytes);
        let offset = Key::parse(name).and_then(|key| ledger.place_of(&key));
        let offset = offset.unwrap_or_else(|| panic!("a retained message that is not in the log: {got:?}"));
        let entry = ledger.get(offset).expect("it is there");
        assert_eq!((&entry.topic, &entry.payload), (&got.topic, &got.payload), "at {offset}");
        assert!(entry.retain && !entry.payload.is_empty(), "it is not retained: {got:?}");
        self.check_qos(got, entry, asked);
        let mut taken = false;
        // Without identifiers it is the next copy, for whichever subscription: rather one that surely has to get it. And
        // what is sent again is rather for one that was there before the connection.
        for (surely, before) in [(true, got.dup), (true, false), (false, false)] {
            for index in asked {
                let mut scans = self.subscriptions[*index].scans();
                let mut take = |scan: &mut Scan| {
                    (!surely || scan.has_to_bring(offset))
                        && (!before || scan.is_of_before())
                        && scan.got(&got.topic, offset, false, ledger)
                };
                taken |= !taken && scans.any(&mut take);
            }
        }
        for index in asked {
            let again = self.resumed || self.subscriptions[*index].holds_twice();
            let mut scans = self.subscriptions[*index].scans();
            taken |= !taken && again && scans.any(|scan| scan.got(&got.topic, offset, true, ledger));
        }
        // Without identifiers nobody can say which copy is whose.
        let is_one_of_many = (got.ids.is_empty() || got.dup) && self.subscriptions.len() > 1;
        assert!(
            taken || is_one_of_many,
            "a retained message of {offset} that nobody awaits: {got:?}, {:?}",
            self.subscriptions
        );
    }

    /// The subscriptions that this PUBLISH is for.
    fn asked(&self, got: &Got) -> Vec<usize> {
        let topic = TopicName::trusted(&got.topic);
        let has_ids = self.subscriptions.iter().any(|it| !it.ids.is_empty());
        let mut asked = Vec::new();
        for (index, it) in self.subscriptions.iter().enumerate() {
            let named = it.ids.iter().any(|id| got.ids.contains(id));
            if named || (!has_ids && it.filter.matches(topic)) {
                assert!(it.filter.matches(topic), "{:?} does not match {got:?}", it.written);
                asked.push(index);
            }
        }
        assert!(!asked.is_empty(), "nobody asked for {got:?}: {:?}", self.subscriptions);
        asked
    }

    fn place_of(&self, got: &Got, asked: &[usize], ledger: &Ledger) -> Option<Offset> {
        if let Some(cursor) = got.user("firehose-cursor") {
            return match Since::parse(cursor) {
                Ok(Since::After(cursor)) => Some(cursor.offset),
                other => panic!("{cursor} is no cursor: {other:?}"),
            };
        }
        let name = got.user("name").map(str::as_bytes);
        if let Some(key) = Key::parse(name.unwrap_or(&got.payload)) {
            // It may have been read before a bit of it turned.
            return ledger.place_of(&key).or_else(|| ledger.place_of_damaged(&key));
        }
        // A retained message being cleared has no name: it is the next one that is awaited.
        let fits = |offset: Offset| {
            asked.iter().any(|index| {
                let it = &self.subscriptions[*index];
                offset > it.newest && offset >= it.from.0 && it.ended.is_none_or(|ended| offset <= ended)
            })
        };
        let clears = || {
            ledger
                .range(1, ledger.head())
                .filter(|(offset, entry)| {
                    entry.payload.is_empty() && entry.topic == got.topic && fits(*offset)
                })
                .map(|(offset, _)| offset)
        };
        let awaited = |offset: &Offset| asked.iter().any(|index| *offset >= self.subscriptions[*index].floor);
        clears().find(awaited).or_else(|| clears().next())
    }

    fn check_qos(&self, got: &Got, entry: &Entry, asked: &[usize]) {
        if got.dup {
            // As it was sent before, to subscriptions that may be gone.
            return;
        }
        let most = asked.iter().map(|index| self.subscriptions[*index].qos.1).max().unwrap_or(0);
        assert!(got.qos <= entry.qos.min(most), "more than was granted: {got:?}, published {}", entry.qos);
        if !got.ids.is_empty() {
            let least = asked.iter().map(|index| self.subscriptions[*index].qos.0).max().unwrap_or(0);
            assert!(
                got.qos >= entry.qos.min(least),
                "less than was granted: {got:?}, published {}",
                entry.qos
            );
        }
    }

    fn advance(&mut self, index: usize, offset: Offset, least: Option<u8>, got: &Got, ledger: &Ledger) {
        let it = &self.subscriptions[index];
        if !got.ids.is_empty() || it.holds {
            assert!(offset > it.newest, "{offset} after {} by {:?}: {got:?}", it.newest, it.written);
        }
        // Without identifiers nobody can say for which of several subscriptions it came.
        let alone = !got.ids.is_empty() || self.subscriptions.len() == 1;
        assert!(!alone || offset >= it.from.0, "{offset} is before {:?} {:?}: {got:?}", it.written, it.from);
        assert!(!alone || it.ended.is_none_or(|ended| offset <= ended), "{:?} ended: {got:?}", it.written);
        let own =
            ledger.get(offset).and_then(|entry| entry.key).is_some_and(|key| key.publisher == self.client);
        assert!(!alone || !it.no_local || !own, "its own: {got:?}");
        let twice = it.seen.contains(&offset);
        // What was granted less first may have been sent with less.
        let may = self.resumed && (got.qos < 2 || least.unwrap_or(it.qos.0) < 2);
        // Nobody can say for which subscription the first came, if this one was being ended then.
        let may = may || (got.ids.is_empty() && !it.holds);
        assert!(!twice || may, "{offset} came twice by {:?}: {got:?}", it.written);
        if it.holds
            && it.ended.is_none()
            && offset > 0
            && let Some(missing) = self.missing(it, offset - 1, ledger).next()
        {
            panic!(
                "client {} got event {offset} and not {missing}, {:?}, by {:?} from {:?} floor {}: {got:?}",
                self.client,
                ledger.get(missing),
                it.written,
                it.from,
                it.floor
            );
        }
        let it = &mut self.subscriptions[index];
        it.seen.insert(offset);
        it.newest = it.newest.max(offset);
        if it.floor != Offset::MAX {
            it.floor = it.floor.max(offset + 1);
        }
    }

    /// What has to have come, up to an offset, and has not.
    fn missing(&self, it: &Subscription, upto: Offset, ledger: &Ledger) -> impl Iterator<Item = Offset> {
        let first = it.floor.min(ledger.head() + 1);
        ledger
            .range(first, upto)
            .filter(|(offset, entry)| {
                let offset = *offset;
                let own = it.no_local && entry.key.is_some_and(|key| key.publisher == self.client);
                let lost = entry.qos.min(it.qos.0) == 0 && offset <= self.lossy;
                it.filter.matches(TopicName::trusted(&entry.topic))
                    && may_use(self.is_anonymous, &entry.topic)
                    && !own
                    && !lost
                    && !it.seen.contains(&offset)
                    && !ledger.taken_back.has(offset)
                    && !self.gaps.iter().any(|(from, to)| (*from..=*to).contains(&offset))
            })
            .map(|(offset, _)| offset)
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn got_unlogged(&mut self, got: &Got) {
        let key = Key::parse(&got.payload).expect("a message of ours");
        // A number of each publisher and topic comes once for each lane that has it, and there is one lane here.
        let newest = self.unlogged.entry((key.publisher, format!("{:?}", got.ids))).or_default();
        let again = key.attempt > 0 || *newest == 0;
        assert!(key.number > *newest || again, "{key:?} after {newest}: {got:?}");
        *newest = key.number.max(*newest);
    }
}
