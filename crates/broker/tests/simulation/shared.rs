//! A client as a member of groups: what it asks for, and what it gets.

use crate::client::{Asked, Client};
use crate::group::{Name, Receiver};
use crate::ledger::Ledger;
use crate::packets::{self, Got};
use crate::plan::Shares;
use firehose_mqtt::{Reason, SubscribeOptions, Version};
use firehose_topic::TopicName;

impl Client {
    /// SUBSCRIBE of one shared subscription.
    pub fn share(&mut self, written: &str, options: SubscribeOptions, ledger: &mut Ledger) -> Vec<u8> {
        let id = if self.plan.has_ids { self.next_subscription() } else { 0 };
        let head = ledger.head();
        ledger.groups.asked(&self.name_of(written), self.number, options.qos as u8, head);
        self.shared.entry(written.into()).or_default().extend((id != 0).then_some(id));
        let packet_id = self.ask(Asked::Subscribe { written: written.into(), begins: None });
        let wish = packets::SubscribeWish { packet_id, filter: written, options, id, since: None };
        packets::subscribe(self.plan.version, &wish)
    }

    /// UNSUBSCRIBE of one.
    pub fn unshare(&mut self, written: &str, ledger: &mut Ledger) -> Vec<u8> {
        ledger.groups.leaving(&self.name_of(written), self.number);
        let packet_id = self.ask(Asked::Unsubscribe { written: written.into() });
        packets::unsubscribe(self.plan.version, packet_id, written)
    }

    /// Its shared subscriptions, whether they have ended or not.
    pub fn shared(&self) -> impl Iterator<Item = &str> {
        self.shared.keys().map(String::as_str)
    }

    /// SUBACK.
    pub(crate) fn granted_share(&mut self, written: &str, got: &Got, ledger: &mut Ledger) {
        let (name, head) = (self.name_of(written), ledger.head());
        let is_refused = matches!(got.reason, Reason::QuotaExceeded | Reason::UnspecifiedError);
        let may = is_refused || (got.reason == Reason::NotAuthorized && written.contains("/secret/"));
        assert!(may || !got.reason.is_error(), "{written:?} refused: {got:?}");
        match got.reason.is_error() {
            // One that it has already goes on as it was.
            true if ledger.groups.holds(&name, self.number) => {}
            true => ledger.groups.left(&name, self.number, head),
            false => ledger.groups.granted(&name, self.number, head),
        }
    }

    /// Whether a message came by a shared subscription, and not by another one.
    pub(crate) fn got_shared(&mut self, got: &Got, ledger: &mut Ledger) -> bool {
        let Some(connection) = self.connection().filter(|_| !self.shared.is_empty()) else { return false };
        // What it was given before it unsubscribed, and is sent only now, has no identifier any more.
        let is_left = self.plan.has_ids && got.ids.is_empty() && !got.dup;
        let topic = TopicName::trusted(&got.topic);
        let is_its = |(written, ids): &(&String, &Vec<u32>)| match self.plan.has_ids {
            true if is_left => ledger.groups.leaves(&self.name_of(written), self.number, topic),
            true => ids.iter().any(|id| got.ids.contains(id)),
            false => true,
        };
        let mut by: Vec<Name> = self.shared.iter().filter(is_its).map(|(it, _)| self.name_of(it)).collect();
        self.reader.count += 1;
        let is_of_many = is_left && by.len() > 1;
        if is_of_many {
            by.clear();
        }
        let to = Receiver {
            client: self.number,
            connection,
            is_v5: self.plan.version == Version::V5,
            is_kept: self.session_until_us.is_some(),
        };
        let mut groups = std::mem::take(&mut ledger.groups);
        // Its subscription may have ended since it was sent first.
        let is_nameless = by.is_empty() && (got.dup || is_of_many);
        if is_nameless {
            groups.got_again(got, ledger);
        }
        assert!(by.len() < 2, "by more than one: {by:?}, {got:?}");
        assert!(
            !by.is_empty() || is_nameless || self.plan.shares == Shares::Both,
            "nobody asked for {got:?}"
        );
        by.iter().for_each(|name| groups.got(name, to, got, ledger));
        ledger.groups = groups;
        !by.is_empty() || (is_nameless && (got.ids.is_empty() || self.plan.shares == Shares::Only))
    }

    fn name_of(&self, written: &str) -> Name {
        (self.plan.user, written.into())
    }
}
