//! What the documentation must name, because the program has it.

use std::path::Path;

#[test]
fn every_adr_is_in_the_index_and_in_the_summary() {
    let index = read("docs/adr/README.md");
    let summary = read("docs/SUMMARY.md");
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(crate::top().join("docs/adr")).expect("there are ADRs") {
        let name = entry.expect("it can be read").file_name().into_string().expect("it is UTF-8");
        if name == "README.md" {
            continue;
        }
        assert!(index.contains(&format!("]({name})")), "docs/adr/README.md does not name {name}");
        assert!(summary.contains(&format!("](adr/{name})")), "docs/SUMMARY.md does not name {name}");
        numbers.push(name.split('-').next().unwrap_or_default().to_owned());
    }
    numbers.sort();
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "two ADRs have one number: {numbers:?}");
}

#[test]
fn every_chapter_of_the_summary_is_there_and_every_page_is_a_chapter() {
    let summary = read("docs/SUMMARY.md");
    let chapters: Vec<&str> = links(&summary).collect();
    for chapter in &chapters {
        assert!(crate::top().join("docs").join(chapter).is_file(), "docs/SUMMARY.md names {chapter}");
    }
    for (name, _) in crate::tracked_files() {
        let page = name.strip_prefix("docs/").filter(|page| page.ends_with(".md") && *page != "SUMMARY.md");
        assert!(page.is_none_or(|page| chapters.contains(&page)), "docs/SUMMARY.md does not name {name}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for (name, text) in crate::tracked_files().iter().filter(|(name, _)| name.ends_with(".md")) {
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for link in links(text).filter(|link| !link.contains("://") && !link.starts_with(['#', '<'])) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(
                crate::top().join(folder).join(file).exists(),
                "{name} links to {link}, which is not there"
            );
        }
    }
}

#[test]
fn every_key_of_the_configuration_is_in_the_reference_with_its_default() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("firehose.toml");
    std::fs::write(&file, "").expect("it can be written");
    let file = file.to_str().expect("it is UTF-8");
    let printed = crate::output(env!("CARGO_BIN_EXE_firehose"), &["check-config", "--print", file]);
    let printed: toml::Table = printed.parse().expect("it prints TOML");
    let reference = read("docs/reference/config.md");
    for table in ["server", "log", "auth", "limits", "admin"] {
        let section = reference.split("\n## ").find(|section| section.starts_with(&format!("`[{table}]`\n")));
        let section = section.unwrap_or_else(|| panic!("docs/reference/config.md has no section [{table}]"));
        for (key, value) in printed[table].as_table().expect("it is a table") {
            let row = section.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/reference/config.md has no row for {table}.{key}"));
            let value = value.to_string();
            assert!(
                row.contains(&format!("| `{value}` |")),
                "the default of {table}.{key} is {value}: {row}"
            );
        }
    }
}

fn read(name: &str) -> String {
    std::fs::read_to_string(crate::top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Where the links of a text lead, but for those inside of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence && !line.starts_with("    ")
    });
    prose.flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next())
}
