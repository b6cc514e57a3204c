//! A will that is due: whether it may be published, and its record.

use crate::state::wills::DueWill;
use firehose_auth::{Auth, Identity};
use firehose_log::{Attributes, Draft, Event, Flags, Origin, WayIn};
use firehose_topic::{TopicFilter, TopicName};

/// What is to be done with a will that is due.
#[derive(Debug)]
pub enum Firing {
    /// Nothing: the rules that hold now do not let it be published, or no record can hold it.
    Refused,
    /// To be stored, and delivered.
    Logged(Draft),
    /// To be delivered only.
    Unlogged(Draft),
}

impl DueWill {
    /// Looks at the rules that hold now, not those of the CONNECT, and makes the record.
    pub fn firing(&self, auth: &Auth, unlogged: &[TopicFilter]) -> Firing {
        let Ok(topic) = TopicName::new(&self.will.topic) else { return Firing::Refused };
        let user = self.will.user.as_deref();
        let who = user.map_or_else(Identity::anonymous, Identity::user);
        let is_gone = user.is_some_and(|user| !auth.knows_user(user));
        let may = auth.may_have_will(&who) && auth.may_publish(&who, &self.client_id, topic);
        if is_gone || !may || firehose_auth::is_reserved(topic) {
            return Firing::Refused;
        }
        let mut draft = Draft::new();
        let event = Event {
            flags: Flags::from_byte(self.will.flags),
            topic: topic.as_str(),
            attributes: Attributes::from_raw(&self.will.attributes),
            payload: &self.will.payload,
        };
        let origin = Origin {
            principal: user.unwrap_or(""),
            session: self.key.session,
            packet_id: self.key.serial,
            way_in: WayIn::Will,
        };
        match draft.push(&event, &origin) {
            Err(_) => Firing::Refused,
            Ok(()) if unlogged.iter().any(|filter| filter.matches(topic)) => Firing::Unlogged(draft),
            Ok(()) => Firing::Logged(draft),
        }
    }
}
