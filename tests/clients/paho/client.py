"""paho-mqtt 1.6 and 2.x, as ../run has its clients; and `answer`, which answers what is asked below a filter."""

import sys

import paho.mqtt.client as paho
from paho.mqtt.properties import PacketTypes, Properties

VERSIONS = {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5": paho.MQTTv5}


def main(what, port, version, *arguments):
    version = VERSIONS[version]
    # 3.1 has no connection without a name.
    name = arguments[-1] if version == paho.MQTTv31 else ""
    if hasattr(paho, "CallbackAPIVersion"):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, protocol=version)
    else:
        client = paho.Client(name, protocol=version)
    {"pub": publish, "sub": subscribe, "answer": answer}[what](client, int(port), *arguments)


def publish(client, port, _name):
    client.username_pw_set("sender", "sesame")
    client.max_inflight_messages_set(1000)
    connected(client, port)
    sent = []
    for line in sys.stdin:
        qos, retain, payload, topic = line.rstrip("\n").split(" ", 3)
        sent.append(client.publish(topic, bytes.fromhex(payload), int(qos), retain == "1"))
    for message in sent:
        message.wait_for_publish()
    client.disconnect()
    client.loop_stop()


def subscribe(client, port, qos, count, filter, route, since, _name):
    left = [int(count)]

    def got(by, message):
        print(by, message.qos, int(message.retain), message.payload.hex() or "-", message.topic, flush=True)
        left[0] -= 1
        if not left[0]:
            client.disconnect()

    client.on_message = lambda _client, _data, message: got("any", message)
    if route != "-":
        client.message_callback_add(route, lambda _client, _data, message: got("route", message))
    properties = None
    if since != "-":
        properties = Properties(PacketTypes.SUBSCRIBE)
        properties.UserProperty = [("since", since)]
    listen(client, port, filter, int(qos), properties)


def answer(client, port, filter, _name):
    client.username_pw_set("sender", "sesame")

    def got(_client, _data, message):
        asked, properties, topic = getattr(message, "properties", None), None, "sender/answer"
        if asked is not None:
            topic, properties = asked.ResponseTopic, Properties(PacketTypes.PUBLISH)
            if hasattr(asked, "CorrelationData"):
                properties.CorrelationData = asked.CorrelationData
        client.publish(topic, b"re: " + message.payload, 1, properties=properties)

    client.on_message = got
    listen(client, port, filter, 1, None)


def listen(client, port, filter, qos, properties):
    def on_connect(*_):
        if properties:
            client.subscribe(filter, options=paho.SubscribeOptions(qos), properties=properties)
        else:
            client.subscribe(filter, qos)

    client.on_connect = on_connect
    client.on_subscribe = lambda _client, _data, _id, codes, *_: print("ready", getattr(codes[0], "value", codes[0]), flush=True)
    client.connect("127.0.0.1", port)
    client.loop_forever()


def connected(client, port):
    client.connect("127.0.0.1", port)
    client.loop_start()


main(*sys.argv[1:])
