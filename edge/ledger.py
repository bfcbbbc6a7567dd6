"""The ledger: what came in is what went out plus what was held back, each with a reason. It balances at every moment.

An account is kept where the work is done (stream, rule, lane) and holds two independent views of the same events: `into` comes
from sequence numbers given at append, the other entries from what was done with each event. `check` compares the two.
"""

from msgspec import Struct


class Account(Struct):
    """One place's balance: `into` events came, `out` says what became of them by reason."""

    kind: str                        # stream, rule or lane
    name: str
    into: int
    out: dict[str, int] = {}         # each account its own

    @property
    def difference(self) -> int:
        """0 when balanced; positive when events are unaccounted for."""
        return self.into - sum(self.out.values())

    def to_dict(self) -> dict:
        return {"kind": self.kind, "name": self.name, "in": self.into, **{k: v for k, v in self.out.items() if v}, "difference": self.difference}


def accounts(pipeline, lanes=None) -> list[Account]:
    """The ledger of a pipeline. lanes: outbox name -> lane, whose rows_acked and rows_dead are by stream number; without it all that is
    in an outbox counts as pending."""
    rows = []
    for stream in pipeline.inputs:
        rows.append(Account("stream", stream.name, stream.arrived, {"stored": stream.next_sequence - stream.since, "dead_lettered": stream.rejected}
                            | ({"duplicates": stream.repeated} if stream.repeated else {})))
    if pipeline.unrouted:
        rows.append(Account("stream", "(no stream)", pipeline.unrouted, {"dead_lettered": pipeline.unrouted}))
    for stage in pipeline.stages:
        rows.append(Account("rule", stage.name, stage.input.next_sequence - stage.since, stage.outcome()))
    for outbox in pipeline.outboxes:
        lane = (lanes or {}).get(outbox.name)
        rows.extend(outbox.accounts(lane.rows_acked if lane else {}, lane.rows_dead if lane else {}))
    return rows


def check(rows) -> list[str]:
    """One line for each account that does not balance, or balances by a number below 0."""
    return [f"{a.kind} {a.name}: {a.into} in, {sum(a.out.values())} accounted for ({', '.join(f'{k} {v}' for k, v in a.out.items())}), difference {a.difference}"
            for a in rows if a.difference or min(a.out.values(), default=0) < 0]
