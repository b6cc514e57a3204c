//! The properties of each place: no panic, and what is taken can be read again and written again.

use firehose_mqtt::{Properties, PropertiesBuf, PropertyPlace};

const PLACES: [PropertyPlace; 11] = [
    PropertyPlace::Connect,
    PropertyPlace::Will,
    PropertyPlace::ConnAck,
    PropertyPlace::Publish,
    PropertyPlace::Ack,
    PropertyPlace::Subscribe,
    PropertyPlace::SubAck,
    PropertyPlace::Unsubscribe,
    PropertyPlace::UnsubAck,
    PropertyPlace::Disconnect,
    PropertyPlace::Auth,
];

/// The first byte chooses the place.
pub fn properties(data: &[u8]) {
    let Some((&place, input)) = data.split_first() else { return };
    let place = PLACES[usize::from(place) % PLACES.len()];
    let Ok((properties, len)) = Properties::decode(input, place) else { return };
    assert!(len > properties.as_bytes().len() && len <= input.len());
    let mut again = PropertiesBuf::new();
    for property in properties {
        again.push(&property).expect("what was decoded can be encoded");
    }
    assert_eq!(again.as_properties(), properties);
    let sum: usize = properties.iter().map(|property| property.encoded_len()).sum();
    assert_eq!(sum, properties.as_bytes().len());
    assert_eq!(properties.user_properties().count() + others(properties), properties.iter().count());
}

fn others(properties: Properties<'_>) -> usize {
    properties.iter().filter(|property| property.id() != 0x26).count()
}
