use std::collections::HashMap;

use firehose_topic::{TopicFilter, TopicName};

use crate::{LineError, load_error::lines};

/// An ACL file in mosquitto's format, with mosquitto's meaning (2.0.11):
///
/// - `topic [read|write|readwrite|deny] <filter>`: a rule of the user above it, or of the anonymous if no `user` line
///   came yet; without an access word it is `readwrite`.
/// - `user <name>`: the rules that follow are this user's.
/// - `pattern [read|write|readwrite|deny] <filter>`: a rule of everybody, where `%u` stands for the user name and `%c`
///   for the client id. One with `%u` does not concern the anonymous.
/// - `#` at the very beginning of a line makes a comment; words are separated by spaces, and a filter may have some.
///
/// A topic is allowed if a rule allows it, in this order: a `deny` of one's own, an allowance of one's own, a `deny`
/// pattern, an allowing pattern; the first that matches decides, and if none does, it is denied. Who has a `+` or `#`
/// in user name or client id gets nothing from patterns. Stricter than mosquitto 2.0.11 in two things: a name with `/` is not put
/// into a pattern that allows, and who has a client id of more than 256 bytes gets nothing from patterns either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    anonymous: Rules<TopicFilter>,
    users: HashMap<Box<str>, Rules<TopicFilter>>,
    patterns: Rules<Pattern>,
}

/// The longest client id that is put into patterns. That is done for each filter, and for each message where not all of them may be
/// read, so that who has one of 65,535 bytes, as MQTT allows, would be dear to all others.
const CLIENT_ID_BYTES_MAX: usize = 256;

/// What may be read of all that a filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing: the subscription is refused.
    Denied,
    /// All of it: nothing is to be checked later.
    All,
    /// Some of it perhaps: each delivered topic is to be checked.
    PerTopic,
}

/// Which of a rule's two rights is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
}

/// Rules of one owner. Their order does not matter: denials come first, and among allowances any will do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules<F> {
    deny: Vec<F>,
    read: Vec<F>,
    write: Vec<F>,
}

/// A filter with `%u` or `%c` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// As it stands in the file: a valid filter as well.
    filter: TopicFilter,
    user: bool,
    client: bool,
}

/// Who asks, as patterns see it.
#[derive(Clone, Copy)]
struct Asker<'a> {
    user: Option<&'a str>,
    client_id: &'a str,
}

impl Acl {
    /// Reads the bytes of an ACL file; a line that is none of the above refuses the whole file.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        let mut acl = Self::default();
        let mut user: Option<Box<str>> = None;
        for line in lines(bytes) {
            let (number, text) = line?;
            if text.starts_with('#') {
                continue;
            }
            let text = text.trim_end_matches(is_blank).trim_start_matches(' ');
            let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
            let rest = rest.trim_start_matches(' ');
            match word {
                "" => {}
                "user" if rest.is_empty() => {
                    return Err(LineError::new(number, "`user` without a name"));
                }
                "user" => user = Some(rest.trim_matches(is_blank).into()),
                "topic" => {
                    let rules = match &user {
                        Some(name) => acl.users.entry(name.clone()).or_default(),
                        None => &mut acl.anonymous,
                    };
                    let (access, filter) = rule(rest).map_err(|what| LineError::new(number, what))?;
                    rules.add(access, filter);
                }
                "pattern" => {
                    let (access, filter) = rule(rest).map_err(|what| LineError::new(number, what))?;
                    acl.patterns.add(access, Pattern::new(filter));
                }
                _ => {
                    let what =
                        format!("`{word}` is none of `topic`, `user`, `pattern`; a comment has `#` first");
                    return Err(LineError::new(number, what));
                }
            }
        }
        Ok(acl)
    }

    /// Whether this user (none: the anonymous) may read or write this topic.
    pub(crate) fn allows(
        &self,
        user: Option<&str>,
        client_id: &str,
        topic: TopicName<'_>,
        right: Right,
    ) -> bool {
        if let Some(own) = self.own(user) {
            if own.deny.iter().any(|filter| filter.matches(topic)) {
                return false;
            }
            if own.allowing(right).iter().any(|filter| filter.matches(topic)) {
                return true;
            }
        }
        let Some(asker) = Asker::of(user, client_id) else { return false };
        let denied = self.patterns.deny.iter().filter_map(|pattern| pattern.denied(asker));
        let mut allowed = self.patterns.allowing(right).iter().filter_map(|pattern| pattern.allowed(asker));
        !denied.into_iter().any(|filter| filter.matches(topic)) && allowed.any(|filter| filter.matches(topic))
    }

    /// Whether any rule has `%u` or `%c` in it.
    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.deny.is_empty() || !self.patterns.read.is_empty() || !self.patterns.write.is_empty()
    }

    /// What this user may read of all that `filter` matches.
    pub(crate) fn read_verdict(&self, user: Option<&str>, client_id: &str, filter: &TopicFilter) -> Verdict {
        let own = self.own(user);
        let (own_deny, own_read) = own.map_or((&[][..], &[][..]), |own| (&own.deny[..], &own.read[..]));
        let asker = Asker::of(user, client_id);
        let filled = |patterns: &[Pattern], fill: fn(&Pattern, Asker<'_>) -> Option<TopicFilter>| {
            asker.map_or_else(Vec::new, |asker| patterns.iter().filter_map(|p| fill(p, asker)).collect())
        };
        let pattern_deny: Vec<TopicFilter> = filled(&self.patterns.deny, Pattern::denied);
        let pattern_read: Vec<TopicFilter> = filled(&self.patterns.read, Pattern::allowed);

        let covers = |rules: &[TopicFilter]| rules.iter().any(|rule| rule.covers(filter));
        let overlaps = |rules: &[TopicFilter]| rules.iter().any(|rule| rule.overlaps(filter));
        if covers(own_deny) {
            return Verdict::Denied;
        }
        let own_may_allow = overlaps(own_read);
        let pattern_may_allow = overlaps(&pattern_read) && !covers(&pattern_deny);
        if !own_may_allow && !pattern_may_allow {
            Verdict::Denied
        } else if overlaps(own_deny) {
            Verdict::PerTopic
        } else if covers(own_read) || (covers(&pattern_read) && !overlaps(&pattern_deny)) {
            Verdict::All
        } else {
            Verdict::PerTopic
        }
    }

    /// For whom the rules differ between this file and another, in words for a log line.
    pub(crate) fn differences(&self, new: &Self) -> Vec<String> {
        let mut names: Vec<&str> = self.users.keys().chain(new.users.keys()).map(|name| &**name).collect();
        names.sort_unstable();
        names.dedup();
        let mut differences = Vec::new();
        if self.anonymous != new.anonymous {
            differences.push("acl: the rules of the anonymous changed".to_owned());
        }
        for name in names {
            if self.users.get(name) != new.users.get(name) {
                differences.push(format!("acl: the rules of user `{name}` changed"));
            }
        }
        if self.patterns != new.patterns {
            differences.push("acl: the patterns changed".to_owned());
        }
        differences
    }

    fn own(&self, user: Option<&str>) -> Option<&Rules<TopicFilter>> {
        match user {
            Some(name) => self.users.get(name),
            None => Some(&self.anonymous),
        }
    }
}

impl<F: Clone> Rules<F> {
    fn add(&mut self, access: Access, filter: F) {
        match access {
            Access::Deny => self.deny.push(filter),
            Access::Read => self.read.push(filter),
            Access::Write => self.write.push(filter),
            Access::ReadWrite => {
                self.read.push(filter.clone());
                self.write.push(filter);
            }
        }
    }

    fn allowing(&self, right: Right) -> &[F] {
        match right {
            Right::Read => &self.read,
            Right::Write => &self.write,
        }
    }
}

impl<F> Default for Rules<F> {
    fn default() -> Self {
        Self { deny: Vec::new(), read: Vec::new(), write: Vec::new() }
    }
}

impl<'a> Asker<'a> {
    /// None for those to whom no pattern applies.
    fn of(user: Option<&'a str>, client_id: &'a str) -> Option<Self> {
        if client_id.len() > CLIENT_ID_BYTES_MAX {
            return None;
        }
        let wild = |name: &str| name.contains(['+', '#']);
        (!user.is_some_and(wild) && !wild(client_id)).then_some(Self { user, client_id })
    }
}

impl Pattern {
    fn new(filter: TopicFilter) -> Self {
        let (user, client) = (filter.as_str().contains("%u"), filter.as_str().contains("%c"));
        Self { filter, user, client }
    }

    /// The filter that this pattern allows `asker`; none if a `/` in a name would let it reach elsewhere.
    fn allowed(&self, asker: Asker<'_>) -> Option<TopicFilter> {
        let reaches = (self.user && asker.user.is_some_and(|name| name.contains('/')))
            || (self.client && asker.client_id.contains('/'));
        if reaches { None } else { self.denied(asker) }
    }

    /// The filter that this pattern means for `asker`.
    fn denied(&self, asker: Asker<'_>) -> Option<TopicFilter> {
        if !self.user && !self.client {
            return Some(self.filter.clone());
        }
        if self.user && asker.user.is_none() {
            return None;
        }
        let mut filled = String::with_capacity(self.filter.as_str().len() + 32);
        let mut rest = self.filter.as_str();
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let name = match (from.as_bytes().get(1), asker.user) {
                (Some(b'u'), Some(user)) => Some(user),
                (Some(b'c'), _) => Some(asker.client_id),
                _ => None,
            };
            filled.push_str(name.unwrap_or("%"));
            rest = &from[if name.is_some() { 2 } else { 1 }..];
        }
        filled.push_str(rest);
        TopicFilter::new(&filled).ok()
    }
}

#[derive(Clone, Copy)]
enum Access {
    Deny,
    Read,
    Write,
    ReadWrite,
}

/// `[access] filter`; a single word is a filter, whatever it says.
fn rule(text: &str) -> Result<(Access, TopicFilter), String> {
    let (access, filter) = match text.split_once(' ') {
        None => (Access::ReadWrite, text),
        Some(("read", filter)) => (Access::Read, filter),
        Some(("write", filter)) => (Access::Write, filter),
        Some(("readwrite", filter)) => (Access::ReadWrite, filter),
        Some(("deny", filter)) => (Access::Deny, filter),
        Some((word, _)) => {
            return Err(format!(
                "`{word}` is none of read, write, readwrite, deny (one of them must precede a filter with spaces)"
            ));
        }
    };
    let filter = filter.trim_matches(is_blank);
    TopicFilter::new(filter).map(|filter| (access, filter)).map_err(|error| format!("`{filter}`: {error}"))
}

/// What C's `isspace` takes for one: only these are trimmed, so that a name may end with any other character.
fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t'..='\r')
}

#[cfg(test)]
#[path = "acl_tests.rs"]
mod tests;
