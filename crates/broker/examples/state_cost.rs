//! What the state costs: a transaction, and a start with so many sessions. `state_cost FOLDER` works in a new folder there.

use firehose_broker::Limits;
use firehose_broker::action::Now;
use firehose_broker::arrival::Scope;
use firehose_broker::state::{
    Open, Operation, Progress, Request, SessionName, State, StoredInflight, StoredLane, StoredState,
    StoredSubscription,
};
use firehose_log::{LogConfig, RealDisk};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOW: Now = Now { ms: 0, wall_us: 1_795_406_400_000_000 };

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("say in which folder to work")?;
    for sessions in [1_000, 10_000, 100_000] {
        measure(&folder, sessions)?;
    }
    Ok(())
}

fn measure(folder: &str, sessions: u64) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(folder)?;
    let disk = Arc::new(RealDisk::new());
    let log = firehose_log::open(LogConfig::new(dir.path().join("log")), disk.clone(), NOW.wall_us)?;
    let path = dir.path().join("state.redb");
    let limits = Arc::new(Limits { anonymous_sessions_max: usize::MAX, ..Limits::default() });
    let (mut state, _) = State::open(disk.clone(), &path, log.read.clone(), limits.clone(), NOW)?;
    for first in (0..sessions).step_by(1_000) {
        (first..first + 1_000).for_each(|number| state.queue().submit(0, opening(number), 0));
        state.turn(0, NOW);
        (first..first + 1_000).for_each(|number| state.queue().submit(0, saving(number), 0));
        state.turn(0, NOW);
    }
    let alone = median((0..50).map(|number| timed(&mut state, [saving(number)])));
    let together = median((0..20).map(|_| timed(&mut state, (0..100).map(saving))));
    let thousand = median((0..5).map(|_| timed(&mut state, (0..1_000).map(saving))));
    let resumed = median((0..50).map(|number| timed(&mut state, [opening(number * 7)])));
    state.finish(0, NOW);
    drop(state);
    let began = Instant::now();
    let (state, report) = State::open(disk, &path, log.read.clone(), limits, NOW)?;
    let start = began.elapsed();
    println!(
        "{sessions} sessions: one save {alone:?}, 100 saves {together:?}, 1,000 saves {thousand:?}, one open {resumed:?}, \
         start {start:?} ({} found), file {} KiB",
        report.sessions,
        std::fs::metadata(&path)?.len() >> 10
    );
    drop(state);
    Ok(())
}

fn timed(state: &mut State, requests: impl IntoIterator<Item = Request>) -> Duration {
    let began = Instant::now();
    let mut asked = 0;
    for request in requests {
        asked += 1;
        state.queue().submit(0, request, 0);
    }
    let turn = state.turn(0, NOW);
    assert_eq!(turn.answers.len(), asked);
    began.elapsed()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn name(number: u64) -> Arc<SessionName> {
    let scope = Scope { user: None, address: Some(number % 1_000) };
    let client_id = format!("client-{number:08}").into();
    Arc::new(SessionName {
        hash: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        scope,
        client_id,
        assigned: false,
    })
}

fn opening(number: u64) -> Request {
    let name = name(number);
    let open = Open { name, clean: false, expiry_secs: 86_400, address: None, will: None };
    Request { token: 1, operations: vec![Operation::Open(Box::new(open))] }
}

/// Five subscriptions, twenty messages in flight.
fn saving(number: u64) -> Request {
    let name = name(number);
    let subscription = |index: u64| StoredSubscription {
        filter: format!("gerrit/project-{index}/+/{number}"),
        written: None,
        options: 1,
        id: 0,
        lane: 0,
        from: 1,
    };
    let sent = |packet_id| StoredInflight {
        packet_id,
        state: StoredState::Sent1,
        offset: 7,
        retain: false,
        shared: 0,
    };
    let progress = Progress {
        lanes: vec![StoredLane { number: 0, next: number, gap: None }],
        next_id: 21,
        inflight: (1..=20).map(sent).collect(),
        scans: Vec::new(),
    };
    let subscriptions = (0..5).map(subscription).collect();
    let operations = vec![
        Operation::Subscriptions { name: name.clone(), cursors: false, subscriptions },
        Operation::Progress { name, progress },
    ];
    Request { token: 1, operations }
}
