//! `firehose pub`: a message, a file, or a line each.

use std::io::{self, BufRead, Read};
use std::path::Path;

use firehose_client::{MqttConfig, Publisher};
use firehose_mqtt::QoS;
use firehose_topic::TopicName;

use crate::cli::Publish;
use crate::exit::Failure;
use crate::{account, signals};

/// The largest message: the largest MQTT packet.
const MESSAGE_BYTES_MAX: u64 = 268_435_455;

/// Publishes, and waits until everything is acknowledged.
pub fn run(args: &Publish) -> Result<(), Failure> {
    TopicName::new(&args.topic)
        .map_err(|error| Failure::usage(format!("-t {:?} is not a topic: {error}", args.topic)))?;
    let url = account::url(args.url.as_deref(), "mqtt://127.0.0.1:1883")?;
    let mut config = MqttConfig::new(url)?;
    config.account = account::account(&args.account, &config.url)?;
    config.roots = account::roots(&args.account);
    let message = match (&args.message, &args.file) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(path)) => Some(read(path)?),
        (None, None) => None,
    };
    signals::raise_on_signal(config.interrupt.clone())?;
    let qos = QoS::from_u8(args.qos).unwrap_or_default();
    let mut publisher = Publisher::open(config)?;
    match message {
        Some(message) => publisher.publish(&args.topic, &message, qos, args.retain)?,
        None => lines(&mut publisher, args, qos)?,
    }
    publisher.finish()?;
    Ok(())
}

/// Publishes each line of the standard input as it comes.
fn lines(publisher: &mut Publisher, args: &Publish, qos: QoS) -> Result<(), Failure> {
    let mut input = io::BufReader::new(io::stdin());
    let mut line = Vec::new();
    let mut count = 0_u64;
    loop {
        line.clear();
        let read = (&mut input).take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::runtime(format!("cannot read the standard input: {error}")))? == 0 {
            return Ok(());
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        publisher.publish(&args.topic, &line, qos, args.retain).map_err(|error| {
            let acknowledged = publisher.acknowledged();
            let mut failure = Failure::from(error);
            if qos != QoS::AtMostOnce && !failure.message.is_empty() {
                failure.message =
                    format!("{} ({acknowledged} of {count} lines were acknowledged)", failure.message);
            }
            failure
        })?;
        count += 1;
        if input.buffer().is_empty() {
            publisher.flush()?;
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes))
        }
    };
    read.map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", path.display())))?;
    Ok(bytes)
}
