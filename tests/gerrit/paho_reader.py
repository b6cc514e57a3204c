"""An MQTT 5 client as people write it: python3 paho_reader.py PORT FILTER OUTPUT [SINCE]

Writes a line of JSON for each message: topic, payload (hex), content type and user properties. With SINCE it asks for
history first. Says `subscribed` on stdout once it is.
"""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

port, topic_filter, output = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "w", buffering=1)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        sys.exit(f"refused: {reason}")
    asked = Properties(PacketTypes.SUBSCRIBE)
    if sys.argv[4:]:
        asked.UserProperty = ("since", sys.argv[4])
    client.subscribe(topic_filter, options=SubscribeOptions(qos=1), properties=asked)


def on_subscribe(client, userdata, mid, reasons, properties):
    if reasons[0].is_failure:
        sys.exit(f"refused: {reasons[0]}")
    print("subscribed", flush=True)


def on_message(client, userdata, message):
    record = {
        "topic": message.topic,
        "payload": message.payload.hex(),
        "content_type": getattr(message.properties, "ContentType", None),
        "properties": getattr(message.properties, "UserProperty", []),
    }
    output.write(json.dumps(record) + "\n")


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("127.0.0.1", port)
client.loop_forever(retry_first_connection=False)
