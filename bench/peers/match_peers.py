"""The index beside PostgreSQL, SQLite, Redis and a columnar scan: the same fleet, searches, costs;
and beside Slurm, which only allocates, on a hundredth of it.

    python3 bench/peers/match_peers.py PATH-OF-THE-EXAMPLE-`peers` [containers]

Each contestant answers the same searches, in turns, one at a time; each answer is compared with
the exact one. Servers run on sockets in a temporary folder and end with this program. A peer that
is not installed is left out, with a note of what to install.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from postgres import Postgres
from redis import Redis
from slurm import NODES, Slurm
from sqlite import Sqlite

CONTAINERS = 1_000_000
SEARCHES = 400
ROUNDS = 5
# Ours answers so many searches more than the peers in each turn, for it takes no time.
OURS_TIMES = 25
# A slow peer answers the first searches only, until so many seconds have passed.
TURN_S = 4.0


def say(text):
    print(f"match-peers: {text}", file=sys.stderr, flush=True)


class Ours:
    """The example `peers`: the index in process and over loopback, and the scan."""

    def __init__(self, program, containers, folder):
        command = [program, str(containers), str(SEARCHES), folder]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit("match-peers: the example `peers` did not start")

    def turn(self, which, first, count):
        """Searches a second, and the median in microseconds."""
        self.process.stdin.write(f"{which} {first} {count}\n")
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        return count / float(words[0]), float(words[1])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Quality:
    """How far answers are from the exact ones."""

    def __init__(self):
        self.cost = self.exact = self.missing = self.wanted = 0

    def add(self, costs, exact):
        self.wanted += len(exact)
        self.missing += max(0, len(exact) - len(costs))
        shared = min(len(costs), len(exact))
        self.cost += sum(costs[:shared])
        self.exact += sum(exact[:shared])

    def text(self):
        if self.missing == 0 and self.cost == self.exact:
            return "exact"
        worse = 100 * (self.cost / max(1, self.exact) - 1)
        return f"{worse:+.1f} % cost, {100 * self.missing / max(1, self.wanted):.1f} % not found"


def peer_turn(peer, searches, first, quality):
    """Searches a second of a peer, and the median in microseconds: by the clock, or by processor
    time where all of it is this thread's."""
    times = []
    for number in range(len(searches)):
        search = searches[(first + number) % len(searches)]
        began = peer.clock()
        costs = peer.find(search)
        times.append(peer.clock() - began)
        quality.add(costs, search["costs"])
        if sum(times) > TURN_S:
            break
    return len(times) / sum(times), statistics.median(times) * 1e6


def opened(folder):
    """The peers that are installed, loaded."""
    peers = {}
    for name, kind in (
        ("postgres", Postgres),
        ("sqlite", Sqlite),
        ("redis", Redis),
    ):
        missing = kind.missing()
        if missing:
            say(f"{name} is left out: {missing}")
            continue
        began = time.monotonic()
        peers[name] = kind(folder)
        say(f"{name} is loaded, in {time.monotonic() - began:.0f} s")
    return peers


def slurm_rate(folder):
    """Allocations a second of Slurm, if it is installed."""
    missing = Slurm.missing()
    if missing:
        say(f"slurm is left out: {missing}")
        return None
    slurm = Slurm(folder)
    try:
        rate = slurm.rate()
    finally:
        slurm.close()
    say(f"slurm starts {rate:.0f} jobs a second on {NODES} nodes")
    return rate


def measured(ours, peers, searches):
    """Rates and medians by contestant, of all rounds."""
    variants = [(name, name, peer) for name, peer in peers.items()]
    rates, medians, quality = {}, {}, {}
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        first = number * SEARCHES // ROUNDS
        for which, times in (("process", OURS_TIMES), ("tcp", OURS_TIMES), ("scan", 1)):
            rate, median = ours.turn(which, first, SEARCHES * times)
            rates.setdefault(which, []).append(rate)
            medians.setdefault(which, []).append(median)
        for name, _, peer in variants:
            for variant in peer.variants:
                peer.use(variant)
                key = f"{name} {variant}".strip()
                judged = quality.setdefault(key, Quality())
                rate, median = peer_turn(peer, searches, first, judged)
                rates.setdefault(key, []).append(rate)
                medians.setdefault(key, []).append(median)
    return rates, medians, quality


def main(words):
    program = words[0]
    containers = int(words[1]) if len(words) > 1 else CONTAINERS
    folder = tempfile.mkdtemp(prefix="welkin-peers-")
    os.chmod(folder, 0o755)
    peers, ours = {}, None
    try:
        ours = Ours(program, containers, folder)
        with open(os.path.join(folder, "searches.jsonl"), encoding="ascii") as file:
            searches = [json.loads(line) for line in file]
        peers = opened(folder)
        rates, medians, quality = measured(ours, peers, searches)
        slurm = slurm_rate(folder)
    finally:
        for peer in peers.values():
            peer.close()
        if ours is not None:
            ours.close()
        shutil.rmtree(folder, ignore_errors=True)
    rate = {key: statistics.median(column) for key, column in rates.items()}
    say(f"{containers} containers, {SEARCHES} searches, medians of {ROUNDS} rounds")
    for key in sorted(rate, key=lambda key: -rate[key]):
        text = quality[key].text() if key in quality else "exact"
        median = statistics.median(medians[key])
        say(f"{key:<22} {rate[key]:>10.0f} /s   p50 {median:>9.1f} us   {text}")
    # In process against what is in process, through a socket against what is behind one.
    ratios = {"scan": rate["process"] / rate["scan"]}
    for name, base in (("postgres", "tcp"), ("sqlite", "process"), ("redis", "tcp")):
        fastest = [rate[key] for key in rate if key.split()[0] == name]
        if fastest:
            ratios[name] = rate[base] / max(fastest)
    values = {"ratio_vs_best": min(ratios.values())}
    values |= {f"ratio_vs_{name}": ratio for name, ratio in ratios.items()}
    values |= {"per_s": rate["process"], "tcp_per_s": rate["tcp"]}
    values |= {f"{name}_per_s": rate[base] / ratios[name] for name, base in (
        ("scan", "process"), ("postgres", "tcp"), ("sqlite", "process"), ("redis", "tcp"))
        if name in ratios}
    if slurm:
        values |= {"ratio_vs_slurm": rate["tcp"] / slurm, "slurm_per_s": slurm}
    print("RESULT match-peers", " ".join(f"{key}={value:.4g}" for key, value in values.items()))
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
