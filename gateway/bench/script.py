"""The baseline: what a user writes by hand, paho-mqtt + orjson + a dict. Not durable. argv: port

Forwards events with temp > 30 at once, and mean, min, max and count by device each second. Prints what it did when
it is disconnected, or at SIGTERM.
"""

import json
import signal
import sys
import threading
import time

import orjson
import paho.mqtt.client as mqtt

windows = {}
lock = threading.Lock()
count = published_bytes = 0
first = None                     # (CPU, monotonic) at the first event


def on_message(client, _userdata, message):
    global count, first
    if first is None:
        first = time.process_time(), time.monotonic()
    count += 1
    event = orjson.loads(message.payload)
    temp = event["temp"]
    if temp > 30:
        publish(client, "up/f", event)
    with lock:
        window = windows.get(event["device"])
        if window is None:
            windows[event["device"]] = [temp, temp, temp, 1]
        else:
            window[0] += temp
            window[1] = min(window[1], temp)
            window[2] = max(window[2], temp)
            window[3] += 1


def publish(client, topic, event):
    global published_bytes
    payload = orjson.dumps(event)
    published_bytes += len(payload)
    client.publish(topic, payload)


def main():
    global windows
    done, ended = threading.Event(), []

    def end(*_):
        ended.append(time.monotonic())
        done.set()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda c, *_: c.subscribe("sensors/#")
    client.on_message = on_message
    client.on_disconnect = end
    signal.signal(signal.SIGTERM, end)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    while not done.wait(1.0):
        with lock:
            closed, windows = windows, {}
        for device, (total, low, high, n) in closed.items():
            publish(client, "up/a", {"device": device, "avg": total / n, "min": low, "max": high, "count": n})
    cpu, began = first
    print(json.dumps({"events": count, "cpu_s": time.process_time() - cpu, "wall_s": ended[0] - began, "published_bytes": published_bytes}), flush=True)


main()
