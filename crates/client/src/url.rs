//! Where the server is: `mqtt://host`, `mqtts://user@host:8883`, `https://host/base`.

use std::fmt;

use crate::ClientError;

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

const SCHEMES: [(&str, Scheme, u16); 6] = [
    ("mqtt", Scheme::Mqtt, 1883),
    ("mqtts", Scheme::Mqtts, 8883),
    ("ws", Scheme::Ws, 80),
    ("wss", Scheme::Wss, 443),
    ("http", Scheme::Http, 80),
    ("https", Scheme::Https, 443),
];

/// A server's address, and who one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Its name or number; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What comes after the host, without a `/` at its end.
    pub path: String,
    /// The user named in it.
    pub user: Option<String>,
    /// The password named in it.
    pub password: Option<String>,
}

impl Url {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        read(text).map_err(|what| {
            ClientError::Usage(format!("{:?} is not a URL to use: {what}", without_password(text)))
        })
    }

    /// The scheme's name.
    pub fn scheme_name(&self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme, _)| *scheme == self.scheme).map_or("", |(name, _, _)| name)
    }

    /// `host:port`, with brackets where needed.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Url {
    /// The URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme_name(), self.authority(), self.path)
    }
}

fn read(text: &str) -> Result<Url, String> {
    let (name, rest) = text.split_once("://").ok_or("it has no scheme, write mqtt://host or http://host")?;
    let known = SCHEMES.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name));
    let (_, scheme, default_port) = *known.ok_or_else(|| {
        format!("there is no scheme {name:?}: there are mqtt, mqtts, ws, wss, http and https")
    })?;
    if rest.contains(['?', '#']) {
        return Err("it may not have a query or a fragment".into());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (account, place) = match authority.rsplit_once('@') {
        Some((account, place)) => (Some(account), place),
        None => (None, authority),
    };
    let (host, port) = place_of(place, default_port)?;
    let (user, password) = match account {
        None => (None, None),
        Some(account) => match account.split_once(':') {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (Some(decode(account)?), None),
        },
    };
    Ok(Url { scheme, host, port, path: path.trim_end_matches('/').to_owned(), user, password })
}

fn place_of(place: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']').ok_or("a ] is missing")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err("after the ] comes only a port".into()),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().map_err(|_| format!("{port:?} is not a port"))?,
    };
    let named = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    match host.is_empty() || !host.chars().all(named) {
        true => Err(format!("{host:?} is not a host")),
        false => Ok((host.to_owned(), port)),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("a % is not followed by two hexadecimal digits")?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| "the user or password is not UTF-8".into())
}

/// The text as it may be shown: a password in it may not.
fn without_password(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}…{}", &text[..scheme + 3], &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_their_defaults() {
        for (text, shown) in [
            ("mqtt://h", "mqtt://h:1883"),
            ("mqtts://h", "mqtts://h:8883"),
            ("MQTT://h:1", "mqtt://h:1"),
            ("ws://h/mqtt", "ws://h:80/mqtt"),
            ("https://h/base/", "https://h:443/base"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("mqtt://u:p@h", "mqtt://h:1883"),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()), Ok(shown.to_string()));
        }
    }

    #[test]
    fn the_account_is_percent_decoded() {
        let url = Url::parse("mqtt://a%40b:p%3a%20w@h").expect("it is valid");
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("a@b"), Some("p: w")));
    }

    #[test]
    fn what_is_not_a_url_is_refused_without_telling_a_password() {
        for text in
            ["", "h", "h:1883", "ftp://h", "mqtt://", "mqtt://h:x", "mqtt://[::1", "mqtt://h?x", "mqtt://a b"]
        {
            assert!(matches!(Url::parse(text), Err(ClientError::Usage(_))), "{text}");
        }
        let error = Url::parse("mqtt://u:secret@h:x").expect_err("the port is wrong").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
