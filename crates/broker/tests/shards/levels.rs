//! Topics of very many levels: MQTT has no limit to them but the length of the topic (4.7.3).

use crate::client::options;
use crate::session::VERSIONS;
use crate::world::{Setup, World};
use firehose_auth::AnonymousMode;
use firehose_mqtt::{Reason, Version};

/// As many as one client may have by default, nearly.
const LEVELS: usize = 7_000;

fn world() -> World {
    World::new(Setup { shards: 2, anonymous: AnonymousMode::Full, ..Setup::default() })
}

#[test]
fn a_name_of_65535_slashes_is_published_and_delivered() {
    let name = "/".repeat(65_535);
    for version in VERSIONS {
        let mut world = world();
        let (publisher, reader) = (world.client(version, "p"), world.client(version, "r"));
        for filter in ["#", "/+/+/#"] {
            assert_eq!(world.subscribed(reader, filter, 0), Reason::Success);
        }
        world.publish(publisher, &name, "deep", 0, 0);
        assert_eq!(world.payloads(reader), ["deep"]);
    }
}

#[test]
fn a_filter_of_thousands_of_levels_is_granted_and_matches_what_it_should() {
    let filters = ["+/".repeat(LEVELS - 1) + "#", "a/".repeat(LEVELS - 1) + "b"];
    for filter in filters {
        for prefix in ["", "$share/g/", "$replay/earliest/"] {
            let mut world = world();
            let (publisher, reader) = (world.client(Version::V5, "p"), world.client(Version::V5, "r"));
            assert_eq!(
                world.subscribed(reader, &format!("{prefix}{filter}"), 0),
                Reason::Success,
                "{prefix}"
            );
            world.publish(publisher, &("a/".repeat(LEVELS - 1) + "b"), "all", 0, 0);
            world.publish(publisher, &("a/".repeat(LEVELS - 2) + "b"), "one less", 0, 0);
            assert_eq!(world.payloads(reader)[0], "all", "{prefix}");
        }
    }
}

#[test]
fn filters_of_more_levels_than_a_client_may_have_are_refused_and_nothing_else() {
    for version in VERSIONS {
        let expected = if version == Version::V5 { Reason::QuotaExceeded } else { Reason::UnspecifiedError };
        for prefix in ["", "$share/g/"] {
            let mut world = world();
            let client = world.client(version, "c");
            let deep = format!("{prefix}{}", "/".repeat(65_000));
            world.subscribe(client, &[("a", options(0)), (&deep, options(0)), ("b", options(0))], &[]);
            world.settle();
            let reasons = world.take(client)[0].reasons.clone();
            assert_eq!(reasons, [Reason::Success, expected, Reason::Success], "{version:?} {prefix}");
            assert_eq!(world.state.state.group_names().count(), 0);
        }
    }
}

#[test]
fn groups_of_one_subscribe_are_paid_for_together_before_they_match() {
    let mut world = world();
    let client = world.client(Version::V5, "c");
    let deep: Vec<String> =
        (0..4).map(|number| format!("$share/g{number}/{}", "/".repeat(LEVELS / 2 - 100))).collect();
    let filters: Vec<_> = deep.iter().map(|filter| (filter.as_str(), options(0))).collect();
    for _ in 0..2 {
        world.subscribe(client, &filters, &[]);
        world.settle();
        let reasons = world.take(client)[0].reasons.clone();
        assert_eq!(reasons[..2], [Reason::Success; 2], "the same again costs nothing");
        assert_eq!(reasons[2..], [Reason::QuotaExceeded; 2]);
        assert_eq!(world.state.state.group_names().count(), 2);
    }
}
