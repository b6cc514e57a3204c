//! Why a link ended, from what ssh and Gerrit wrote to stderr: said so that an operator knows what to do.
//!
//! The text goes into the public status: it names no file of the bus's machine.

use super::GerritUrl;

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// ssh ended with this exit status; none if a signal ended it.
    Exited(Option<i32>),
    /// ssh closed its output and went on running.
    Closed,
    /// It had not logged in within the time allowed for it.
    ConnectTimeout,
    /// No event came for longer than the config allows.
    Silence,
    /// We are asked to stop.
    Shutdown,
}

/// Whether ssh says with this line that it has logged in.
pub(super) fn is_login(words: &str) -> bool {
    words.starts_with("Authenticated to ")
}

/// Says why, and what to do about it. `words`: the last lines of stderr.
pub(super) fn explain(words: &[String], ending: Ending, url: &GerritUrl) -> String {
    let host = url.host();
    let said = |text: &str| words.iter().any(|line| line.contains(text));
    if let Some((_, what)) = known(url).into_iter().find(|(text, _)| said(text)) {
        return what;
    }
    match ending {
        Ending::ConnectTimeout => {
            format!("{host} did not let us log in in time: is it overloaded, or is a firewall between?")
        }
        Ending::Silence => format!("no event came from {host} for longer than silence_max: connecting anew"),
        Ending::Closed => format!("ssh to {host} closed its output"),
        Ending::Shutdown => "the bus stops".to_owned(),
        Ending::Exited(status) => {
            let status = status.map_or("by a signal".to_owned(), |s| format!("with status {s}"));
            match words.iter().rev().find(|line| is_telling(line)) {
                Some(last) => format!("ssh to {host} ended {status}: {}", without_paths(last)),
                None => format!("ssh to {host} ended {status}, without a word"),
            }
        }
    }
}

/// What ssh or Gerrit say, and what it means; the first that fits counts.
fn known(url: &GerritUrl) -> Vec<(&'static str, String)> {
    let (user, host, port) = (url.user(), url.host(), url.port());
    let key_changed = format!(
        "the host key of {host} changed. If its operators announced that, put the new key into the source's \
         known_hosts file; if not, someone may be in between"
    );
    let key_unknown = format!(
        "the host key of {host} is not known. Get it with `ssh-keyscan -p {port} {host}`, compare it with what its \
         operators publish, and put it into the source's known_hosts file"
    );
    let key_refused = format!(
        "{host} refused the key of account {user}: add the source's public key to that account, and check that \
         identity_file names its private key"
    );
    let may_not = format!(
        "account {user} may not read events: give it the global capability Stream Events (group Service Users)"
    );
    let unreachable = format!("{host}:{port} cannot be reached");
    vec![
        ("HOST IDENTIFICATION HAS CHANGED", key_changed.clone()),
        ("POSSIBLE DNS SPOOFING", key_changed),
        ("host key is known for", key_unknown),
        (
            "Host key verification failed",
            format!("the host key of {host} was not accepted: check the source's known_hosts file"),
        ),
        (
            "UNPROTECTED PRIVATE KEY FILE",
            "the private key in identity_file can be read by others, so ssh does not use it: chmod 600"
                .to_owned(),
        ),
        ("Permission denied (", key_refused.clone()),
        ("Too many authentication failures", key_refused),
        ("stream events not permitted", may_not.clone()),
        ("stream-events not permitted", may_not.clone()),
        ("Stream Events", may_not.clone()),
        ("streamEvents", may_not),
        ("Could not resolve hostname", format!("the name {host} cannot be resolved")),
        ("Connection refused", format!("{host}:{port} refuses connections: does Gerrit run there?")),
        ("Connection timed out", format!("{unreachable}: the connection timed out")),
        ("No route to host", format!("{unreachable}: no route to it")),
        ("Network is unreachable", format!("{unreachable}: the network is unreachable")),
        ("not responding", format!("{host} did not answer keep-alives: the link was dead")),
        ("Too many concurrent connections", format!("account {user} has too many connections to {host}")),
    ]
}

/// ssh says these at its level VERBOSE even when all is well.
fn is_telling(line: &str) -> bool {
    let usual = ["Authenticated to ", "Transferred: ", "Bytes per second: ", "Warning: Permanently added"];
    !line.trim().is_empty() && !usual.iter().any(|usual| line.starts_with(usual))
}

/// The line without words that look like a path.
fn without_paths(line: &str) -> String {
    let words = line.split_whitespace().map(|word| match word.contains('/') {
        true => "(path)",
        false => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(stderr: &str, ending: Ending) -> String {
        let words: Vec<String> = stderr.lines().map(str::to_owned).collect();
        explain(&words, ending, &"ssh://bot@review.example.org".parse().unwrap())
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let failed = Ending::Exited(Some(255));
        for (stderr, expected) in [
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending key in /root/known_hosts:1\nHost key verification failed.",
                "changed",
            ),
            (
                "No ED25519 host key is known for [h]:29418 and you have requested strict checking.\nHost key verification failed.",
                "ssh-keyscan -p 29418 review.example.org",
            ),
            ("bot@review.example.org: Permission denied (publickey).", "add the source's public key"),
            ("ssh: Could not resolve hostname x: Name or service not known", "cannot be resolved"),
            ("ssh: connect to host x port 1: Connection refused", "does Gerrit run there?"),
            ("Timeout, server review.example.org not responding.", "the link was dead"),
        ] {
            let why = why(stderr, failed);
            assert!(why.contains(expected), "{why}");
            assert!(!why.contains("/root"), "{why}");
        }
    }

    #[test]
    fn unknown_words_are_repeated_without_paths() {
        let text = "Authenticated to h.\nLoad key \"/secret/place\": odd\nTransferred: sent 1";
        let why = why(text, Ending::Exited(Some(1)));
        assert_eq!(why, "ssh to review.example.org ended with status 1: Load key (path) odd");
    }

    #[test]
    fn an_ending_without_words_is_said_too() {
        assert!(why("", Ending::Exited(None)).contains("by a signal"));
        assert!(why("", Ending::Silence).contains("silence_max"));
        assert!(why("", Ending::ConnectTimeout).contains("in time"));
    }
}
