//! A packet of ours as one of flowsdk's, field by field. Each packet is taken apart without `..`, so that a field that is
//! added cannot be forgotten here. What flowsdk cannot tell is the order of a will's properties; that of its user
//! properties it can.

use ::flowsdk::mqtt_serde::{
    control_packet::MqttPacket,
    mqttv3::{
        connackv3, connectv3, disconnectv3, pingreqv3, pingrespv3, pubackv3, pubcompv3, publishv3, pubrecv3,
        pubrelv3, subackv3, subscribev3, unsubackv3, unsubscribev3,
    },
    mqttv5::{
        Property as Theirs, authv5, connackv5, connectv5, disconnectv5, pingreqv5, pingrespv5, pubackv5,
        pubcompv5, publishv5, pubrecv5, pubrelv5, subackv5, subscribev5, unsubackv5, unsubscribev5, willv5,
    },
};
use firehose_mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, Reason,
    Reasons, SubAck, Subscribe, SubscribeItem, SubscribeOptions, UnsubAck, Unsubscribe, Version, Will,
};

/// What flowsdk has to make of this packet.
pub fn as_flowsdk(packet: &Packet<'_>, version: Version) -> MqttPacket {
    match packet {
        Packet::Connect(connect) if connect.version == Version::V5 => {
            MqttPacket::Connect5(connect_v5(connect))
        }
        Packet::Connect(connect) => MqttPacket::Connect3(connect_v3(connect)),
        _ if version == Version::V5 => packet_v5(packet),
        _ => packet_v3(packet),
    }
}

fn packet_v5(packet: &Packet<'_>) -> MqttPacket {
    macro_rules! ack {
        ($packet:ty, $ack:expr) => {{
            let Ack { packet_id, reason, properties } = *$ack;
            <$packet>::new(packet_id.get(), reason as u8, all(properties))
        }};
    }
    match packet {
        Packet::Connect(connect) => MqttPacket::Connect5(connect_v5(connect)),
        Packet::ConnAck(ConnAck { session_present, reason, properties }) => {
            let properties = (!properties.is_empty()).then(|| all(*properties));
            MqttPacket::ConnAck5(connackv5::MqttConnAck::new(*session_present, *reason as u8, properties))
        }
        Packet::Publish(publish) => MqttPacket::Publish5(publish_v5(publish)),
        Packet::PubAck(ack) => MqttPacket::PubAck5(ack!(pubackv5::MqttPubAck, ack)),
        Packet::PubRec(ack) => MqttPacket::PubRec5(ack!(pubrecv5::MqttPubRec, ack)),
        Packet::PubRel(ack) => MqttPacket::PubRel5(ack!(pubrelv5::MqttPubRel, ack)),
        Packet::PubComp(ack) => MqttPacket::PubComp5(ack!(pubcompv5::MqttPubComp, ack)),
        Packet::Subscribe(Subscribe { packet_id, properties, filters }) => {
            let filters = filters.map(subscription_v5).collect();
            MqttPacket::Subscribe5(subscribev5::MqttSubscribe::new(
                packet_id.get(),
                filters,
                all(*properties),
            ))
        }
        Packet::SubAck(SubAck { packet_id, properties, reasons }) => {
            MqttPacket::SubAck5(subackv5::MqttSubAck::new(packet_id.get(), codes(*reasons), all(*properties)))
        }
        Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }) => {
            let filters = filters.map(str::to_owned).collect();
            let properties = all(*properties);
            let packet_id = packet_id.get();
            MqttPacket::Unsubscribe5(unsubscribev5::MqttUnsubscribe::new(packet_id, filters, properties))
        }
        Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }) => MqttPacket::UnsubAck5(
            unsubackv5::MqttUnsubAck::new(packet_id.get(), codes(*reasons), all(*properties)),
        ),
        Packet::PingReq => MqttPacket::PingReq5(pingreqv5::MqttPingReq::new()),
        Packet::PingResp => MqttPacket::PingResp5(pingrespv5::MqttPingResp::new()),
        Packet::Disconnect(Disconnect { reason, properties }) => {
            MqttPacket::Disconnect5(disconnectv5::MqttDisconnect::new(*reason as u8, all(*properties)))
        }
        Packet::Auth(Auth { reason, properties }) => {
            MqttPacket::Auth(authv5::MqttAuth::new(*reason as u8, all(*properties)))
        }
    }
}

fn packet_v3(packet: &Packet<'_>) -> MqttPacket {
    match packet {
        Packet::Connect(connect) => MqttPacket::Connect3(connect_v3(connect)),
        Packet::ConnAck(ConnAck { session_present, reason, properties }) => {
            none(*properties);
            MqttPacket::ConnAck3(connackv3::MqttConnAck::new(*session_present, reason.connack_v3()))
        }
        Packet::Publish(publish) => MqttPacket::Publish3(publish_v3(publish)),
        Packet::PubAck(ack) => MqttPacket::PubAck3(pubackv3::MqttPubAck::new(id_alone(ack))),
        Packet::PubRec(ack) => MqttPacket::PubRec3(pubrecv3::MqttPubRec::new(id_alone(ack))),
        Packet::PubRel(ack) => MqttPacket::PubRel3(pubrelv3::MqttPubRel::new(id_alone(ack))),
        Packet::PubComp(ack) => MqttPacket::PubComp3(pubcompv3::MqttPubComp::new(id_alone(ack))),
        Packet::Subscribe(Subscribe { packet_id, properties, filters }) => {
            none(*properties);
            let filters = filters.map(subscription_v3).collect();
            MqttPacket::Subscribe3(subscribev3::MqttSubscribe::new(packet_id.get(), filters))
        }
        Packet::SubAck(SubAck { packet_id, properties, reasons }) => {
            none(*properties);
            MqttPacket::SubAck3(subackv3::MqttSubAck::new(packet_id.get(), codes(*reasons)))
        }
        Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }) => {
            none(*properties);
            let filters = filters.map(str::to_owned).collect();
            MqttPacket::Unsubscribe3(unsubscribev3::MqttUnsubscribe::new(packet_id.get(), filters))
        }
        Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }) => {
            none(*properties);
            assert_eq!(reasons.len(), 0, "3.x has no reasons in UNSUBACK");
            MqttPacket::UnsubAck3(unsubackv3::MqttUnsubAck::new(packet_id.get()))
        }
        Packet::PingReq => MqttPacket::PingReq3(pingreqv3::MqttPingReq::new()),
        Packet::PingResp => MqttPacket::PingResp3(pingrespv3::MqttPingResp::new()),
        Packet::Disconnect(Disconnect { reason, properties }) => {
            none(*properties);
            assert_eq!(*reason, Reason::Success, "3.x has no reason in DISCONNECT");
            MqttPacket::Disconnect3(disconnectv3::MqttDisconnect::new())
        }
        Packet::Auth(auth) => panic!("3.x has no {auth:?}"),
    }
}

fn connect_v5(connect: &Connect<'_>) -> connectv5::MqttConnect {
    let Connect { version, clean_start, keep_alive_secs, client_id, will, user_name, password, properties } =
        *connect;
    connectv5::MqttConnect {
        protocol_name: version.protocol_name().into(),
        protocol_version: version.level(),
        keep_alive: keep_alive_secs,
        client_id: client_id.into(),
        will: will.map(|will| will_v5(&will)),
        username: user_name.map(str::to_owned),
        password: password.map(<[u8]>::to_vec),
        properties: all(properties),
        clean_start,
    }
}

fn connect_v3(connect: &Connect<'_>) -> connectv3::MqttConnect {
    let Connect { version, clean_start, keep_alive_secs, client_id, will, user_name, password, properties } =
        *connect;
    none(properties);
    connectv3::MqttConnect {
        protocol_name: version.protocol_name().into(),
        protocol_version: version.level(),
        clean_session: clean_start,
        keep_alive: keep_alive_secs,
        client_id: client_id.into(),
        will: will.map(|Will { qos, retain, topic, payload, properties }| {
            none(properties);
            connectv3::Will { retain, qos: qos as u8, topic: topic.as_str().into(), message: payload.into() }
        }),
        username: user_name.map(str::to_owned),
        password: password.map(<[u8]>::to_vec),
    }
}

fn will_v5(will: &Will<'_>) -> willv5::Will {
    let Will { qos, retain, topic, payload, properties } = *will;
    let mut theirs = willv5::WillProperties::new();
    for property in properties {
        match property {
            Property::WillDelay(value) => theirs.will_delay_interval = Some(value),
            Property::PayloadFormat(value) => theirs.payload_format_indicator = Some(value),
            Property::MessageExpiry(value) => theirs.message_expiry_interval = Some(value),
            Property::ContentType(value) => theirs.content_type = Some(value.into()),
            Property::ResponseTopic(value) => theirs.response_topic = Some(value.into()),
            Property::CorrelationData(value) => theirs.correlation_data = Some(value.into()),
            Property::UserProperty(..) => theirs.user_properties.push(property_v5(&property)),
            other => panic!("a will cannot have {other:?}"),
        }
    }
    willv5::Will {
        will_qos: qos as u8,
        will_retain: retain,
        will_topic: topic.as_str().into(),
        will_message: payload.into(),
        properties: theirs,
    }
}

fn publish_v5(publish: &Publish<'_>) -> publishv5::MqttPublish {
    let Publish { dup, qos, retain, topic, packet_id, properties, payload } = *publish;
    publishv5::MqttPublish {
        topic_name: topic.into(),
        qos: qos as u8,
        dup,
        retain,
        packet_id: packet_id.map(PacketId::get),
        payload: payload.into(),
        properties: all(properties),
    }
}

fn publish_v3(publish: &Publish<'_>) -> publishv3::MqttPublish {
    let Publish { dup, qos, retain, topic, packet_id, properties, payload } = *publish;
    none(properties);
    publishv3::MqttPublish {
        dup,
        qos: qos as u8,
        retain,
        topic_name: topic.into(),
        message_id: packet_id.map(PacketId::get),
        payload: payload.into(),
    }
}

fn subscription_v5(item: SubscribeItem<'_>) -> subscribev5::TopicSubscription {
    let SubscribeItem { filter, options } = item;
    let SubscribeOptions { qos, no_local, retain_as_published, retain_handling } = options;
    subscribev5::TopicSubscription {
        topic_filter: filter.into(),
        qos: qos as u8,
        no_local,
        retain_as_published,
        retain_handling: retain_handling as u8,
    }
}

fn subscription_v3(item: SubscribeItem<'_>) -> subscribev3::SubscriptionTopic {
    let SubscribeItem { filter, options } = item;
    assert_eq!(options, SubscribeOptions { qos: options.qos, ..SubscribeOptions::default() });
    subscribev3::SubscriptionTopic { topic_filter: filter.into(), qos: options.qos as u8 }
}

/// The packet identifier of an acknowledgement of 3.x, which has nothing else.
fn id_alone(ack: &Ack<'_>) -> u16 {
    let Ack { packet_id, reason, properties } = *ack;
    none(properties);
    assert_eq!(reason, Reason::Success, "3.x has no reasons in acknowledgements");
    packet_id.get()
}

fn codes(reasons: Reasons<'_>) -> Vec<u8> {
    reasons.map(|reason| reason as u8).collect()
}

fn none(properties: Properties<'_>) {
    assert!(properties.is_empty(), "3.x has no properties: {properties:?}");
}

fn all(properties: Properties<'_>) -> Vec<Theirs> {
    properties.iter().map(|property| property_v5(&property)).collect()
}

fn property_v5(property: &Property<'_>) -> Theirs {
    match *property {
        Property::PayloadFormat(value) => Theirs::PayloadFormatIndicator(value),
        Property::MessageExpiry(value) => Theirs::MessageExpiryInterval(value),
        Property::ContentType(value) => Theirs::ContentType(value.into()),
        Property::ResponseTopic(value) => Theirs::ResponseTopic(value.into()),
        Property::CorrelationData(value) => Theirs::CorrelationData(value.into()),
        Property::SubscriptionId(value) => Theirs::SubscriptionIdentifier(value),
        Property::SessionExpiry(value) => Theirs::SessionExpiryInterval(value),
        Property::AssignedClientId(value) => Theirs::AssignedClientIdentifier(value.into()),
        Property::ServerKeepAlive(value) => Theirs::ServerKeepAlive(value),
        Property::AuthMethod(value) => Theirs::AuthenticationMethod(value.into()),
        Property::AuthData(value) => Theirs::AuthenticationData(value.into()),
        Property::RequestProblem(value) => Theirs::RequestProblemInformation(value),
        Property::WillDelay(value) => Theirs::WillDelayInterval(value),
        Property::RequestResponse(value) => Theirs::RequestResponseInformation(value),
        Property::ResponseInformation(value) => Theirs::ResponseInformation(value.into()),
        Property::ServerReference(value) => Theirs::ServerReference(value.into()),
        Property::ReasonString(value) => Theirs::ReasonString(value.into()),
        Property::ReceiveMaximum(value) => Theirs::ReceiveMaximum(value),
        Property::TopicAliasMaximum(value) => Theirs::TopicAliasMaximum(value),
        Property::TopicAlias(value) => Theirs::TopicAlias(value),
        Property::MaximumQos(value) => Theirs::MaximumQoS(value),
        Property::RetainAvailable(value) => Theirs::RetainAvailable(value),
        Property::UserProperty(name, value) => Theirs::UserProperty(name.into(), value.into()),
        Property::MaximumPacketSize(value) => Theirs::MaximumPacketSize(value),
        Property::WildcardAvailable(value) => Theirs::WildcardSubscriptionAvailable(value),
        Property::SubscriptionIdsAvailable(value) => Theirs::SubscriptionIdentifierAvailable(value),
        Property::SharedAvailable(value) => Theirs::SharedSubscriptionAvailable(value),
    }
}
