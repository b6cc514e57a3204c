//! The child: a bus with one role on one disk, until its standard input ends.

use crate::slow_disk::{SlowDisk, Slowness};
use firehose_auth::{Access, AnonymousMode, AuthConfig};
use firehose_broker::bus::wall_us;
use firehose_broker::state::State;
use firehose_broker::{Bus, BusConfig, Durability, Role};
use firehose_log::{Disk, LogConfig, RealDisk};
use firehose_net::{Address, Bound, ListenerConfig, Listeners, Protocol, Server};
use std::error::Error;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long clients get to go.
const GRACE: Duration = Duration::from_millis(200);

/// A child that serves.
pub struct Broker {
    child: Child,
    /// The port it listens on.
    pub port: u16,
}

impl Broker {
    /// Starts one in an empty folder under `data`.
    pub fn start(
        role: &str,
        disk: &str,
        durability: &str,
        data: &std::path::Path,
    ) -> Result<Broker, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["broker", role, disk, durability]).arg(data);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut port = [0; 2];
        child.stdout.take().ok_or("the broker has no output")?.read_exact(&mut port)?;
        Ok(Broker { child, port: u16::from_be_bytes(port) })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It fails only if it was waited for before.
        let _ = self.child.wait();
    }
}

/// Serves as the arguments say: role, disk, durability, folder. Says the port as two bytes.
pub fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("broker wants a {what}"));
    let role = if next("role")? == "thread" { Role::Thread } else { Role::Depositor };
    let disk = disk(&next("disk")?);
    let durability = if next("durability")? == "sync" { Durability::Sync } else { Durability::Os };
    let dir = tempfile::tempdir_in(next("folder")?)?;

    let address = Address::Tcp("127.0.0.1:0".into());
    let listener = ListenerConfig { name: "mqtt".into(), protocol: Protocol::Mqtt, address };
    let listeners = Listeners::bind(&[listener])?;
    let Some((_, Bound::Tcp(bound))) = listeners.addresses().pop() else {
        return Err("it has no port".into());
    };
    let log = firehose_log::open(LogConfig::new(dir.path()), disk, wall_us())?;
    let access =
        Access::new(AuthConfig { password_file: None, acl_file: None, anonymous: AnonymousMode::Full })?;
    let config = BusConfig { durability, role, ..BusConfig::default() };
    let state = State::in_memory(log.read.clone(), &config.limits);
    let bus = Bus::start(config, log, state, access);
    let server = Server::start(&bus, listeners, None)?;

    std::io::stdout().write_all(&bound.port().to_be_bytes())?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.stop(GRACE);
    bus.stop();
    Ok(())
}

fn disk(name: &str) -> Arc<dyn Disk> {
    let ms = Duration::from_millis;
    match name {
        "slow" => Arc::new(SlowDisk::new(Slowness { write: ms(20), one_in: 1, sync: ms(5) })),
        "syncing" => Arc::new(SlowDisk::new(Slowness { write: ms(0), one_in: u64::MAX, sync: ms(5) })),
        "hanging" => Arc::new(SlowDisk::new(Slowness { write: ms(20), one_in: 1, sync: ms(2_000) })),
        "stalling" => Arc::new(SlowDisk::new(Slowness { write: ms(50), one_in: 200, sync: ms(5) })),
        _ => Arc::new(RealDisk::new()),
    }
}
