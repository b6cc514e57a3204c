//! mqload: a neutral MQTT load generator. See ../README.md.

mod codec;
mod engine;
mod limit;
mod report;
mod scen;
mod sys;
mod tls;
mod track;
mod ws;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "mqload", version, about = "Neutral, low-overhead MQTT load generator")]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub cmd: Cmd,
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    #[arg(long, global = true, default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, global = true, default_value_t = 1883)]
    pub port: u16,
    #[arg(long, global = true)]
    pub username: Option<String>,
    #[arg(long, global = true)]
    pub password: Option<String>,
    /// First part of every client id (default: "ml" and the process id in hex)
    #[arg(long, global = true)]
    pub client_prefix: Option<String>,
    /// MQTT 5 instead of 3.1.1
    #[arg(long, global = true)]
    pub v5: bool,
    /// MQTT 5 Receive Maximum to send in CONNECT (0: none)
    #[arg(long, global = true, default_value_t = 0)]
    pub receive_maximum: u16,
    #[arg(long, global = true, default_value_t = 600)]
    pub keepalive: u16,
    /// Worker threads of the generator
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    /// Pin the generator to these CPUs (comma separated)
    #[arg(long, global = true, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Print one JSON object on the last line
    #[arg(long, global = true)]
    pub json: bool,
    /// Free text copied into the JSON object
    #[arg(long, global = true)]
    pub label: Option<String>,
    /// Seconds of load before the measured window
    #[arg(long, global = true, default_value_t = 1.0)]
    pub warmup: f64,
    /// Process id(s) of the broker: report its CPU and memory (comma separated)
    #[arg(long, global = true, value_delimiter = ',')]
    pub broker_pid: Vec<u32>,
    /// Make the broker's VmHWM start again at the beginning (writes 5 to clear_refs)
    #[arg(long, global = true)]
    pub reset_peak: bool,
    /// Payload bytes, the 24-byte header included
    #[arg(long, global = true, default_value_t = 256)]
    pub size: usize,
    /// Payload from the lines of a file in rotation, behind a header in hex (48 characters)
    #[arg(long, global = true)]
    pub payload_file: Option<String>,
    #[arg(long, global = true)]
    pub tls: bool,
    /// CA certificate(s) in PEM
    #[arg(long, global = true)]
    pub ca: Option<String>,
    /// No certificate verification
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Name to ask for and to verify in TLS (default: the host)
    #[arg(long, global = true)]
    pub sni: Option<String>,
    /// Allow TLS session resumption (default: full handshakes)
    #[arg(long, global = true)]
    pub tls_resume: bool,
    /// MQTT over WebSocket
    #[arg(long, global = true)]
    pub ws: bool,
    #[arg(long, global = true, default_value = "/mqtt")]
    pub ws_path: String,
    /// Connections in progress at once
    #[arg(long, global = true, default_value_t = 64)]
    pub connect_window: u32,
    /// Seconds for connecting or subscribing before giving up
    #[arg(long, global = true, default_value_t = 15.0)]
    pub connect_timeout: f64,
    /// Seconds without progress that end a drain
    #[arg(long, global = true, default_value_t = 1.0)]
    pub drain_idle: f64,
    /// Seconds that a drain may last at most
    #[arg(long, global = true, default_value_t = 10.0)]
    pub drain_max: f64,
    /// Microseconds of nap between rounds of reads while they are small
    /// (default: none with a rate, a small part of the latency in max mode; 0: never)
    #[arg(long, global = true)]
    pub nap_us: Option<u64>,
    /// Take the arrival time when the generator reads, not the kernel's receive stamp
    #[arg(long, global = true)]
    pub user_stamps: bool,
    /// Least microseconds between wake-ups for pacing
    #[arg(long, global = true, default_value_t = 500)]
    pub tick_us: u64,
    /// Milliseconds without progress after which a full closed-loop window is given up
    #[arg(long, global = true, default_value_t = 1000)]
    pub stall_ms: u64,
    /// Seconds of MQTT 5 session expiry for persistent sessions
    #[arg(long, global = true, default_value_t = 3600)]
    pub session_expiry: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    Max,
    PerSec(f64),
}

fn rate(s: &str) -> Result<Rate, String> {
    if s == "max" {
        return Ok(Rate::Max);
    }
    match s.parse::<f64>() {
        Ok(r) if r > 0.0 => Ok(Rate::PerSec(r)),
        _ => Err("a number above 0, or max".into()),
    }
}

#[derive(Args, Clone)]
pub struct Flow {
    /// Messages published per second by all publishers together, or max
    #[arg(long, value_parser = rate, default_value = "max")]
    pub rate: Rate,
    /// Length of the measured window
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// QoS of the subscriptions (default: that of the messages)
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub sub_qos: Option<u8>,
    /// Max mode: messages published and not yet delivered to ALL subscribers, for all
    /// publishers together (default: 256, or 16 per publisher where that is more)
    #[arg(long)]
    pub window: Option<u64>,
    /// Max mode: messages by which the window moves on at a time, a power of two (default: 1/16 of a publisher's window, but 4 where that is small)
    #[arg(long)]
    pub refill: Option<u64>,
    /// Max mode without the delivery window: only TCP (QoS 0) or acknowledgements (QoS 1, 2) hold back
    #[arg(long)]
    pub open_loop: bool,
    /// QoS 1, 2: unacknowledged messages per publisher at most (default: 1024, QoS 2: 20)
    #[arg(long)]
    pub inflight: Option<u64>,
    /// Topics per publisher
    #[arg(long, default_value_t = 1)]
    pub topics: u32,
}

#[derive(Subcommand)]
pub enum Cmd {
    /// One publisher (or a few) to many subscribers with the same filter
    Fanout {
        #[command(flatten)]
        f: Flow,
        #[arg(long, default_value_t = 10)]
        subs: u32,
        #[arg(long, default_value_t = 1)]
        pubs: u32,
        #[arg(long, default_value = "bench/#")]
        filter: String,
        /// Topic with {p} (publisher) and {t} (topic number); default: made from the filter
        #[arg(long)]
        topic: Option<String>,
    },
    /// Many publishers to a few subscribers
    Fanin {
        #[command(flatten)]
        f: Flow,
        #[arg(long, default_value_t = 100)]
        pubs: u32,
        #[arg(long, default_value_t = 1)]
        subs: u32,
        #[arg(long, default_value = "#")]
        filter: String,
        #[arg(long)]
        topic: Option<String>,
    },
    /// Publisher/subscriber pairs with a topic each
    Pairs {
        #[command(flatten)]
        f: Flow,
        #[arg(long, default_value_t = 10)]
        n: u32,
    },
    /// Idle connections: connect rate, CONNACK latency, memory per connection
    Conns {
        #[arg(long, default_value_t = 1000)]
        n: u32,
        /// New connections per second, or max
        #[arg(long, value_parser = rate, default_value = "max")]
        rate: Rate,
        /// Each connection subscribes to a topic of its own
        #[arg(long)]
        sub: bool,
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// Seconds to hold the connections before the liveness check
        #[arg(long, default_value_t = 1.0)]
        hold: f64,
        /// Connections per loopback source address
        #[arg(long, default_value_t = 2000)]
        per_address: u32,
    },
    /// Persistent sessions that are away while messages are published
    Offline {
        #[arg(long, default_value_t = 100)]
        sessions: u32,
        #[arg(long, default_value_t = 1000)]
        messages: u64,
        /// Messages published per second, or max
        #[arg(long, value_parser = rate, default_value = "max")]
        rate: Rate,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// Unacknowledged messages at most (default: 256, QoS 2: 20)
        #[arg(long)]
        inflight: Option<u64>,
        #[arg(long, default_value_t = 1)]
        topics: u32,
        #[arg(long, default_value = "bench/offline/#")]
        filter: String,
        /// How many of the sessions come back for their messages (default: all)
        #[arg(long)]
        drain: Option<u32>,
        /// Messages published before the sessions are there: buffers of a fixed size are full then
        #[arg(long, default_value_t = 0)]
        warm_messages: u64,
        /// Report how much this file of the broker's grows while messages are published
        #[arg(long)]
        watch_file: Option<PathBuf>,
    },
    /// Readers that fetch messages from a broker's log by `$replay/<from>/<filter>`
    Replay {
        #[arg(long, default_value_t = 1)]
        readers: u32,
        #[arg(long, default_value_t = 100000)]
        messages: u64,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// QoS of the readers' subscriptions (default: that of the messages)
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
        sub_qos: Option<u8>,
        /// Unacknowledged messages of the publisher at most (default: 256, QoS 2: 20)
        #[arg(long)]
        inflight: Option<u64>,
        /// From where to read
        #[arg(long, default_value = "earliest")]
        from: String,
    },
    /// Some subscribers stop reading while the others go on
    Slow {
        #[arg(long, default_value_t = 10)]
        subs: u32,
        #[arg(long, default_value_t = 1)]
        slow: u32,
        #[arg(long, default_value_t = 1000.0)]
        rate: f64,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// Unacknowledged messages at most (default: 1024, QoS 2: 20)
        #[arg(long)]
        inflight: Option<u64>,
        #[arg(long, default_value = "bench/#")]
        filter: String,
        /// SO_RCVBUF of the slow ones, with segments of 1,460 bytes (0: the system's default)
        #[arg(long, default_value_t = 16384)]
        slow_rcvbuf: u32,
    },
    /// Retained messages on distinct topics, then subscribers that fetch them all
    Retained {
        #[arg(long, default_value_t = 10000)]
        n: u32,
        /// Subscribers of the second round
        #[arg(long, default_value_t = 10)]
        subs: u32,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// Unacknowledged messages at most (default: 256, QoS 2: 20)
        #[arg(long)]
        inflight: Option<u64>,
        #[arg(long, default_value = "#")]
        filter: String,
        /// Leave the retained messages in the broker
        #[arg(long)]
        keep: bool,
    },
    /// QoS 1 publisher with a ledger of what was acknowledged (kill the broker from outside)
    Durable {
        /// Unacknowledged messages at most (default: 100, QoS 2: 20)
        #[arg(long)]
        inflight: Option<u64>,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[arg(long, value_parser = rate, default_value = "max")]
        rate: Rate,
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2), default_value_t = 1)]
        qos: u8,
        #[arg(long)]
        ledger: String,
    },
    /// Counts messages of a ledger that were acknowledged and are lost
    DurableCheck {
        #[arg(long)]
        ledger: String,
        /// Leave the session in the broker
        #[arg(long)]
        keep: bool,
    },
    /// The physical limit of this machine for the same work, without a broker
    Limit {
        #[command(subcommand)]
        what: Limit,
    },
}

#[derive(Subcommand)]
pub enum Limit {
    /// A bare epoll server in place of the broker
    Fanout {
        #[command(flatten)]
        f: Flow,
        #[arg(long, default_value_t = 10)]
        subs: u32,
        #[arg(long, default_value_t = 1)]
        pubs: u32,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.common.json;
    match scen::run(cli) {
        Ok(r) => {
            r.print(json);
            ExitCode::SUCCESS
        }
        Err((scenario, f)) => {
            eprintln!("mqload: {scenario}: {}", f.msg);
            if json {
                println!(
                    "{}",
                    serde_json::json!({"tool": "mqload", "scenario": scenario, "error": f.msg, "exit": f.code})
                );
            }
            ExitCode::from(f.code as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn cli_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates() {
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("1e3"), Ok(Rate::PerSec(1000.0)));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("x").is_err());
    }
}
