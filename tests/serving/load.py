"""How much the service bears: requests from another process, at rising rates.

    python -m tests.serving.load [--model=suan] [--max_len=200] [--candidates=128] [--rates=10,20,40]
        [--seconds=15]

A model of grade 0 with random weights on the synthetic log. Requests come at random moments, whatever became
of those before them, and latency counts from the moment at which one was due, so that a service that falls
behind shows it. 503 is its own answer to more than it bears; "-" is a request that had none in 30 seconds.
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from suan_jax.config import Config, DataConfig
from suan_jax.config_dict import model_class
from suan_jax.serving import Scorer
from suan_jax.serving.example import example_request
from suan_jax.table import print_table
from tests.readme import ROOT
from tests.serving.workdirs import write_run

_PATIENCE = 30.0  # seconds


class Client:
    """Keeps connections to a service open, and uses one again once it is free."""

    def __init__(self, port: int, body: bytes):
        """Sends `body` to that port of this machine."""
        head = f"POST /score HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n\r\n"
        self._port, self._request = port, head.encode() + body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self) -> str:
        """The code of the answer."""
        reader, writer = await self._connection()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(re.search(r"content-length: (\d+)", head)[1]))
        if "connection: close" in head:
            writer.close()
        else:
            self._free.append((reader, writer))
        return head.split()[1]

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # the service closes those that idle
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)


async def offer(client: Client, rate: float, seconds: float, seed: int) -> tuple[Counter[str], np.ndarray]:
    """Codes, and the seconds that each request with a 200 took, of `rate` requests a second."""
    codes: Counter[str] = Counter()
    taken = []

    async def one(due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            code = await asyncio.wait_for(client.send(), _PATIENCE)
        except (OSError, EOFError, TimeoutError):
            code = "-"
        codes[code] += 1
        if code == "200":
            taken.append(time.perf_counter() - due)

    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
    await asyncio.gather(*map(one, time.perf_counter() + np.cumsum(gaps)))
    return codes, np.array(taken)


async def load(port: int, body: bytes, rates: list[float], seconds: float) -> list[list[object]]:
    """A row for each rate."""
    await offer(Client(port, body), 2, 2, 0)
    rows = []
    for rate in rates:
        start = time.perf_counter()
        codes, taken = await offer(Client(port, body), rate, seconds, 1)
        answered = codes["200"] / (time.perf_counter() - start)
        half, most = np.quantile(taken, (0.5, 0.99)) * 1e3 if len(taken) else (None, None)
        others = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()) if code != "200")
        rows.append([rate, sum(codes.values()), answered, half, most, others or "none"])
    return rows


def main() -> None:
    """Starts a service, loads it, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="suan")
    parser.add_argument("--max_len", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=128)
    parser.add_argument("--rates", default="10,20,40,80,160")
    parser.add_argument("--seconds", type=float, default=15)
    given = parser.parse_args()
    rates = [float(rate) for rate in given.rates.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        model = model_class(given.model, "--model")()
        workdir = write_run(Path(folder) / "run", Config(model=model, data=DataConfig(max_len=given.max_len)))
        request = example_request(Scorer(workdir).requests, given.candidates, given.max_len)
        command = [sys.executable, str(ROOT / "launch/serve.py"), f"--workdir={workdir}", "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
            port = int(service.stdout.readline().rpartition(":")[2])
            rows = asyncio.run(load(port, json.dumps(request).encode(), rates, given.seconds))
            service.send_signal(signal.SIGTERM)
            service.wait()
        columns = ("offered / s", "requests", "answered / s", "p50, ms", "p99, ms", "other codes")
        print_table(
            f"{given.model}, {given.candidates} candidates, {given.max_len} events: the service exits with "
            f"{service.returncode}",
            columns,
            rows,
        )


if __name__ == "__main__":
    main()
