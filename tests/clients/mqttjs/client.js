// mqtt.js, as ../run has its clients.
"use strict";
const { once } = require("node:events");
const mqtt = require("mqtt");
const readline = require("node:readline");

const VERSIONS = {
  "3.1": { protocolId: "MQIsdp", protocolVersion: 3 },
  "3.1.1": { protocolVersion: 4 },
  "5": { protocolVersion: 5 },
};

function connect(port, version, options) {
  const client = mqtt.connect({
    host: "127.0.0.1", port: Number(port), reconnectPeriod: 0, ...VERSIONS[version], ...options,
  });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  return client;
}

async function publish(port, version) {
  const client = connect(port, version, { username: "sender", password: "sesame" });
  // What is published before has no order between the levels of QoS.
  await once(client, "connect");
  const sent = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [qos, retain, payload, ...topic] = line.split(" ");
    sent.push(client.publishAsync(topic.join(" "), Buffer.from(payload, "hex"), { qos: Number(qos), retain: retain === "1" }));
  }
  await Promise.all(sent);
  await client.endAsync();
}

function subscribe(port, version, qos, count, filter, _route, since) {
  const client = connect(port, version, {});
  let left = Number(count);
  client.on("message", (topic, payload, packet) => {
    if (left > 0) console.log("any", packet.qos, Number(packet.retain), payload.toString("hex") || "-", topic);
    if (--left === 0) client.end();
  });
  const properties = since === "-" ? undefined : { userProperties: { since } };
  client.subscribe(filter, { qos: Number(qos), properties }, (error, granted) => {
    if (error) throw error;
    console.log("ready", granted[0].qos);
  });
}

const [what, ...rest] = process.argv.slice(2);
({ pub: publish, sub: subscribe })[what](...rest);
