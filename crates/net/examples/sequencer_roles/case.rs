//! The cases: a disk and a work, run with one role.

use crate::Options;
use crate::broker::Broker;
use crate::pings::Pings;
use serde_json::Value;
use std::error::Error;
use std::process::Command;

/// As the child is told.
pub const ROLES: [&str; 2] = ["depositor", "thread"];

/// A disk and a work.
pub struct Case {
    pub disk: &'static str,
    pub work: &'static str,
    durability: &'static str,
    /// What mqload is told.
    load: &'static [&'static str],
    rate: &'static str,
}

/// A rate of acknowledgements as a share of windows by publishers in 7 ms; at least 1 is wanted with an `fdatasync` of 5.
pub fn share_of_windows(rate: f64) -> f64 {
    rate * TURN_SECS / f64::from(WINDOWS)
}

/// One run's figures.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// The broker's CPU, µs of each delivery.
    pub cpu_us: f64,
    /// Deliveries or acknowledgements a second.
    pub rate: f64,
    /// From publish to arrival, µs.
    pub p50_us: f64,
    pub p99_us: f64,
    /// The longest PINGREQ to PINGRESP of an idle connection.
    pub ping_ms: f64,
    /// Lost, doubled or out of order.
    pub wrong: f64,
}

const PAIRS: &[&str] = &["pairs", "--n", "10", "--rate", "5000"];
const FANOUT: &[&str] = &["fanout", "--subs", "50", "--rate", "max"];
/// Unacknowledged messages of all publishers together: a window of 20 for each.
const WINDOWS: u32 = 1_000;
/// What an `fdatasync` of 5 ms and all around it may take until the windows are acknowledged.
const TURN_SECS: f64 = 0.007;
const ACKED: &[&str] = &[
    "fanin",
    "--pubs",
    "50",
    "--subs",
    "1",
    "--qos",
    "1",
    "--sub-qos",
    "0",
    "--rate",
    "max",
    "--window",
    "1000",
];

const fn pairs(disk: &'static str) -> Case {
    Case { disk, work: "pairs10-5000", durability: "os", load: PAIRS, rate: "delivered_per_s" }
}

const fn fanout(disk: &'static str) -> Case {
    Case { disk, work: "fanout50-max", durability: "os", load: FANOUT, rate: "delivered_per_s" }
}

const fn acked(disk: &'static str) -> Case {
    Case { disk, work: "qos1-50-sync", durability: "sync", load: ACKED, rate: "acked_per_s" }
}

/// All of them.
pub const CASES: [Case; 11] = [
    pairs("real"),
    fanout("real"),
    acked("real"),
    pairs("slow"),
    fanout("slow"),
    acked("slow"),
    pairs("stalling"),
    fanout("stalling"),
    acked("stalling"),
    acked("syncing"),
    pairs("hanging"),
];

impl Case {
    /// Whether it is one of those asked for, by disk or work; with none asked for, all are.
    pub fn is_wanted(&self, only: &[String]) -> bool {
        only.is_empty() || only.iter().any(|name| name == self.disk || name == self.work)
    }

    /// Whether its rate is one of acknowledgements, each after an `fdatasync` of 5 ms.
    pub fn is_of_syncs(&self) -> bool {
        self.disk == "syncing"
    }

    /// Runs it once.
    pub fn run(&self, role: &str, options: &Options) -> Result<Figures, Box<dyn Error>> {
        let broker = Broker::start(role, self.disk, self.durability, &options.data)?;
        let pings = Pings::start(broker.port)?;
        let seconds = options.seconds.to_string();
        let (port, pid) = (broker.port.to_string(), broker.pid().to_string());
        let output = Command::new(&options.mqload)
            .args(self.load)
            .args(["--seconds", &seconds, "--warmup", "0.5", "--port", &port, "--broker-pid", &pid, "--json"])
            .output()?;
        let ping_ms = pings.stop()?.as_secs_f64() * 1e3;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .map_err(|_| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))?;
        if !output.status.success() {
            return Err(format!("mqload: {}", report["error"]).into());
        }
        let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        Ok(Figures {
            cpu_us: number("/broker/us_per_delivery"),
            rate: number(&format!("/{}", self.rate)),
            p50_us: number("/latency_us/p50"),
            p99_us: number("/latency_us/p99"),
            ping_ms,
            wrong: number("/lost") + number("/dup") + number("/order_violations"),
        })
    }
}
