"""How events come in: the listener that devices connect to, who may, and the broker that they may stand behind."""
