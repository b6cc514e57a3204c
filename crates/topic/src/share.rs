use crate::{TopicError, TopicFilter};

/// Splits the filter of a shared subscription, `$share/<group>/<filter>` (MQTT 5.0 section 4.8.2).
///
/// `None` when it does not begin with `$share/`, and so is an ordinary filter.
pub fn parse_share(filter: &str) -> Option<Result<(&str, TopicFilter), TopicError>> {
    let rest = filter.strip_prefix("$share/")?;
    Some(parse(rest))
}

fn parse(rest: &str) -> Result<(&str, TopicFilter), TopicError> {
    let (group, filter) = rest.split_once('/').unwrap_or((rest, ""));
    if group.is_empty() || group.contains(['+', '#', '\0']) {
        return Err(TopicError::ShareName);
    }
    if filter.is_empty() {
        return Err(TopicError::ShareFilter);
    }
    Ok((group, TopicFilter::new(filter)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_and_filter_are_split_at_the_second_slash() {
        for (text, group, filter) in
            [("$share/g/a/+", "g", "a/+"), ("$share/g//a", "g", "/a"), ("$share/g/#", "g", "#")]
        {
            let (got, rest) = parse_share(text).unwrap().unwrap();
            assert_eq!((got, rest.as_str()), (group, filter));
        }
    }

    #[test]
    fn ordinary_filters_are_not_shares() {
        assert!(parse_share("$share").is_none());
        assert!(parse_share("$SHARE/a/b").is_none());
        assert!(parse_share("a/$share/b").is_none());
    }

    #[test]
    fn broken_shares_are_refused() {
        for (text, error) in [
            ("$share/", TopicError::ShareName),
            ("$share//a", TopicError::ShareName),
            ("$share/+/a", TopicError::ShareName),
            ("$share/g#/a", TopicError::ShareName),
            ("$share/g", TopicError::ShareFilter),
            ("$share/g/", TopicError::ShareFilter),
            ("$share/g/a#", TopicError::MisplacedHash),
        ] {
            assert_eq!(parse_share(text).unwrap(), Err(error), "{text}");
        }
    }
}
