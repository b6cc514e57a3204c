//! One step of a run: what may happen next. A step draws from its own seed, so that a run without it goes on as before.

use crate::client::Link;
use crate::engine::lock;
use crate::packets::{self, Outgoing};
use crate::plan::{FILTERS, LOGGED, RETAINED, SHARED, Shares, TOPICS, may_use};
use crate::rng::Rng;
use crate::world::{Crash, World};
use firehose_log::{DiskCall, Offset};
use firehose_mqtt::{RetainHandling, SubscribeOptions, Version};
use std::io::ErrorKind;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Flow,
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    Read,
    Acknowledge,
    Write,
    Room,
    Turn,
    Flush,
    Commit,
    State,
    Upkeep,
    Answer,
    Time,
    Leave,
    Calm,
    Port,
    Engine,
    Crash,
    DiskError,
    DiskHeals,
    Space,
    Flip,
    Clock,
    Redact,
}

/// All of them, with how often they come in a run in which they come at all.
const STEPS: &[(Step, u32)] = &[
    (Step::Flow, 60),
    (Step::Connect, 40),
    (Step::Publish, 120),
    (Step::Subscribe, 50),
    (Step::Unsubscribe, 10),
    (Step::Read, 40),
    (Step::Acknowledge, 40),
    (Step::Write, 40),
    (Step::Room, 40),
    (Step::Turn, 60),
    (Step::Flush, 40),
    (Step::Commit, 30),
    (Step::State, 40),
    (Step::Upkeep, 20),
    (Step::Answer, 30),
    (Step::Time, 20),
    (Step::Leave, 12),
    (Step::Calm, 8),
    (Step::Port, 15),
    (Step::Engine, 30),
    (Step::Crash, 12),
    (Step::DiskError, 15),
    (Step::DiskHeals, 10),
    (Step::Space, 8),
    (Step::Flip, 2),
    (Step::Clock, 4),
    (Step::Redact, 25),
];

/// How often each step comes in a seed's run: some never.
pub fn weights(world: &World) -> Vec<u32> {
    let rng = &mut Rng::of_step(world.plan.seed, u64::MAX - 1);
    let faults = world.plan.faults;
    let weight = |(step, weight): &(Step, u32)| {
        let may = match step {
            Step::Engine => world.plan.is_remote,
            Step::Answer => true,
            Step::Crash => faults.kills || faults.power_cuts,
            Step::DiskError | Step::DiskHeals => faults.errors,
            Step::Space => faults.full,
            Step::Flip => faults.flips,
            Step::Clock => faults.clock_jumps,
            Step::Redact => world.plan.redacts,
            Step::Connect | Step::Publish | Step::Subscribe | Step::Flow => true,
            _ => rng.percent(80),
        };
        if may { *weight } else { 0 }
    };
    STEPS.iter().map(weight).collect()
}

/// Draws a step and takes it.
pub fn take(world: &mut World, weights: &[u32], number: u64) {
    let rng = &mut Rng::of_step(world.plan.seed, number);
    let (step, _) = STEPS[rng.weighted(weights)];
    world.note(|| format!("-- {number}: {step:?}"));
    if world.bus.is_none() {
        world.disk.heal();
        world.disk.set_free_bytes(None);
        world.start();
        return;
    }
    let client = rng.below(world.clients.len());
    let host = rng.below(world.plan.shards);
    match step {
        Step::Flow => flow(world, rng),
        Step::Connect => connect(world, client, rng),
        Step::Publish => publish(world, client, rng),
        Step::Subscribe => subscribe(world, client, rng),
        Step::Unsubscribe => unsubscribe(world, client, rng),
        Step::Read => drop(world.read(client, amount(rng), prompt(world, client, rng))),
        Step::Acknowledge => {
            let bytes = world.clients[client].acknowledge(rng.between(1, 4));
            world.send(client, &bytes);
        }
        Step::Write => write(world, rng),
        Step::Room => make_room(world, client, rng),
        Step::Turn => drop(world.turn(host, rng.percent(70))),
        Step::Flush => drop(world.flush(host)),
        Step::Commit => drop(world.commit()),
        Step::State => drop(world.turn_of_state()),
        Step::Upkeep => world.upkeep(),
        Step::Answer => answer(world, rng),
        Step::Time => drop(world.pass([1, 50, 1000, 3000, 20_000][rng.below(5)])),
        Step::Leave => world.leave(client, rng.percent(50), rng.percent(60)),
        Step::Calm => crate::calm::calm(world),
        Step::Port => {
            world.publish_by_port(rng.pick(RETAINED), rng.below(3) as u8, true);
        }
        Step::Engine => engine(world, rng),
        Step::Crash => crash(world, rng),
        Step::DiskError => disk_error(world, rng),
        Step::DiskHeals => {
            world.disk.heal();
            world.cannot_truncate = false;
        }
        Step::Space => {
            let free_bytes = [None, None, Some(0), Some(500), Some(5000)][rng.below(5)];
            world.disk.set_free_bytes(free_bytes);
        }
        Step::Flip => flip(world, rng),
        Step::Clock => {
            let secs = [-3600, -1, 3600, 200_000, -200_000][rng.below(5)];
            world.jump(secs);
        }
        Step::Redact => crate::redaction::redact(world, rng),
    }
    if matches!(step, Step::Flow | Step::Turn | Step::Commit | Step::State | Step::Redact) {
        world.go_on_redacting();
    }
}

/// Everything moves a little, as it mostly does.
fn flow(world: &mut World, rng: &mut Rng) {
    for connection in 0..world.net.len() {
        world.receive(connection, usize::MAX);
    }
    for host in 0..world.plan.shards {
        world.turn(host, true);
        world.flush(host);
    }
    for client in 0..world.clients.len() {
        let promptly = prompt(world, client, rng);
        world.read(client, usize::MAX, promptly);
        if rng.percent(50) {
            make_room(world, client, rng);
        }
    }
    if rng.percent(50) {
        world.commit();
    }
    if rng.percent(60) {
        world.turn_of_state();
    }
    if rng.percent(70) {
        answer(world, rng);
    }
}

fn prompt(world: &World, client: usize, rng: &mut Rng) -> bool {
    rng.percent(world.clients[client].plan.promptness)
}

fn amount(rng: &mut Rng) -> usize {
    [1, 7, 60, 1000, usize::MAX][rng.below(5)]
}

fn connect(world: &mut World, client: usize, rng: &mut Rng) {
    if world.clients[client].link == Link::None || rng.percent(10) {
        world.connect(client, rng);
    }
}

fn publish(world: &mut World, client: usize, rng: &mut Rng) {
    for _ in 0..rng.between(1, 6) {
        let text = "x".repeat(rng.below(world.plan.payload_bytes_max));
        let Link::Up(_) = world.clients[client].link else { return };
        let it = &mut world.clients[client];
        let retained = rng.percent(25);
        let clears = retained && rng.percent(20) && !it.single.is_empty();
        let topic = match (clears, retained) {
            (true, _) => it.single.pop().unwrap_or_default(),
            (false, true) if rng.percent(30) => it.single_topic(),
            (false, true) => rng.pick(RETAINED).into(),
            (false, false) => rng.pick(TOPICS).to_owned(),
        };
        let qos = rng.below(3) as u8;
        if (qos > 0 && it.publisher.in_flight() >= it.window) || !may_use(it.plan.user.is_none(), &topic) {
            continue;
        }
        // Sent again at QoS 1 it would clear twice, and nobody could tell the one from the other.
        let qos = if clears && qos == 1 { 2 } else { qos };
        let text = Some(text.as_str()).filter(|_| !clears);
        let message = Outgoing { topic, payload: Vec::new(), qos, retain: retained, name: None };
        world.publish(client, message, text);
    }
}

fn subscribe(world: &mut World, client: usize, rng: &mut Rng) {
    let it = &mut world.clients[client];
    let Link::Up(_) = it.link else { return };
    if it.plan.shares == Shares::Only || (it.plan.shares == Shares::Both && rng.percent(60)) {
        return share(world, client, rng);
    }
    let mut written = rng.pick(FILTERS).to_owned();
    let mut begins = None;
    let ledger = lock(&world.ledger);
    let others = !it.reader.subscriptions.is_empty();
    let replaying = it.reader.subscriptions.iter().any(|it| it.ended.is_none() && it.replays());
    if rng.percent(30) && (it.plan.has_ids || !others) {
        let (from, place) = replay_from(it.cursor.clone(), ledger.oldest, rng);
        begins = Some(place);
        written = format!("$replay/{from}/{written}");
    }
    // Without identifiers it could not tell the copies of two lanes apart.
    if it.is_asking(&written) || (!it.plan.has_ids && replaying) {
        return;
    }
    let v5 = it.plan.version == Version::V5;
    let mut known = it.reader.subscriptions.iter().filter(|it| it.ended.is_none() && it.written == written);
    let new_one = v5 && it.plan.has_ids && rng.percent(20);
    let options = SubscribeOptions {
        qos: packets::qos(rng.below(3) as u8),
        no_local: known.next().map_or(new_one, |known| known.no_local),
        retain_handling: match rng.below(6) {
            0 if v5 => RetainHandling::SendIfNew,
            1 if v5 => RetainHandling::DoNotSend,
            _ => RetainHandling::Send,
        },
        ..SubscribeOptions::default()
    };
    let bytes = it.subscribe(&written, options, begins, &ledger);
    drop(ledger);
    world.note(|| format!("client {client} subscribes to {written:?}, {options:?}"));
    world.send(client, &bytes);
}

fn share(world: &mut World, client: usize, rng: &mut Rng) {
    let it = &mut world.clients[client];
    let written = rng.pick(SHARED);
    let options =
        SubscribeOptions { qos: packets::qos(rng.pick(&[0, 1, 1, 1, 2, 2])), ..SubscribeOptions::default() };
    // Without identifiers it could not tell by which of two a message comes.
    if it.is_asking(written) || (!it.plan.has_ids && it.shared().any(|known| known != written)) {
        return;
    }
    let bytes = it.share(written, options, &mut lock(&world.ledger));
    world.note(|| format!("client {client} subscribes to {written:?}, {:?}", options.qos));
    world.send(client, &bytes);
}

/// Where a replay begins: as it is written, and the first offset that has to come.
fn replay_from(cursor: Option<(String, Offset)>, oldest: Offset, rng: &mut Rng) -> (String, Offset) {
    match cursor {
        Some((text, offset)) if rng.percent(60) && offset + 1 >= oldest => (text, offset + 1),
        _ => ("earliest".into(), oldest),
    }
}

fn unsubscribe(world: &mut World, client: usize, rng: &mut Rng) {
    let it = &mut world.clients[client];
    let Link::Up(_) = it.link else { return };
    if it.plan.shares != Shares::None && rng.percent(50) {
        return unshare(world, client, rng);
    }
    let held: Vec<String> = it
        .reader
        .subscriptions
        .iter()
        .filter(|it| it.holds && it.ended.is_none())
        .map(|it| it.written.clone())
        .collect();
    if held.is_empty() {
        return;
    }
    let written = rng.pick(&held);
    if it.is_asking(&written) {
        return;
    }
    let bytes = it.unsubscribe(&written);
    world.note(|| format!("client {client} unsubscribes from {written:?}"));
    world.send(client, &bytes);
}

fn unshare(world: &mut World, client: usize, rng: &mut Rng) {
    let it = &mut world.clients[client];
    let known: Vec<String> =
        it.shared().map(str::to_owned).filter(|written| !it.is_asking(written)).collect();
    if known.is_empty() {
        return;
    }
    let written = rng.pick(&known);
    let bytes = it.unshare(&written, &mut lock(&world.ledger));
    world.note(|| format!("client {client} unsubscribes from {written:?}"));
    world.send(client, &bytes);
}

fn write(world: &mut World, rng: &mut Rng) {
    if !world.net.is_empty() {
        let connection = rng.below(world.net.len());
        world.receive(connection, amount(rng));
    }
}

fn make_room(world: &mut World, client: usize, rng: &mut Rng) {
    let Some(connection) = world.clients[client].connection() else { return };
    let bytes = world.clients[client].plan.socket_bytes.map_or(usize::MAX, |bytes| rng.between(1, bytes * 4));
    if let Some(bus) = &mut world.bus {
        bus.make_room(connection, bytes, &mut world.net);
    }
}

fn answer(world: &mut World, rng: &mut Rng) {
    if let Some(bus) = &mut world.bus
        && !bus.questions.is_empty()
    {
        let place = rng.below(bus.questions.len());
        bus.answer(place);
    }
}

fn engine(world: &mut World, rng: &mut Rng) {
    let (delays, hides) = (rng.percent(50), rng.percent(50));
    {
        let mut mood = lock(&world.mood);
        (mood.delays, mood.hides_durable) = (delays, hides);
    }
    if rng.percent(60) {
        world.publish_elsewhere(rng.pick(LOGGED), rng.below(3) as u8);
    }
}

fn crash(world: &mut World, rng: &mut Rng) {
    let faults = world.plan.faults;
    let crash = match faults.power_cuts && (!faults.kills || rng.percent(50)) {
        true => Crash::PowerCut,
        false => Crash::Kill,
    };
    world.crash(crash, rng);
}

fn disk_error(world: &mut World, rng: &mut Rng) {
    let calls = [
        DiskCall::Write,
        DiskCall::Write,
        DiskCall::Sync,
        DiskCall::Truncate,
        DiskCall::Create,
        DiskCall::Rename,
        DiskCall::SyncDir,
    ];
    match rng.below(10) {
        0..3 => {
            let bytes = rng.below(100);
            world.note(|| format!("the next write stops after {bytes} bytes"));
            world.disk.write_short(bytes);
        }
        3 => world.disk.set_cold(rng.percent(50)),
        4 => world.disk.write_back(rng.number()),
        _ => {
            let kinds = [ErrorKind::StorageFull, ErrorKind::Other, ErrorKind::TimedOut];
            let (call, kind) = (rng.pick(&calls), rng.pick(&kinds));
            if call == DiskCall::Truncate {
                // What can be neither cut back nor left behind is found at the next start, although it was refused.
                world.disk.heal();
                world.cannot_truncate = true;
            } else if world.cannot_truncate {
                return;
            }
            world.note(|| format!("the next {call:?} fails: {kind}"));
            world.disk.fail(call, kind);
        }
    }
}

fn flip(world: &mut World, rng: &mut Rng) {
    if let Some((file, byte)) = world.disk.flip_bit(rng.number()) {
        world.is_flipped = true;
        lock(&world.ledger).is_flipped = true;
        world.note(|| format!("a bit turned at {byte} of {}", file.display()));
        world.check_kept();
    }
}
