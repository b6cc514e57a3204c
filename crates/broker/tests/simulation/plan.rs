//! What a seed's world is like.

use crate::rng::Rng;
use firehose_auth::{Access, AnonymousMode, AuthConfig};
use firehose_broker::{Durability, Limits};
use firehose_log::LogConfig;
use firehose_mqtt::Version;
use std::net::IpAddr;
use std::sync::OnceLock;

/// Topics that clients publish to. `secret/` is not for the anonymous, `live/` is in no log, `kept/` is published
/// with the retain flag.
pub const TOPICS: &[&str] = &["t/0/a", "t/0/b", "t/1/a", "t/1/b", "t/2", "secret/x", "live/a", "live/b"];
/// Topics that another node publishes to: what is in no log is not passed on between nodes.
pub const LOGGED: &[&str] = &["t/0/a", "t/1/b", "t/2", "secret/x"];
/// Topics of retained messages.
pub const RETAINED: &[&str] = &["kept/0", "kept/1", "kept/2/a", "kept/2/b"];
/// Filters that clients subscribe to.
pub const FILTERS: &[&str] = &[
    "#",
    "t/#",
    "t/+/a",
    "t/0/#",
    "t/1/b",
    "t/2",
    "+/0/a",
    "secret/#",
    "live/#",
    "kept/#",
    "kept/+",
    "nobody/publishes/this",
    "+/+/+",
];
/// Filters of shared subscriptions.
pub const SHARED: &[&str] = &[
    "$share/a/t/#",
    "$share/a/t/#",
    "$share/a/t/#",
    "$share/b/t/0/#",
    "$share/b/#",
    "$share/a/kept/#",
    "$share/a/secret/#",
];
pub const UNLOGGED: &str = "live/#";

/// Which lines of the ACL file say so: see [`access`].
pub fn may_use(is_anonymous: bool, topic: &str) -> bool {
    !is_anonymous || !topic.starts_with("secret/")
}

/// The rules of all worlds.
pub fn access() -> &'static Access {
    static ACCESS: OnceLock<Access> = OnceLock::new();
    ACCESS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (acl, passwords) = (folder.path().join("acl"), folder.path().join("passwd"));
        let lines =
            "topic t/#\ntopic live/#\ntopic kept/#\ntopic nobody/#\nuser alice\ntopic #\nuser bob\ntopic #\n";
        std::fs::write(&acl, lines).expect("written");
        // Nobody asks for a password here, so that its hash may be any.
        let hash = format!("$7$1$AAAAAAAAAAAAAAAA${}==", "A".repeat(86));
        std::fs::write(&passwords, format!("alice:{hash}\nbob:{hash}\n")).expect("written");
        let (password_file, acl_file) = (Some(passwords), Some(acl));
        let config = AuthConfig { password_file, acl_file, anonymous: AnonymousMode::Full };
        Access::new(config).expect("loads")
    })
}

/// Which disasters happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub kills: bool,
    pub power_cuts: bool,
    /// Calls to the disk that fail, or write short.
    pub errors: bool,
    pub full: bool,
    /// Bits that turn.
    pub flips: bool,
    pub clock_jumps: bool,
}

/// Which subscriptions a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    None,
    /// Shared ones only: those that it was not given an identifier for come by one.
    Only,
    Both,
}

/// A client.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub version: Version,
    pub user: Option<&'static str>,
    pub address: Option<IpAddr>,
    pub name: String,
    pub shares: Shares,
    /// Its session outlives its connections.
    pub persists: bool,
    /// Its session may end without its doing: it expires when the clock jumps, and in MQTT 3.x, which is not told of
    /// gaps, it becomes a new one when retention overtakes it.
    pub may_be_overtaken: bool,
    /// MQTT 5: its subscriptions have identifiers.
    pub has_ids: bool,
    /// MQTT 5: it gets the cursor with each PUBLISH.
    pub has_cursors: bool,
    /// Messages it lets the bus have in flight (MQTT 5).
    pub receive_max: u16,
    /// Messages it has in flight.
    pub window: usize,
    /// How often of a hundred it acknowledges at once.
    pub promptness: usize,
    /// Bytes that its socket takes; none: everything.
    pub socket_bytes: Option<usize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub steps: u64,
    pub shards: usize,
    pub durability: Durability,
    /// The engine with delays and foreign events.
    pub is_remote: bool,
    pub delays_reads: bool,
    pub limits: Limits,
    pub segment_bytes: u64,
    pub tail_bytes: usize,
    pub retention_bytes: Option<u64>,
    pub payload_bytes_max: usize,
    pub faults: Faults,
    /// Events are taken back.
    pub redacts: bool,
    pub clients: Vec<ClientPlan>,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let rng = &mut Rng::of_step(seed, u64::MAX);
        let segment_bytes = rng.pick(&[1 << 10, 3 << 10, 16 << 10, 1 << 20]);
        let retention_bytes = rng.percent(25).then_some(segment_bytes * 3);
        let has_retention = retention_bytes.is_some();
        let faults = Faults {
            kills: rng.percent(50),
            power_cuts: rng.percent(50),
            errors: rng.percent(25),
            full: rng.percent(20),
            flips: rng.percent(5),
            clock_jumps: rng.percent(10),
        };
        Plan {
            seed,
            steps: rng.pick(&[60, 150, 400]),
            shards: rng.between(1, 3),
            durability: if rng.percent(70) { Durability::Sync } else { Durability::Os },
            is_remote: rng.percent(25),
            delays_reads: rng.percent(30),
            limits: limits(rng),
            segment_bytes,
            tail_bytes: rng.pick(&[0, 500, 4 << 10, 1 << 20]),
            retention_bytes,
            payload_bytes_max: rng.pick(&[20, 60, 400]),
            faults,
            redacts: Rng::of_step(seed, u64::MAX - 4).percent(25),
            clients: with_groups(
                &mut Rng::of_step(seed, u64::MAX - 2),
                (0..rng.between(1, 6)).map(|number| client(rng, number, has_retention, faults)).collect(),
            ),
        }
    }

    /// Whether clients share subscriptions.
    pub fn has_groups(&self) -> bool {
        self.clients.iter().any(|client| client.shares != Shares::None)
    }

    pub fn log_config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            tail_bytes: self.tail_bytes,
            retention_bytes: self.retention_bytes,
            disk_reserve_bytes: 1000,
            ..LogConfig::new("/data/log")
        }
    }
}

fn limits(rng: &mut Rng) -> Limits {
    Limits {
        outbox_bytes_max: rng.pick(&[100, 600, 4 << 10, 256 << 10]),
        parked_bytes_max: rng.pick(&[200, 2000, 2 << 20]),
        mailbox_bytes_max: rng.pick(&[300, 2000, 8 << 20, 8 << 20]),
        unplaced_bytes_max: rng.pick(&[200, 4 << 20]),
        inflight_max: rng.pick(&[1, 2, 5, 20, 1000]),
        replay_chunk_bytes: rng.pick(&[1, 200, 2000, 64 << 10]),
        replays_max: rng.pick(&[1, 3, 100]),
        replays_per_address_max: rng.pick(&[1, 8]),
        replay_bytes_per_sec_per_address_max: rng.pick(&[0, 1000, 20 << 20]),
        match_steps_max: rng.pick(&[0, 128, 128]),
        ..Limits::default()
    }
}

/// In a third of all worlds most clients share subscriptions, so that they have to be one user's.
fn with_groups(rng: &mut Rng, mut clients: Vec<ClientPlan>) -> Vec<ClientPlan> {
    if rng.percent(35) {
        let user = rng.pick(&[None, Some("alice"), Some("alice")]);
        for client in &mut clients {
            let (does, both) = (rng.percent(75), rng.percent(50));
            if does {
                client.user = user;
                client.shares = if client.has_ids && both { Shares::Both } else { Shares::Only };
            }
        }
    }
    clients
}

fn client(rng: &mut Rng, number: usize, has_retention: bool, faults: Faults) -> ClientPlan {
    let version = rng.pick(&[Version::V311, Version::V5, Version::V5]);
    let v5 = version == Version::V5;
    let address = [None, Some("203.0.113.1"), Some("203.0.113.2"), Some("2001:db8::7")][number % 4];
    ClientPlan {
        version,
        user: rng.pick(&[None, Some("alice"), Some("bob")]),
        address: address.map(|address| address.parse().expect("an address")),
        // Names come twice, at different addresses or of different users, or not at all.
        name: format!("client-{number}"),
        shares: Shares::None,
        persists: rng.percent(60),
        may_be_overtaken: (!v5 && has_retention) || faults.clock_jumps,
        has_ids: v5 && rng.percent(60),
        has_cursors: v5 && rng.percent(50),
        receive_max: rng.pick(&[1, 2, 3, 10, u16::MAX]),
        window: rng.between(1, 10),
        promptness: rng.pick(&[0, 30, 90, 100]),
        socket_bytes: rng.pick(&[None, None, Some(1), Some(37), Some(300)]),
    }
}
