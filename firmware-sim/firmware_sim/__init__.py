"""A fleet of simulated devices that speak MQTT, and the truth about what they sent.

Imports nothing of the gateway: what it encodes is an independent check of what the gateway decodes.
"""
