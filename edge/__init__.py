"""Tidegate's runtime library: batches, rules, storage and delivery. No sockets, no threads, no clock reads."""

__all__ = ["Receiver", "decode"]


def __getattr__(name):
    """Receiver is imported when it is asked for: the daemon has no use for it."""
    if name == "Receiver":
        from edge.codec.receiver import Receiver

        return Receiver
    raise AttributeError(f"module 'edge' has no attribute {name!r}")


def decode(payload: bytes) -> list[dict]:
    """The rows of a self-contained upstream batch, None where null. Raises UpstreamError.

    For exactly-once over many messages, and for row messages, use edge.Receiver."""
    from edge.codec.batches import BATCH, decode_message
    from edge.errors import UpstreamError

    message = decode_message(payload)
    if message.kind != BATCH:
        raise UpstreamError("this message is not a batch of rows; feed it to a Receiver")
    return message.batch.rows()
