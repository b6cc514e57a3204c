//! Which crate may use which. Arrows point up this table only; ARCHITECTURE.md says what each crate holds.

use serde_json::Value;

/// Each crate, and the crates of ours that it may use. A new crate gets a line here, below those that it uses.
const MAY_USE: &[(&str, &[&str])] = &[
    ("firehose-topic", &[]),
    ("firehose-mqtt", &["firehose-topic"]),
    ("firehose-log", &["firehose-topic"]),
    ("firehose-auth", &["firehose-topic"]),
    ("firehose-broker", &["firehose-topic", "firehose-mqtt", "firehose-log", "firehose-auth"]),
    ("firehose-net", &["firehose-broker", "firehose-mqtt", "firehose-log", "firehose-auth"]),
    ("firehose-client", &["firehose-topic", "firehose-mqtt", "firehose-log"]),
    ("firehose-http", &["firehose-topic", "firehose-broker", "firehose-log", "firehose-auth"]),
    ("firehose-source", &["firehose-topic", "firehose-log"]),
    (
        "firehose",
        &[
            "firehose-topic",
            "firehose-mqtt",
            "firehose-log",
            "firehose-auth",
            "firehose-broker",
            "firehose-net",
            "firehose-client",
            "firehose-http",
            "firehose-source",
        ],
    ),
    ("mqload", &[]),
    ("firehose-differential", &["firehose-topic", "firehose-mqtt"]),
];

#[test]
fn every_crate_uses_only_crates_that_stand_above_it() {
    let metadata =
        crate::output(env!("CARGO"), &["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
    assert_eq!(mistakes(&metadata), [""; 0]);
}

#[test]
fn the_table_itself_points_up_only() {
    for (place, (name, uses)) in MAY_USE.iter().enumerate() {
        for used in *uses {
            let found = MAY_USE[..place].iter().any(|(above, _)| above == used);
            assert!(found, "{name} may use {used}, which does not stand above it");
        }
    }
}

#[test]
fn an_arrow_down_an_unknown_crate_and_a_lost_one_are_noticed() {
    let package = |name: &str, used: &str, kind: Value| serde_json::json!({"name": name, "dependencies": [{"name": used, "kind": kind, "path": "x"}]});
    let with = |changed: Value| {
        let mut packages: Vec<Value> = MAY_USE
            .iter()
            .map(|(name, _)| serde_json::json!({"name": name, "dependencies": []}))
            .filter(|known| known["name"] != changed["name"])
            .collect();
        packages.push(changed);
        mistakes(&serde_json::json!({ "packages": packages }))
    };
    let log_uses_broker = package("firehose-log", "firehose-broker", Value::Null);
    assert_eq!(with(log_uses_broker), ["firehose-log may not use firehose-broker"]);
    let at_build_time = package("firehose-log", "firehose-broker", "build".into());
    assert_eq!(with(at_build_time), ["firehose-log may not use firehose-broker"]);
    let in_tests_only = package("firehose-log", "firehose-broker", "dev".into());
    assert_eq!(with(in_tests_only), [""; 0]);
    let new = package("firehose-new", "firehose-log", Value::Null);
    assert_eq!(with(new), ["firehose-new has no line in the table"]);
    let empty = serde_json::json!({ "packages": [] });
    assert_eq!(mistakes(&empty).len(), MAY_USE.len());
}

/// What in the output of `cargo metadata` is not as the table says. Dependencies of tests are free.
fn mistakes(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("there are packages");
    let name_of = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let mut mistakes = Vec::new();
    for (known, _) in MAY_USE {
        if !packages.iter().any(|package| package["name"] == *known) {
            mistakes.push(format!("{known} is in the table but not in the workspace"));
        }
    }
    for package in packages {
        let name = name_of(package);
        let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            mistakes.push(format!("{name} has no line in the table"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let ours = dependencies.filter(|used| !used["path"].is_null() && used["kind"] != "dev");
        for used in ours.map(name_of).filter(|used| !may_use.contains(&used.as_str())) {
            mistakes.push(format!("{name} may not use {used}"));
        }
    }
    mistakes
}
