//! `GET /v1/events` over a real log.

mod bus;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bus::{Bus, FIRST_SECS};
use firehose_auth::{AnonymousMode, AuthConfig, HashKind, PasswordFile};
use firehose_log::{Cursor, KeepNothing, format_time};

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Events 1 to `count` on `n/even` and `n/odd`, a second apart.
fn numbered(count: u32) -> Bus {
    let mut bus = Bus::open();
    for number in 1..=count {
        let topic = if number % 2 == 0 { "n/even" } else { "n/odd" };
        bus.append(&[(topic, &number.to_string())]);
    }
    bus
}

#[test]
fn an_empty_log_gives_an_empty_page_with_a_cursor() {
    let bus = Bus::open();
    let answer = bus.get("/v1/events");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(answer.header("firehose-cursor").is_some_and(|cursor| Cursor::parse(cursor).is_ok()));
    assert_eq!(answer.next(), None);
    assert_eq!(bus.get_with("/v1/events", &[]).body, "{\"events\":[]}\n");
}

#[test]
fn events_come_as_json_or_as_ndjson_and_nothing_private_leaves() {
    let mut bus = Bus::open();
    bus.append(&[("a/b", "{\"x\": 1}"), ("a/c", "plain")]);
    let lines = bus.get("/v1/events");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let line = lines.body.lines().next().expect("there are two");
    assert!(line.contains("\"topic\":\"a/b\"") && line.ends_with("\"data\":{\"x\": 1}}"), "{line}");
    assert!(line.contains("\"properties\":[[\"k\",\"v\"]]"), "{line}");
    assert!(!lines.body.contains("secret-user"));
    for accept in ["application/json", "*/*", "application/json, application/x-ndjson"] {
        let json = bus.get_with("/v1/events", &[("accept", accept)]);
        assert_eq!(json.header("content-type"), Some("application/json"), "{accept}");
        let value: serde_json::Value = serde_json::from_str(&json.body).expect("it is JSON");
        assert_eq!(value["events"].as_array().map(Vec::len), Some(2));
    }
}

#[test]
fn pages_upwards_hold_each_event_once_and_in_order() {
    let bus = numbered(25);
    assert_eq!(bus.pages("/v1/events?limit=10"), [numbers(1..=10), numbers(11..=20), numbers(21..=25)]);
    let even = bus.pages("/v1/events?topic=n/even&limit=5");
    assert_eq!(even.concat(), (1..=12).map(|n| (2 * n).to_string()).collect::<Vec<_>>());
    let both = bus.pages("/v1/events?topic=n/even&topic=n/%2B&limit=7");
    assert_eq!(both.concat(), numbers(1..=25));
}

#[test]
fn a_page_that_reached_the_head_has_no_next_and_its_cursor_goes_on_later() {
    let mut bus = numbered(10);
    let answer = bus.get("/v1/events?limit=10");
    assert_eq!(answer.next(), None);
    let cursor = answer.header("firehose-cursor").expect("every answer has it").to_owned();
    bus.append(&[("n/odd", "11")]);
    assert_eq!(bus.get(&format!("/v1/events?since={cursor}")).payloads(), ["11"]);
    let short = bus.get("/v1/events?limit=4");
    let cursor = short.header("firehose-cursor").expect("every answer has it");
    assert_eq!(bus.get(&format!("/v1/events?since={cursor}")).payloads(), numbers(5..=11));
    assert!(
        Cursor::parse(short.header("firehose-head").expect("it is there"))
            .is_ok_and(|head| head.offset == 11)
    );
}

#[test]
fn pages_downwards_hold_each_event_once_newest_first() {
    let bus = numbered(25);
    let mut all = numbers(1..=25);
    all.reverse();
    let pages = bus.pages("/v1/events?order=desc&limit=10");
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(pages.concat(), all);
    let since = format_time((FIRST_SECS + 20) * 1_000_000);
    assert_eq!(bus.pages(&format!("/v1/events?order=desc&limit=2&since={since}")).concat(), all[..5]);
    assert_eq!(bus.pages("/v1/events?order=desc&topic=n/odd&limit=5").concat().len(), 13);
}

#[test]
fn times_bound_a_page_inclusively() {
    let bus = numbered(10);
    let (start, end) = (format_time((FIRST_SECS + 2) * 1_000_000), format_time((FIRST_SECS + 5) * 1_000_000));
    for order in ["asc", "desc"] {
        let mut page =
            bus.pages(&format!("/v1/events?start={start}&end={end}&order={order}&limit=3")).concat();
        page.sort();
        assert_eq!(page, numbers(3..=6), "{order}");
    }
    assert!(bus.get("/v1/events?end=2020-01-01T00:00:00Z").payloads().is_empty());
    assert!(bus.get("/v1/events?since=2100-01-01T00:00:00Z").payloads().is_empty());
}

#[test]
fn batches_are_cut_where_a_page_ends() {
    let mut bus = Bus::open();
    for first in [1, 8, 15] {
        let payloads = numbers(first..=first + 6);
        bus.append_batch(&payloads.iter().map(|payload| ("n", payload.as_str())).collect::<Vec<_>>());
    }
    assert_eq!(bus.pages("/v1/events?limit=4").concat(), numbers(1..=21));
    let mut all = numbers(1..=21);
    all.reverse();
    assert_eq!(bus.pages("/v1/events?limit=4&order=desc").concat(), all);
}

#[test]
fn a_filter_that_matches_little_gets_short_pages_and_links_on() {
    let mut bus = Bus::open();
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    bus.append(&[("wanted", "1")]);
    for _ in 0..12 {
        bus.append(&[("large", &large)]);
    }
    bus.append(&[("wanted", "2")]);
    for order in ["asc", "desc"] {
        let pages = bus.pages(&format!("/v1/events?topic=wanted&order={order}"));
        assert!(pages.len() > 1, "36 MiB are more than one page looks at");
        assert_eq!(pages.concat().len(), 2);
    }
}

#[test]
fn a_page_of_large_events_ends_early_and_links_on() {
    let mut bus = Bus::open();
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    for _ in 0..5 {
        bus.append(&[("large", &large)]);
    }
    for order in ["asc", "desc"] {
        let pages = bus.pages(&format!("/v1/events?order={order}"));
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1], "{order}");
    }
}

#[test]
fn pages_that_nobody_reads_do_not_keep_others_from_reading() {
    let mut bus = Bus::open();
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    bus.append(&[("large", &large), ("large", &large), ("small", "1")]);
    let mut unread = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(bus.address).expect("it listens");
        stream.write_all(b"GET /v1/events?topic=large HTTP/1.1\r\nhost: h\r\n\r\n").expect("it can be sent");
        let mut begun = [0];
        stream.read_exact(&mut begun).expect("the answer begins");
        unread.push(stream);
    }
    assert_eq!(bus.get("/v1/events?topic=small").payloads(), ["1"]);
}

#[test]
fn who_asks_for_many_pages_and_reads_none_holds_up_no_other_address() {
    let mut bus = Bus::open();
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    bus.append(&[("large", &large), ("large", &large), ("small", "1")]);
    let dial = |address: &str, path: &str| {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        write!(ours, "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").expect("it can be sent");
        let service = bus.service.as_ref().expect("it runs");
        service.serve(theirs, address.parse().ok(), Vec::new(), firehose_http::Door::Public, ());
        ours
    };
    let page = |mut stream: UnixStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let mut unread: Vec<_> =
        (0..13).map(|number| dial(&format!("2001:db8::{number}"), "/v1/events?topic=large")).collect();
    // The first of them are being sent.
    unread[0].read_exact(&mut [0]).expect("the answer begins");
    assert!(page(dial("203.0.113.1", "/v1/events?topic=small")).starts_with("HTTP/1.1 200 "));
    assert!(page(dial("2001:db8:0:1::1", "/v1/events?topic=small")).starts_with("HTTP/1.1 200 "));
    assert_eq!(bus.get("/v1/events?topic=small").payloads(), ["1"]);
}

/// Asks for the events of a topic, and has read the beginning of the answer.
fn begun(bus: &Bus, topic: &str) -> UnixStream {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let head = format!("GET /v1/events?topic={topic} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    ours.write_all(head.as_bytes()).expect("it can be sent");
    let service = bus.service.as_ref().expect("it runs");
    service.serve(theirs, None, Vec::new(), firehose_http::Door::Public, ());
    ours.read_exact(&mut [0]).expect("the answer begins");
    ours
}

/// What else comes on a connection, whole or cut off.
fn rest(mut stream: UnixStream) -> String {
    let mut rest = Vec::new();
    let _cut_off = stream.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn an_event_that_was_taken_back_leaves_answers_whose_readers_do_not_take_them() {
    let mut bus = Bus::open();
    let large = |end: &str| format!("\"{}{end}\"", "x".repeat(3 << 20));
    bus.append(&[("secret", &large("hunter2")), ("other", &large("open"))]);
    let (stopped, other) = (begun(&bus, "secret"), begun(&bus, "other"));
    let taken = begun(&bus, "secret");
    let taking = std::thread::spawn(move || rest(taken));
    bus.log.commit.redact(1, FIRST_SECS * 1_000_000).expect("it is there");
    bus.service.as_ref().expect("it runs").under_way().take_back(1);
    assert!(!rest(stopped).contains("hunter2"), "what was in the system's buffers may come");
    assert!(rest(other).ends_with("open\"}]}\n"), "it has nothing of that event");
    let taken = taking.join().expect("it reads");
    assert!(taken.ends_with("hunter2\"}]}\n"), "who takes it at once may be just in time");
    assert!(!rest(begun(&bus, "secret")).contains("hunter2"));
}

#[test]
fn what_is_not_understood_is_a_problem() {
    let bus = numbered(1);
    for query in
        ["sinse=earliest", "since=yesterday", "since=c", "limit=0", "limit=1001", "order=up", "topic=a/%23/b"]
    {
        let answer = bus.get(&format!("/v1/events?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.header("firehose-cursor").is_some(), "{query}");
        let problem: serde_json::Value = serde_json::from_str(&answer.body).expect("it is JSON");
        assert_eq!((problem["status"].as_u64(), problem["title"].as_str()), (Some(400), Some("Bad Request")));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(bus.get("/v2/nothing").status, 404);
}

#[test]
fn a_cursor_above_the_head_is_a_bad_request() {
    let bus = numbered(3);
    let head = bus.get("/v1/events").header("firehose-cursor").map(Cursor::parse);
    let Some(Ok(head)) = head else { panic!("every answer has a cursor") };
    let beyond = Cursor { offset: head.offset + 1, ..head };
    assert_eq!(bus.get(&format!("/v1/events?since={beyond}")).status, 400);
    assert_eq!(bus.get(&format!("/v1/events?since={head}")).status, 200);
}

#[test]
fn a_cursor_below_the_retention_is_gone_unless_gaps_are_passed_over() {
    let mut bus = Bus::start(AuthConfig::default(), |config| {
        config.segment_bytes = 64 << 10;
        config.retention_bytes = Some(128 << 10);
    });
    let filler = format!("\"{}\"", "x".repeat(20_000));
    bus.append(&[("n", "1")]);
    let first = bus.get("/v1/events").header("firehose-cursor").expect("it is there").to_owned();
    for _ in 0..40 {
        bus.append(&[("n", &filler)]);
        bus.log.commit.upkeep(bus::FIRST_SECS * 1_000_000, &mut KeepNothing);
    }
    assert!(bus.log.read.oldest() > 2, "retention deleted the first segments");
    let gone = bus.get(&format!("/v1/events?since={first}"));
    assert_eq!(gone.status, 410, "{}", gone.body);
    let problem: serde_json::Value = serde_json::from_str(&gone.body).expect("it is JSON");
    let oldest = problem["oldest"].as_str().expect("it names the oldest");
    let from_oldest = bus.get(&format!("/v1/events?since={oldest}&limit=1000"));
    assert_eq!(from_oldest.status, 200, "{}", from_oldest.body);
    let there = bus.get("/v1/events?since=earliest&limit=1000").payloads().len();
    assert_eq!(from_oldest.payloads().len(), there);
    let passed = bus.get(&format!("/v1/events?since={first}&on_gap=continue&limit=1000"));
    assert_eq!((passed.status, passed.payloads().len()), (200, there));
    assert_eq!(bus.get("/v1/events?since=-9000d&limit=1000").payloads().len(), there);
    assert_eq!(bus.pages("/v1/events?order=desc&limit=3").concat().len(), there);
}

#[test]
fn readers_see_what_the_access_list_lets_them_see() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (passwords, acl) = (folder.path().join("passwd"), folder.path().join("acl"));
    let mut file = PasswordFile::default();
    file.set("ann", b"pw", HashKind::Sha512Pbkdf2).expect("a user");
    file.write(&passwords).expect("it can be written");
    std::fs::write(&acl, "topic read open/#\nuser ann\ntopic read #\n").expect("it can be written");
    let auth =
        AuthConfig { password_file: Some(passwords), acl_file: Some(acl), anonymous: AnonymousMode::Read };
    let mut bus = Bus::start(auth, |_| {});
    bus.append(&[("open/a", "1"), ("closed/a", "2"), ("open/b", "3")]);
    assert_eq!(bus.pages("/v1/events?limit=1").concat(), ["1", "3"]);
    assert_eq!(bus.get("/v1/events?topic=closed/%23").status, 401);
    let login = |pair: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let with = |pair: &str| {
        let login = login(pair);
        bus.get_with("/v1/events", &[("accept", "application/x-ndjson"), ("authorization", &login)])
    };
    assert_eq!(with("ann:pw").payloads(), ["1", "2", "3"]);
    let wrong = with("ann:wrong");
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Basic")));
    assert_eq!(with("nobody:pw").status, 401);
}

#[test]
fn where_nobody_is_anonymous_an_account_is_asked_for() {
    let bus = Bus::start(AuthConfig { anonymous: AnonymousMode::None, ..AuthConfig::default() }, |_| {});
    assert_eq!(bus.get("/v1/events").status, 401);
    assert_eq!(bus.get("/livez").status, 200);
}

#[test]
fn health_is_told_and_other_methods_are_refused() {
    let bus = numbered(1);
    let answer = bus.get("/livez");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    assert!(answer.header("firehose-cursor").is_some());
    let mut stream = TcpStream::connect(bus.address).expect("it listens");
    stream
        .write_all(b"DELETE /v1/events HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .expect("it can be sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn who_never_finishes_a_head_is_closed() {
    let bus = numbered(1);
    for beginning in ["", "GET /livez HTTP/1.1\r\nho", "GET /livez HTTP/1.1\r\nhost: h\r\n\r\n"] {
        let mut stream = TcpStream::connect(bus.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline for the test");
        stream.write_all(beginning.as_bytes()).expect("it can be sent");
        let mut answer = Vec::new();
        assert!(stream.read_to_end(&mut answer).is_ok(), "it is closed, not left open: {beginning:?}");
    }
}

#[test]
fn a_connection_whose_first_bytes_were_taken_is_served() {
    let bus = numbered(2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client =
        TcpStream::connect(listener.local_addr().expect("it has an address")).expect("it listens");
    let (accepted, _) = listener.accept().expect("a connection");
    client.write_all(b"z HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").expect("it can be sent");
    let service = bus.service.as_ref().expect("it runs");
    service.serve(accepted, None, b"GET /live".to_vec(), firehose_http::Door::Admin, ());
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
}

#[test]
fn a_service_that_is_stopped_takes_no_more_connections() {
    let mut bus = numbered(1);
    assert_eq!(bus.get("/livez").status, 200);
    bus.service.take().expect("it runs").shutdown(Duration::from_secs(20));
    let served = TcpStream::connect(bus.address).and_then(|mut stream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n")?;
        let mut byte = [0];
        stream.read_exact(&mut byte)
    });
    assert!(served.is_err());
    assert!(bus.folder.path().exists());
}
