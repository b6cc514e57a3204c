//! The `Link: <…>; rel="next"` of a page: the same question, moved on.

/// The value of the `Link` header: this path and query with some parameters taken out and one put in.
pub fn next(path: &str, pairs: &[(String, String)], without: &[&str], with: &[(&str, &str)]) -> String {
    let kept = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let kept = kept.filter(|(name, _)| !without.contains(name));
    let mut link = format!("<{path}");
    for (index, (name, value)) in kept.chain(with.iter().copied()).enumerate() {
        link.push(if index == 0 { '?' } else { '&' });
        encode(&mut link, name);
        link.push('=');
        encode(&mut link, value);
    }
    link.push_str(">; rel=\"next\"");
    link
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_kept_and_moved_on() {
        let pairs =
            [("topic", "a/#"), ("since", "-1h"), ("topic", "ü b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let link = next("/v1/events", &pairs, &["since", "start"], &[("since", "cABC")]);
        assert_eq!(link, "</v1/events?topic=a%2F%23&topic=%C3%BC%20b&since=cABC>; rel=\"next\"");
    }
}
