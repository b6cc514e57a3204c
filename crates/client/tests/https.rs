//! History over TLS, from a server that answers with what a firehose would.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use firehose_client::{Account, ClientError, History, HistoryRequest, Roots, Url};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate for `localhost` that vouches for itself.
fn certificate(folder: &Path) {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out crt -days 2 -subj \
                     /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE";
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(folder).stderr(Stdio::null());
    assert!(command.status().expect("openssl is installed").success());
}

/// Answers one request per page, each on a connection of its own; gives the port and the requests' heads.
fn serve(folder: &Path, pages: Vec<String>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let chain =
        CertificateDer::pem_file_iter(folder.join("crt")).expect("it is there").map(|one| one.expect("PEM"));
    let key = PrivateKeyDer::from_pem_file(folder.join("key")).expect("it is there");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("it can do TLS").with_no_client_auth().with_single_cert(chain.collect(), key);
    let config = Arc::new(config.expect("the key fits"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let thread = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for page in pages {
            let (socket, _) = listener.accept().expect("a connection");
            let connection = ServerConnection::new(config.clone()).expect("it can do TLS");
            let mut stream = BufReader::new(StreamOwned::new(connection, socket));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).unwrap_or(0) == 0 {
                    return heads;
                }
            }
            heads.push(head);
            stream.get_mut().write_all(page.as_bytes()).expect("it can be sent");
            stream.get_mut().conn.send_close_notify();
            stream.get_mut().flush().expect("it can be sent");
        }
        heads
    });
    (port, thread)
}

fn page(link: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n{link}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn request(port: u16, roots: Roots) -> HistoryRequest {
    HistoryRequest {
        url: Url::parse(&format!("https://localhost:{port}")).expect("it is valid"),
        account: Account { user: Some("ann".into()), password: Some("pw".into()) },
        roots,
        topics: vec!["a/#".into()],
        since: Some("-1h".into()),
        until: None,
        descending: false,
        count_max: None,
    }
}

#[test]
fn pages_are_followed_over_tls_with_the_account_in_each_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path());
    let link = "link: </v1/events?since=cNEXT>; rel=\"next\"\r\n";
    let pages = vec![page(link, "{\"data\":1}\n{\"data\":2}\n"), page("", "{\"data\":3}\n")];
    let (port, server) = serve(folder.path(), pages);
    let history =
        History::open(request(port, Roots::File(folder.path().join("crt")))).expect("it is trusted");
    let payloads: Vec<_> =
        history.map(|event| event.expect("an event").payload().expect("it has one")).collect();
    assert_eq!(payloads, [b"1", b"2", b"3"]);
    let heads = server.join().expect("it served");
    assert!(
        heads[0].starts_with("GET /v1/events?order=asc&topic=a%2F%23&since=-1h&limit=1000 HTTP/1.1\r\n"),
        "{}",
        heads[0]
    );
    assert!(heads[1].starts_with("GET /v1/events?since=cNEXT HTTP/1.1\r\n"), "{}", heads[1]);
    for head in &heads {
        assert!(head.to_lowercase().contains("authorization: basic yw5uonb3"), "{head}");
    }
}

#[test]
fn a_server_that_nobody_trusted_vouches_for_gets_no_password() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path());
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("it can be made");
    certificate(&other);
    let (port, server) = serve(folder.path(), vec![page("", "")]);
    let opened = History::open(request(port, Roots::File(other.join("crt"))));
    assert!(matches!(opened.err(), Some(ClientError::Connection(_))));
    assert_eq!(server.join().expect("it ended"), Vec::<String>::new());
}
