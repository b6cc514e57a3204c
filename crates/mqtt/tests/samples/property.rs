//! Which property may stand where, told a second time, as the sections of the specification list them.

use firehose_mqtt::{Property, PropertyPlace};

/// The properties that each packet's own section lists.
pub fn ids_of(place: PropertyPlace) -> &'static [u8] {
    match place {
        PropertyPlace::Connect => &[0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x26, 0x15, 0x16],
        PropertyPlace::Will => &[0x18, 0x01, 0x02, 0x03, 0x08, 0x09, 0x26],
        PropertyPlace::ConnAck => &[
            0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1f, 0x26, 0x28, 0x29, 0x2a, 0x13, 0x1a, 0x1c, 0x15,
            0x16,
        ],
        PropertyPlace::Publish => &[0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0b, 0x03],
        PropertyPlace::Ack | PropertyPlace::SubAck | PropertyPlace::UnsubAck => &[0x1f, 0x26],
        PropertyPlace::Subscribe => &[0x0b, 0x26],
        PropertyPlace::Unsubscribe => &[0x26],
        PropertyPlace::Disconnect => &[0x11, 0x1f, 0x26, 0x1c],
        PropertyPlace::Auth => &[0x15, 0x16, 0x1f, 0x26],
    }
}

/// A property with this identifier and some value in its range.
pub fn property<'a>(id: u8, number: u32, text: &'a str, name: &'a str) -> Property<'a> {
    let bit = (number & 1) as u8;
    let two = number as u16;
    match id {
        0x01 => Property::PayloadFormat(bit),
        0x02 => Property::MessageExpiry(number),
        0x03 => Property::ContentType(text),
        0x08 => Property::ResponseTopic(name),
        0x09 => Property::CorrelationData(text.as_bytes()),
        0x0b => Property::SubscriptionId(number % 268_435_455 + 1),
        0x11 => Property::SessionExpiry(number),
        0x12 => Property::AssignedClientId(text),
        0x13 => Property::ServerKeepAlive(two),
        0x15 => Property::AuthMethod(text),
        0x16 => Property::AuthData(name.as_bytes()),
        0x17 => Property::RequestProblem(bit),
        0x18 => Property::WillDelay(number),
        0x19 => Property::RequestResponse(bit),
        0x1a => Property::ResponseInformation(text),
        0x1c => Property::ServerReference(text),
        0x1f => Property::ReasonString(text),
        0x21 => Property::ReceiveMaximum(two.max(1)),
        0x22 => Property::TopicAliasMaximum(two),
        0x23 => Property::TopicAlias(two.max(1)),
        0x24 => Property::MaximumQos(bit),
        0x25 => Property::RetainAvailable(bit),
        0x27 => Property::MaximumPacketSize(number.max(1)),
        0x28 => Property::WildcardAvailable(bit),
        0x29 => Property::SubscriptionIdsAvailable(bit),
        0x2a => Property::SharedAvailable(bit),
        _ => Property::UserProperty(text, name),
    }
}
