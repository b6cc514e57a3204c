//! The rules of the house that no compiler checks: which crate may use which, and what a source file may not hold.

mod arrows;
mod docs;
mod statements;
mod tidy;

use std::path::Path;
use std::process::Command;

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What a program prints when it is run at the top; it must succeed.
fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).current_dir(top()).output();
    let done = done.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {}: {said}", arguments.join(" "));
    String::from_utf8(done.stdout).expect("it prints UTF-8")
}

/// Every text file that is in the repository, or would be with the next commit, with what is in it.
fn tracked_files() -> Vec<(String, String)> {
    let names = output("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let named = names.split_terminator('\0').filter(|name| !name.starts_with("fuzz/corpus/"));
    named
        .filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(top().join(name)).ok()?)))
        .collect()
}
