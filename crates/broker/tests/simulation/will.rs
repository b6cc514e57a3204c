//! The wills of a client: what has to become of each, as far as the client can know.

use crate::ledger::{Key, Ledger};

/// A bus that starts waits so long for the clients of the one before.
const GRACE_MS: u64 = 60_000;
/// A will that is due is published within this time, when nothing fails.
const SLACK_MS: u64 = 5_500;

/// The bus may not know yet.
const UNNOTICED: u64 = u64::MAX >> 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// CONNECT is sent.
    Asked,
    /// CONNACK came: it is stored.
    Stored,
    /// The connection ended without a DISCONNECT at this time: it is published once the delay is over.
    Due { since_ms: u64, delay_ms: u64, is_orphan: bool },
    /// As before, but CONNECT is sent again: it is called back if the client is let in.
    Called { since_ms: u64, delay_ms: u64, is_orphan: bool },
    /// CONNACK came, to the client of a bus that died: it was called back, if that was before this time.
    Recalled { due_ms: u64 },
    /// It is never published.
    Never,
    /// The client left properly: it is never published, once that is saved.
    Dropped,
    /// Once or not at all.
    Open,
}

/// One will.
#[derive(Clone, Debug)]
struct Will {
    key: Key,
    delay_ms: u64,
    fate: Fate,
    /// A bus that crashed may have found it due, and noted that: its client's return comes too late.
    may_be_due: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Wills {
    all: Vec<Will>,
    is_saved: bool,
}

impl Wills {
    /// A CONNECT brings one, or none. The ones before are called back by it, if they have a delay that is not over.
    /// `is_saved`: the state file takes what is to be saved before CONNACK, and no session expires meanwhile.
    pub fn connect(&mut self, new: Option<(Key, u32)>, is_saved: bool, now_ms: u64, ledger: &Ledger) {
        self.is_saved = is_saved;
        self.settle(now_ms);
        for will in &mut self.all {
            will.fate = match will.fate {
                Fate::Due { .. } if ledger.is_stored(will.key.message()) => Fate::Open,
                Fate::Due { delay_ms: 0, is_orphan: false, .. } => continue,
                Fate::Due { since_ms, delay_ms, is_orphan: false } if now_ms > since_ms + delay_ms => {
                    continue;
                }
                Fate::Due { since_ms, delay_ms, is_orphan } => Fate::Called { since_ms, delay_ms, is_orphan },
                Fate::Never => continue,
                _ => Fate::Open,
            }
        }
        self.all.extend(new.map(|(key, delay_secs)| Will {
            key,
            delay_ms: u64::from(delay_secs) * 1000,
            fate: Fate::Asked,
            may_be_due: false,
        }));
    }

    /// CONNACK: 0 or not.
    pub fn connected(&mut self, accepted: bool) {
        for will in &mut self.all {
            will.fate = match will.fate {
                Fate::Asked if accepted => Fate::Stored,
                Fate::Called { since_ms, delay_ms, is_orphan } if !accepted => {
                    Fate::Due { since_ms, delay_ms, is_orphan }
                }
                Fate::Called { since_ms, delay_ms, is_orphan: true } if self.is_saved && !will.may_be_due => {
                    Fate::Recalled { due_ms: since_ms + delay_ms }
                }
                Fate::Asked | Fate::Called { .. } => Fate::Open,
                other => other,
            }
        }
    }

    /// The connection ended, and the bus may not know yet. `properly`: it has read the DISCONNECT.
    pub fn disconnected(&mut self, properly: bool) {
        for will in &mut self.all {
            will.fate = match will.fate {
                Fate::Stored if properly => Fate::Dropped,
                Fate::Stored => Fate::Due { since_ms: UNNOTICED, delay_ms: will.delay_ms, is_orphan: false },
                Fate::Asked | Fate::Called { .. } => Fate::Open,
                other => other,
            };
        }
    }

    /// What was called back by now, in time, is so for ever.
    fn settle(&mut self, now_ms: u64) {
        for will in &mut self.all {
            will.fate = match will.fate {
                Fate::Recalled { due_ms } if now_ms < due_ms => Fate::Never,
                Fate::Recalled { .. } => Fate::Open,
                other => other,
            };
        }
    }

    /// The bus knows of every connection that ended.
    pub fn noticed(&mut self, now_ms: u64) {
        for will in &mut self.all {
            if let Fate::Due { since_ms, .. } = &mut will.fate {
                *since_ms = now_ms.min(*since_ms);
            }
        }
    }

    /// The bus is about to crash, and its connections with it.
    pub fn crashing(&mut self, now_ms: u64) {
        for will in &mut self.all {
            will.may_be_due |= match will.fate {
                Fate::Due { is_orphan: false, .. } => true,
                Fate::Due { since_ms, delay_ms, .. } => now_ms >= since_ms + delay_ms,
                _ => false,
            };
        }
    }

    /// The bus crashed, with or without having saved what it knew.
    pub fn crashed(&mut self, now_ms: u64) {
        self.settle(now_ms);
        for will in &mut self.all {
            will.fate = match will.fate {
                Fate::Due { delay_ms, .. } => {
                    Fate::Due { since_ms: now_ms, delay_ms: delay_ms.max(GRACE_MS), is_orphan: true }
                }
                Fate::Dropped | Fate::Called { .. } => Fate::Open,
                other => other,
            };
        }
    }

    /// The bus lost what it had stored; nothing is promised any more.
    pub fn forget(&mut self) {
        self.all.iter_mut().for_each(|will| will.fate = Fate::Open);
    }

    /// Everything has come to rest.
    pub fn check(&mut self, now_ms: u64, ledger: &Ledger) {
        self.settle(now_ms);
        for will in &self.all {
            let stored = ledger.is_stored(will.key.message());
            match will.fate {
                Fate::Never => assert!(!stored, "{:?} was called back, and is published", will.key),
                Fate::Dropped => assert!(!stored, "{:?} was dropped, and is published", will.key),
                Fate::Due { since_ms, delay_ms, .. } if now_ms > since_ms + delay_ms + SLACK_MS => {
                    assert!(stored, "{will:?} is due at {now_ms}, and is not published");
                }
                Fate::Stored => assert!(!stored, "{will:?} is published, and its client is there"),
                _ => {}
            }
        }
        self.all.retain(|will| !matches!(will.fate, Fate::Asked | Fate::Open));
    }
}
