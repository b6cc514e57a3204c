//! What a source file may not be or hold.

/// A file is read as a whole, or it is not read.
const LINES_MAX: usize = 500;
/// The load tool came as one proven piece (docs/adr/0004-mqload-unsafe-epoll.md).
const LONG_FILES: &str = "bench/mqload/src/";
/// Names that say nothing; in parts, so that this file does not hold them.
const EMPTY_WORDS: [&str; 3] = [concat!("mana", "ger"), concat!("ut", "il"), concat!("hel", "per")];
/// Marks of unfinished work.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
];
/// Folders of one machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/tmp/", "fh/")];
/// Where packages come from is the business of who builds: a mirror, a cache, no network at all.
const REGISTRIES: [&str; 7] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("maven", ".org"),
    concat!("maven.apache", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("deb.debian", ".org"),
];

#[test]
fn no_source_file_is_longer_than_it_may_be() {
    let long = crate::tracked_files().into_iter().filter_map(|(name, text)| {
        let lines = text.lines().count();
        let checked = is_source(&name, &text) && !name.starts_with(LONG_FILES);
        (checked && lines > LINES_MAX).then(|| format!("{name}: {lines} lines"))
    });
    assert_eq!(long.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn nothing_has_a_name_that_says_nothing() {
    let mut found = Vec::new();
    for (name, text) in crate::tracked_files() {
        let path = name.to_lowercase();
        if EMPTY_WORDS.iter().any(|word| path.contains(word)) {
            found.push(name.clone());
        }
        if is_source(&name, &text) {
            let defined =
                text.lines().enumerate().filter_map(|(line, text)| Some((line, defined_name(text)?)));
            let empty = defined.filter(|(_, defined)| EMPTY_WORDS.iter().any(|word| defined.contains(word)));
            found.extend(empty.map(|(line, defined)| format!("{name}:{}: {defined}", line + 1)));
        }
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn nothing_is_unfinished() {
    assert_eq!(places(is_source, &UNFINISHED), [""; 0]);
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    assert_eq!(places(|_, _| true, &MACHINE_PATHS), [""; 0]);
    // The lock files' own format names the registry.
    assert_eq!(places(|name, _| !name.ends_with("Cargo.lock"), &REGISTRIES), [""; 0]);
}

#[test]
fn defined_names_are_found() {
    let word = EMPTY_WORDS[1];
    assert_eq!(defined_name(&format!("pub(crate) mod {word}s;")), Some(format!("{word}s")));
    assert_eq!(defined_name(&format!("    struct Disk{word} {{")), Some(format!("disk{word}")));
    assert_eq!(defined_name("class Row(Base):").as_deref(), Some("row"));
    assert_eq!(defined_name(&format!("    let x = {word};")), None);
}

/// Where any of the texts stand, as `file:line: text`.
fn places(wanted: impl Fn(&str, &str) -> bool, texts: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    for (name, text) in crate::tracked_files().iter().filter(|(name, text)| wanted(name, text)) {
        for (number, line) in text.lines().enumerate() {
            let here = texts.iter().filter(|text| line.contains(**text));
            places.extend(here.map(|text| format!("{name}:{}: {text}", number + 1)));
        }
    }
    places
}

/// The module or type that a line defines, in lower case.
fn defined_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub").map_or(line, |rest| match rest.split_once(')') {
        Some((scope, rest)) if scope.starts_with('(') => rest.trim_start(),
        _ => rest.trim_start(),
    });
    let (kind, rest) = line.split_once(' ')?;
    let defines = matches!(kind, "mod" | "struct" | "enum" | "trait" | "type" | "class");
    let end = |c: char| !(c.is_alphanumeric() || c == '_');
    defines.then(|| rest.split(end).next().unwrap_or_default().to_lowercase())
}

/// Rust, Python and JavaScript, and scripts that say so in their first line.
fn is_source(name: &str, text: &str) -> bool {
    let ending = name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, ending)| ending);
    match ending {
        Some(ending) => matches!(ending, "rs" | "py" | "js" | "css" | "html" | "sh"),
        None => text.starts_with("#!"),
    }
}
