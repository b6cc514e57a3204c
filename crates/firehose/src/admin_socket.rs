//! The socket in the data folder by which the operator's commands reach a running bus: HTTP, one request a connection.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::exit::{Exit, Failure};

/// Its name in the data folder.
const NAME: &str = "admin.sock";

/// Where it is.
pub fn path(data: &Path) -> PathBuf {
    data.join(NAME)
}

/// Makes it, for this user alone. One that a killed bus left is replaced: who holds the log's folder knows that no other
/// bus runs there.
pub fn bind(data: &Path) -> io::Result<UnixListener> {
    // Under its name nobody finds it before its mode is right.
    let new = data.join(format!("{NAME}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path(data))?;
    Ok(listener)
}

/// Removes it at the end.
pub fn remove(data: &Path) {
    // One that stays is replaced by the next start.
    let _ = fs::remove_file(path(data));
}

/// Asks the bus that has this data folder; `None` if none runs.
///
/// # Errors
/// The answer of the bus, or that it gave none.
pub fn ask(data: &Path, method: &str, target: &str, body: Option<&Value>) -> Result<Option<Value>, Failure> {
    let socket = path(data);
    let say = |error: io::Error| Failure {
        exit: Exit::Connection,
        message: format!("{}: {error}", socket.display()),
    };
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(say(error)),
    };
    let (status, body) = exchange(stream, method, target, body).map_err(say)?;
    let answer: Value = serde_json::from_slice(&body)
        .map_err(|error| say(io::Error::other(format!("the answer is not understood: {error}"))))?;
    let detail = || answer["detail"].as_str().unwrap_or("no reason was given").to_owned();
    match status {
        200..=299 => Ok(Some(answer)),
        400 => Err(Failure::usage(detail())),
        404 => Err(Failure { exit: Exit::Refused, message: detail() }),
        _ => Err(Failure::runtime(detail())),
    }
}

/// One request; gives the status and the body of the answer.
fn exchange(
    mut stream: UnixStream,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> io::Result<(u16, Vec<u8>)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Status and body; the connection's end is the body's.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    Some((status, answer.get(end + 4..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_what_follows_the_head() {
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(answer), Some((404, b"{}".to_vec())));
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1\r\n\r\n", b"x y z\r\n\r\n"] {
            assert_eq!(parse(bad), None);
        }
    }
}
