"""Balance: reads `$ledger` rows and says where, and in which interval, what a gateway says does not add up or has not come. docs/format/ledger.md.

Bounds: FINDINGS_MAX findings and SPANS_MAX intervals of a lane's stream that still lack rows; the oldest is forgotten first. ACCOUNTS_MAX accounts; further
ones are not looked at (`passed_by`). HELD_MAX rows of a gateway that came before those in front of them; then these are given up.
"""

from edge.books import IN, NEXT, STREAM

FINDINGS_MAX = 1000
SPANS_MAX = 1440
ACCOUNTS_MAX = 1 << 16
HELD_MAX = 4096


class Balance:
    """lacks: fn(gateway, stream, epoch, first, stop) -> (rows of these sequences that have neither come nor been announced as lost, those announced);
    None: nobody asks.

    findings: where the books of a gateway do not balance, oldest first, each with the interval in which they came apart."""

    def __init__(self, lacks=None, state=None):
        self._lacks = lacks
        self.findings, self.passed_by, accounts, readers = state or ([], 0, [], [])
        self._readers = {tuple(name): [at, dict(held), partial] for *name, at, held, partial in readers}     # (gateway, epoch) -> [next sequence, rows beyond, ...]
        self._accounts = {tuple(name): rest for *name, rest in accounts}     # (gateway, epoch, kind, name) -> [entries, those of the first time, spans, announced in former spans]

    def take(self, gateway, epoch, rows):
        """New rows of a gateway's `$ledger`: (sequence, dictionary) each. They are read in the order of their sequences; () when a gap was announced."""
        reader = self._readers.setdefault((gateway, epoch), [None, {}, {}])
        at, held, partial = reader
        held |= {n: [row["start"], row["stop"], row["kind"], row["name"], row["what"], row["count"]] for n, row in rows}
        for n in sorted(held):
            if at is not None and n > at:
                if self._lacks is not None and len(held) < HELD_MAX and self._lacks(gateway, STREAM, epoch, at, n)[0]:
                    break                        # what is in front of it is on its way
                partial = {}
            start, stop, kind, name, what, count = held.pop(n)
            if at is None or n >= at:
                at, partial[what] = n + 1, count
                if what == IN:
                    self._account((gateway, epoch, kind, name), start, stop, partial)
                    partial = {}
        reader[:] = at, held, partial

    def problems(self) -> list[dict]:
        """What does not balance: gateway, epoch, kind, name, start and stop (nanoseconds) of the interval, and `difference`: events that no fate accounts for, or
        `lacking`: rows of the interval that the gateway sent and that have not come. Rows that still wait at the gateway, by its last word, are no problem,
        nor those that went and whose gap message waits."""
        found = list(self.findings)
        for name, (entries, first, spans, announced) in self._accounts.items():
            looked = [(start, stop, *self._look(name, span)) for start, stop, *span in spans]
            gone = sum(entries.get(what, 0) - first.get(what, 0) for what in ("dead_lettered", "evicted"))
            excused = entries.get("pending", 0) + max(0, gone - announced - sum(n for *_, n in looked))
            if sum(n for _, _, n, _ in looked) > excused:
                found += [_problem(name, start, stop, lacking=n) for start, stop, n, _ in looked if n]
        return found

    def state(self):
        """Plain data for a new Balance."""
        return [self.findings, self.passed_by, [[*name, rest] for name, rest in self._accounts.items()],
                [[*name, at, list(held.items()), partial] for name, (at, held, partial) in self._readers.items()]]

    def _account(self, name, start, stop, entries):
        known = self._accounts.get(name)
        if known is None and len(self._accounts) >= ACCOUNTS_MAX:
            self.passed_by += 1
            return
        before, first, spans, announced = known or ({}, entries, [], 0)
        apart = _difference(entries) - _difference(before)
        if apart:
            self.findings = [*self.findings[1 - FINDINGS_MAX:], _problem(name, start, stop, difference=apart)]
        if name[2] == "lane" and self._lacks is not None and NEXT in before and before[NEXT] < entries.get(NEXT, 0):
            looked = [(span, *self._look(name, span[2:])) for span in spans[1 - SPANS_MAX:]]
            announced += sum(n for _, lacking, n in looked if not lacking)
            spans = [*(span for span, lacking, _ in looked if lacking), [start, stop, before[NEXT], entries[NEXT]]]
        self._accounts[name] = [entries, first, spans, announced]

    def _look(self, name, span):
        gateway, epoch, _, place = name
        return self._lacks(gateway, place.partition("/")[2], epoch, *span)


def _difference(entries):
    return entries.get(IN, 0) - sum(count for what, count in entries.items() if what not in (IN, NEXT))


def _problem(name, start, stop, **what):
    return dict(zip(("gateway", "epoch", "kind", "name"), name), start=start, stop=stop, **what)
