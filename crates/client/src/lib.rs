//! A client of the bus: MQTT and HTTP, reconnect, cursor file.
