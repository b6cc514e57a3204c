//! Both ways between our codec and that of the crate flowsdk, for 3.1, 3.1.1 and 5.0: what one encodes the other decodes,
//! with the same content in every field; and changed bytes both decode as the same, or both refuse. Where the two
//! differ, a row of [`DIFFERENCES`] says what decides; a difference without a row fails.

mod case;
mod differences;
mod every;
mod packet;

use std::{fs, path::Path};

use firehose_mqtt::Version;
use proptest::prelude::*;

use crate::{
    cases,
    samples::{Sample, mutate, sample},
};
use case::Case;
use differences::DIFFERENCES;
use packet::as_flowsdk;

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn packets_of_v31_mean_the_same_to_us_and_flowsdk(sample in sample(Version::V31)) {
        both_ways(&sample)?;
    }

    #[test]
    fn packets_of_v311_mean_the_same_to_us_and_flowsdk(sample in sample(Version::V311)) {
        both_ways(&sample)?;
    }

    #[test]
    fn packets_of_v5_mean_the_same_to_us_and_flowsdk(sample in sample(Version::V5)) {
        both_ways(&sample)?;
    }
}

proptest! {
    #![proptest_config(cases(6_000))]

    #[test]
    fn changed_packets_of_v31_are_judged_as_flowsdk_judges(sample in sample(Version::V31), changes in changes()) {
        explained(&Case::of_bytes(&mutate(sample.bytes(), &changes), Version::V31))?;
    }

    #[test]
    fn changed_packets_of_v311_are_judged_as_flowsdk_judges(
        sample in sample(Version::V311),
        changes in changes(),
    ) {
        explained(&Case::of_bytes(&mutate(sample.bytes(), &changes), Version::V311))?;
    }

    #[test]
    fn changed_packets_of_v5_are_judged_as_flowsdk_judges(sample in sample(Version::V5), changes in changes()) {
        explained(&Case::of_bytes(&mutate(sample.bytes(), &changes), Version::V5))?;
    }
}

#[test]
fn the_fuzz_corpora_are_judged_as_flowsdk_judges() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let targets = [
        ("mqtt_decode_v31", Version::V31),
        ("mqtt_decode_v311", Version::V311),
        ("mqtt_decode_v5", Version::V5),
        ("mqtt_connect", Version::V5),
    ];
    for (target, version) in targets {
        let folder = corpora.join(target);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for file in files {
            let bytes = fs::read(file.expect("an entry of the corpus").path()).expect("a file of the corpus");
            let mut at = 0;
            loop {
                let case = Case::of_bytes(&bytes[at..], version);
                explained(&case).unwrap_or_else(|error| panic!("{target}: {error}"));
                let Some(len) = case.len else { break };
                at += len;
            }
        }
    }
}

#[test]
fn each_difference_is_still_there_and_has_one_row() {
    for (at, row) in DIFFERENCES.iter().enumerate() {
        assert!(!row.examples.is_empty(), "no example: {row}");
        for (version, bytes) in row.examples {
            let case = Case::of_bytes(bytes, *version);
            assert!(case.differs(), "no longer so: {row}\n{case}");
            let rows: Vec<_> =
                (0..DIFFERENCES.len()).filter(|at| (DIFFERENCES[*at].explains)(&case)).collect();
            assert_eq!(rows, [at], "the rows for an example of: {row}\n{case}");
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 1..4)
}

/// What we encode, flowsdk decodes as the same; and the other way round.
fn both_ways(sample: &Sample) -> Result<(), TestCaseError> {
    let (version, ours) = (sample.version, sample.packet());
    let theirs = as_flowsdk(&ours, version);
    let our_bytes = sample.bytes();
    let there = Case { ours: Ok(Some(ours)), ..Case::of_bytes(&our_bytes, version) };
    explained(&there)?;
    match theirs.to_bytes() {
        Ok(their_bytes) => {
            explained(&Case { theirs: Ok(Some(theirs)), ..Case::of_bytes(&their_bytes, version) })
        }
        Err(error) => explained(&Case { theirs: Err(error.to_string()), ..there }),
    }
}

/// They agree, or a row says why not.
fn explained(case: &Case<'_>) -> Result<(), TestCaseError> {
    let is_explained = !case.differs() || DIFFERENCES.iter().any(|row| (row.explains)(case));
    prop_assert!(is_explained, "a difference that has no row: {}", case);
    Ok(())
}
