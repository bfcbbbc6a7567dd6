"""`make soak`: every campaign in full, resumable, and docs/reliability.md from what was run.

    python tests/soak/soak.py [--only NAME ...] [--share 1.0] [--seed N] [--page]

Results are kept in docs/reliability.jsonl, a line a chunk, which is committed: so any machine goes on where another stopped. A chunk that was run on this code with this
seed is not run again; the code is what a gateway is made of (CODE), so that a word in a page makes nothing run anew. Campaigns that judge times have the machine to
themselves, a chunk after the other. --share 0.01 runs a hundredth of each. --page only writes the page. Exit status 1 where a promise was broken.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from campaigns import CAMPAIGNS, MEASURES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/reliability.jsonl"
PAGE = ROOT / "docs/reliability.md"
CHUNK_S_MAX = 6 * 3600
CODE = ("edge", "gateway", "rules", "firmware-sim", "pyproject.toml")
PROCESSES = 3 * (os.cpu_count() or 1) // 2           # many of them wait for sockets and for the disk


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def commit():
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + "-dirty" * bool(git("status", "--porcelain", *CODE, "tests"))


def code():
    """A name for the code of a gateway; of what is not committed, a name that no other run has."""
    trees = git("ls-tree", "HEAD", *CODE)
    return "uncommitted" if not trees or git("status", "--porcelain", *CODE) else sha256(trees.encode()).hexdigest()[:10]


def results():
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def run_chunk(campaign, seed, first, count, made):
    """Run one chunk and keep what it said. Returns its line."""
    began = datetime.now(timezone.utc)
    try:
        done = subprocess.run(campaign.command(sys.executable, seed, first, count, *campaign.alone), capture_output=True, text=True, timeout=CHUNK_S_MAX)
        said = done.stdout.strip().splitlines()
        found = json.loads(said[-1]) if said else {"broken": [f"the process ended with status {done.returncode}: {done.stderr[-500:]}"]}
    except (subprocess.TimeoutExpired, ValueError) as error:
        found = {"broken": [f"no result: {error}"]}
    line = {"campaign": campaign.name, "seed": seed, "first": first, "count": count, "code": made, "commit": commit(), "when": f"{began:%Y-%m-%dT%H:%MZ}",
            "seconds": round((datetime.now(timezone.utc) - began).total_seconds(), 1), "results": found}
    with open(RESULTS, "a") as out:
        out.write(json.dumps(line) + "\n")
    verdict = f"BROKEN: {found['broken'][0]}" if found["broken"] else "held"
    print(f"{campaign.name}: {first} to {first + count - 1} {campaign.unit}, seed {seed}: {verdict} ({line['seconds']} s)", flush=True)
    return line


def soak(only, share, seed):
    """Run what has not been run. Returns whether all promises held."""
    made, known = code(), results()
    seed = seed or next((r["seed"] for r in reversed(known) if r["code"] == made), random.SystemRandom().randrange(1 << 32))
    done = {(r["campaign"], r["first"], r["count"]) for r in known if (r["code"], r["seed"]) == (made, seed) and not r["results"]["broken"]}
    print(f"commit {commit()}, code {made}, seed {seed}", flush=True)
    crowd, single = [], []
    for campaign in (*CAMPAIGNS, *MEASURES):
        total = max(1, round(campaign.full * share))
        chunks = [(campaign, seed, first, min(campaign.chunk, total - first), made) for first in range(0, total, campaign.chunk)]
        if not only or campaign.name in only:
            (single if campaign.noisy else crowd).extend(c for c in chunks if (campaign.name, *c[2:4]) not in done)
    with ThreadPoolExecutor(PROCESSES) as pool:
        lines = list(pool.map(lambda chunk: run_chunk(*chunk), crowd))
    lines += [run_chunk(*chunk) for chunk in single]
    return not any(line["results"]["broken"] for line in lines)


def largest_run(name, known):
    """A campaign's results on one code by one seed, of the largest such run, the later of equals; and those of the other runs."""
    runs = {}
    for result in known:
        if result["campaign"] == name:
            runs.setdefault((result["code"], result["seed"]), []).append(result)
    if not runs:
        return [], []
    mine = max(reversed(runs.values()), key=lambda run: sum({(r["first"], r["count"]): r["count"] for r in run}.values()))
    latest = {(r["first"], r["count"]): r for r in mine}          # what was broken and then run again counts as it went then
    return list(latest.values()), [r for run in runs.values() if run is not mine for r in run]


def page() -> str:
    """docs/reliability.md: for each promise the largest run, when, on which commit; and what was run beside it, on other code or by other seeds."""
    lines = ["# Reliability", "Written by `make soak` from what was run ([reliability.jsonl](reliability.jsonl)); `make test` runs a share of each campaign. Every campaign prints its seed and can fail. Runs "
             "on other code stay, with what was broken then.", "",
             "| promise | run | broken | seed | commit | when | other runs |", "|---|---|---|---|---|---|---|"]
    known = results()
    for campaign in CAMPAIGNS:
        mine, others = largest_run(campaign.name, known)
        beside = f"{sum(r['count'] for r in others):,}, {sum(len(r['results']['broken']) for r in others)} broken" if others else ""
        if not mine:
            lines.append(f"| {campaign.promise} | nothing of {campaign.full:,} {campaign.unit} yet | | | | | {beside} |")
            continue
        count, broken = sum(r["count"] for r in mine), sum(len(r["results"]["broken"]) for r in mine)
        lines.append(f"| {campaign.promise} | {count:,} of {campaign.full:,} {campaign.unit} | {broken} | {mine[-1]['seed']} | {mine[-1]['commit']} | {mine[-1]['when']} | {beside} |")
    lines += ["", "## The tests of the code that keeps what is acknowledged", "`tests/soak/proven.py` names it. coverage.py tells branches of Python and lines of Cython; mutants are cosmic-ray's; mistakes",
              "in the Cython modules are planted by hand, as no tool makes mutants of it. `make coverage` shows the first.", "", "| promise | figure | broken | commit | when |", "|---|---|---|---|---|"]
    lines += [f"| {measure.promise} | {' | '.join(map(str, measured(measure, known)))} |" for measure in MEASURES]
    return "\n".join(lines) + "\n"


def measured(measure, known) -> tuple:
    """(figure, broken, commit, when) of the last run of a measure."""
    mine, _ = largest_run(measure.name, known)
    if not mine:
        return "nothing yet", "", "", ""
    total = {}
    for name, count in ((name, count) for r in mine for name, count in r["results"].items() if isinstance(count, int)):
        total[name] = total.get(name, 0) + count
    if measure.name == "coverage":
        figure = f"{total.get('branches', 0) - total.get('missing', 0):,} of {total.get('branches', 0):,} branches in {total.get('modules', 0)} modules, all lines of {total.get('cython', 0)} Cython modules"
    elif measure.name == "mutants":
        judged = total.get("killed", 0) + total.get("survived", 0)
        figure = (f"{total.get('killed', 0):,} of {judged:,} killed ({total.get('killed', 0) / max(1, judged):.1%}), {total.get('equivalent', 0)} that change nothing, "
                  f"in {sum(r['count'] for r in mine)} hundredths")
    else:
        figure = f"{total.get('found', 0)} of {total.get('planted', 0)} found"
    return figure, sum(len(r["results"]["broken"]) for r in mine), mine[-1]["commit"], mine[-1]["when"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=[c.name for c in (*CAMPAIGNS, *MEASURES)], help="only these campaigns")
    parser.add_argument("--share", type=float, default=1.0, help="of the full numbers")
    parser.add_argument("--seed", type=int, help="default: the last one on this commit, or a new one")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    arguments = parser.parse_args()
    held = arguments.page or soak(arguments.only, arguments.share, arguments.seed)
    PAGE.write_text(page())
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
