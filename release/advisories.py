"""`make advisories`: what OSV (osv.dev) knows against the versions that are pinned in release/lock.txt, and against the Rust library within wasmtime's wheel.

Exit status: 0 nothing is known; 1 something is, a line each; 2 it could not be asked. What to do with a finding: SECURITY.md.
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

import lock

URL = "https://api.osv.dev"
TIMEOUT_S = 30
ANSWER_BYTES_MAX = 16 << 20
RUST = ("wasmtime",)                     # wheels that hold the crate of their name and version: most advisories are filed there


def packages() -> list[str]:
    """Package URLs of all that is pinned."""
    pinned = lock.pinned()
    return [f"pkg:pypi/{name}@{version}" for name, version in pinned.items()] + [f"pkg:cargo/{name}@{pinned[name]}" for name in RUST]


def found(url, purls) -> list[tuple]:
    """(package URL, id, summary, versions that mend it) of each advisory, once under its several names. Raises OSError, ValueError."""
    answer = _ask(f"{url}/v1/querybatch", {"queries": [{"package": {"purl": purl}} for purl in purls]})
    if len(answer["results"]) != len(purls):
        raise ValueError("it answers other questions than were asked")
    advisories = []
    for purl, result in zip(purls, answer["results"]):
        told = set()
        for number in (one["id"] for one in result.get("vulns", ())):
            whole = _ask(f"{url}/v1/vulns/{urllib.parse.quote(number, safe='')}")
            names = {number, *whole.get("aliases", ())}
            if not names & told and "withdrawn" not in whole:
                told |= names
                mended = {event["fixed"] for part in whole.get("affected", ()) for span in part.get("ranges", ()) if span.get("type") != "GIT"
                          for event in span.get("events", ()) if "fixed" in event}
                advisories.append((purl, number, (whole.get("summary") or whole.get("details") or "").partition("\n")[0], sorted(mended)))
    return advisories


def _ask(url, question=None):
    request = urllib.request.Request(url, None if question is None else json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.loads(answer.read(ANSWER_BYTES_MAX))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Advisories against the pinned versions.")
    parser.add_argument("--url", default=URL, help=f"an OSV server ({URL})")
    url, purls = parser.parse_args(argv).url, packages()
    try:
        advisories = found(url, purls)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        print(f"advisories: not checked: {url} cannot be asked ({reason}). Run `make advisories` where it can be reached, or `pip-audit -r release/lock.txt --no-deps`, which "
              "does not know the Rust library within wasmtime: see SECURITY.md", file=sys.stderr)
        return 2
    for purl, number, summary, mended in advisories:
        print(f"{purl}: {number}: {summary} (mended in {', '.join(mended) or 'no version yet'})")
    print(f"{len(purls)} pinned versions: " + (f"{len(advisories)} advisories; what to do: SECURITY.md" if advisories else "no advisory is known"))
    return int(bool(advisories))


if __name__ == "__main__":
    sys.exit(main())
