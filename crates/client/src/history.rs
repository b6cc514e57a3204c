//! Past events over HTTP, page after page.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firehose_log::Cursor;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, http};

use crate::{Account, ClientError, Roots, Scheme, Url, tls};

/// The largest page that is asked for.
const PAGE_EVENTS: u64 = 1_000;
/// The longest line that is taken: base64 of the largest payload, and more than enough beside it.
const LINE_BYTES_MAX: u64 = 400 << 20;

/// What to ask for.
#[derive(Clone, Debug)]
pub struct HistoryRequest {
    /// The server.
    pub url: Url,
    /// As whom.
    pub account: Account,
    /// Who may vouch for the server, with `https`.
    pub roots: Roots,
    /// The filters; none: `#`.
    pub topics: Vec<String>,
    /// From where on, in the server's words; none: the earliest.
    pub since: Option<String>,
    /// Up to which time; none: the head as it is when the first page is made.
    pub until: Option<String>,
    /// The newest first.
    pub descending: bool,
    /// At most so many.
    pub count_max: Option<u64>,
}

/// Past events, one at a time.
pub struct History {
    agent: Agent,
    request: HistoryRequest,
    /// The page that is being read.
    lines: Option<Box<dyn BufRead>>,
    next: Option<String>,
    /// Nothing after this: the newest event when the first page was made.
    head: Option<Cursor>,
    left: u64,
}

/// One event, as the server wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEvent {
    /// The JSON object, without a line end.
    pub json: String,
}

impl History {
    /// Asks for the first page.
    pub fn open(request: HistoryRequest) -> Result<Self, ClientError> {
        if !matches!(request.url.scheme, Scheme::Http | Scheme::Https) {
            let what = format!("{}: history needs an http:// or https:// URL", request.url);
            return Err(ClientError::Usage(what));
        }
        let agent = agent(&request)?;
        let first = first_page(&request);
        let left = request.count_max.unwrap_or(u64::MAX);
        let mut history = History { agent, request, lines: None, next: None, head: None, left };
        history.load(&first)?;
        Ok(history)
    }

    fn next_event(&mut self) -> Result<Option<HistoryEvent>, ClientError> {
        while self.left > 0 {
            if let Some(json) = self.line()? {
                if self.is_beyond_head(&json) {
                    break;
                }
                self.left -= 1;
                return Ok(Some(HistoryEvent { json }));
            }
            let Some(next) = self.next.take() else { break };
            self.load(&next)?;
        }
        self.left = 0;
        Ok(None)
    }

    /// The next line of the page; none: it is at its end.
    fn line(&mut self) -> Result<Option<String>, ClientError> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let mut line = String::new();
        match lines.take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => {
                self.lines = None;
                Ok(None)
            }
            Ok(_) if !line.ends_with('\n') => {
                Err(self.lost("a page was cut short, or a line of it is too long"))
            }
            Ok(_) => {
                line.truncate(line.trim_end_matches(['\n', '\r']).len());
                Ok(Some(line))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.line(),
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    /// Whether the event is newer than the head was when the walk began.
    fn is_beyond_head(&self, json: &str) -> bool {
        let cursor = HistoryEvent::members(json).ok().and_then(|members| {
            members.iter().find(|(name, _)| name == "cursor").and_then(|(_, value)| text(value))
        });
        match (cursor.and_then(|cursor| Cursor::parse(&cursor).ok()), self.head) {
            (Some(cursor), Some(head)) => cursor.log_id == head.log_id && cursor.offset > head.offset,
            _ => false,
        }
    }

    fn load(&mut self, address: &str) -> Result<(), ClientError> {
        let mut call = self.agent.get(address).header("Accept", "application/x-ndjson");
        if let Some(user) = &self.request.account.user {
            let pair = format!("{user}:{}", self.request.account.password.as_deref().unwrap_or(""));
            call = call.header("Authorization", format!("Basic {}", STANDARD.encode(pair)));
        }
        let answer = call.call().map_err(|error| self.failed(&error))?;
        if !answer.status().is_success() {
            return Err(self.refused(answer));
        }
        let kind = header(&answer, "content-type").unwrap_or("");
        if !kind.starts_with("application/x-ndjson") {
            let what =
                format!("{} does not answer as a firehose does (content type {kind:?})", self.request.url);
            return Err(ClientError::Refused(what));
        }
        if self.head.is_none() {
            self.head = header(&answer, "firehose-head").and_then(|text| Cursor::parse(text).ok());
        }
        self.next = header(&answer, "link").and_then(next_link).map(|link| absolute(&self.request.url, link));
        let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        self.lines = Some(Box::new(BufReader::with_capacity(64 << 10, body)));
        Ok(())
    }

    fn lost(&self, what: &str) -> ClientError {
        ClientError::Connection(format!("the connection to {} is lost: {what}", self.request.url))
    }

    fn failed(&self, error: &ureq::Error) -> ClientError {
        match error {
            ureq::Error::BadUri(what) => ClientError::Usage(format!("{}: {what}", self.request.url)),
            error => ClientError::Connection(format!("cannot connect to {}: {error}", self.request.url)),
        }
    }

    /// What the server's problem (RFC 9457) says.
    fn refused(&self, mut answer: http::Response<Body>) -> ClientError {
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
        let detail = HistoryEvent::members(&body).ok().and_then(|members| {
            members.iter().find(|(name, _)| name == "detail").and_then(|(_, value)| text(value))
        });
        let detail = detail.map_or(String::new(), |detail| format!(": {detail}"));
        let what = format!("{} answered {status}{detail}", self.request.url);
        match status.is_server_error() {
            true => ClientError::Connection(what),
            false => ClientError::Refused(what),
        }
    }
}

impl Iterator for History {
    type Item = Result<HistoryEvent, ClientError>;

    /// The next event; after an error nothing more comes.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_event();
        if next.is_err() {
            self.left = 0;
        }
        next.transpose()
    }
}

impl HistoryEvent {
    /// The members of the object in their order, their values as they are written.
    pub fn members(json: &str) -> Result<Vec<(String, &RawValue)>, serde_json::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let members = deserializer.deserialize_map(Members)?;
        deserializer.end()?;
        Ok(members)
    }

    /// The payload: what `data` holds byte for byte, or what `data_base64` stands for.
    pub fn payload(&self) -> Option<Vec<u8>> {
        let members = Self::members(&self.json).ok()?;
        let of = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        if let Some(encoded) = of("data_base64") {
            return STANDARD.decode(text(encoded)?).ok();
        }
        let data = of("data")?.get();
        // spaces around the value belong to the payload: it reaches from the colon to the closing brace
        let start = data.as_ptr() as usize - self.json.as_ptr() as usize;
        let before = self.json[..start].trim_end_matches([' ', '\t']).len();
        let after = &self.json[start + data.len()..];
        let spaces = after.len() - after.trim_start_matches([' ', '\t']).len();
        Some(self.json.as_bytes()[before..start + data.len() + spaces].to_owned())
    }
}

/// The bytes that base64 stands for; none, if it is not base64.
pub fn decode_base64(encoded: &str) -> Vec<u8> {
    STANDARD.decode(encoded).unwrap_or_default()
}

/// A JSON string's text.
fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn agent(request: &HistoryRequest) -> Result<Agent, ClientError> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_send_request(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent(concat!("firehose/", env!("CARGO_PKG_VERSION")));
    if request.url.scheme == Scheme::Https {
        let certificates = request.roots.certificates()?;
        let certificates = certificates.iter().map(|der| Certificate::from_der(der).to_owned());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(tls::provider())
            .root_certs(RootCerts::new_with_certs(&certificates.collect::<Vec<_>>()))
            .build();
        config = config.tls_config(tls);
    }
    Ok(config.build().into())
}

fn first_page(request: &HistoryRequest) -> String {
    let mut address =
        format!("{}/v1/events?order={}", request.url, if request.descending { "desc" } else { "asc" });
    let limit = request.count_max.unwrap_or(PAGE_EVENTS).clamp(1, PAGE_EVENTS).to_string();
    let topics = request.topics.iter().map(|topic| ("topic", topic.as_str()));
    let since = request.since.as_deref().map(|since| ("since", since));
    let until = request.until.as_deref().map(|until| ("end", until));
    for (name, value) in topics.chain(since).chain(until).chain([("limit", limit.as_str())]) {
        address.push_str(&format!("&{name}="));
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    address.push(char::from(byte))
                }
                _ => address.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    address
}

fn header<'a>(answer: &'a http::Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name).and_then(|value| value.to_str().ok())
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, parameters) = after.split_once('>')?;
        let own = parameters.split(',').next().unwrap_or("");
        if own.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next")) {
            return Some(target);
        }
        rest = parameters;
    }
    None
}

/// A link of the server as an address: on the same server, whatever it says.
fn absolute(url: &Url, link: &str) -> String {
    let path = match link.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => link,
    };
    // a server behind a base path may or may not know of it
    let base = if path.starts_with(&format!("{}/", url.path)) { "" } else { url.path.as_str() };
    format!("{}://{}{base}{path}", url.scheme_name(), url.authority())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (value, link) in [
            ("</v1/events?a=b>; rel=\"next\"", Some("/v1/events?a=b")),
            ("</x>; rel=\"prev\", </y>; rel=\"next\"", Some("/y")),
            ("</x>; title=\"a\"; rel=next", Some("/x")),
            ("</x>; rel=\"prev\"", None),
            ("", None),
        ] {
            assert_eq!(next_link(value), link, "{value}");
        }
    }

    #[test]
    fn links_stay_on_the_server_that_was_asked() {
        let url = Url::parse("https://h/base").expect("it is valid");
        assert_eq!(absolute(&url, "/v1/events?x"), "https://h:443/base/v1/events?x");
        assert_eq!(absolute(&url, "http://evil/base/v1/events"), "https://h:443/base/v1/events");
    }

    #[test]
    fn a_payload_is_what_was_published_byte_for_byte() {
        for (json, payload) in [
            (r#"{"topic":"a","data":{"b" : [1,  2]}}"#, &br#"{"b" : [1,  2]}"#[..]),
            (r#"{"topic":"a","data": 1.50 }"#, b" 1.50 "),
            (r#"{"topic":"a","data":null}"#, b"null"),
            (r#"{"topic":"a","data_base64":"AP8="}"#, b"\x00\xff"),
        ] {
            let event = HistoryEvent { json: json.to_owned() };
            assert_eq!(event.payload().as_deref(), Some(payload), "{json}");
        }
    }
}
