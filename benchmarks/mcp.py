"""What an answer costs over MCP: tokens, milliseconds and calls, over stdio on a running server, and a cold start.

    python benchmarks/mcp.py [--calls 200] [--questions]

Makes a ledger of two GPUs, one sample a second for an hour, with what happened in `tests/mcp_server/conftest.py`'s
`Planted`, and asks the real server process with the official client. `--questions` asks each question of the
answerability suite as well. The client's share of a call is in the figures: it is the same process as the harness.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import anyio

sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]  # this file has the SDK's name
from mcp import Client, StdioServerParameters  # noqa: E402 - as above
from mcp.client.stdio import stdio_client  # noqa: E402

from mcp_server.answers import size_tokens  # noqa: E402
from mcp_server.tokens import tokens  # noqa: E402
from store.ledger import Ledger  # noqa: E402
from store.upkeep.sealing import seal  # noqa: E402

TESTS = Path(__file__).resolve().parents[1] / "tests/mcp_server"
SECONDS = 3600
ASKED = (
    ("live_state", {}),
    ("query_metrics", {"metrics": ["gpu.utilization_percent"], "window": "1h"}),
    ("query_metrics", {"metrics": ["gpu.utilization_percent", "gpu.power_watts", "gpu.temperature_celsius"]}),
    ("top_processes", {}),
    ("check_gpu_availability", {}),
    ("list_events", {}),
    ("get_system_health", {}),
    ("describe_data", {}),
    ("run_sql", {"sql": "select count(*) as n from gpu_sample"}),
)


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def make_ledger(folder: Path, ticks: ModuleType) -> None:
    end_us = int(time.time()) * 1_000_000
    with Ledger(folder, host="benchmark") as ledger:
        ledger.append(ticks.descriptions(end_us - SECONDS * 1_000_000))
        for number in range(SECONDS):
            ledger.append(ticks.tick(end_us - (SECONDS - 1 - number) * 1_000_000, number))
            if number % 120 == 119 and number < SECONDS - 60:
                seal(folder)


def keep_recording(folder: Path, ticks: ModuleType, stop: threading.Event) -> None:
    """One sample a second beside the questions, as a collector does."""
    with Ledger(folder, host="benchmark") as ledger:
        number = SECONDS
        while not stop.wait(1.0):
            ledger.append(ticks.tick(time.time_ns() // 1000, number))
            number += 1


def server(folder: Path, home: str) -> StdioServerParameters:
    environment = {"PATH": os.environ["PATH"], "HOME": home, "GPULEDGER_DATA": str(folder)}
    return StdioServerParameters(command=sys.executable, args=["-P", "-m", "gpuledger", "mcp"], env=environment)


async def first_answer_s(parameters: StdioServerParameters, name: str, arguments: dict[str, object]) -> float:
    """From the start of the server's process to its first answer, with `server/discover` or `initialize` before it."""
    started_s = time.perf_counter()
    async with Client(stdio_client(parameters)) as client:
        await client.call_tool(name, arguments)
        return time.perf_counter() - started_s


async def measure(parameters: StdioServerParameters, calls: int) -> None:
    async with Client(stdio_client(parameters)) as client:
        tools = (await client.list_tools()).tools
        listed = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in tools]
        wire = json.dumps(listed, separators=(",", ":"))
        print(f"tools/list: {len(tools)} tools, {tokens(wire)} tokens\n")
        print(f"{'call':<60}{'tokens':>8}{'p50 ms':>9}{'p95 ms':>9}")
        for name, arguments in ASKED:
            took_ms = []
            for _ in range(calls):
                started_s = time.perf_counter()
                answer = await client.call_tool(name, arguments)
                took_ms.append(1e3 * (time.perf_counter() - started_s))
            assert not answer.is_error, answer.content
            p50, p95 = statistics.median(took_ms), sorted(took_ms)[int(0.95 * len(took_ms))]
            words = f"{name} {json.dumps(arguments)}"[:58]
            print(f"{words:<60}{size_tokens(answer.structured_content):>8}{p50:>9.2f}{p95:>9.2f}")


async def measure_questions(parameters: StdioServerParameters) -> None:
    """Each question of the suite: one call, its tokens and its milliseconds, the second time it is asked."""
    questions = module("test_answerability").QUESTIONS
    total_tokens, total_ms = 0, 0.0
    async with Client(stdio_client(parameters)) as client:
        print(f"\n{'question':<52}{'call':<26}{'tokens':>8}{'ms':>9}")
        for question, name, arguments, *_ in questions:
            await client.call_tool(name, arguments)
            started_s = time.perf_counter()
            answer = await client.call_tool(name, arguments)
            took_ms = 1e3 * (time.perf_counter() - started_s)
            size = size_tokens(answer.structured_content)
            total_tokens, total_ms = total_tokens + size, total_ms + took_ms
            print(f"{question:<52}{name:<26}{size:>8}{took_ms:>9.1f}")
    count = len(questions)
    print(f"{count} questions, {count} calls: mean {total_tokens / count:.0f} tokens, {total_ms / count:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="how often each call is made")
    parser.add_argument("--questions", action="store_true", help="ask the answerability suite as well")
    asked = parser.parse_args()
    home = tempfile.mkdtemp(prefix="gpuledger-mcp-")
    stop = threading.Event()
    try:
        ticks, folder = module("conftest"), Path(home) / "ledger"
        make_ledger(folder, ticks)
        recorder = threading.Thread(target=keep_recording, args=(folder, ticks, stop), daemon=True)
        recorder.start()
        parameters = server(folder, home)
        for name, arguments in ASKED[:2]:
            starts_s = [anyio.run(first_answer_s, parameters, name, arguments) for _ in range(5)]
            print(f"start to first {name} over stdio: median {statistics.median(starts_s):.2f} s of 5")
        anyio.run(measure, parameters, asked.calls)
        if asked.questions:
            planted = Path(home) / "planted"
            ticks.Planted(planted, int(datetime.now(UTC).timestamp() * 1e6)).write()
            anyio.run(measure_questions, server(planted, home))
    finally:
        stop.set()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
