"""The baseline: what a user writes by hand, paho-mqtt + orjson + a dict. Not durable. argv: port

Forwards events with temp > 30 at once, and mean, min, max and count by device each second. Prints its CPU seconds and event count at the end.
"""

import json
import sys
import threading
import time

import orjson
import paho.mqtt.client as mqtt

windows = {}
lock = threading.Lock()
count = 0
first = None


def on_message(client, _userdata, message):
    global count, first
    if first is None:
        first = time.process_time()
    count += 1
    event = orjson.loads(message.payload)
    temp = event["temp"]
    if temp > 30:
        client.publish("up/f", orjson.dumps(event))
    with lock:
        window = windows.get(event["device"])
        if window is None:
            windows[event["device"]] = [temp, temp, temp, 1]
        else:
            window[0] += temp
            window[1] = min(window[1], temp)
            window[2] = max(window[2], temp)
            window[3] += 1


def main():
    global windows
    done = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda c, *_: c.subscribe("sensors/#")
    client.on_message = on_message
    client.on_disconnect = lambda *_: done.set()
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    while not done.wait(1.0):
        with lock:
            closed, windows = windows, {}
        for device, (total, low, high, n) in closed.items():
            client.publish("up/a", orjson.dumps({"device": device, "avg": total / n, "min": low, "max": high, "count": n}))
    print(json.dumps({"events": count, "cpu_s": time.process_time() - (first or 0)}), flush=True)


main()
