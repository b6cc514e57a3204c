//! Idle connections that ping: a slow disk must not be seen by them.

use firehose_mqtt::{Connect, PINGREQ, PINGRESP, Packet, Properties, Version, encode};
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Enough for some on each shard: the server draws their ids for the shard with the fewest connections.
const CONNECTIONS: usize = 4;
/// How long each waits before its next.
const PAUSE: Duration = Duration::from_millis(15);
/// Longer is an error of the broker.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that ping.
pub struct Pings {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<Duration>>>,
}

impl Pings {
    /// Connects, and pings from then on.
    pub fn start(port: u16) -> Result<Pings, Box<dyn Error>> {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = connect(port)?;
            let stopping = stopping.clone();
            threads.push(std::thread::spawn(move || longest(stream, &stopping)));
        }
        Ok(Pings { stopping, threads })
    }

    /// The longest time from a PINGREQ to its PINGRESP.
    pub fn stop(self) -> Result<Duration, Box<dyn Error>> {
        self.stopping.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for thread in self.threads {
            longest = longest.max(thread.join().map_err(|_| "a pinging thread panicked")??);
        }
        Ok(longest)
    }
}

fn connect(port: u16) -> Result<TcpStream, Box<dyn Error>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: "",
        will: None,
        user_name: None,
        password: None,
        properties: Properties::default(),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(connect), Version::V311, &mut bytes)?;
    stream.write_all(&bytes)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer == [0x20, 2, 0, 0] { Ok(stream) } else { Err(format!("no CONNACK but {answer:?}").into()) }
}

fn longest(mut stream: TcpStream, stopping: &AtomicBool) -> std::io::Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut answer = [0; PINGRESP.len()];
    while !stopping.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream.write_all(&PINGREQ)?;
        stream.read_exact(&mut answer)?;
        longest = longest.max(began.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(longest)
}
