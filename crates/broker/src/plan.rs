//! What one filter of a SUBSCRIBE asks for, and what has to be found out before it is entered: where a replay begins, and
//! whether a group has let the session in.

use crate::group::GroupKey;
use crate::shard::{Action, Shard};
use firehose_auth::{Identity, Verdict};
use firehose_log::{Offset, Since, Start};
use firehose_mqtt::{Reason, SubscribeOptions, Version};
use firehose_topic::{TopicFilter, parse_share};
use std::sync::Arc;

/// Begins a filter that replays: `$replay/<from>/<filter>`.
const REPLAY: &str = "$replay/";

/// What one filter of a SUBSCRIBE asks for, if it may.
pub(crate) struct Plan {
    pub(crate) filter: TopicFilter,
    pub(crate) options: SubscribeOptions,
    pub(crate) checked: bool,
    /// Where it begins; none: at the head.
    pub(crate) since: Option<Since>,
    pub(crate) start: Option<Start>,
    /// `$replay` and `$share`: as the client wrote it.
    pub(crate) written: Option<Box<str>>,
    /// 3.1 cannot be told that a filter is denied: it is granted, and nothing comes.
    pub(crate) mute: bool,
    /// `$share`: the group.
    pub(crate) share: Option<Arc<GroupKey>>,
    /// The first offset that counts for the group's new member.
    pub(crate) shared_from: Option<Offset>,
}

impl Plan {
    /// So many times it has what the client wrote, at most: the filter, as it was written, and in the group's name.
    pub(crate) const COPIES: usize = 3;

    /// Whether it begins at a cursor, which claims that everything behind it is there.
    pub(crate) fn is_cursor(&self) -> bool {
        matches!(self.since, Some(Since::After(_)))
    }
}

impl Shard {
    /// What a filter asks for, or why it is refused.
    pub(crate) fn plan(
        &self,
        session: u32,
        version: Version,
        written: &str,
        options: SubscribeOptions,
        since: &Option<Result<Since, Reason>>,
    ) -> Result<Plan, Reason> {
        let Some(it) = self.sessions.get(session as usize) else { return Err(Reason::UnspecifiedError) };
        // "Topic Filter invalid" is for those that are well formed (MQTT 5.0, 3.9.3).
        if is_malformed(written) {
            return Err(Reason::MalformedPacket);
        }
        let share = self.group_of(&it.identity, written)?;
        let (share, filter, mut from) = match (share, written.strip_prefix(REPLAY)) {
            (Some((key, filter)), _) => (Some(key), Ok(filter), None),
            (None, Some(rest)) => {
                let (from, filter) = rest.split_once('/').ok_or(Reason::TopicFilterInvalid)?;
                let from = Since::parse(from).map_err(|_| Reason::TopicFilterInvalid)?;
                (None, TopicFilter::new(filter), Some(from))
            }
            (None, None) => (None, TopicFilter::new(written), None),
        };
        let filter = filter.map_err(|_| Reason::TopicFilterInvalid)?;
        let has_prefix = share.is_some() || from.is_some();
        // Neither goes with the other, nor with itself.
        let is_nested = parse_share(filter.as_str()).is_some() || filter.as_str().starts_with(REPLAY);
        if has_prefix && is_nested {
            return Err(Reason::TopicFilterInvalid);
        }
        if from.is_none() {
            from = since.transpose()?;
        }
        if share.is_some() && from.is_some() {
            return Err(Reason::TopicFilterInvalid);
        }
        let verdict = self.auth.read_verdict(&it.identity, &it.client_id, &filter);
        if verdict == Verdict::Denied && version != Version::V31 {
            return Err(Reason::NotAuthorized);
        }
        Ok(Plan {
            filter,
            options,
            checked: verdict == Verdict::PerTopic,
            since: from,
            start: None,
            written: has_prefix.then(|| written.into()),
            mute: verdict == Verdict::Denied,
            share: share.map(Arc::new),
            shared_from: None,
        })
    }

    /// The access rules changed since a filter was looked at: as [`Shard::reload`] has it, what may no longer be read is checked topic
    /// by topic.
    pub(crate) fn recheck_plan(&self, session: u32, plan: &mut Plan) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        plan.checked = self.auth.read_verdict(&it.identity, &it.client_id, &plan.filter) != Verdict::All;
    }

    /// The group that a filter names, and what it filters by. Nobody anonymous takes messages away from others.
    fn group_of(
        &self,
        identity: &Identity,
        written: &str,
    ) -> Result<Option<(GroupKey, TopicFilter)>, Reason> {
        let Some(share) = parse_share(written) else { return Ok(None) };
        let (_, filter) = share.map_err(|_| Reason::TopicFilterInvalid)?;
        if identity.is_anonymous() && !self.auth.is_open() {
            return Err(Reason::NotAuthorized);
        }
        let user = identity.name().map(Box::from);
        Ok(Some((GroupKey { user, written: written.into() }, filter)))
    }

    /// Asks the log where the filters begin, once for all that begin at the same place, and for no more places than
    /// replays may run; gives how many answers there will be.
    pub(crate) fn ask_where(&mut self, token: u64, plans: &mut [Result<Plan, Reason>]) -> usize {
        let mut asked: Vec<Since> = Vec::new();
        for (index, plan) in plans.iter_mut().enumerate() {
            let Some(since) = plan.as_ref().ok().and_then(|plan| plan.since) else { continue };
            if asked.contains(&since) {
                continue;
            }
            if asked.len() >= self.shared.limits.replays_max {
                *plan = Err(Reason::QuotaExceeded);
                continue;
            }
            asked.push(since);
            let question = self.next_token();
            self.questions.insert(question, (token, index));
            self.actions.push(Action::Resolve { token: question, since });
        }
        asked.len()
    }

    /// Asks groups to let the session in, but for those that there is no room for; gives how many answers there will be.
    pub(crate) fn ask_groups(
        &mut self,
        session: u32,
        token: u64,
        plans: &mut [Result<Plan, Reason>],
    ) -> usize {
        let (mut asked, mut asked_bytes) = (0, 0);
        for (index, plan) in plans.iter_mut().enumerate() {
            let Ok(known) = plan.as_ref() else { continue };
            let Some(key) = known.share.clone().filter(|_| !known.mute) else { continue };
            // The rules may be others than when this filter was looked at.
            if key.user.is_none() && !self.auth.is_open() {
                *plan = Err(Reason::NotAuthorized);
                continue;
            }
            // A group matches from the moment it is asked, so its filter is paid for before.
            match self.room_for_group(session, known, asked_bytes) {
                Ok(cost_bytes) => asked_bytes += cost_bytes,
                Err(reason) => {
                    *plan = Err(reason);
                    continue;
                }
            }
            let question = self.next_token();
            match self.ask_group(session, &key, question) {
                Ok(true) => {
                    self.questions.insert(question, (token, index));
                    asked += 1;
                }
                Ok(false) => {}
                Err(reason) => *plan = Err(reason),
            }
        }
        asked
    }
}

/// Whether the standard forbids such a filter, so that its packet is malformed.
pub(crate) fn is_malformed(filter: &str) -> bool {
    TopicFilter::check(filter).is_err()
}
