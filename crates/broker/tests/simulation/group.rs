//! What a group of a shared subscription may expect, all its members together: each later matching event goes to one of
//! them, to another one only where the first may not have it, or is said to be gone.

use crate::ledger::{Entry, Key, Ledger};
use crate::packets::Got;
use crate::plan::{UNLOGGED, may_use};
use firehose_log::Offset;
use firehose_topic::{TopicFilter, TopicName};
use std::collections::{BTreeMap, BTreeSet};

/// What the state gives back of a session that ended while its client was away comes within this time, ms.
const LATE_MS: u64 = 61_000;

/// Whose it is (none: of the anonymous), and as it is written.
pub type Name = (Option<&'static str>, String);

/// Up to where something holds; not known yet, as long as the bus may not have noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    upto: Offset,
    is_open: bool,
}

impl Mark {
    fn open(&mut self) {
        self.is_open = true;
    }

    /// The bus has noticed what there was, with the log at `head`.
    fn close(&mut self, head: Offset) {
        if std::mem::take(&mut self.is_open) {
            self.upto = head;
        }
    }

    fn covers(&self, offset: Offset) -> bool {
        self.is_open || offset <= self.upto
    }

    fn cut(&mut self, head: Offset) {
        self.upto = self.upto.min(head);
    }
}

/// A client that subscribes.
#[derive(Clone, Debug, Default)]
struct Member {
    /// Acknowledged, and its session is surely there.
    holds: bool,
    /// The lowest and the highest QoS it has asked for.
    qos: (u8, u8),
    /// The newest it got by a connection.
    newest: (usize, Offset),
}

/// How an event came, the last time.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    client: usize,
    connection: usize,
    qos: u8,
    /// Which life of the bus, and which session of the client.
    life: u32,
    session: u32,
    /// The session outlives its connection.
    is_kept: bool,
    /// It was acknowledged, and that is saved.
    is_settled: bool,
}

/// One group.
#[derive(Debug)]
struct Group {
    filter: TopicFilter,
    /// What may come is not older.
    begins: Offset,
    /// Everything from here on has to go to somebody. None: nobody is a member for sure.
    required: Option<Offset>,
    /// Of all members there were.
    qos: (u8, u8),
    members: BTreeMap<usize, Member>,
    delivered: BTreeMap<Offset, Delivery>,
    /// What came twice.
    twice: Vec<(Offset, Delivery, Delivery)>,
    /// May have come: what is sent again does not always say for whom.
    maybe: BTreeSet<Offset>,
    /// Ranges that are said to be gone.
    gaps: Vec<(Offset, Offset)>,
    /// Members have come or gone: what one was given may have been given to another one later, and QoS 0 be lost.
    unrest: Mark,
    /// What came behind newer ones. When that is seen, the connection of a member may be over that has not noticed it yet.
    disordered: Vec<(Offset, String)>,
    /// Sessions have ended: what they were sent at QoS 2 is nobody's.
    ended: Mark,
    /// Who has left it, and may not have got or acknowledged all that it was given up to there: that is its own
    /// [MQTT-3.10.4-3].
    leavers: BTreeMap<usize, Offset>,
    /// Such a session has ended.
    own: Mark,
    /// Sessions have ended, and what is given back of theirs comes until then, ms.
    late: (Mark, u64),
    /// What clients that are away may have.
    away: BTreeMap<usize, Mark>,
    /// Gone from the log, and nobody was told, when everything had come to rest with the log at the second.
    untold: (BTreeSet<Offset>, Offset),
    /// The newest that somebody got who can be told of a gap.
    newest_told: Offset,
}

/// What becomes of a session when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there when the client comes back.
    Stays,
    /// Nobody knows.
    Unsure,
    Ends,
}

/// Who got something.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    pub client: usize,
    pub connection: usize,
    pub is_v5: bool,
    /// Its session outlives the connection.
    pub is_kept: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Groups {
    all: BTreeMap<Name, Group>,
    /// Which bus it is.
    life: u32,
    /// Connections that clients have.
    links: BTreeMap<usize, usize>,
    /// Which session of each client it is, and whether it is surely there.
    sessions: BTreeMap<usize, (u32, bool)>,
    /// Nothing is ever taken back from a member that is slow.
    pub is_ordered: bool,
}

impl Groups {
    /// SUBSCRIBE is sent.
    pub fn asked(&mut self, name: &Name, client: usize, qos: u8, head: Offset) {
        let group = self.all.entry(name.clone()).or_insert_with(|| Group::new(&name.1, qos, head + 1));
        group.qos = (group.qos.0.min(qos), group.qos.1.max(qos));
        let member =
            group.members.entry(client).or_insert_with(|| Member { qos: (qos, qos), ..Member::default() });
        member.qos = (member.qos.0.min(qos), member.qos.1.max(qos));
    }

    /// SUBACK came, with the log at `head`.
    pub fn granted(&mut self, name: &Name, client: usize, head: Offset) {
        let Some(group) = self.all.get_mut(name) else { return };
        if let Some(member) = group.members.get_mut(&client) {
            member.holds = true;
            group.required.get_or_insert(head + 1);
        }
    }

    /// SUBACK came and refuses it, or UNSUBACK.
    pub fn left(&mut self, name: &Name, client: usize, head: Offset) {
        let Some(group) = self.all.get_mut(name) else { return };
        group.members.remove(&client);
        group.leavers.entry(client).and_modify(|upto| *upto = head);
        group.look();
    }

    /// Whether a client is a member for sure.
    pub fn holds(&self, name: &Name, client: usize) -> bool {
        let member = self.all.get(name).and_then(|group| group.members.get(&client));
        member.is_some_and(|member| member.holds)
    }

    /// Whether a client unsubscribes from a group that a message is for, or has.
    pub fn leaves(&self, name: &Name, client: usize, topic: TopicName<'_>) -> bool {
        let group = self.all.get(name).filter(|group| group.leavers.contains_key(&client));
        group.is_some_and(|group| group.filter.matches(topic))
    }

    /// UNSUBSCRIBE is sent.
    pub fn leaving(&mut self, name: &Name, client: usize) {
        let Some(group) = self.all.get_mut(name) else { return };
        group.members.entry(client).and_modify(|member| member.holds = false);
        group.leavers.insert(client, Offset::MAX);
        group.unrest.open();
        group.away.entry(client).or_default().open();
        group.look();
    }

    /// CONNACK came by a connection. `is_kept`: its session outlives it, and is found when it comes back.
    pub fn connected(&mut self, client: usize, connection: usize, is_kept: bool) {
        self.links.insert(client, connection);
        self.sessions.entry(client).or_default().1 = is_kept;
    }

    /// A client's connection is over.
    pub fn disconnected(&mut self, client: usize, fate: Fate, now_ms: u64) {
        self.links.remove(&client);
        for group in self.of(client) {
            group.unrest.open();
            group.away.entry(client).or_default().open();
        }
        match fate {
            Fate::Stays => {}
            Fate::Unsure => self.unsure(client, now_ms),
            Fate::Ends => self.ended(client),
        }
    }

    /// A client's session may be gone.
    pub fn unsure(&mut self, client: usize, now_ms: u64) {
        let session = self.sessions.entry(client).or_default();
        *session = (session.0 + 1, false);
        for group in self.of(client) {
            group.session_ends(client);
            group.late.0.open();
            group.late.1 = now_ms + LATE_MS;
            group.members.entry(client).and_modify(|member| member.holds = false);
            group.look();
        }
    }

    /// A client's session is gone, and the bus may have found that out without it.
    pub fn gone(&mut self, client: usize, now_ms: u64) {
        self.unsure(client, now_ms);
        self.ended(client);
    }

    /// A client's session ends with its connection.
    fn ended(&mut self, client: usize) {
        let session = self.sessions.entry(client).or_default();
        *session = (session.0 + 1, false);
        for group in self.of(client) {
            group.session_ends(client);
            group.members.remove(&client);
            group.away.remove(&client);
            group.look();
        }
    }

    /// The bus ended, and with it what it had not saved.
    pub fn crashed(&mut self) {
        self.life += 1;
        for group in self.all.values_mut() {
            group.unrest.open();
            // Those of which one is of the bus before are told apart when they come.
            group.twice.clear();
        }
    }

    /// The log was cut back to `head`.
    pub fn cut(&mut self, head: Offset) {
        for group in self.all.values_mut() {
            group.begins = group.begins.min(head + 1);
            group.required = group.required.map(|from| from.min(head + 1));
            group.delivered.split_off(&(head + 1));
            group.maybe.split_off(&(head + 1));
            group.untold.0.split_off(&(head + 1));
            group.newest_told = group.newest_told.min(head);
            let marks = [&mut group.unrest, &mut group.ended, &mut group.own, &mut group.late.0];
            marks.into_iter().chain(group.away.values_mut()).for_each(|mark| mark.cut(head));
        }
    }

    /// A message that a group gave to a client.
    pub fn got(&mut self, name: &Name, to: Receiver, got: &Got, ledger: &Ledger) {
        let Receiver { client, connection, is_kept, .. } = to;
        let session = self.sessions.get(&client).map_or(0, |it| it.0);
        let now = Delivery {
            client,
            connection,
            qos: got.qos,
            life: self.life,
            session,
            is_kept,
            is_settled: false,
        };
        let group = self.all.get_mut(name).unwrap_or_else(|| panic!("nobody asked for {got:?}"));
        for (_, gap) in got.user.iter().filter(|(name, _)| name == "firehose-gap") {
            group.gaps.push(ledger.declared(gap));
        }
        let Some(offset) = group.check(name, to, got, ledger) else { return };
        let before = group.delivered.insert(offset, now);
        if let Some(before) = before {
            // Its client has forgotten what it had.
            let is_known = got.dup && before.client == client && before.session != session;
            let may = ledger.is_flipped || is_known || (before.life != now.life && !before.is_once());
            let is_late = before.is_settled && !ledger.is_flipped;
            assert!(!is_late, "{offset} of {name:?} was acknowledged, {before:?}: {to:?} {got:?}");
            if !may {
                assert!(before.life == now.life, "{offset} of {name:?} is once, {before:?}: {to:?} {got:?}");
                group.twice.push((offset, before, now));
            }
        }
        let newest = group.members.get(&to.client).map_or((0, 0), |member| member.newest);
        if before.is_none() && !got.dup && self.is_ordered && !group.unrest.covers(offset) {
            let ascends = newest.0 != to.connection || offset > newest.1;
            if !ascends {
                let what = format!("{offset} of {name:?} after {newest:?}, to {to:?}: {got:?}");
                group.disordered.push((offset, what));
            }
        }
        if let Some(member) = group.members.get_mut(&to.client) {
            member.newest = (to.connection, offset);
        }
        // What comes again tells nothing that it may have told before: that is for the next one.
        if before.is_none() && !got.dup && to.is_v5 {
            group.newest_told = group.newest_told.max(offset);
        }
    }

    /// A message came again, and does not say for which subscription.
    pub fn got_again(&mut self, got: &Got, ledger: &Ledger) {
        let key = Key::parse(got.user("name").map_or(&got.payload, str::as_bytes));
        let Some(offset) = key.and_then(|key| ledger.place_of(&key)) else { return };
        self.all.values_mut().for_each(|group| _ = group.maybe.insert(offset));
    }

    /// Everything that happened is about to be noticed, with the log at `head`.
    pub fn notice(&mut self, head: Offset) {
        for group in self.all.values_mut() {
            let marks = [&mut group.unrest, &mut group.ended, &mut group.own, &mut group.late.0];
            marks.into_iter().chain(group.away.values_mut()).for_each(|mark| mark.close(head));
        }
    }

    /// Everything has come to rest: what has to have come has. `is_up`: which clients are connected.
    pub fn check(&mut self, is_up: &[bool], now_ms: u64, ledger: &Ledger) {
        self.check_twice();
        for (name, group) in &mut self.all {
            for (offset, what) in group.disordered.drain(..) {
                assert!(group.unrest.covers(offset), "{what}");
            }
            group.leavers.retain(|client, _| !is_up[*client]);
            group.away.retain(|client, _| !is_up[*client]);
            let is_served = group.members.iter().any(|(client, member)| member.holds && is_up[*client]);
            if let Some(first) = group.required.filter(|_| is_served) {
                group.check_complete(name, first, now_ms, ledger);
            }
            for delivery in group.delivered.values_mut() {
                let is_up = self.links.get(&delivery.client) == Some(&delivery.connection);
                delivery.is_settled |= is_up && delivery.life == self.life;
            }
            if group.members.is_empty() && group.away.is_empty() {
                // It has ended: another one begins where somebody comes.
                group.begins = ledger.head() + 1;
            }
        }
    }

    /// What came twice, each time by a connection that was fine: nobody could say before whether the bus had closed one.
    fn check_twice(&mut self) {
        let twice: Vec<_> =
            self.all.iter_mut().map(|(name, it)| (name.clone(), std::mem::take(&mut it.twice))).collect();
        for (name, list) in twice {
            for (offset, one, other) in list {
                let is_passed_on = one.is_passed_on(&other, self) || other.is_passed_on(&one, self);
                assert!(is_passed_on, "{offset} of {name:?} came twice: {one:?}, {other:?}");
            }
        }
    }

    /// Clients that are away, and may be members or have something of a group.
    pub fn away(&self) -> BTreeSet<usize> {
        self.all.values().flat_map(|group| group.away.keys().copied()).collect()
    }

    fn of(&mut self, client: usize) -> impl Iterator<Item = &mut Group> {
        let has = move |group: &&mut Group| {
            group.members.contains_key(&client)
                || group.away.contains_key(&client)
                || group.delivered.values().any(|it| it.client == client)
        };
        self.all.values_mut().filter(has)
    }
}

impl Delivery {
    /// Whether it is exactly once, also when the bus is killed.
    fn is_once(&self) -> bool {
        self.qos == 2 && self.is_kept
    }

    /// Whether somebody else may have got it as well, or its client again: its connection ended before it was
    /// acknowledged, and its session does not wait for it.
    fn is_passed_on(&self, to: &Delivery, groups: &Groups) -> bool {
        let is_over = groups.links.get(&self.client) != Some(&self.connection) || groups.life != self.life;
        let is_there = groups.sessions.get(&self.client) == Some(&(self.session, true));
        self.qos == 1 && is_over && (!is_there || to.client == self.client)
    }
}

impl Group {
    fn new(written: &str, qos: u8, begins: Offset) -> Group {
        let filter = written.splitn(3, '/').nth(2).expect("a filter");
        Group {
            filter: TopicFilter::new(filter).expect("a filter"),
            begins,
            required: None,
            qos: (qos, qos),
            members: BTreeMap::new(),
            delivered: BTreeMap::new(),
            twice: Vec::new(),
            leavers: BTreeMap::new(),
            maybe: BTreeSet::new(),
            gaps: Vec::new(),
            unrest: Mark::default(),
            disordered: Vec::new(),
            ended: Mark::default(),
            own: Mark::default(),
            late: (Mark::default(), 0),
            away: BTreeMap::new(),
            untold: (BTreeSet::new(), 0),
            newest_told: 0,
        }
    }

    /// A session of a member ends, or may have ended.
    fn session_ends(&mut self, client: usize) {
        self.ended.open();
        if self.leavers.remove(&client).is_some() {
            self.own.open();
        }
    }

    /// Whether anybody is a member for sure.
    fn look(&mut self) {
        if !self.members.values().any(|member| member.holds) {
            self.required = None;
            self.untold.0.clear();
        }
    }

    /// A message may come; gives which one it is, if that can be said.
    fn check(&self, name: &Name, to: Receiver, got: &Got, ledger: &Ledger) -> Option<Offset> {
        let topic = TopicName::new(&got.topic).expect("a topic name");
        assert!(self.filter.matches(topic), "{name:?} does not match {got:?}");
        assert!(may_use(name.0.is_none(), &got.topic), "not allowed to read: {got:?}");
        assert!(!got.retain, "as something retained: {got:?}");
        let member = self.members.get(&to.client);
        if TopicFilter::new(UNLOGGED).expect("a filter").matches(topic) {
            return None;
        }
        let key = Key::parse(got.user("name").map_or(&got.payload, str::as_bytes))?;
        let Some(offset) = ledger.place_of(&key) else {
            assert!(ledger.is_flipped, "an event that is not in the log: {got:?}");
            return None;
        };
        let entry = ledger.get(offset).expect("it is there");
        assert_eq!((&entry.topic, &entry.payload), (&got.topic, &got.payload), "at {offset}");
        let is_own = self.leavers.get(&to.client).is_some_and(|upto| offset <= *upto);
        assert!(got.dup || member.is_some() || is_own, "{to:?} is no member of {name:?}: {got:?}");
        let (least, most) = member.filter(|_| !got.dup).map_or((0, 2), |member| member.qos);
        let range = entry.qos.min(least)..=entry.qos.min(most);
        assert!(range.contains(&got.qos), "not as it was granted, {range:?}: {got:?}");
        assert!(got.dup || offset >= self.begins, "{offset} is before {name:?}, {}: {got:?}", self.begins);
        Some(offset)
    }

    /// Everything from `first` on went to somebody, or is where it may be.
    fn check_complete(&mut self, name: &Name, first: Offset, now_ms: u64, ledger: &Ledger) {
        let mut untold = BTreeSet::new();
        for (offset, entry) in ledger.range(first, ledger.head()) {
            if ledger.taken_back.has(offset) || !self.misses(name, offset, entry, now_ms) {
                continue;
            }
            assert!(
                offset < ledger.oldest || ledger.is_damaged(offset),
                "nobody of {name:?} got event {offset} of {}, {entry:?}, from {first}: {self:?}",
                ledger.head()
            );
            untold.insert(offset);
        }
        let (before, head) = &self.untold;
        let still: Vec<_> = before.intersection(&untold).collect();
        let could = self.newest_told > *head;
        assert!(!could || still.is_empty(), "{still:?} of {name:?} are gone, and nobody was told: {self:?}");
        self.untold = (untold, ledger.head());
    }

    /// Whether an event is missing that nothing excuses but the log's having lost it.
    fn misses(&self, name: &Name, offset: Offset, entry: &Entry, now_ms: u64) -> bool {
        let (least, most) = (entry.qos.min(self.qos.0), entry.qos.min(self.qos.1));
        let is_theirs = !entry.payload.is_empty()
            && entry.key.is_some()
            && self.filter.matches(TopicName::trusted(&entry.topic))
            && may_use(name.0.is_none(), &entry.topic);
        let came = self.delivered.contains_key(&offset) || self.maybe.contains(&offset);
        let is_told = self.gaps.iter().any(|(from, to)| (*from..=*to).contains(&offset));
        let is_lost = (least == 0 && self.unrest.covers(offset)) || (most == 2 && self.ended.covers(offset));
        let is_late = now_ms < self.late.1 && self.late.0.covers(offset);
        let is_away = self.own.covers(offset) || self.away.values().any(|mark| mark.covers(offset));
        is_theirs && !came && !is_told && !is_lost && !is_late && !is_away
    }
}
