"""Cut the packaged sample out of a corpus in the layout of a ``querylog`` folder.

Keeps the digits and cancer targets; a sixth of the clients goes into ``new.jsonl.gz``, the rest into
``queries.jsonl.gz``. Run: ``python bench/make_sample.py --data DIR``, DIR holding ``events.jsonl.gz``,
``labels.csv``, ``allow.txt`` and ``targets/``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import zlib
from pathlib import Path

TARGETS = ("digits-MLPClassifier", "cancer-MLPClassifier")
NEW_SHARE = 6  # one client in so many is new


def is_new(client: str) -> bool:
    return zlib.crc32(client.encode()) % NEW_SHARE == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("src/probewatch/sample"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines: dict[bool, list[bytes]] = {True: [], False: []}
    with gzip.open(options.data / "events.jsonl.gz") as log:
        for line in log:
            event = json.loads(line)
            if event["details"]["modelName"] in TARGETS:
                bare = re.sub(rb',"sourceIp":"[^"]*"', b"", line)  # made up, and read by nothing
                lines[is_new(event["context"]["userId"])].append(bare)
    for name, new in (("queries.jsonl.gz", False), ("new.jsonl.gz", True)):
        (options.out / name).write_bytes(gzip.compress(b"".join(lines[new]), 9, mtime=0))
    with (options.data / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["target"] in TARGETS]
    clients = {row["client"] for row in rows}
    with (options.out / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if not is_new(row["client"]))
    allowed = [name for name in (options.data / "allow.txt").read_text().split() if name in clients]
    (options.out / "allow.txt").write_text("".join(f"{name}\n" for name in allowed))
    for target in TARGETS:
        (options.out / "targets" / target).mkdir(parents=True, exist_ok=True)
        for path in (options.data / "targets" / target).glob("*.jsonl.gz"):
            smaller = gzip.compress(gzip.decompress(path.read_bytes()), 9, mtime=0)
            (options.out / "targets" / target / path.name).write_bytes(smaller)


if __name__ == "__main__":
    main()
