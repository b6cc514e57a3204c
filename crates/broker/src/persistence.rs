//! What the bus keeps of a session that outlives its connection: its name in the state, what waits until it is saved,
//! and what has to be sent again.

use crate::hold::Hold;
use crate::lane::Gap;
use crate::resend::Resend;
use crate::session::Session;
use crate::state::{Operation, Progress, SessionName, StoredLane, StoredSubscription};
use crate::told::Told;
use firehose_log::Offset;
use std::sync::Arc;

/// See the module. A session that ends with its connection has it too, if it went on with what the state had.
#[derive(Debug)]
pub struct Persistence {
    /// Its name in the state.
    pub name: Arc<SessionName>,
    /// How long it lives on after its connection, in seconds, `u32::MAX`: for ever; 0: it ends with it.
    pub expiry_secs: u32,
    /// The subscriptions, or the lanes that read them, are others than the state has.
    pub subscriptions_changed: bool,
    /// Something was sent or acknowledged since the progress was saved.
    pub progress_changed: bool,
    /// When the progress was saved last, in seconds of the shard's clock.
    pub saved_secs: u32,
    /// Where the shard stood then.
    pub saved_stand: Offset,
    /// What waits until it is saved.
    pub(crate) hold: Hold,
    /// What is to be sent again.
    pub(crate) resend: Resend,
    /// Gaps that its client may not have read.
    pub(crate) told: Told,
}

impl Persistence {
    /// Of a session whose connection has just begun.
    pub fn new(name: Arc<SessionName>, expiry_secs: u32) -> Persistence {
        Persistence {
            name,
            expiry_secs,
            subscriptions_changed: false,
            progress_changed: false,
            saved_secs: 0,
            saved_stand: 0,
            hold: Hold::default(),
            resend: Resend::default(),
            told: Told::default(),
        }
    }
}

impl Session {
    /// Whether it outlives its connection.
    pub fn is_persistent(&self) -> bool {
        self.persistence.as_deref().is_some_and(|it| it.expiry_secs > 0)
    }

    /// Notes that its subscriptions, or the lanes that read them, are not what the state has.
    pub(crate) fn change_subscriptions(&mut self) {
        if let Some(persistence) = &mut self.persistence {
            persistence.subscriptions_changed = true;
        }
    }

    /// How far it got, in a shard that stands at `stand`. What is queued in the outbox was not sent.
    pub(crate) fn progress(&self, stand: Offset) -> Progress {
        let queued = self.connection.as_deref().map(|it| it.outbox.first_offsets()).unwrap_or_default();
        let window = self.inflight.as_deref();
        let of_lane = |number: u16| {
            let lane = self.lane(number)?;
            let next = lane.next(stand);
            let first = queued.iter().find(|(queued, _)| *queued == number).map_or(next, |(_, first)| *first);
            let next = first.min(next);
            let unsaid = |told_at: Offset| {
                told_at >= next || window.is_some_and(|window| window.stored().any(|it| it.offset == told_at))
            };
            let is_open = |gap: &&Gap| gap.read_by().is_some() || gap.told_at().is_none_or(unsaid);
            let gap = lane.gap.as_ref().filter(is_open).cloned();
            let told = self.persistence.as_deref().and_then(|it| it.told.of_lane(number));
            let gap = match told.cloned() {
                Some(told) => Some(told.and(gap)),
                None => gap,
            };
            Some(StoredLane { number, next, gap: gap.map(|gap| gap.text().to_owned()) })
        };
        Progress {
            lanes: self.lanes().filter_map(of_lane).collect(),
            next_id: window.map_or(1, |window| window.packet_id(0)),
            inflight: window.map(|window| window.stored().collect()).unwrap_or_default(),
            scans: self.stored_scans(),
        }
    }

    /// All its subscriptions, as they are stored.
    fn stored_subscriptions(&self) -> Vec<StoredSubscription> {
        let stored = |it: &crate::session::Subscription| StoredSubscription {
            filter: it.filter.as_str().to_owned(),
            written: it.written.as_deref().map(str::to_owned),
            options: it.options.to_u8(),
            id: it.id,
            lane: it.lane,
            from: it.from,
        };
        self.subscriptions.iter().map(|(_, it)| stored(it)).collect()
    }

    /// What saves it: its progress, and its subscriptions if they changed, since both name its lanes.
    pub(crate) fn save_operations(&mut self, stand: Offset, now_secs: u32) -> Vec<Operation> {
        let progress = self.progress(stand);
        let mut taken = self.take_operations();
        let Some(persistence) = self.persistence.as_deref_mut() else { return Vec::new() };
        let name = persistence.name.clone();
        let changed = std::mem::take(&mut persistence.subscriptions_changed);
        persistence.progress_changed = false;
        (persistence.saved_secs, persistence.saved_stand) = (now_secs, stand);
        let mut operations = Vec::new();
        if changed {
            let subscriptions = self.stored_subscriptions();
            let (name, cursors) = (name.clone(), self.cursors);
            operations.push(Operation::Subscriptions { name, cursors, subscriptions });
        }
        operations.push(Operation::Progress { name, progress });
        operations.append(&mut taken);
        operations
    }
}
