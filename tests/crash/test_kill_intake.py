"""kill -9 of the collector while programs send it requests: what it acknowledged is in the ledger, once."""

import http.client
import json
import random
import re
import subprocess
import threading
import time
from collections import Counter

from store.ledger import Ledger
from store.snapshot import LedgerReader

KILLS = 8
SENDERS = 3


def port_of(log, collector) -> int:
    deadline_s = time.monotonic() + 60
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/metrics", log.read_text())):
        assert collector.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.01)
    return int(found[1])


def send_until_it_dies(port, sender, unsure, acknowledged) -> None:
    """Send batches of three, first those of which nobody knows whether they arrived; note those acknowledged."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    number = len(acknowledged)
    while True:
        ids = unsure.pop() if unsure else [f"{sender}-{number}-{one}" for one in range(3)]
        number += 1
        body = "\n".join(json.dumps({"kind": "request", "source": "test", "source_event_id": own_id}) for own_id in ids)
        try:
            connection.request("POST", "/ingest/events", body)
            with connection.getresponse() as response:
                response.read()
        except (OSError, http.client.HTTPException):
            unsure.append(ids)
            connection.close()
            return
        assert response.status == 200
        acknowledged.extend(ids)


def test_kills_lose_no_acknowledged_request_and_what_is_sent_again_is_stored_once(tmp_path, collector_command):
    folder = tmp_path / "ledger"
    moments = random.Random(20261123)
    unsure = [[] for _ in range(SENDERS)]
    acknowledged = [[] for _ in range(SENDERS)]
    for kill in range(KILLS):
        log = tmp_path / f"log-{kill}"
        with log.open("w") as stderr, subprocess.Popen(collector_command(folder), stderr=stderr) as collector:
            port = port_of(log, collector)
            senders = [
                threading.Thread(target=send_until_it_dies, args=(port, sender, unsure[sender], acknowledged[sender]))
                for sender in range(SENDERS)
            ]
            for thread in senders:
                thread.start()
            time.sleep(moments.uniform(0.05, 0.5))  # the random moment, not a wait for anything
            collector.kill()
            for thread in senders:
                thread.join()
    Ledger(folder).close()
    with LedgerReader(folder) as reader:
        stored = Counter(reader.snapshot(["request"])["request"].tail["source_event_id"].to_pylist())
    sent = {own_id for ids in acknowledged for own_id in ids}
    assert len(sent) > 30 * KILLS
    assert sent - set(stored) == set()
    assert max(stored.values()) == 1
