use std::{
    fmt::Write as _,
    fs,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

pub const HOW_TO_INSTALL: &str =
    "this test needs Debian's mosquitto: apt-get install mosquitto mosquitto-clients";

/// A mosquitto that runs until it is dropped.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
}

impl Broker {
    /// Starts one on a free port, with the anonymous allowed; what it printed if it refuses its files.
    pub fn start(folder: &Path, passwords: Option<&Path>, acl: Option<&Path>) -> Result<Self, String> {
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
            match Self::start_at(free, folder, passwords, acl) {
                // Somebody was quicker to take the port.
                Err(output) if output.contains("in use") => {}
                result => return result,
            }
        }
        panic!("no free port for mosquitto in 20 attempts");
    }

    fn start_at(
        address: SocketAddr,
        folder: &Path,
        passwords: Option<&Path>,
        acl: Option<&Path>,
    ) -> Result<Self, String> {
        // `user root`: started by root, it would otherwise drop to a user that cannot read the folder.
        let mut config = format!(
            "listener {} {}\nuser root\nallow_anonymous true\nsys_interval 0\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\n",
            address.port(),
            address.ip()
        );
        for (key, path) in [("password_file", passwords), ("acl_file", acl)] {
            if let Some(path) = path {
                writeln!(config, "{key} {}", path.display()).unwrap();
            }
        }
        let path = folder.join("mosquitto.conf");
        fs::write(&path, config).unwrap();
        let spawn = |program| Command::new(program).arg("-c").arg(&path).stderr(Stdio::piped()).spawn();
        let child = spawn("mosquitto").or_else(|_| spawn("/usr/sbin/mosquitto"));
        let mut child = child.unwrap_or_else(|error| panic!("mosquitto: {error}; {HOW_TO_INSTALL}"));
        loop {
            if child.try_wait().unwrap().is_some() {
                let mut output = String::new();
                child.stderr.take().unwrap().read_to_string(&mut output).unwrap();
                return Err(output);
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(Self { child, address });
            }
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
