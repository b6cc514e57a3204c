//! One session, played at both brokers in step: after each step both saw the same, or the difference is explained.

use std::{
    fmt,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    compare::Pair,
    explained::{SHARE_LOST, SHARE_RETAINED, Scene, Tally, explain},
    generate::TOPICS,
    model::{Due, Model, Play},
    seen::{Delivery, Seen},
    session::{Action, Session, Step},
    shared::{Pool, forget_retained},
    stage::Stage,
};

/// What is explained may also only be late: it is not believed before it was quiet for so long.
const QUIET: Duration = Duration::from_millis(20);
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);

/// Both brokers, and how long firehose has for what mosquitto did.
#[derive(Clone, Copy)]
pub struct Brokers {
    /// Where mosquitto is.
    pub mosquitto: SocketAddr,
    /// Where firehose is.
    pub firehose: SocketAddr,
    /// For how long a difference may last: firehose does in several threads what mosquitto does in one.
    pub patience: Duration,
}

/// What came of a session.
#[derive(Default)]
pub struct Outcome {
    /// Steps that were taken.
    pub steps: u64,
    /// Messages that subscribers saw at mosquitto.
    pub messages: u64,
    /// How often each rule was needed.
    pub tally: Tally,
    /// What is not explained; the session ended there.
    pub difference: Option<Difference>,
}

/// A difference that nothing explains.
pub struct Difference {
    /// After which step; `None`: at the end, when all were back.
    pub step: Option<Box<Step>>,
    /// A line for each thing that one client, or a group, saw at one broker only.
    pub lines: Vec<String>,
}

/// A session in course.
struct Round {
    brokers: Brokers,
    model: Model,
    mosquitto: Stage,
    firehose: Stage,
    /// What each client saw since it was last compared; the witness is last.
    pairs: Vec<Pair>,
    pools: (Pool, Pool),
    /// What firehose sent each client that has a Receive Maximum.
    histories: Vec<Vec<Delivery>>,
    /// Nothing was published since: what is retained was retained before.
    is_subscribing: bool,
    /// Wills that were due and that mosquitto may have overlooked.
    due: Vec<Due>,
    /// Those that it has.
    overlooked: Vec<Due>,
    outcome: Outcome,
}

/// Plays a session. `run` is a name that no other session at these brokers has.
pub fn play(session: &Session, brokers: Brokers, run: &str) -> Outcome {
    let stage = |address| Stage::new(address, run, &session.clients);
    let mut round = Round {
        brokers,
        model: Model::new(&session.clients),
        mosquitto: stage(brokers.mosquitto),
        firehose: stage(brokers.firehose),
        pairs: vec![Pair::default(); session.clients.len() + 1],
        pools: Default::default(),
        histories: vec![Vec::new(); session.clients.len() + 1],
        is_subscribing: false,
        due: Vec::new(),
        overlooked: Vec::new(),
        outcome: Outcome::default(),
    };
    round.outcome.difference = round.steps(session).err();
    round.mosquitto.clear(&TOPICS);
    round.firehose.clear(&TOPICS);
    round.outcome
}

impl Round {
    fn steps(&mut self, session: &Session) -> Result<(), Difference> {
        self.compare(session).map_err(|lines| Difference { step: None, lines })?;
        for step in &session.steps {
            self.step(session, step)
                .map_err(|lines| Difference { step: Some(Box::new(step.clone())), lines })?;
            if self.overlooked.iter().any(|due| due.retain) {
                // From here on other messages are retained at one than at the other.
                return Ok(());
            }
        }
        self.come_back(session).map_err(|lines| Difference { step: None, lines })
    }

    fn step(&mut self, session: &Session, step: &Step) -> Result<(), Vec<String>> {
        let Some(play) = self.model.take(step) else { return Ok(()) };
        self.is_subscribing = false;
        if play.release {
            self.mosquitto.release(step.client);
            self.firehose.release(step.client);
            self.compare(session)?;
        }
        if play.forget {
            self.pairs[step.client] = Pair::default();
        }
        self.outcome.steps += 1;
        self.due.extend(play.due.clone());
        self.is_subscribing = matches!(play.action, Action::Subscribe { .. });
        self.perform(step, &play);
        self.compare(session)
    }

    fn perform(&mut self, step: &Step, play: &Play) {
        self.mosquitto.perform(step, play);
        self.mosquitto.settle();
        self.firehose.perform(step, play);
        if play.pause_secs > 0 {
            thread::sleep(Duration::from_secs(play.pause_secs));
        }
    }

    /// Everyone who has a session comes back for what is left, and then the groups have been given the same.
    fn come_back(&mut self, session: &Session) -> Result<(), Vec<String>> {
        let number = session.steps.last().map_or(0, |step| step.number + 1);
        for client in 0..session.clients.len() {
            let step = self.model.coming_back(client, number + client);
            if let Some(step) = step {
                self.step(session, &step)?;
            }
        }
        let left = self.group_differences().len() as u64;
        if self.model.share_lost {
            self.outcome.tally[SHARE_LOST] += left;
        }
        Ok(())
    }

    /// Waits until all clients have seen the same at both. An error when they do not.
    fn compare(&mut self, session: &Session) -> Result<(), Vec<String>> {
        self.mosquitto.settle();
        let end = Instant::now() + self.brokers.patience;
        let mut quiet_since = Instant::now();
        loop {
            let something = self.look(session);
            if something {
                quiet_since = Instant::now();
            }
            let (lines, tally) = self.judge();
            let is_equal = tally.iter().all(|count| *count == 0) && self.group_differences().is_empty();
            if lines.is_empty() && (is_equal && !something || quiet_since.elapsed() > QUIET) {
                self.accept(&tally);
                return Ok(());
            }
            if !lines.is_empty() && Instant::now() > end {
                return Err(lines);
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Takes what has come. Tells whether something has at firehose.
    fn look(&mut self, session: &Session) -> bool {
        let something = self.firehose.sweep();
        self.mosquitto.sweep();
        let seen = self.mosquitto.take_seen().into_iter().zip(self.firehose.take_seen());
        for (client, (mut mosquitto, mut firehose)) in seen.enumerate() {
            if let Some(role) = session.clients.get(client) {
                if self.is_subscribing {
                    self.outcome.tally[SHARE_RETAINED] += forget_retained(*role, &mut mosquitto) as u64;
                }
                self.pools.0.take_from(*role, &mut mosquitto);
                self.pools.1.take_from(*role, &mut firehose);
            }
            self.pairs[client].mosquitto.extend(mosquitto);
            self.pairs[client].firehose.extend(firehose);
        }
        self.look_for_wills();
        something
    }

    /// Which of the wills that were due only firehose published.
    fn look_for_wills(&mut self) {
        let Some(witness) = self.pairs.last() else { return };
        let has = |seen: &[Seen], due: &Due| {
            seen.iter().filter_map(Seen::message).any(|delivery| delivery.origin() == Some(due.origin))
        };
        let (overlooked, due) = std::mem::take(&mut self.due)
            .into_iter()
            .partition::<Vec<_>, _>(|due| has(&witness.firehose, due) && !has(&witness.mosquitto, due));
        self.due = due;
        self.overlooked.extend(overlooked);
    }

    /// What the groups were given at one broker only.
    fn group_differences(&self) -> Vec<String> {
        let (mosquitto, firehose) = self.pools.0.differences(&self.pools.1);
        let mosquitto = mosquitto.into_iter().map(|line| format!("groups, only mosquitto: {line}"));
        let firehose = firehose.into_iter().map(|line| format!("groups, only firehose:  {line}"));
        mosquitto.chain(firehose).collect()
    }

    /// What is not explained of what everyone saw, and how often each rule was needed.
    fn judge(&self) -> (Vec<String>, Tally) {
        let mut lines = Vec::new();
        let mut tally = Tally::default();
        for client in self.compared() {
            let witness = Default::default();
            let state = self.model.states.get(client).unwrap_or(&witness);
            let scene = Scene {
                client,
                state,
                limited: state.has_waited && self.model.has_receive_maximum(client),
                history: &self.histories[client],
                overlooked: &self.overlooked,
                due: &self.due,
            };
            let (left, needed) = explain(&scene, &self.pairs[client]);
            let name =
                if client < self.model.states.len() { format!("client {client}") } else { "witness".into() };
            lines.extend(left.into_iter().map(|line| format!("{name}: {line}")));
            tally.iter_mut().zip(needed).for_each(|(sum, count)| *sum += count);
        }
        if self.model.shares_flow() && !self.model.share_lost {
            lines.extend(self.group_differences());
        }
        (lines, tally)
    }

    /// Who is compared now: not who waits for what may come later.
    fn compared(&self) -> impl Iterator<Item = usize> + use<> {
        let waits: Vec<bool> =
            (0..self.model.states.len()).map(|client| self.model.is_waiting(client)).collect();
        (0..self.pairs.len()).filter(move |client| !waits.get(*client).copied().unwrap_or(false))
    }

    fn accept(&mut self, tally: &Tally) {
        for client in self.compared() {
            let pair = std::mem::take(&mut self.pairs[client]);
            if self.model.has_receive_maximum(client) {
                self.histories[client].extend(pair.firehose.iter().filter_map(Seen::message).cloned());
            }
            self.outcome.messages += pair.mosquitto.iter().filter_map(|seen| seen.message()).count() as u64;
        }
        self.outcome.tally.iter_mut().zip(tally).for_each(|(sum, count)| *sum += count);
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => writeln!(f, "after {step}")?,
            None => writeln!(f, "at the end")?,
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
