"""Sensors: functions of the scenario's time that give one value an event. Their randomness is the device's seed alone."""

import math

from . import scenario as spec


def make_sensor(sensor, rng, number):
    """A function (seconds since the scenario's start) -> value, for the device with this number in its group."""
    return _MAKERS[type(sensor)](sensor, rng, number)


def _constant(sensor, rng, number):
    value = sensor.value
    return lambda t: value


def _walk(sensor, rng, number):
    value, step, low, high, decimals = sensor.start, sensor.step, sensor.low, sensor.high, sensor.decimals
    random = rng.random

    def walk(t):
        nonlocal value
        value += step * (2.0 * random() - 1.0)
        if value < low:
            value = low
        elif value > high:
            value = high
        return round(value, decimals)
    return walk


def _sine(sensor, rng, number):
    turn = 2 * math.pi / sensor.period_s
    random = rng.random

    def sine(t):
        value = sensor.mean + sensor.amplitude * math.sin(turn * (t + sensor.phase_s))
        return round(value + sensor.noise * (2.0 * random() - 1.0), sensor.decimals)
    return sine


def _spikes(sensor, rng, number):
    random = rng.random

    def spikes(t):
        value = sensor.base + sensor.noise * (2.0 * random() - 1.0)
        if random() < sensor.chance:
            value += sensor.height * (0.5 + 0.5 * random())
        return round(value, sensor.decimals)
    return spikes


def _counter(sensor, rng, number):
    value, step, wrap = sensor.start, sensor.step, sensor.wrap

    def counter(t):
        nonlocal value
        was = value
        value = (value + (rng.randint(1, step) if step > 1 else 1)) % wrap
        return was
    return counter


def _states(sensor, rng, number):
    states, now = sensor.states, 0

    def state(t):
        nonlocal now
        was = states[now]
        if len(states) > 1 and rng.random() < sensor.change:
            now = (now + rng.randrange(1, len(states))) % len(states)
        return was
    return state


def _replay(sensor, rng, number):
    values = spec.replay_column(sensor.file, sensor.column)
    at = number * sensor.spread % len(values)

    def replay(t):
        nonlocal at
        value = values[at]
        at = at + 1 if at + 1 < len(values) else 0
        return value
    return replay


_MAKERS = {
    spec.Constant: _constant, spec.Walk: _walk, spec.Sine: _sine, spec.Spikes: _spikes,
    spec.Counter: _counter, spec.States: _states, spec.Replay: _replay,
}
