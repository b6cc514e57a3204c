import com.hivemq.client.mqtt.MqttClient;
import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import com.hivemq.client.mqtt.mqtt3.message.publish.Mqtt3Publish;
import com.hivemq.client.mqtt.mqtt3.message.subscribe.Mqtt3Subscribe;
import com.hivemq.client.mqtt.mqtt5.Mqtt5AsyncClient;
import com.hivemq.client.mqtt.mqtt5.datatypes.Mqtt5UserProperties;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish;
import com.hivemq.client.mqtt.mqtt5.message.subscribe.Mqtt5Subscribe;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;

/** HiveMQ's client, as ../run has its clients. Its callbacks belong to a subscription and hear what its filter matches. */
public final class Client {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[1]);
        boolean publishes = words[0].equals("pub");
        if (words[2].equals("5")) {
            Mqtt5AsyncClient client = MqttClient.builder().useMqttVersion5().serverHost("127.0.0.1").serverPort(port).buildAsync();
            if (publishes) publish5(client); else subscribe5(client, new Reading(words));
        } else {
            Mqtt3AsyncClient client = MqttClient.builder().useMqttVersion3().serverHost("127.0.0.1").serverPort(port).buildAsync();
            if (publishes) publish3(client); else subscribe3(client, new Reading(words));
        }
        System.exit(0);
    }

    private static void publish3(Mqtt3AsyncClient client) throws Exception {
        client.connectWith().simpleAuth().username("sender").password("sesame".getBytes()).applySimpleAuth().send().join();
        List<CompletableFuture<?>> sent = new ArrayList<>();
        for (Message m : messages()) {
            sent.add(client.publish(Mqtt3Publish.builder().topic(m.topic).qos(m.qos).retain(m.retain).payload(m.payload).build()));
        }
        sent.forEach(CompletableFuture::join);
        client.disconnect().join();
    }

    private static void publish5(Mqtt5AsyncClient client) throws Exception {
        client.connectWith().simpleAuth().username("sender").password("sesame".getBytes()).applySimpleAuth().send().join();
        List<CompletableFuture<?>> sent = new ArrayList<>();
        for (Message m : messages()) {
            sent.add(client.publish(Mqtt5Publish.builder().topic(m.topic).qos(m.qos).retain(m.retain).payload(m.payload).build()));
        }
        sent.forEach(CompletableFuture::join);
        client.disconnect().join();
    }

    private static void subscribe3(Mqtt3AsyncClient client, Reading r) throws Exception {
        client.publishes(MqttGlobalPublishFilter.REMAINING,
            m -> r.got("any", m.getQos(), m.isRetain(), m.getTopic().toString(), m.getPayloadAsBytes()));
        client.connect().join();
        Mqtt3Subscribe packet = Mqtt3Subscribe.builder().topicFilter(r.filter).qos(r.qos).build();
        var answer = r.routed()
            ? client.subscribe(packet, m -> r.got("route", m.getQos(), m.isRetain(), m.getTopic().toString(), m.getPayloadAsBytes()))
            : client.subscribe(packet);
        r.ready(answer.join().getReturnCodes().get(0).getCode());
        r.left.await();
        client.disconnect().join();
    }

    private static void subscribe5(Mqtt5AsyncClient client, Reading r) throws Exception {
        client.publishes(MqttGlobalPublishFilter.REMAINING,
            m -> r.got("any", m.getQos(), m.isRetain(), m.getTopic().toString(), m.getPayloadAsBytes()));
        client.connect().join();
        var properties = Mqtt5UserProperties.builder();
        if (!r.since.equals("-")) properties.add("since", r.since);
        Mqtt5Subscribe packet =
            Mqtt5Subscribe.builder().topicFilter(r.filter).qos(r.qos).userProperties(properties.build()).build();
        var answer = r.routed()
            ? client.subscribe(packet, m -> r.got("route", m.getQos(), m.isRetain(), m.getTopic().toString(), m.getPayloadAsBytes()))
            : client.subscribe(packet);
        r.ready(answer.join().getReasonCodes().get(0).getCode());
        r.left.await();
        client.disconnect().join();
    }

    private static List<Message> messages() throws Exception {
        List<Message> messages = new ArrayList<>();
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) messages.add(new Message(line));
        return messages;
    }

    private static final class Message {
        final MqttQos qos;
        final boolean retain;
        final byte[] payload;
        final String topic;

        Message(String line) {
            String[] words = line.split(" ", 4);
            qos = MqttQos.fromCode(Integer.parseInt(words[0]));
            retain = words[1].equals("1");
            payload = new byte[words[2].length() / 2];
            for (int i = 0; i < payload.length; i++) {
                payload[i] = (byte) Integer.parseInt(words[2].substring(2 * i, 2 * i + 2), 16);
            }
            topic = words[3];
        }
    }

    private static final class Reading {
        final MqttQos qos;
        final CountDownLatch left;
        final String filter;
        final String route;
        final String since;

        Reading(String[] words) {
            qos = MqttQos.fromCode(Integer.parseInt(words[3]));
            left = new CountDownLatch(Integer.parseInt(words[4]));
            filter = words[5];
            route = words[6];
            since = words[7];
        }

        /** Whether the callback of this route can be had: there are none but those of a subscription. */
        boolean routed() {
            return route.equals(filter);
        }

        void ready(int code) {
            OUT.println("ready " + code);
        }

        synchronized void got(String by, MqttQos qos, boolean retain, String topic, byte[] payload) {
            StringBuilder hex = new StringBuilder();
            for (byte b : payload) hex.append(Character.forDigit(b >> 4 & 15, 16)).append(Character.forDigit(b & 15, 16));
            if (left.getCount() > 0) {
                OUT.println(by + " " + qos.getCode() + (retain ? " 1 " : " 0 ") + (payload.length > 0 ? hex : "-") + " " + topic);
            }
            left.countDown();
        }
    }
}
