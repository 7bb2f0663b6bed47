"""Disturbs jobs at random points and checks that they come to the undisturbed result, or name the cause.

    python -m tests.faults.run [--tries=100] [--seed=0] [--only INDEX ...] [--side_by_side=2] [--minutes=M]
        [--out=FILE.json]

Try i draws all it does from (seed, i), and takes the pairs of faults and jobs in turn: few tries see the
first faults alone, and --only I repeats one of them.
Exit code 1 if anything was found. Disks are mounted, which needs root.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import logging
import re
import sys
import tempfile
import threading
import time
import traceback
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.table import print_table
from tests.faults.faults import FAULTS, Fault, Trial
from tests.faults.jobs import Job, Result, prepare_shared

_REPEATS = 3
PAIRS = [(fault, job) for fault in FAULTS for job in fault.jobs]
_reading = threading.Lock()  # one reads checkpoints at a time


class Harness:
    """Jobs left alone, against which disturbed ones are measured, in a folder; the seed is of all tries."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self._alone: dict[str, tuple[Result, float]] = {}
        prepare_shared(folder)

    def alone(self, name: str) -> tuple[Result, float]:
        """The result of a job left alone, and the seconds that it takes once its programs are compiled."""
        if name not in self._alone:
            found = []
            for index in range(2):
                job, start = Job(name, self.folder / f"{name}_alone_{index}", self.folder), time.monotonic()
                for process in job.start():
                    ended = process.end(300)
                    assert ended.returncode == 0, ended.stderr
                seconds = time.monotonic() - start
                with _reading:
                    found.append((job.result(), seconds))
            assert differences(found[0][0], found[1][0]) == []
            self._alone[name] = found[1]
        return self._alone[name]

    def attempt(self, index: int, fault: Fault, name: str) -> dict[str, Any]:
        """One fault of one job: what happened, and `findings`, empty if all is well."""
        expected, seconds = self.alone(name)
        job = Job(name, self.folder / f"try_{index}", self.folder)
        with contextlib.ExitStack() as stack:
            trial = Trial(job, np.random.default_rng((self.seed, index)), seconds, stack)
            fault.act(trial)
            findings = [what for end in trial.ends for what in _wrong(end, fault)]
            repeats, code = [], None
            while code != 0 and len(repeats) < _REPEATS:
                repeats.append([process.end(300) for process in trial.start()])
                code = max(abs(_code(end)) for end in repeats[-1])
            if code != 0:
                findings.append(f"the repeat ends with {code}: {repeats[-1][0].stderr[-1500:]}")
            else:
                with _reading:
                    differing = differences(job.result(), expected)
                findings += [f"{len(differing)} differ: {', '.join(differing[:5])}"] if differing else []
        return {
            "try": f"--seed={self.seed} --only {index}",
            "fault": fault.act.__name__,
            "job": name,
            "codes": [end.returncode for end in trial.ends],
            "last_lines": [_last_line(end.stderr.replace(str(job.folder), "")) for end in trial.ends],
            "repeats": len(repeats),
            "findings": findings,
        }


def differences(got: Result, expected: Result) -> list[str]:
    """Names of what two results do not share."""
    return sorted(name for name in {*got, *expected} if got.get(name) != expected.get(name))


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _code(end: Any) -> int:
    # A preparation that had finished just before it was disturbed finds its store there.
    done = end.returncode == 2 and "exists already, expected the path of a new store" in end.stderr
    return 0 if done else end.returncode


def _wrong(end: Any, fault: Fault) -> list[str]:
    """What is wrong with the end of a disturbed start."""
    if end.returncode not in (0, *fault.codes):
        return [f"ends with {end.returncode}: {end.stderr[-1500:]}"]
    if "Traceback" in end.stderr and end.returncode in (0, 2, 75):
        return [f"a traceback: {end.stderr[-1500:]}"]
    if end.returncode == 2 and not re.search(fault.cause, end.stderr, re.MULTILINE):
        return [f"the error does not name its cause: {end.stderr[-1500:]}"]
    return []


def _table(tries: list[dict[str, Any]]) -> None:
    groups = collections.defaultdict(list)
    for row in tries:
        groups[row["fault"], row["job"]].append(row)
    rows = []
    for (fault, job), group in sorted(groups.items()):
        codes = collections.Counter(" ".join(map(str, row["codes"])) for row in group)
        ends = ", ".join(f"{code} x {count}" for code, count in codes.most_common())
        equal = sum(not row["findings"] for row in group)
        rows.append([fault.replace("_", " "), job, len(group), ends, f"{equal} of {len(group)}"])
    print_table("faults", ["fault", "job", "tries", "exit codes of disturbed starts", "as undisturbed"], rows)


def main() -> int:
    """Runs the tries and prints their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    in_turn = f"how many; fewer than {len(PAIRS)}, all pairs of a fault and a job, leave the last ones out"
    parser.add_argument("--tries", type=int, default=100, help=in_turn)
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn, such as the moments")
    parser.add_argument("--only", type=int, nargs="*", metavar="INDEX", help="these tries alone, from 0")
    parser.add_argument("--side_by_side", type=int, default=2, help="tries at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="none starts after so many")
    parser.add_argument("--out", type=Path, help="JSON file to write: a record of each try")
    given = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)
    deadline = time.monotonic() + 60 * given.minutes
    indices = given.only or range(given.tries)
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        harness, tries = Harness(Path(folder), given.seed), []

        def attempt(index: int) -> dict[str, Any] | None:
            fault, name = PAIRS[index % len(PAIRS)]
            if time.monotonic() > deadline:
                return None
            try:
                return harness.attempt(index, fault, name)
            except Exception:  # so that the other tries are still told of
                row = {"try": f"--seed={given.seed} --only {index}", "fault": fault.act.__name__, "job": name}
                return {**row, "codes": [], "findings": [traceback.format_exc()]}

        with futures.ThreadPoolExecutor(given.side_by_side) as pool:
            # Side by side too, so that they take as long as what is to be disturbed.
            list(pool.map(harness.alone, sorted({PAIRS[index % len(PAIRS)][1] for index in indices})))
            for done in futures.as_completed([pool.submit(attempt, index) for index in indices]):
                if done.result():
                    tries.append(done.result())
                    print(len(tries), json.dumps(tries[-1]), file=sys.stderr, flush=True)
    _table(tries)
    if given.out:
        given.out.write_text(json.dumps(tries, indent=1))
    found = [row for row in tries if row["findings"]]
    for row in found:
        print(row["try"], row["fault"], row["job"], *row["findings"], sep="\n  ")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
