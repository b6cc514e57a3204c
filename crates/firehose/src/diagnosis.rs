//! How the bus is: its clock, its disk, its log, its state; and what the operator has to do.

use std::io::ErrorKind;
use std::path::Path;

use firehose_broker::state::StateStats;
use firehose_log::{Damage, Disk, Note, Read, RealDisk, RecoveryReport, clock_hold};
use serde_json::{Value, json};

use crate::full_read::full_read;
use crate::redaction_note::RedactionNote;

/// What a start found amiss.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Events at the end of the log that were durable and are not there.
    lost: Vec<String>,
    notes: Vec<String>,
}

impl Found {
    /// By the log's report.
    pub fn of(report: &RecoveryReport) -> Self {
        let is_lost = |note: &&Note| matches!(note, Note::DurableLost { .. });
        let lost = report.notes.iter().filter(is_lost).map(ToString::to_string).collect();
        let notes = report.notes.iter().map(ToString::to_string).collect();
        Found { lost, notes }
    }

    /// By others, a line each.
    pub fn add(&mut self, notes: Vec<String>) {
        self.notes.extend(notes);
    }
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// Name and value, in order.
    facts: Vec<(&'static str, Value)>,
    /// A line each.
    needs: Vec<String>,
}

impl Diagnosis {
    /// What the data folder alone tells.
    pub fn of_folder(data: &Path, reserve_bytes: u64) -> Self {
        let mut diagnosis = Diagnosis::default();
        diagnosis.fact("data", data.display().to_string());
        diagnosis.clock(&data.join("log"));
        diagnosis.room(data, reserve_bytes);
        diagnosis.files(data);
        diagnosis.state_file(&data.join("state.redb"));
        diagnosis.redactions(data);
        diagnosis
    }

    /// And what a running bus tells.
    pub fn add_running(&mut self, read: &dyn Read, found: &Found) {
        self.fact("running", true);
        self.fact("epoch", read.epoch());
        self.fact("oldest", read.oldest());
        self.fact("head", read.head());
        self.fact("kept", read.kept().len());
        self.damage(&read.damage());
        self.needs.extend(found.lost.iter().map(|lost| format!("{lost}: look at the disk")));
        self.needs.extend(read.read_only().map(|why| {
            format!(
                "the log is read-only since {why}: publishes are refused, reading goes on; look at the disk, then restart \
                 the bus"
            )
        }));
        self.fact("notes", found.notes.clone());
    }

    /// And what a read of the whole log finds. To come before [`Diagnosis::add_running`], which names the damage. Waits for
    /// the disk.
    pub fn add_full_read(&mut self, read: &dyn Read) {
        match full_read(read) {
            Ok((first, last)) if first > last => self.fact("read", "there are no events"),
            Ok((first, last)) => self.fact("read", format!("events {first} to {last}")),
            Err(error) => {
                self.need(format!("{error}: not all of it was read; look at the disk, and ask once more"));
            }
        }
    }

    /// And its state, whose view is so many events behind.
    pub fn add_state(&mut self, stats: &StateStats, lag: u64) {
        self.fact("sessions", stats.sessions());
        self.fact("wills", stats.wills());
        self.fact("state_lag", lag);
        self.fact("state_rebuilds", stats.rebuilds.get());
        self.needs.extend(stats.failure().map(|why| {
            format!("the state cannot be written ({why}): new sessions are refused, others go on; look at the disk")
        }));
    }

    /// And that no bus runs, or one that cannot be asked.
    pub fn add_stopped(&mut self, data: &Path) {
        let log = data.join("log");
        let in_use =
            RealDisk::new().lock(&log).err().is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.fact("running", in_use);
        if in_use {
            self.needs.push(format!(
                "a firehose uses {} but does not answer at admin.sock: wait until it has started, or restart it",
                log.display()
            ));
        }
    }

    /// Something that the operator has to do.
    pub fn need(&mut self, what: String) {
        self.needs.push(what);
    }

    /// For the socket.
    pub fn to_json(&self) -> Value {
        let facts: serde_json::Map<_, _> =
            self.facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        json!({ "facts": facts, "needs": self.needs })
    }

    fn fact(&mut self, name: &'static str, value: impl Into<Value>) {
        self.facts.push((name, value.into()));
    }

    /// What the start and all reads since then found.
    fn damage(&mut self, damage: &Damage) {
        self.fact("damaged_ranges", damage.ranges);
        self.fact("damaged_events", damage.events);
        for (first, last) in &damage.named {
            self.need(format!(
                "events {first} to {last} are damaged on the disk and are declared as a gap: look at the disk"
            ));
        }
        let more = damage.ranges.saturating_sub(damage.named.len() as u64);
        if more > 0 {
            self.need(format!(
                "{more} more ranges of events are damaged on the disk and are declared as gaps: look at the disk"
            ));
        }
    }

    fn clock(&mut self, log: &Path) {
        match clock_hold(log, &RealDisk::new()) {
            Ok(None) => self.fact("clock", "trusted"),
            Ok(Some(hold)) => {
                self.fact("clock", hold.to_string());
                self.need(format!("{hold}. If it is right now: firehose doctor --accept-clock"));
            }
            Err(error) => self.need(format!("{}: {error}", log.display())),
        }
    }

    fn room(&mut self, data: &Path, reserve_bytes: u64) {
        match RealDisk::new().space(data) {
            Ok(space) => {
                let reserve_bytes = reserve_bytes.min(space.total_bytes / 20);
                self.fact("free_bytes", space.free_bytes);
                self.fact("reserve_bytes", reserve_bytes);
                if space.free_bytes < reserve_bytes {
                    self.need(format!(
                        "{} bytes are free, less than the reserve of {reserve_bytes}: publishes are refused; make room",
                        space.free_bytes
                    ));
                }
            }
            Err(error) => self.need(format!("{}: {error}", data.display())),
        }
    }

    /// Counts the log's segments, and names files that were set aside.
    fn files(&mut self, data: &Path) {
        let (mut segments, mut bytes) = (0u64, 0u64);
        for folder in [data.to_owned(), data.join("log")] {
            let names = match RealDisk::new().list(&folder) {
                Ok(names) => names,
                Err(error) => {
                    self.need(format!("{}: {error}", folder.display()));
                    continue;
                }
            };
            for name in names {
                let path = folder.join(&name);
                if name.contains(".damaged") {
                    self.need(format!(
                        "{} was set aside, since it cannot be read: keep it elsewhere or delete it",
                        path.display()
                    ));
                } else if name.ends_with(".log") {
                    segments += 1;
                    match RealDisk::new().open(&path).and_then(|file| file.len()) {
                        Ok(len) => bytes += len,
                        // Retention has taken it meanwhile.
                        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {}
                        Err(error) => self.need(format!(
                            "{} cannot be opened ({error}): its events cannot be read, and are declared as a gap; put the \
                             right file there and restart",
                            path.display()
                        )),
                    }
                }
            }
        }
        self.fact("segments", segments);
        self.fact("segment_bytes", bytes);
    }

    /// Names a state file that a start would not find, or not take.
    fn state_file(&mut self, path: &Path) {
        let why = match std::fs::metadata(path) {
            Ok(found) if found.is_file() => return,
            Ok(_) => "is no file: a start is refused; put the state file back, or move away what is there".to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
                "is a link to a file that is not there: a start is refused; mount its disk, or remove the link".to_owned()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                "is missing: the next start begins without the sessions and wills; a bus that runs saves them where no \
                 start finds them"
                    .to_owned()
            }
            Err(error) => format!("cannot be looked at: {error}"),
        };
        self.need(format!("{} {why}", path.display()));
    }

    /// Names redactions that are not finished: what is to go may still be there.
    fn redactions(&mut self, data: &Path) {
        for offset in RedactionNote::offsets(data).unwrap_or_default() {
            self.need(format!(
                "the redaction of event {offset} is not finished, or was cut off: a start finishes it; if its note {} stays, \
                 redact the event again",
                data.join(format!("redaction.{offset}.json")).display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firehose_log::{Attributes, DiskCall, Draft, Event, Flags, LogConfig, MemDisk, Origin, Submission};
    use std::sync::Arc;

    #[test]
    fn a_segment_that_cannot_be_opened_is_named() {
        let data = tempfile::tempdir().expect("a folder");
        let log = data.path().join("log");
        std::fs::create_dir_all(log.join("00000000000000000001.0.log")).expect("a folder");
        std::fs::write(log.join("00000000000000000005.0.log"), b"12345").expect("a file");
        std::fs::write(data.path().join("state.redb"), b"").expect("a file");
        let diagnosis = Diagnosis::of_folder(data.path(), 0);
        let [need] = &diagnosis.needs[..] else { panic!("{:?}", diagnosis.needs) };
        assert!(need.contains("00000000000000000001.0.log cannot be opened (is a folder)"), "{need}");
        let fact = |name| diagnosis.facts.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
        assert_eq!(fact("segments"), Some(&json!(2)));
        assert_eq!(fact("segment_bytes"), Some(&json!(5)));
    }

    #[test]
    fn a_log_that_is_read_only_since_a_sync_failed_is_told() {
        let disk = MemDisk::new();
        let mut log =
            firehose_log::open(LogConfig::new("/log"), Arc::new(disk.clone()), 0).expect("it opens");
        let needs = |read: &dyn Read| {
            let mut diagnosis = Diagnosis::default();
            diagnosis.add_running(read, &Found::default());
            diagnosis.needs
        };
        assert!(needs(log.read.as_ref()).is_empty());
        let mut draft = Draft::new();
        let event = Event {
            flags: Flags::new(1, false, None),
            topic: "a",
            attributes: Attributes::EMPTY,
            payload: b"",
        };
        draft.push(&event, &Origin::default()).expect("it fits");
        let mut submissions = vec![Submission { draft, ticket: 0, from: 0 }];
        log.append.append(0, &mut submissions, &mut |_, _, placed| drop(placed.expect("placed")));
        disk.fail(DiskCall::Sync, ErrorKind::Other);
        disk.fail(DiskCall::Sync, ErrorKind::Other);
        assert!(log.commit.commit().is_err());
        let needs = needs(log.read.as_ref());
        assert!(needs[0].contains("the log is read-only since a sync failed"), "{needs:?}");
    }
}
