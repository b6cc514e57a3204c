//! The tables of docs/reference/mqtt.md: every normative statement of MQTT stands there once, with tests that exist.

use std::collections::{BTreeMap, HashMap};

const PAGE: &str = "docs/reference/mqtt.md";
/// What the tables stand below.
const HEADING: &str = "\n## Every normative statement, and the test that proves it\n";

/// The numbers of a version: [MQTT-section-number].
type Numbers = &'static [(&'static str, &'static [u32])];

const V311: Numbers = &[
    ("1.5.3", &[1, 2, 3]),
    ("2.2.2", &[1, 2]),
    ("2.3.1", &[1, 2, 3, 4, 5, 6, 7]),
    ("3.1.0", &[1, 2]),
    ("3.1.2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]),
    ("3.1.3", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ("3.1.4", &[1, 2, 3, 4, 5]),
    ("3.2.0", &[1]),
    ("3.2.2", &[1, 2, 3, 4, 5, 6]),
    ("3.3.1", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ("3.3.2", &[1, 2, 3]),
    ("3.3.4", &[1]),
    ("3.3.5", &[1, 2]),
    ("3.6.1", &[1]),
    ("3.8.1", &[1]),
    ("3.8.3", &[1, 2, 3, 4]),
    ("3.8.4", &[1, 2, 3, 4, 5, 6]),
    ("3.9.3", &[1, 2]),
    ("3.10.1", &[1]),
    ("3.10.3", &[1, 2]),
    ("3.10.4", &[1, 2, 3, 4, 5, 6]),
    ("3.12.4", &[1]),
    ("3.14.1", &[1]),
    ("3.14.4", &[1, 2, 3]),
    ("4.1.0", &[1, 2]),
    ("4.3.1", &[1]),
    ("4.3.2", &[1, 2]),
    ("4.3.3", &[1, 2]),
    ("4.4.0", &[1]),
    ("4.5.0", &[1, 2]),
    ("4.6.0", &[1, 2, 3, 4, 5, 6]),
    ("4.7.1", &[1, 2, 3]),
    ("4.7.2", &[1]),
    ("4.7.3", &[1, 2, 3, 4]),
    ("4.8.0", &[1, 2]),
    ("6.0.0", &[1, 2, 3, 4]),
    ("7.0.0", &[1, 2]),
    ("7.1.1", &[1]),
    ("7.1.2", &[1]),
];

const V5: Numbers = &[
    ("1.5.4", &[1, 2, 3]),
    ("1.5.5", &[1]),
    ("1.5.7", &[1]),
    ("2.1.3", &[1]),
    ("2.2.1", &[2, 3, 4, 5, 6]),
    ("2.2.2", &[1]),
    ("3.1.0", &[1, 2]),
    (
        "3.1.2",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
            27, 28, 29, 30,
        ],
    ),
    ("3.1.3", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ("3.1.4", &[1, 2, 3, 4, 5, 6]),
    ("3.2.0", &[1, 2]),
    ("3.2.2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]),
    ("3.3.1", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("3.3.2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]),
    ("3.3.4", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ("3.4.2", &[1, 2, 3]),
    ("3.5.2", &[1, 2, 3]),
    ("3.6.1", &[1]),
    ("3.6.2", &[1, 2, 3]),
    ("3.7.2", &[1, 2, 3]),
    ("3.8.1", &[1]),
    ("3.8.3", &[1, 2, 3, 4, 5]),
    ("3.8.4", &[1, 2, 3, 4, 5, 6, 7, 8]),
    ("3.9.2", &[1, 2]),
    ("3.9.3", &[1, 2]),
    ("3.10.1", &[1]),
    ("3.10.3", &[1, 2]),
    ("3.10.4", &[1, 2, 3, 4, 5, 6]),
    ("3.11.2", &[1, 2]),
    ("3.11.3", &[1, 2]),
    ("3.12.4", &[1]),
    ("3.14.0", &[1]),
    ("3.14.1", &[1]),
    ("3.14.2", &[1, 2, 3, 4]),
    ("3.14.4", &[1, 2, 3]),
    ("3.15.1", &[1]),
    ("3.15.2", &[1, 2, 3]),
    ("4.1.0", &[1, 2]),
    ("4.2", &[1]),
    ("4.3.1", &[1]),
    ("4.3.2", &[1, 2, 3, 4, 5]),
    ("4.3.3", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("4.4.0", &[1, 2]),
    ("4.5.0", &[1, 2]),
    ("4.6.0", &[1, 2, 3, 4, 5, 6]),
    ("4.7.0", &[1]),
    ("4.7.1", &[1, 2]),
    ("4.7.2", &[1]),
    ("4.7.3", &[1, 2, 3, 4]),
    ("4.8.2", &[1, 2, 3, 4, 5, 6]),
    ("4.9.0", &[1, 2, 3]),
    ("4.12.0", &[1, 2, 3, 4, 5, 6, 7]),
    ("4.12.1", &[1, 2]),
    ("4.13.1", &[1]),
    ("4.13.2", &[1]),
    ("6.0.0", &[1, 2, 3, 4]),
];

#[test]
fn every_statement_of_mqtt_has_its_place_in_the_table() {
    for (version, numbers, count) in [("3.1.1", V311, 141), ("5.0", V5, 251)] {
        let expected = numbers
            .iter()
            .flat_map(|(section, numbers)| numbers.iter().map(move |number| format!("{section}-{number}")));
        let mut left: BTreeMap<String, usize> = expected.map(|statement| (statement, 0)).collect();
        assert_eq!(left.len(), count, "the list of {version} is whole");
        for statement in statements(&section(&page(), version)) {
            let Some(times) = left.get_mut(&statement) else {
                panic!("{PAGE}: MQTT {version} has no statement {statement}")
            };
            *times += 1;
        }
        let wrong: Vec<_> = left.into_iter().filter(|(_, times)| *times != 1).collect();
        assert_eq!(wrong, [], "{PAGE}: MQTT {version}: how often these stand there");
    }
}

#[test]
fn every_test_that_proves_a_statement_is_there_and_runs() {
    let page = page();
    let places = places(&page);
    let mut files: HashMap<String, String> = HashMap::new();
    for version in ["3.1.1", "5.0"] {
        for (statement, tests) in rows(&section(&page, version)) {
            assert!(!tests.is_empty(), "{PAGE}: MQTT {version}, {statement} has no test");
            for test in tests {
                let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{PAGE}: {test}"));
                let (place, file) = file.split_once('/').unwrap_or_else(|| panic!("{PAGE}: {test}"));
                let folder = places.get(place).unwrap_or_else(|| panic!("{PAGE}: {place} is no place"));
                let path = format!("{folder}/{file}");
                let text = files.entry(path.clone()).or_insert_with(|| {
                    std::fs::read_to_string(crate::top().join(&path))
                        .unwrap_or_else(|error| panic!("{PAGE} names {path}: {error}"))
                });
                assert!(runs(text, name), "{PAGE}: {statement}: {path} has no test {name}");
            }
        }
    }
}

#[test]
fn a_test_runs_if_it_is_one_and_is_not_left_out() {
    let text = "#[test]\nfn one() {}\n\nfn two() {}\n\n#[test]\n#[ig\u{6e}ore]\nfn three() {}\n";
    assert_eq!(["one", "two", "three", "on"].map(|name| runs(text, name)), [true, false, false, false]);
}

/// Whether a file has this test, with nothing between `#[test]` and its name that leaves it out.
fn runs(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begin = format!("fn {name}(");
    let Some(at) = lines.iter().position(|line| line.starts_with(&begin)) else { return false };
    let attributes: Vec<&&str> = lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).collect();
    attributes.iter().any(|line| **line == "#[test]")
        && attributes.iter().all(|line| !line.starts_with(concat!("#[ig", "nore")))
}

fn page() -> String {
    std::fs::read_to_string(crate::top().join(PAGE)).unwrap_or_else(|error| panic!("{PAGE}: {error}"))
}

/// What stands below the heading of a version.
fn section(page: &str, version: &str) -> String {
    let heading = format!("MQTT {version}\n");
    let section = page.split("\n### ").find(|section| section.starts_with(&heading));
    section.unwrap_or_else(|| panic!("{PAGE} has no section {heading}")).to_owned()
}

/// The folders that the places stand for.
fn places(page: &str) -> HashMap<String, String> {
    let (_, below) = page.split_once(HEADING).unwrap_or_else(|| panic!("{PAGE} has no {HEADING}"));
    let head = below.split("\n### ").next().unwrap_or_default();
    let rows = head.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split('`');
        Some((cells.nth(1)?.to_owned(), cells.nth(1)?.to_owned()))
    })
    .collect()
}

/// The statements of a section's table with their tests.
fn rows(section: &str) -> Vec<(String, Vec<String>)> {
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| statement"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').splitn(3, " | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{PAGE}: {row}");
        let tests = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].to_owned(), tests)
    })
    .collect()
}

/// All statements that a section names: in its table, and in the list of those without a test.
fn statements(section: &str) -> Vec<String> {
    let mut found: Vec<String> = rows(section).into_iter().map(|(statement, _)| statement).collect();
    let list = section.lines().filter(|line| line.starts_with("- ") || line.starts_with("  "));
    for line in list {
        let words = line.split([' ', ',']).map(|word| word.trim_end_matches(['.', ':']));
        found.extend(words.filter(|word| is_number(word)).map(str::to_owned));
    }
    found
}

fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word.rsplit_once('-').is_some_and(|(section, number)| digits(number) && section.split('.').all(digits))
}
