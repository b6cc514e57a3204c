//! A log in a temporary folder behind a running HTTP service, and a client for it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use firehose_auth::{Access, AuthConfig};
use firehose_http::{Door, HttpConfig, Service};
use firehose_log::{
    Attribute, AttributesBuf, Draft, Event, Flags, Log, LogConfig, Origin, RealDisk, Submission, open,
};
use tempfile::TempDir;

/// The second in which the first event of each test is recorded.
pub const FIRST_SECS: i64 = 1_790_000_000;

/// A log, and the service that reads it.
pub struct Bus {
    pub folder: TempDir,
    pub log: Log,
    pub service: Option<Service>,
    pub address: SocketAddr,
    agent: ureq::Agent,
    now_us: i64,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    headers: Vec<(String, String)>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The path of the next page.
    pub fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        Some(link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?.to_owned())
    }

    /// The payloads of an NDJSON page.
    pub fn payloads(&self) -> Vec<String> {
        let lines = self
            .body
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("it is JSON"));
        lines.map(|event| event["data"].to_string()).collect()
    }
}

impl Bus {
    /// With these access rules, and a small page pool.
    pub fn start(auth: AuthConfig, change: impl FnOnce(&mut LogConfig)) -> Bus {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = LogConfig::new(folder.path().join("log"));
        config.disk_reserve_bytes = 0;
        change(&mut config);
        let now_us = FIRST_SECS * 1_000_000;
        let log = open(config, Arc::new(RealDisk::new()), now_us).expect("the log opens");
        let access = Access::new(auth).expect("the rules are right");
        let mut http = HttpConfig::new(log.read.clone(), access);
        http.head_timeout = Duration::from_millis(300);
        let service = Service::start(http).expect("the service starts");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = service.listen(listener, Door::Public).expect("it listens");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Bus { folder, log, service: Some(service), address, agent, now_us }
    }

    /// Where everyone reads everything.
    pub fn open() -> Bus {
        Bus::start(AuthConfig::default(), |_| {})
    }

    /// Stores these, each as a batch of its own, a second apart.
    pub fn append(&mut self, events: &[(&str, &str)]) {
        for (topic, payload) in events {
            self.append_batch(&[(topic, payload)]);
        }
    }

    /// Stores these as one batch.
    pub fn append_batch(&mut self, events: &[(&str, &str)]) {
        let mut draft = Draft::new();
        let mut attributes = AttributesBuf::new();
        attributes.push(&Attribute::UserProperty("k", "v"));
        for (topic, payload) in events {
            let event = Event {
                flags: Flags::new(1, false, None),
                topic,
                attributes: attributes.as_attributes(),
                payload: payload.as_bytes(),
            };
            draft.push(&event, &Origin { principal: "secret-user", ..Origin::default() }).expect("it fits");
        }
        let mut submissions = vec![Submission { draft, ticket: 0, from: 0 }];
        self.log.append.append(self.now_us, &mut submissions, &mut |_, _, placed| {
            placed.expect("the log takes it");
        });
        self.log.commit.commit().expect("it is durable");
        self.now_us += 1_000_000;
    }

    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[("accept", "application/x-ndjson")])
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut call = self.agent.get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let mut answer = call.call().expect("an answer");
        let headers = answer.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()));
        Answer {
            status: answer.status().as_u16(),
            headers: headers.collect(),
            body: answer.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body"),
        }
    }

    /// All pages from this path on, one list of payloads each.
    pub fn pages(&self, path: &str) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let answer = self.get(&path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            pages.push(answer.payloads());
            next = answer.next();
        }
        pages
    }
}
