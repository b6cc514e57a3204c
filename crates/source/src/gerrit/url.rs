//! Where a Gerrit is: `ssh://user@host[:port]`.

use std::fmt;
use std::str::FromStr;

/// The port of Gerrit's SSH daemon unless said otherwise.
pub const DEFAULT_PORT: u16 = 29418;

/// The address of a Gerrit's SSH daemon, and the account that reads its events.
///
/// Valid by construction: neither part can be taken for an option, a second argument or a pattern by `ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GerritUrl {
    user: String,
    host: String,
    port: u16,
}

/// What is wrong with a Gerrit URL; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError {
    url: String,
    what: String,
}

impl GerritUrl {
    /// The account's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The host's name or address; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The CloudEvents `source` of this Gerrit's events unless the config sets another: `https://<host>/`.
    pub fn source_uri(&self) -> String {
        match self.host.contains(':') {
            true => format!("https://[{}]/", self.host),
            false => format!("https://{}/", self.host),
        }
    }
}

impl FromStr for GerritUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        parse(url).map_err(|what| UrlError { url: without_password(url), what })
    }
}

impl fmt::Display for GerritUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "ssh://{}@[{}]:{}", self.user, self.host, self.port),
            false => write!(f, "ssh://{}@{}:{}", self.user, self.host, self.port),
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gerrit url {:?}: {}; expected ssh://user@host[:port]", self.url, self.what)
    }
}

impl std::error::Error for UrlError {}

fn parse(url: &str) -> Result<GerritUrl, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
    if !scheme.eq_ignore_ascii_case("ssh") {
        return Err(format!("events are read over ssh, not {scheme:?}"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("nothing may follow the port".into());
    }
    let (user, host_and_port) =
        authority.rsplit_once('@').ok_or("the account that reads the events is missing")?;
    if user.contains(':') {
        return Err("it has a password; the account logs in with a key (identity_file)".into());
    }
    let (host, port) = split_port(host_and_port)?;
    check_user(user)?;
    check_host(host)?;
    Ok(GerritUrl { user: user.to_owned(), host: host.to_owned(), port })
}

/// Host without brackets, and port.
fn split_port(host_and_port: &str) -> Result<(&str, u16), String> {
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
            if !host.contains(':') {
                return Err("only an IPv6 address stands in brackets".into());
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err("only a port may follow the bracket".into()),
            }
        }
        None => match host_and_port.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address must stand in brackets".into());
            }
            Some((host, port)) => (host, Some(port)),
            None => (host_and_port, None),
        },
    };
    match port {
        None => Ok((host, DEFAULT_PORT)),
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, number)),
            _ => Err(format!("{port:?} is no port (1 to 65535)")),
        },
    }
}

fn check_user(user: &str) -> Result<(), String> {
    if user.is_empty() {
        return Err("the account's name is empty".into());
    }
    match user.starts_with('-')
        || !user.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+=~!-@".contains(&b))
    {
        true => Err(format!("{user:?} is no name of an account")),
        false => Ok(()),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is empty".into());
    }
    let bad = match host.contains(':') {
        true => host.parse::<std::net::Ipv6Addr>().is_err(),
        false => {
            host.starts_with('-') || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
    };
    match bad {
        true => Err(format!("{host:?} is no name or address of a host")),
        false => Ok(()),
    }
}

/// The URL for an error message, where a password must not appear.
fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    match (url[start..].find(':'), url.rfind('@')) {
        (Some(colon), Some(at)) if start + colon < at => {
            format!("{}:***{}", &url[..start + colon], &url[at..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_gerrits_unless_said_otherwise() {
        let url: GerritUrl = "ssh://firehose@review.example.org".parse().unwrap();
        assert_eq!((url.user(), url.host(), url.port()), ("firehose", "review.example.org", 29418));
        assert_eq!(url.source_uri(), "https://review.example.org/");
        let url: GerritUrl = "ssh://a.b@10.0.0.1:22/".parse().unwrap();
        assert_eq!(url.to_string(), "ssh://a.b@10.0.0.1:22");
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        let url: GerritUrl = "ssh://bot@[2001:db8::1]:2222".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("2001:db8::1", 2222));
        assert_eq!(url.source_uri(), "https://[2001:db8::1]/");
        assert_eq!(url.to_string().parse::<GerritUrl>().unwrap(), url);
        assert!("ssh://bot@2001:db8::1".parse::<GerritUrl>().is_err());
    }

    #[test]
    fn nothing_that_ssh_could_take_for_something_else_is_accepted() {
        for url in [
            "ssh://-oProxyCommand=x@host",
            "ssh://user@-oProxyCommand=x",
            "ssh://us er@host",
            "ssh://user@ho st",
            "ssh://user@host%h",
            "ssh://user@host:22 -v",
            "ssh://user@host:0",
            "ssh://user@host:+22",
            "ssh://user@host:65536",
            "ssh://user@host:",
            "ssh://user@[::1",
            "ssh://user@[host]",
            "ssh://user@[::1]x",
            "ssh://user@",
            "ssh://@host",
            "ssh://host",
            "ssh://user@host/path",
            "ssh://user@host?x",
            "ssh://user\n@host",
            "ssh://$(id)@host",
            "https://user@host",
            "host",
            "",
        ] {
            let error = url.parse::<GerritUrl>().expect_err(url).to_string();
            assert!(error.contains("expected ssh://user@host[:port]"), "{error}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        let error = "ssh://user:sesame@host".parse::<GerritUrl>().unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
        assert!(error.contains("identity_file"), "{error}");
    }
}
