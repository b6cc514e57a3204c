//! `firehose demo`: a bus on loopback that plays recorded events, over and over, until it is interrupted.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use firehose_source::gerrit::recorded_event;
use firehose_source::{NewEvent, Sink};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::bus_sink::BusSink;
use crate::cli::LogFormat;
use crate::commands::serve::{self, Stop};
use crate::config::address::Address;
use crate::config::{Config, Durability, Protocol};
use crate::exit::Failure;
use crate::logging;
use crate::serve::Running;

/// What real Gerrits wrote (`demo/SOURCES.md` says which), a line each.
const RECORDINGS: [&[u8]; 2] =
    [include_bytes!("../../demo/real-3.13.5.jsonl"), include_bytes!("../../demo/recorded.jsonl")];
/// The longest pause between two events; recorded ones are cut to it.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Where the events seem to come from.
const SOURCE_URI: &str = "https://review.example.org/";

/// Starts the bus, says how to read along, and plays.
pub fn run() -> Result<(), Failure> {
    logging::start(LogFormat::Text);
    let folder = tempfile::Builder::new()
        .prefix("firehose-demo-")
        .tempdir()
        .map_err(|error| Failure::runtime(format!("no temporary folder can be made: {error}")))?;
    let mut config = Config::without_file();
    config.server.data_dir = Some(folder.path().to_owned());
    config.log.durability = Durability::Os;
    config.replace_listeners(Protocol::Mqtt, &[free_or_any(1883)]);
    config.replace_listeners(Protocol::Http, &[free_or_any(8080)]);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // a terminal that is closed says HUP, and the folder is to be removed then too
    let (mut stop, mut hangup) = {
        let _inside = runtime.enter();
        (Stop::new()?, signal(SignalKind::hangup())?)
    };
    let running = Running::start(&config)?;
    serve::say(&running);
    // who started the demo with its output cut off does not want to read it
    let _ = std::io::stdout().write_all(invitation(&running).as_bytes());
    let sink = BusSink::new(running.bus().clone(), "demo");
    runtime.block_on(async {
        tokio::select! {
            () = stop.asked() => {}
            _ = hangup.recv() => {}
            () = play(Arc::new(sink)) => {}
        }
    });
    running.stop();
    Ok(())
}

/// The usual port, or any other if that is taken.
fn free_or_any(port: u16) -> Address {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Address::loopback(port),
        Err(_) => Address::loopback(0),
    }
}

/// Plays all recordings again and again.
async fn play(sink: Arc<dyn Sink>) {
    let events = events();
    loop {
        for (pause, event) in &events {
            tokio::time::sleep(*pause).await;
            if let Err(refused) = sink.publish(vec![event.clone()]).await {
                tracing::warn!(%refused, "an event of the demo was refused");
            }
        }
    }
}

/// The events, and how long to wait before each.
fn events() -> Vec<(Duration, NewEvent)> {
    let lines = RECORDINGS.iter().flat_map(|recording| recording.split(|b| *b == b'\n'));
    let mut before = None;
    let mut events = Vec::new();
    for (event, created_secs) in lines.filter_map(|line| recorded_event(line, "gerrit", SOURCE_URI)) {
        let pause = match (before, created_secs) {
            (Some(before), Some(now)) => Duration::from_secs(u64::try_from(now - before).unwrap_or(0)),
            (None, _) => Duration::ZERO,
            (_, None) => PAUSE_MAX,
        };
        before = created_secs.or(before);
        events.push((pause.min(PAUSE_MAX), event));
    }
    events
}

/// How to read along.
fn invitation(running: &Running) -> String {
    let of = |protocol: &str| {
        let found = running.addresses().iter().find(|(found, _)| found == protocol);
        found.map_or("127.0.0.1:0", |(_, address)| address.as_str())
    };
    let (mqtt, http) = (of("mqtt"), of("http"));
    // as it was called: `cargo run` puts it into no PATH
    let firehose = std::env::args().next().unwrap_or_else(|| "firehose".into());
    let port = mqtt.rsplit_once(':').map_or("1883", |(_, port)| port);
    format!(
        r#"
This bus plays what a code review server did, over and over. Read along, from another terminal:

  mosquitto_sub -h 127.0.0.1 -p {port} -v -t 'gerrit/#'

  curl -s 'http://{http}/v1/events?order=desc&limit=5'

  {firehose} sub mqtt://{mqtt} -v -t 'gerrit/#' --since earliest

  python3 -m venv firehose-venv && firehose-venv/bin/pip install paho-mqtt
  firehose-venv/bin/python - <<'END'
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect = lambda client, *_: client.subscribe("gerrit/#")
client.on_message = lambda client, userdata, message: print(message.topic, message.payload.decode())
client.connect("127.0.0.1", {port})
client.loop_forever()
END

Ctrl-C ends it; what it stored is removed.
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recordings_are_events_at_their_own_pace_with_gaps_cut() {
        let events = events();
        let lines = RECORDINGS.iter().flat_map(|recording| recording.split(|b| *b == b'\n'));
        assert_eq!(events.len(), lines.filter(|line| !line.is_empty()).count());
        assert_eq!(events[0].0, Duration::ZERO);
        assert!(events.iter().all(|(pause, _)| *pause <= PAUSE_MAX));
        assert!(events.iter().any(|(pause, _)| pause.is_zero()), "events of one second come together");
        assert!(events.iter().all(|(_, event)| event.topic.starts_with("gerrit/")));
    }
}
