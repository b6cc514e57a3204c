//! Subscriptions that their client has ended while messages waited: what was begun for them still names them.

use crate::resend::Resend;
use crate::session::{Session, Subscription, filter_cost_bytes};
use firehose_log::Offset;
use firehose_topic::TopicFilter;
use std::ops::Range;

/// A subscription with an identifier that the client has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) filter: TopicFilter,
    pub(crate) id: u32,
    pub(crate) no_local: bool,
    /// The first offset that counted for it, and the first that it did not come to.
    pub(crate) offsets: Range<Offset>,
}

impl Resend {
    /// Keeps what is needed to name a subscription that ends, unless all of them together would cost more than
    /// `bytes_max`. `upto`: the first offset that its lane did not come to.
    pub(crate) fn keep_ended(&mut self, it: Subscription, upto: Offset, bytes_max: usize) {
        let cost_bytes = |filter: &TopicFilter| filter_cost_bytes(filter, None) + size_of::<Ended>();
        let kept: usize = self.ended.iter().map(|it| cost_bytes(&it.filter)).sum();
        if it.id != 0 && it.from < upto && kept + cost_bytes(&it.filter) <= bytes_max {
            let Subscription { filter, id, from, options, .. } = it;
            self.ended.push(Ended { filter, id, no_local: options.no_local, offsets: from..upto });
        }
    }
}

impl Session {
    /// A subscription of it ended: messages that are begun and not out are completed as they were begun
    /// [MQTT-3.10.4-3].
    pub(crate) fn keep_ended(&mut self, subscription: Subscription, stand: Offset, bytes_max: usize) {
        let Some(lane) = self.lane(subscription.lane) else { return };
        let upto = lane.next(stand);
        if let Some(persistence) = self.persistence.as_deref_mut()
            && (persistence.resend.is_busy() || persistence.hold.has_messages())
        {
            persistence.resend.keep_ended(subscription, upto, bytes_max);
        }
    }
}
