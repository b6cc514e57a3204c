//! Makes a session that shows a difference as short as it can be.

use crate::session::{Action, Session, Step};

/// Leaves out steps, and parts of steps, as long as `differs` says that the difference stays.
pub fn shrink(session: &Session, mut differs: impl FnMut(&Session) -> bool) -> Session {
    let mut best = session.clone();
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let end = (at + size).min(best.steps.len());
            let mut shorter = best.clone();
            shorter.steps.drain(at..end);
            if differs(&shorter) {
                best = shorter;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    for at in 0..best.steps.len() {
        while let Some(simpler) = simpler(&best.steps[at]).into_iter().find_map(|step| {
            let mut session = best.clone();
            session.steps[at] = step;
            differs(&session).then_some(session)
        }) {
            best = simpler;
        }
    }
    best
}

/// A step without one of its parts, in every way.
fn simpler(step: &Step) -> Vec<Step> {
    let actions: Vec<Action> = match &step.action {
        Action::Publish(messages) if messages.len() > 1 => {
            without_one(messages).into_iter().map(Action::Publish).collect()
        }
        Action::Subscribe { filters, identifier } if filters.len() > 1 => without_one(filters)
            .into_iter()
            .map(|filters| Action::Subscribe { filters, identifier: *identifier })
            .collect(),
        Action::Unsubscribe(filters) if filters.len() > 1 => {
            without_one(filters).into_iter().map(Action::Unsubscribe).collect()
        }
        Action::Connect(options) => {
            let mut all = Vec::new();
            if options.will.is_some() {
                all.push(crate::session::Options { will: None, ..options.clone() });
            }
            if options.packet_bytes_max.is_some() {
                all.push(crate::session::Options { packet_bytes_max: None, ..options.clone() });
            }
            if options.aliases_max.is_some() {
                all.push(crate::session::Options { aliases_max: None, ..options.clone() });
            }
            all.into_iter().map(Action::Connect).collect()
        }
        _ => Vec::new(),
    };
    actions.into_iter().map(|action| Step { action, ..step.clone() }).collect()
}

fn without_one<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    let without = |left_out: usize| {
        let rest = all.iter().enumerate().filter(move |(at, _)| *at != left_out);
        rest.map(|(_, one)| one.clone()).collect()
    };
    (0..all.len()).map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn what_a_difference_takes_stays_and_nothing_else() {
        let session = generate::session(11);
        let needed = [1, session.steps.len() - 2];
        let has = |session: &Session| {
            needed.iter().all(|number| session.steps.iter().any(|step| step.number == *number))
        };
        let short = shrink(&session, has);
        assert_eq!(short.steps.iter().map(|step| step.number).collect::<Vec<_>>(), needed);
    }
}
