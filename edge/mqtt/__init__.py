"""MQTT packets in bulk, and the intake that their events wait in."""
