//! Calm weather: nothing fails, everybody reads and answers, until nothing moves. Then everything that was promised
//! has to have happened.

use crate::client::Link;
use crate::engine::{Mood, lock};
use crate::packets;
use crate::rng::Rng;
use crate::world::{Crash, World};

/// More rounds than this without rest are an endless loop.
const ROUNDS_MAX: usize = 200_000;
/// Seconds without a move after which nothing moves any more.
const QUIET_SECS: usize = 6;

/// Lets everything come to rest, and looks whether everything came.
pub fn calm(world: &mut World) {
    mend(world);
    if world.is_over {
        return;
    }
    settle(world);
    notice(world);
    let now_ms = world.now.ms;
    world.clients.iter_mut().for_each(|client| client.wills.noticed(now_ms));
    settle(world);
    assert!(world.redactions.is_empty(), "an event is not taken back");
    world.check_log();
    let mut ledger = lock(&world.ledger);
    let is_up: Vec<bool> = world.clients.iter().map(|it| matches!(it.link, Link::Up(_))).collect();
    let mut groups = std::mem::take(&mut ledger.groups);
    groups.check(&is_up, world.now.ms, &ledger);
    ledger.groups = groups;
    ledger.check_taken_back(&world.disk);
    for client in &mut world.clients {
        client.wills.check(world.now.ms, &ledger);
        if let Link::Up(_) = client.link {
            client.check_answered();
            client.reader.check_complete(ledger.head(), &ledger);
            client.reader.subscriptions.retain(|it| it.ended.is_none());
        }
    }
}

/// Everybody comes back who may have something of a group, so that it is seen whether it was lost.
pub fn gather(world: &mut World, rng: &mut Rng) {
    world.note(|| "-- everybody comes".into());
    let away = lock(&world.ledger).groups.away();
    for client in away {
        if world.clients[client].link == Link::None {
            world.connect(client, rng);
        }
    }
    calm(world);
    ping(world);
    // What sessions had that ended is given back within a minute.
    world.pass(70_000);
    calm(world);
}

/// Groups know from when on the bus knows who is gone.
fn notice(world: &World) {
    let mut ledger = lock(&world.ledger);
    let head = ledger.head();
    ledger.groups.notice(head);
}

/// The disk works again, and a log that does not is started anew.
fn mend(world: &mut World) {
    world.disk.heal();
    world.cannot_truncate = false;
    world.disk.set_free_bytes(None);
    world.disk.set_cold(false);
    if world.bus.is_none() {
        world.start();
    }
    calm_down(&mut lock(&world.mood));
    world.upkeep();
    if !world.commit() {
        world.crash(Crash::Kill, &mut Rng::new(0));
    }
}

fn calm_down(mood: &mut Mood) {
    (mood.delays, mood.hides_durable) = (false, false);
}

fn settle(world: &mut World) {
    let mut quiet_secs = 0;
    for _ in 0..ROUNDS_MAX {
        if round(world) {
            quiet_secs = 0;
            continue;
        }
        if world.bus.is_some() && !lock(&world.mood).foreign.is_empty() {
            world.publish_by_port("t/2", 1, false);
            continue;
        }
        if quiet_secs >= QUIET_SECS {
            return;
        }
        quiet_secs += 1;
        if (world.now.ms / 1000).is_multiple_of(20) {
            ping(world);
        }
        if world.pass(1000 - world.now.ms % 1000) < 1000 {
            // A replay waits for its rate.
            quiet_secs = 0;
        }
        if world.repeat_redactions() {
            quiet_secs = 0;
        }
        world.upkeep();
    }
    panic!("it never comes to rest");
}

/// Everything moves as far as it can, once. False: nothing did.
fn round(world: &mut World) -> bool {
    let mut moved = false;
    for connection in 0..world.net.len() {
        if let Some(bus) = &mut world.bus {
            bus.make_room(connection, usize::MAX, &mut world.net);
            if world.net[connection].left {
                bus.hang_up(connection, &mut world.net);
            }
        }
        moved |= world.receive(connection, usize::MAX);
    }
    for host in 0..world.plan.shards {
        moved |= world.turn(host, true);
        moved |= world.flush(host);
    }
    for client in 0..world.clients.len() {
        moved |= world.read(client, usize::MAX, true);
        let bytes = world.clients[client].acknowledge(usize::MAX);
        moved |= !bytes.is_empty();
        world.send(client, &bytes);
    }
    while let Some(bus) = world.bus.as_mut().filter(|bus| !bus.questions.is_empty()) {
        moved = true;
        bus.answer(0);
    }
    world.commit();
    moved |= world.turn_of_state();
    moved |= world.go_on_redacting();
    moved
}

/// Everybody says that it is there.
pub fn ping(world: &mut World) {
    for client in 0..world.clients.len() {
        if let Link::Up(_) = world.clients[client].link {
            let bytes = packets::ping(world.clients[client].plan.version);
            world.send(client, &bytes);
        }
    }
}
