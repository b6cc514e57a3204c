//! SUBACK and UNSUBACK: what a client is told, in a packet of a size that it takes.

use crate::hold::Saving;
use crate::shard::Shard;
use firehose_log::{Cursor, Offset};
use firehose_mqtt::{
    Packet, PacketId, Properties, PropertiesBuf, Property, Reason, ReasonsBuf, SubAck, UnsubAck, Version,
    encode,
};

impl Shard {
    /// Answers a SUBSCRIBE that has its place behind `head`. The cursor of that is left out where there is no room for
    /// it [MQTT-3.9.2-2], and for a client that wants no such properties [MQTT-3.1.2-29].
    pub(crate) fn answer_subscribe(
        &mut self,
        session: u32,
        packet_id: PacketId,
        reasons: &ReasonsBuf,
        head: Offset,
    ) {
        let Some(it) = self.sessions.get(session as usize) else { return };
        let Some(connection) = it.connection.as_deref() else { return };
        let bytes_max = connection.packet_bytes_max as usize;
        let mut properties = PropertiesBuf::new();
        if it.cursors && connection.problem_information && connection.version == Version::V5 {
            let recorded_secs = self.now.wall_us.div_euclid(1_000_000);
            let (log_id, recovered) = (self.shared.log_id, self.shared.recovered);
            // Never of an epoch in which nothing was recorded: on a full disk it may not have begun, so that a later
            // start takes its number, or a lower one.
            let epoch = if head > recovered.offset { self.shared.epoch } else { recovered.epoch };
            let cursor = Cursor { log_id, epoch, offset: head, recorded_secs }.encode();
            let _ = properties.push(&Property::UserProperty("firehose-cursor", &cursor));
        }
        let reasons = reasons.as_reasons();
        let with = |properties| Packet::SubAck(SubAck { packet_id, properties, reasons });
        let version = connection.version;
        let mut answer = encoded(&with(properties.as_properties()), version);
        if answer.len() > bytes_max {
            answer = encoded(&with(Properties::EMPTY), version);
        }
        self.answer_fitting(session, &answer, bytes_max);
    }

    /// Answers an UNSUBSCRIBE.
    pub(crate) fn answer_unsubscribe(&mut self, session: u32, packet_id: PacketId, reasons: &ReasonsBuf) {
        let connection = self.sessions.get(session as usize).and_then(|it| it.connection.as_deref());
        let Some(connection) = connection else { return };
        let bytes_max = connection.packet_bytes_max as usize;
        let (properties, reasons) = (Properties::EMPTY, reasons.as_reasons());
        let packet = Packet::UnsubAck(UnsubAck { packet_id, properties, reasons });
        let answer = encoded(&packet, connection.version);
        self.answer_fitting(session, &answer, bytes_max);
    }

    /// Sends it once what it says is saved; who asks for more answers than it takes in a packet is closed [MQTT-3.1.2-24].
    fn answer_fitting(&mut self, session: u32, answer: &[u8], bytes_max: usize) {
        if answer.len() > bytes_max {
            let why = "the answer is larger than its Maximum Packet Size [MQTT-3.1.2-24]";
            return self.disconnect(session, Reason::PacketTooLarge, why);
        }
        self.reply_when_saved(session, Saving::Progress, |out, _| out.extend_from_slice(answer));
    }
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = encode(packet, version, &mut out);
    out
}
