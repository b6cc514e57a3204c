//! The parameters of `GET /v1/events`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `topic` | a topic filter; may be repeated, any of them may match; default `#` |
//! | `since` | from there on: `earliest`, `-90m`, a time (inclusive), or a cursor (the events after it); default `earliest` |
//! | `start` | as `since`, for times only |
//! | `end` | up to this time, inclusive |
//! | `before` | only events before that of this cursor: what the `next` link of `order=desc` has |
//! | `order` | `asc` (default) or `desc` |
//! | `limit` | events of a page, 1 to 1,000; default 100 |
//! | `on_gap` | `error` (default: 410 where events are gone) or `continue` |

use firehose_log::{Cursor, Since};
use firehose_topic::TopicFilter;

use crate::Problem;

/// How many events a page has at most.
pub const LIMIT_MAX: usize = 1_000;
/// How many events a page has if nothing is said.
pub const LIMIT_DEFAULT: usize = 100;
/// How many filters a request may have.
pub const TOPICS_MAX: usize = 100;

/// What is asked for.
#[derive(Debug)]
pub struct EventsQuery {
    /// Any of them may match.
    pub topics: Vec<TopicFilter>,
    /// The lower bound.
    pub since: Since,
    /// The upper bound, inclusive, in µs since the epoch.
    pub end_us: Option<i64>,
    /// Only events before this one.
    pub before: Option<Cursor>,
    /// Whether the newest comes first.
    pub descending: bool,
    /// Events of the page.
    pub limit: usize,
    /// Whether a gap is passed over.
    pub continue_on_gap: bool,
}

impl EventsQuery {
    /// Reads the names and values of a query, at this time (µs since the epoch, for `end=-1h`).
    pub fn parse(pairs: &[(String, String)], now_us: i64) -> Result<Self, Problem> {
        let mut topics = Vec::new();
        let (mut since, mut end_us, mut before, mut order, mut limit, mut on_gap) =
            (None, None, None, None, None, None);
        for (name, value) in pairs {
            match name.as_str() {
                "topic" => topics.push(topic(value)?),
                "since" => once(&mut since, name, parse_since(name, value)?)?,
                "start" => once(&mut since, "start (or since)", Since::At(time(name, value, now_us)?))?,
                "end" => once(&mut end_us, name, time(name, value, now_us)?)?,
                "before" => once(&mut before, name, cursor(name, value)?)?,
                "order" => once(&mut order, name, choice(name, value, ["asc", "desc"])?)?,
                "limit" => once(&mut limit, name, parse_limit(value)?)?,
                "on_gap" => once(&mut on_gap, name, choice(name, value, ["error", "continue"])?)?,
                _ => return Err(unknown(name)),
            }
        }
        if topics.len() > TOPICS_MAX {
            return Err(Problem::bad_request(format!("more than {TOPICS_MAX} topic parameters: ask twice")));
        }
        if topics.is_empty() {
            topics.push(topic("#")?);
        }
        Ok(EventsQuery {
            topics,
            since: since.unwrap_or(Since::Earliest),
            end_us,
            before,
            descending: order == Some(1),
            limit: limit.unwrap_or(LIMIT_DEFAULT),
            continue_on_gap: on_gap == Some(1),
        })
    }
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::bad_request(format!("the parameter {name} is there twice: give it once"))),
    }
}

fn topic(value: &str) -> Result<TopicFilter, Problem> {
    TopicFilter::new(value)
        .map_err(|error| Problem::bad_request(format!("topic: {value:?} is not a topic filter: {error}")))
}

fn parse_since(name: &str, value: &str) -> Result<Since, Problem> {
    Since::parse(value).map_err(|error| Problem::bad_request(format!("{name}: {error}")))
}

/// A time, also as a duration before now; in µs since the epoch.
fn time(name: &str, value: &str, now_us: i64) -> Result<i64, Problem> {
    match parse_since(name, value)? {
        Since::At(time_us) => Ok(time_us),
        Since::Ago(ago) => Ok(now_us.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))),
        _ => Err(Problem::bad_request(format!(
            "{name}: {value:?} is not a time: write it as 2026-11-23T04:00:00Z"
        ))),
    }
}

fn cursor(name: &str, value: &str) -> Result<Cursor, Problem> {
    match parse_since(name, value)? {
        Since::After(cursor) => Ok(cursor),
        _ => Err(Problem::bad_request(format!("{name}: {value:?} is not a cursor"))),
    }
}

fn choice(name: &str, value: &str, choices: [&str; 2]) -> Result<usize, Problem> {
    let [first, second] = choices;
    let chosen = choices.iter().position(|choice| *choice == value);
    chosen.ok_or_else(|| Problem::bad_request(format!("{name}: {value:?} is neither {first} nor {second}")))
}

fn parse_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse().ok()).flatten();
    limit.filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        Problem::bad_request(format!("limit: {value:?} is not a whole number from 1 to {LIMIT_MAX}"))
    })
}

fn unknown(name: &str) -> Problem {
    Problem::bad_request(format!(
        "there is no parameter {name:?}: there are topic, since, start, end, before, order, limit and on_gap"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<EventsQuery, Problem> {
        let pairs: Vec<_> = query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        EventsQuery::parse(&pairs, 1_000_000_000)
    }

    #[test]
    fn nothing_asked_is_everything_from_the_earliest() {
        let query = parse(&[]).expect("it is valid");
        assert_eq!(query.topics.iter().map(|t| t.as_str()).collect::<Vec<_>>(), ["#"]);
        assert!(matches!(query.since, Since::Earliest));
        assert!(!query.descending && !query.continue_on_gap);
        assert_eq!(query.limit, 100);
    }

    #[test]
    fn all_parameters_are_understood() {
        let query = parse(&[
            ("topic", "a/#"),
            ("topic", "b/+"),
            ("since", "-90m"),
            ("end", "-10s"),
            ("order", "desc"),
            ("limit", "1000"),
            ("on_gap", "continue"),
        ])
        .expect("it is valid");
        assert_eq!(query.topics.len(), 2);
        assert_eq!(query.end_us, Some(990_000_000));
        assert!(query.descending && query.continue_on_gap);
        assert_eq!(query.limit, 1000);
    }

    #[test]
    fn what_is_not_understood_is_a_bad_request() {
        for query in [
            [("sinse", "earliest")],
            [("since", "yesterday")],
            [("since", "")],
            [("since", "c")],
            [("start", "earliest")],
            [("end", "earliest")],
            [("before", "-1h")],
            [("order", "up")],
            [("limit", "0")],
            [("limit", "1001")],
            [("limit", "+1")],
            [("limit", "")],
            [("on_gap", "skip")],
            [("topic", "a/#/b")],
            [("topic", "")],
        ] {
            let problem = parse(&query).expect_err(query[0].0);
            assert_eq!(problem.code(), axum::http::StatusCode::BAD_REQUEST, "{query:?}");
        }
        assert!(parse(&[("since", "earliest"), ("start", "-1h")]).is_err());
        assert!(parse(&[("limit", "1"), ("limit", "2")]).is_err());
    }
}
