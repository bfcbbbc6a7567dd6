// A device with Eclipse Paho's Java clients: Client PORT VERSION, with mqttv3 or mqttv5 on the class path. What it has to do is in interop_run.py.
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.ArrayBlockingQueue;
import org.eclipse.paho.client.mqttv3.IMqttToken;
import org.eclipse.paho.client.mqttv3.MqttAsyncClient;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttException;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

public class Client {
    static final StringBuilder present = new StringBuilder();

    static MqttAsyncClient come(String port) throws MqttException {
        MqttAsyncClient client = new MqttAsyncClient("tcp://127.0.0.1:" + port, "java-4", new MemoryPersistence());
        MqttConnectOptions options = new MqttConnectOptions();
        options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
        options.setCleanSession(false);
        options.setKeepAliveInterval(1);
        options.setMaxInflight(400);
        options.setWill("gone/java-4", "bye".getBytes(StandardCharsets.UTF_8), 1, false);
        IMqttToken token = client.connect(options);
        token.waitForCompletion(60000);
        present.append(present.length() == 0 ? "" : ", ").append(token.getSessionPresent());
        return client;
    }

    public static void main(String[] words) throws Exception {
        MqttAsyncClient client = come(words[0]);
        IMqttToken[] tokens = new IMqttToken[300];
        for (int i = 0; i < 300; i++)
            tokens[i] = client.publish("d/" + i % 3, Integer.toString(i).getBytes(StandardCharsets.UTF_8), i % 3, false);
        int acknowledged = 0;
        for (IMqttToken token : tokens) {
            token.waitForCompletion(60000);
            acknowledged++;
        }
        byte[] large = new byte[200000];
        Arrays.fill(large, (byte) 'x');
        client.publish("d/large", large, 2, false).waitForCompletion(60000);
        ArrayBlockingQueue<String> heard = new ArrayBlockingQueue<>(1);
        client.subscribe("$tidegate/status", 0, (topic, message) -> heard.add(new String(message.getPayload(), StandardCharsets.UTF_8))).waitForCompletion(60000);
        String status = heard.take();
        IMqttToken refused = client.subscribe("a/#", 1);
        try {
            refused.waitForCompletion(60000);
        } catch (MqttException e) {
            // the code is what counts
        }
        Thread.sleep(2500); // its keep-alive is one second
        boolean alive = client.isConnected();
        client.disconnect().waitForCompletion(60000);
        come(words[0]);
        System.out.printf("{\"present\": [%s], \"acknowledged\": %d, \"heard\": \"%s\", \"refused\": %d, \"alive\": %b}%n", present, acknowledged, status,
                refused.getGrantedQos()[0], alive);
        System.out.flush();
        Runtime.getRuntime().halt(0); // without a goodbye
    }
}
