//! The power fails at any call: what was answered is there, and what was not is there wholly or not at all.

use crate::bed::*;
use firehose_broker::state::{Open, Operation, Progress, WillFate};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Open { client: usize, clean: bool, expiry_secs: u32, will: bool },
    Gone { client: usize, expiry_secs: u32, due: bool },
    Save { client: usize, next: u64 },
    Publish2 { client: usize, packet_id: u16 },
    Forget { client: usize, packet_id: u16 },
    Retain { topic: u8, empty: bool },
    Pass { secs: u64 },
    Restart,
    LosePower { seed: u64 },
}

fn steps() -> impl Strategy<Value = (Step, Option<(u64, u64)>)> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        4 => (client.clone(), any::<bool>(), prop_oneof![Just(0u32), Just(100)], any::<bool>())
            .prop_map(|(client, clean, expiry_secs, will)| Step::Open { client, clean, expiry_secs, will }),
        3 => (client.clone(), prop_oneof![Just(0u32), Just(100)], any::<bool>())
            .prop_map(|(client, expiry_secs, due)| Step::Gone { client, expiry_secs, due }),
        4 => (client.clone(), 1u64..50).prop_map(|(client, next)| Step::Save { client, next }),
        3 => (client.clone(), 1u16..4).prop_map(|(client, packet_id)| Step::Publish2 { client, packet_id }),
        2 => (client, 1u16..4).prop_map(|(client, packet_id)| Step::Forget { client, packet_id }),
        3 => (0u8..4, any::<bool>()).prop_map(|(topic, empty)| Step::Retain { topic, empty }),
        1 => (1u64..80).prop_map(|secs| Step::Pass { secs }),
        1 => Just(Step::Restart),
        1 => any::<u64>().prop_map(|seed| Step::LosePower { seed }),
    ];
    (step, proptest::option::weighted(0.3, (0u64..12, any::<u64>())))
}

/// What the state should have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    sessions: BTreeMap<usize, Session>,
    retained: BTreeMap<u8, u64>,
    /// Wills whose connection lives.
    attached: BTreeSet<usize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Session {
    expiry_secs: u32,
    left_us: Option<i64>,
    progress: Progress,
    received: BTreeSet<u16>,
}

impl Model {
    fn end(&mut self, client: usize) {
        self.sessions.remove(&client);
        self.attached.remove(&client);
    }

    fn expire(&mut self, now_us: i64) {
        let is_over = |it: &Session| {
            it.left_us.is_some_and(|left| left + i64::from(it.expiry_secs) * 1_000_000 <= now_us)
        };
        self.sessions.retain(|_, it| !is_over(it));
    }

    /// Nobody is connected any more; a second has passed.
    fn begin_again(&mut self, now_us: i64) {
        for session in self.sessions.values_mut() {
            session.left_us.get_or_insert(now_us);
        }
        self.attached.clear();
        self.expire(now_us);
    }

    fn matches(&self, found: &Found) -> bool {
        // One that ends with its connection is over when the bus begins again, as the probe does.
        let sessions = self.sessions.iter().filter(|(_, it)| it.expiry_secs > 0);
        let sessions = sessions.map(|(client, it)| (*client, (it.progress.clone(), it.received.clone())));
        let retained = self.retained.iter().map(|(topic, offset)| (format!("t/{topic}"), *offset));
        found.0 == sessions.collect() && found.1 == retained.collect::<Vec<_>>()
    }

    /// A step; `offset`: of the event that it published.
    fn apply(&mut self, step: &Step, offset: u64, now_us: i64) {
        match *step {
            Step::Open { client, clean, expiry_secs, will } => self.open(client, clean, expiry_secs, will),
            Step::Gone { client, expiry_secs, .. } => {
                self.attached.remove(&client);
                match self.sessions.get_mut(&client) {
                    Some(session) if expiry_secs > 0 => {
                        (session.expiry_secs, session.left_us) = (expiry_secs, Some(now_us));
                    }
                    _ => self.end(client),
                }
            }
            Step::Save { client, next } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.progress = progress(next);
                }
            }
            Step::Publish2 { client, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.received.insert(packet_id);
                }
            }
            Step::Forget { client, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.received.remove(&packet_id);
                }
            }
            Step::Retain { topic, empty: true } => drop(self.retained.remove(&topic)),
            Step::Retain { topic, empty: false } => drop(self.retained.insert(topic, offset)),
            Step::Pass { .. } => self.expire(now_us),
            Step::Restart | Step::LosePower { .. } => {}
        }
    }

    fn open(&mut self, client: usize, clean: bool, expiry_secs: u32, will: bool) {
        if clean || !self.sessions.contains_key(&client) {
            self.end(client);
            if expiry_secs > 0 {
                let (progress, received) = Default::default();
                let session = Session { expiry_secs, left_us: None, progress, received };
                self.sessions.insert(client, session);
            }
        }
        if let Some(session) = self.sessions.get_mut(&client) {
            (session.expiry_secs, session.left_us) = (expiry_secs, None);
        }
        if will {
            self.attached.insert(client);
        }
    }
}

/// What a state has: the sessions' progress and received ids, and what is retained.
type Found = (BTreeMap<usize, (Progress, BTreeSet<u16>)>, Vec<(String, u64)>);

struct Run {
    bed: Bed,
    /// What the state may be: after a cut, what is found does not always tell when a session was left.
    models: Vec<Model>,
}

impl Run {
    /// Does it in the models and asks it of the state, without a turn.
    fn ask(&mut self, step: &Step) {
        let mut offset = 0;
        match *step {
            Step::Open { client, clean, expiry_secs, will: with_will } => {
                // A client is connected once: the shard ends its earlier connection first.
                let before = self.models.iter().find_map(|model| model.sessions.get(&client));
                let expiry_before = before.map_or(0, |session| session.expiry_secs);
                self.ask(&Step::Gone { client, expiry_secs: expiry_before, due: true });
                let will = with_will.then(|| will(0));
                let open = Open { clean, expiry_secs, will, ..open(&client_name(client)) };
                self.bed.submit(vec![Operation::Open(Box::new(open))]);
                self.bed.submit(vec![Operation::Entered { name: client_name(client), expiry_secs }]);
            }
            Step::Gone { client, expiry_secs, due } => {
                let fate = if due { WillFate::Due { delay_secs: 0 } } else { WillFate::Dropped };
                self.bed.submit(vec![gone(&client_name(client), expiry_secs, fate)]);
            }
            Step::Save { client, next } => {
                let operation = Operation::Progress { name: client_name(client), progress: progress(next) };
                self.bed.submit(vec![operation]);
            }
            Step::Publish2 { client, packet_id } => {
                self.bed.publish2(&client_name(client), packet_id);
                self.bed.log.commit.commit().unwrap();
            }
            Step::Forget { client, packet_id } => {
                let (name, packet_ids) = (client_name(client), vec![packet_id]);
                self.bed.submit(vec![Operation::Forget { name, packet_ids }]);
            }
            Step::Retain { topic, empty } => {
                offset = self.bed.retain(&format!("t/{topic}"), if empty { b"" } else { b"1" });
                self.bed.log.commit.commit().unwrap();
            }
            Step::Pass { secs } => self.bed.pass(secs),
            Step::Restart | Step::LosePower { .. } => {}
        }
        let now_us = self.bed.now.wall_us;
        self.models.iter_mut().for_each(|model| model.apply(step, offset, now_us));
    }

    fn step(mut self, step: &Step, cut: Option<(u64, u64)>) -> Run {
        let (log_events, before) = (self.bed.log.read.head(), self.models.clone());
        if let Some((calls, _)) = cut {
            self.bed.state_disk.fail_after(calls, std::io::ErrorKind::Other);
        }
        self.ask(step);
        let is_logged = self.bed.log.read.head() > log_events;
        self.settle();
        let is_cut = self.bed.state_disk.is_failing();
        match (step, cut) {
            (_, Some((_, seed))) if is_cut => {
                self.bed = self.bed.lose_power_partly(seed);
                // The log's part of it is durable in any case; the rest is there wholly or not at all.
                if !is_logged {
                    self.models.extend(before);
                }
                self.begin_again();
                let found = self.found();
                self.models.retain(|model| model.matches(&found));
                self.models.dedup();
                assert!(!self.models.is_empty(), "neither before nor after {step:?}: {found:?}");
            }
            (Step::Restart, _) => {
                self.bed = self.bed.restart();
                self.begin_again();
            }
            (Step::LosePower { seed }, _) => {
                self.bed = self.bed.lose_power_partly(*seed);
                self.begin_again();
            }
            _ => self.bed.state_disk.heal(),
        }
        self.settle();
        self
    }

    fn begin_again(&mut self) {
        let now_us = self.bed.now.wall_us;
        self.models.iter_mut().for_each(|model| model.begin_again(now_us));
    }

    /// Fired wills are as good as published at once.
    fn settle(&mut self) {
        loop {
            let due = self.bed.settle().wills;
            if due.is_empty() {
                return;
            }
            for will in due {
                self.bed.publish_will(will.key.session, will.key.serial);
                self.bed.log.commit.commit().unwrap();
            }
        }
    }

    /// What a state that begins on copies of the disks has.
    fn found(&self) -> Found {
        let (disk, state_disk) = (self.bed.disk.copy(), self.bed.state_disk.copy());
        let limits = firehose_broker::Limits::default();
        let mut probe = Bed::on(disk, state_disk, self.bed.now, limits);
        assert!(probe.notes.is_empty(), "{:?}", probe.notes);
        probe.settle();
        let mut sessions = BTreeMap::new();
        for client in 0..CLIENTS {
            let opened = probe.open(Open { expiry_secs: 0, ..open(&client_name(client)) }).unwrap();
            if let Some(resumed) = opened.resumed {
                sessions.insert(client, (resumed.progress, resumed.received.into_iter().collect()));
            }
        }
        (sessions, probe.retained("#"))
    }
}

fn client_name(client: usize) -> std::sync::Arc<firehose_broker::state::SessionName> {
    name(&format!("client-{client}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_state_is_what_was_answered(
        steps in proptest::collection::vec(steps(), 1..25)
    ) {
        let mut run = Run { bed: Bed::new(), models: vec![Model::default()] };
        for (step, cut) in &steps {
            run = run.step(step, *cut);
            prop_assert!(run.bed.notes.iter().all(is_of_last_save), "{:?}", run.bed.notes);
        }
        let found = run.found();
        run.models.retain(|model| model.matches(&found));
        prop_assert!(!run.models.is_empty(), "{found:?}");
        run.bed.pass(60);
        run.settle();
        prop_assert_eq!(run.bed.state.wills(), run.models[0].attached.len(), "each other one was fired");
    }
}

#[test]
fn the_power_may_fail_at_every_call_of_a_first_start() {
    for calls in 0..200 {
        let state_disk = firehose_log::MemDisk::new();
        let bed = Bed::new();
        state_disk.fail_after(calls, std::io::ErrorKind::StorageFull);
        let limits = firehose_broker::Limits::default();
        let cut = Bed::on(bed.disk.copy(), state_disk, bed.now, limits);
        let was_cut = cut.state_disk.is_failing();
        let mut cut = cut.lose_power_partly(calls);
        assert!(cut.notes.is_empty(), "{calls}: {:?}", cut.notes);
        cut.open(open(&name("a"))).unwrap();
        if !was_cut {
            return;
        }
    }
    panic!("the first start has no end");
}
