//! A disk that is full, under the real binary: publishers are refused, readers go on, and when there is room again so do
//! publishers.

mod process;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use process::{Ended, Serve, run};

const KIB: u32 = 24 << 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// A test that has tried so often has failed.
const TRIES: u32 = 1_200;

fn publish(url: &str, text: &str) -> Ended {
    run(["pub", url, "-t", "t", "-q", "1", "-m", text])
}

/// Publishes until it comes out this way; how often it came out the other way.
fn until(url: &str, text: &str, stored: bool) -> u32 {
    for tries in 0..TRIES {
        if (publish(url, text).code == Some(0)) == stored {
            return tries;
        }
        sleep(PAUSE);
    }
    panic!("it never comes out as stored: {stored}");
}

/// Takes all room that there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("it can be made");
    while file.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_refuses_publishers_and_no_reader_and_recovers_by_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (disk, log) = (folder.path().join("disk"), folder.path().join("log"));
    fs::create_dir(&disk).expect("it can be made");
    let config = folder.path().join("firehose.toml");
    fs::write(&config, "[auth]\nanonymous = \"full\"\n[admin]\naddress = \"off\"\n").expect("written");
    let config = config.to_str().expect("a plain name");
    let serve = Serve::on_a_small_disk(&disk, KIB, &log, &["--config", config]);
    assert_eq!(publish(&serve.mqtt, "before").code, Some(0));
    let filler = serve.inside(&disk).join("filler");
    fill(&filler);
    // Until it looks, what fits is taken.
    let stored = until(&serve.mqtt, "meanwhile", false) as usize;
    let refused = publish(&serve.mqtt, "refused");
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains("quota") || refused.err.contains("Quota"), "it says why: {}", refused.err);
    let expected: String = ["before\n"].into_iter().chain(vec!["meanwhile\n"; stored]).collect();
    assert_eq!(run(["history", &serve.http, "--raw"]).out, expected);
    let count = (stored + 1).to_string();
    let past = run(["sub", &serve.mqtt, "-t", "#", "--since", "earliest", "-n", &count]);
    assert_eq!((past.code, past.out), (Some(0), expected.clone()));
    fs::remove_file(&filler).expect("it is there");
    until(&serve.mqtt, "after", true);
    assert_eq!(run(["history", &serve.http, "--raw"]).out, expected + "after\n");
    let lines = fs::read_to_string(&log).expect("it is UTF-8");
    for said in ["publishes are refused", "publishes are taken"] {
        assert_eq!(lines.matches(said).count(), 1, "{lines}");
    }
}
