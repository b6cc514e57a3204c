//! What a client may expect of retained messages: with a subscription comes what was retained where it begins, each
//! once.

use crate::ledger::Ledger;
use crate::plan::may_use;
use firehose_log::Offset;
use firehose_topic::{TopicFilter, TopicName};
use std::collections::{BTreeMap, BTreeSet};

/// Retained messages on their way, for one SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Scan {
    /// As of an offset between these two.
    as_of: (Offset, Offset),
    /// Topics that came.
    got: BTreeSet<String>,
    /// Everything has to come, of at least this QoS: what was sent with less may have been lost.
    required: Option<u8>,
    is_unsure: bool,
}

impl Scan {
    /// SUBSCRIBE is sent, when the log stood at `head`.
    pub fn asked(head: Offset) -> Scan {
        Scan { as_of: (head, Offset::MAX), got: BTreeSet::new(), required: None, is_unsure: false }
    }

    /// The same, but it may bring nothing: whether it is a new subscription is not known.
    pub fn unsure(head: Offset) -> Scan {
        Scan { is_unsure: true, ..Scan::asked(head) }
    }

    /// SUBACK came: the subscription begins behind `head`. `exactly`: not before either.
    pub fn begun(&mut self, head: Offset, exactly: bool) {
        if self.as_of.1 != Offset::MAX {
            // It is of an earlier SUBSCRIBE: this one brings none.
            return;
        }
        self.as_of.1 = head;
        if exactly {
            self.as_of.0 = head;
        }
        self.required = (!self.is_unsure).then_some(0);
    }

    /// Another SUBSCRIBE of the same filter came: what is on its way may still come.
    pub fn replaced(&mut self) {
        self.required = None;
    }

    /// The connection ended: what was sent at QoS 0 may be lost.
    pub fn disconnected(&mut self) {
        self.required = self.required.map(|_| 1);
    }

    /// The log was cut back to `head`.
    pub fn cut(&mut self, head: Offset) {
        self.as_of.0 = self.as_of.0.min(head);
        if self.as_of.1 > head {
            self.as_of.1 = self.as_of.1.min(head);
            self.required = None;
        }
    }

    /// Whether an offset is surely not behind its beginning.
    pub fn has_to_bring(&self, offset: Offset) -> bool {
        self.required.is_some() && offset <= self.as_of.0
    }

    /// Whether it was asked for over an earlier connection.
    pub fn is_of_before(&self) -> bool {
        self.required == Some(1)
    }

    /// A retained message came. `again`: it may come twice. False: it is none of this scan's.
    pub fn got(&mut self, topic: &str, offset: Offset, again: bool, ledger: &Ledger) -> bool {
        let newer = ledger.range(offset + 1, self.as_of.0);
        let is_stale = newer
            .into_iter()
            .any(|(at, entry)| entry.retain && entry.topic == topic && !ledger.is_hidden(at));
        let fits = offset <= self.as_of.1 && !is_stale;
        fits && (self.got.insert(topic.to_owned()) || again)
    }

    /// What has to have come and has not.
    pub fn missing(&self, wanted: &Wanted<'_>, ledger: &Ledger) -> Option<Offset> {
        let least = self.required?;
        let mut newest: BTreeMap<&str, Offset> = BTreeMap::new();
        for (offset, entry) in ledger.range(1, ledger.head()) {
            if entry.retain {
                newest.insert(&entry.topic, offset);
            }
        }
        let missing = newest.into_iter().find(|(topic, offset)| {
            let entry = ledger.get(*offset).expect("it is there");
            let own = entry.key.is_some_and(|key| key.publisher == wanted.client);
            // Of a damaged one nobody can say whether it had taken the place of the one before.
            *offset <= self.as_of.0
                && !ledger.is_damaged(*offset)
                && !ledger.taken_back.has(*offset)
                && !entry.payload.is_empty()
                && entry.qos.min(wanted.qos) >= least
                && wanted.filter.matches(TopicName::trusted(topic))
                && may_use(wanted.is_anonymous, topic)
                && !(wanted.no_local && own)
                && !self.got.contains(*topic)
        });
        missing.map(|(_, offset)| offset)
    }
}

/// What a subscription wants.
pub struct Wanted<'a> {
    pub client: u32,
    pub filter: &'a TopicFilter,
    /// The least that was granted.
    pub qos: u8,
    pub no_local: bool,
    pub is_anonymous: bool,
}
