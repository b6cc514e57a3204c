//! The two brokers, as processes of their own.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const START_SECS_MAX: Duration = Duration::from_secs(60);

/// Its broker lives as long as this pipe, also if this program is killed.
const GUARD: &str = r#""$@" & broker=$!; exec >/dev/null; cat; kill -9 "$broker""#;

/// Both have the same limits, and more messages on their way than wait in any session: mosquitto 2.0 may stop when as many
/// as it allows have waited. What is away gets QoS 0 too, and overlapping
/// subscriptions bring a copy each on every version, so that the highest QoS among them is seen.
const MOSQUITTO_CONF: &str = "\
allow_anonymous true
persistence false
max_inflight_messages 200
max_queued_messages 0
queue_qos0_messages true
allow_duplicate_messages true
set_tcp_nodelay true
";

/// As `docs/reference/mqtt.md` has it for suites, with the same limits as above.
const FIREHOSE_TOML: &str = r#"
[[listener]]
name = "mqtt"
protocol = "mqtt"
address = "127.0.0.1:0"

[log]
durability = "os"

[auth]
anonymous = "full"

[limits]
packet_anonymous_bytes_max = "16MiB"
inflight_max = 200
topic_aliases_max = 10
keep_alive_secs_max = "1m"
"#;

/// A running broker. It is killed and its files are gone when this is dropped.
pub struct Broker {
    /// Where it speaks MQTT.
    pub address: SocketAddr,
    guard: Child,
    folder: TempDir,
}

impl Broker {
    /// Starts mosquitto.
    pub fn mosquitto(binary: &Path) -> Result<Self, String> {
        let folder = folder()?;
        let port = free_port().map_err(|error| format!("there is no free port: {error}"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config =
            write(&folder, "mosquitto.conf", &format!("listener {port} 127.0.0.1\n{MOSQUITTO_CONF}"))?;
        let guard = start(binary, &[Path::new("-c"), &config], &folder, Stdio::null())?;
        let broker = Self { address, guard, folder };
        if broker.answers() { Ok(broker) } else { Err(broker.complaint(binary)) }
    }

    /// Starts firehose.
    pub fn firehose(binary: &Path) -> Result<Self, String> {
        let folder = folder()?;
        let data = folder.path().join("data");
        let config = format!("[server]\ndata_dir = {:?}\n{FIREHOSE_TOML}", data.display().to_string());
        let config = write(&folder, "firehose.toml", &config)?;
        let arguments =
            [Path::new("serve"), Path::new("--config"), &config, Path::new("--admin"), Path::new("off")];
        let mut guard = start(binary, &arguments, &folder, Stdio::piped())?;
        let stdout = guard.stdout.take();
        let mut broker = Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), guard, folder };
        let lines =
            stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok);
        for line in lines {
            if let Some(address) =
                line.strip_prefix("listening mqtt ").and_then(|address| address.parse().ok())
            {
                broker.address = address;
            }
            if line == "ready" {
                return Ok(broker);
            }
        }
        Err(broker.complaint(binary))
    }

    /// The end of what it printed.
    pub fn words(&self) -> String {
        let text = fs::read(self.folder.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2_000)..]).into_owned()
    }

    fn answers(&self) -> bool {
        let end = Instant::now() + START_SECS_MAX;
        while Instant::now() < end {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn complaint(&self, binary: &Path) -> String {
        format!("{} does not start; it printed: {}", binary.display(), self.words())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The guard kills the broker when its pipe ends.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn start(binary: &Path, arguments: &[&Path], folder: &TempDir, stdout: Stdio) -> Result<Child, String> {
    let output =
        fs::File::create(folder.path().join("output")).map_err(|error| unwritable(folder.path(), &error))?;
    Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(binary)
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(output)
        // An interrupt at the terminal is for this program; the guard ends after it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh does not start: {error}"))
}

fn folder() -> Result<TempDir, String> {
    tempfile::Builder::new()
        .prefix("differential-")
        .tempdir()
        .map_err(|error| format!("no temporary folder: {error}; $TMPDIR says where it goes"))
}

fn write(folder: &TempDir, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.path().join(name);
    fs::write(&path, text).map_err(|error| unwritable(&path, &error))?;
    Ok(path)
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
