//! Retained messages for new subscriptions: what was retained when the subscription began, page by page, at the pace
//! of the socket and of the client's window. Newer ones come by the subscription's lane.

use crate::frames::{Recorded, Shape};
use crate::message::ScanKey;
use crate::replay::{age_secs, expired};
use crate::retained_page::{Retained, RetainedPage};
use crate::scan::{RETAINED, Scans};
use crate::session::Session;
use crate::shard::{Action, Shard};
use crate::state::StoredScan;
use firehose_log::{Offset, ReadError};
use firehose_mqtt::{Property, QoS, RetainHandling, Version};
use firehose_topic::TopicName;
use std::sync::Arc;

/// After how many milliseconds a page that could not be read is asked for again.
const RETRY_MS: u64 = 1000;
/// What a page counts for in the rate of its address, in bytes, however little was found in it.
const PAGE_COST_BYTES: usize = 256;

/// Whether a SUBSCRIBE brings what is retained [MQTT-3.3.1-9] to [MQTT-3.3.1-11]. In 3.x it always does.
pub(crate) fn brings_retained(handling: RetainHandling, is_new: bool) -> bool {
    match handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    }
}

/// What holds for all messages of a page.
struct Terms {
    from: Option<Box<str>>,
    as_of: Offset,
    qos: QoS,
    id: u32,
    no_local: bool,
    checked: bool,
    cursors: bool,
    v5: bool,
    packet_bytes_max: u32,
}

impl Shard {
    /// A subscription begins, or is made again: it gets what is retained at `as_of`.
    pub(crate) fn begin_scan(&mut self, session: u32, subscription: usize, as_of: Offset) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(known) = it.subscriptions.get(subscription) else { return };
        if known.filter.as_str().starts_with("$SYS/") {
            return self.send_sys(session, subscription as u16);
        }
        it.scans.get_or_insert_default().begin(subscription as u16, as_of);
    }

    /// Asks for the next page, if what was queued is out. As with lanes that are behind, live messages go first.
    pub(crate) fn scan(&mut self, session: u32) {
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let (Some(scans), Some(connection)) = (it.scans.as_deref_mut(), it.connection.as_deref()) else {
            return;
        };
        let waits = connection.blocked || connection.window_shut || connection.outbox.has_messages();
        if waits || connection.closing {
            return;
        }
        scans.page_is_out();
        if scans.is_empty() {
            it.scans = None;
            return;
        }
        let Some(not_before_ms) = scans.wants() else { return };
        if self.now.ms < not_before_ms || !self.shared.replays.may_send(connection.address, self.now.ms) {
            return self.throttle(session);
        }
        if !self.may_read_log() {
            return self.starve(session);
        }
        self.ask_for_page(session);
    }

    fn ask_for_page(&mut self, session: u32) {
        let number = self.next_token() as u32;
        let Some(it) = self.sessions.get_mut(session as usize) else { return };
        let Some(wish) = it.scans.as_deref_mut().and_then(|scans| scans.ask(number)) else { return };
        let Some(subscription) = it.subscriptions.get(usize::from(wish.subscription)) else { return };
        let scan = ScanKey { session, generation: it.generation, scan: wish.number };
        self.reads += 1;
        self.actions.push(Action::Retained {
            scan,
            filter: subscription.filter.clone(),
            after: wish.after,
            as_of: wish.as_of,
            bytes_max: self.shared.limits.replay_chunk_bytes,
        });
    }

    /// The answer to [`Action::Retained`].
    pub(crate) fn retained(&mut self, key: ScanKey, page: Result<Arc<RetainedPage>, ReadError>) {
        self.reads = self.reads.saturating_sub(1);
        self.take_page(key, page);
        self.feed();
    }

    fn take_page(&mut self, key: ScanKey, page: Result<Arc<RetainedPage>, ReadError>) {
        let session = key.session;
        let Some(it) = self.sessions.get_mut(session as usize).filter(|it| it.generation == key.generation)
        else {
            return;
        };
        let Some(scans) = it.scans.as_deref_mut() else { return };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                if scans.failed(key.scan, self.now.ms + RETRY_MS) {
                    tracing::warn!(client = %it.client_id, %error, "retained messages cannot be read, trying again");
                    self.throttle(session);
                }
                return;
            }
        };
        let Some(turn) = scans.came(key.scan, page.after().map(Box::from)) else { return };
        let Some(terms) = terms(it, turn.subscription, turn.as_of, turn.from) else { return };
        let before = it.connection.as_deref().map_or(0, |connection| connection.outbox.bytes());
        for message in page.messages() {
            self.queue_retained(session, &terms, &message);
        }
        self.charge_page(session, before, page.after().is_some());
        self.scan(session);
    }

    /// Counts a page in the address's rate. A page that is not the last was read to its end, whatever was sent of it.
    fn charge_page(&mut self, session: u32, before: usize, more: bool) {
        let Some(connection) = self.connection(session) else { return };
        let sent = connection.outbox.bytes().saturating_sub(before);
        connection.fresh_bytes += sent;
        let address = connection.address;
        self.fresh_bytes += sent;
        let least = if more { self.shared.limits.replay_chunk_bytes } else { PAGE_COST_BYTES };
        self.shared.replays.sent(address, sent.max(least), self.now.ms);
        if sent > 0 {
            self.dirty(session);
        }
    }

    /// Queues one message, unless the client may not or does not want to have it.
    fn queue_retained(&mut self, session: u32, terms: &Terms, message: &Retained<'_>) {
        let Retained { offset, event, .. } = *message;
        if offset > terms.as_of || terms.from.as_deref().is_some_and(|from| event.topic < from) {
            return;
        }
        let Some(it) = self.sessions.get(session as usize) else { return };
        let age_secs = age_secs(message.time_us, self.now);
        if (terms.no_local && message.session == it.hash)
            || (terms.checked
                && !self.auth.may_read(&it.identity, &it.client_id, TopicName::trusted(event.topic)))
            || expired(&event, age_secs)
        {
            return;
        }
        let is_logged = offset > 0;
        let cursor =
            (terms.cursors && is_logged).then(|| self.cursor_at(offset, message.epoch, message.time_us));
        let id = (terms.id != 0).then_some(Property::SubscriptionId(terms.id));
        let cursor = cursor.as_deref().map(|cursor| Property::UserProperty("firehose-cursor", cursor));
        let (one, both);
        let extra: &[Property<'_>] = match (id, cursor) {
            _ if !terms.v5 => &[],
            (None, None) => &[],
            (Some(id), Some(cursor)) => {
                both = [id, cursor];
                &both
            }
            (Some(only), None) | (None, Some(only)) => {
                one = [only];
                &one
            }
        };
        let qos = terms.qos.min(QoS::from_u8(event.flags.qos()).unwrap_or(QoS::AtMostOnce));
        let shape = Shape { v5: terms.v5, qos, retain: true, extra };
        let recorded = Recorded { time_us: message.time_us, age_secs };
        let range = self.frames.encode(&shape, recorded, std::iter::once((offset, event)));
        if range.bytes > terms.packet_bytes_max {
            return;
        }
        if let Some(connection) = self.connection(session) {
            connection.outbox.push(&range, RETAINED, qos, is_logged);
            self.stats.messages_sent.add(1);
        }
    }

    /// `$SYS` is in no log: the last values are sent at once, all together, or dropped for who has enough to read.
    fn send_sys(&mut self, session: u32, subscription: u16) {
        let Some(latest) = self.shared.sys.latest() else { return };
        let Some(it) = self.sessions.get(session as usize) else { return };
        let Some(terms) = terms(it, subscription, Offset::MAX, None) else { return };
        let Some(connection) = it.connection.as_deref() else { return };
        let before = connection.outbox.bytes();
        let is_full = before >= self.shared.limits.outbox_bytes_max;
        if is_full || !self.shared.replays.may_send(connection.address, self.now.ms) {
            return self.stats.messages_dropped.add(1);
        }
        let Some(known) = it.subscriptions.get(usize::from(subscription)) else { return };
        let filter = known.filter.clone();
        for message in latest.messages().filter(|it| filter.matches(TopicName::trusted(it.event.topic))) {
            self.queue_retained(session, &terms, &message);
        }
        self.charge_page(session, before, false);
    }
}

fn terms(it: &Session, subscription: u16, as_of: Offset, from: Option<Box<str>>) -> Option<Terms> {
    let subscription = it.subscriptions.get(usize::from(subscription))?;
    let connection = it.connection.as_deref().filter(|connection| !connection.closing)?;
    let v5 = connection.version == Version::V5;
    Some(Terms {
        from,
        as_of,
        qos: subscription.options.qos,
        id: subscription.id,
        no_local: subscription.options.no_local,
        checked: subscription.checked,
        cursors: it.cursors && v5,
        v5,
        packet_bytes_max: connection.packet_bytes_max,
    })
}

impl Session {
    /// What its subscriptions have still to get of the retained messages. To be asked while what is queued lies in the
    /// outbox.
    pub fn stored_scans(&self) -> Vec<StoredScan> {
        let Some(scans) = self.scans.as_deref() else { return Vec::new() };
        let queued = self.connection.as_deref().and_then(|it| it.outbox.first_retained_topic());
        let filter = |subscription: u16| {
            let subscription = self.subscriptions.get(usize::from(subscription))?;
            Some(subscription.filter.as_str().to_owned())
        };
        scans.stored(queued, filter)
    }

    /// Goes on with scans that were kept; its subscriptions have to be there. [`Shard::scan`] asks for their pages.
    pub fn resume_scans(&mut self, stored: &[StoredScan]) {
        let subscriptions = &self.subscriptions;
        self.scans =
            Scans::resumed(stored, |filter| subscriptions.find(filter.as_str()).map(|place| place as u16));
    }
}
