"""The open-loop load: sends a plan as written, in a process of its own, without waiting for answers.

`python -m experiments.load PLAN.parquet SENT.parquet URL` posts each row's reaction at its intended time and
writes `seq, t_sent_ns, t_answered_ns, status` (0: no answer), one row a reaction sent.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np
import pandas as pd
import uvloop

from experiments.schedule import timestamp_of
from pipeline.errors import EmoStreamError
from pipeline.messages import encode

NS = 1_000_000_000
HEADERS = {"Content-Type": "application/json"}
# An answer that takes longer counts as none; the chain has its own, shorter deadlines.
ANSWER_S = 30.0


def bodies(plan: pd.DataFrame) -> list[bytes]:
    """Return each row's request body; prepared before the run, so that nothing but sending is timed."""
    return [
        encode({"user_id": user_id, "emoji_type": emoji_type, "timestamp": timestamp_of(t_ns)})
        for user_id, emoji_type, t_ns in zip(plan["user_id"], plan["emoji_type"], plan["t_intended_ns"], strict=True)
    ]


async def send(plan: pd.DataFrame, url: str, connections: int = 100) -> pd.DataFrame:
    """Send `plan` to `url`/reactions; return `seq, t_sent_ns, t_answered_ns, status`."""
    due_ns = plan["t_intended_ns"].to_numpy(dtype=np.int64)
    prepared = bodies(plan)
    sent_ns = np.zeros(len(plan), dtype=np.int64)
    answered_ns = np.zeros(len(plan), dtype=np.int64)
    statuses = np.zeros(len(plan), dtype=np.int64)
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=HEADERS) as session:

        async def post(index: int) -> None:
            sent_ns[index] = time.time_ns()
            try:
                async with session.post(f"{url}/reactions", data=prepared[index]) as answer:
                    await answer.read()
                    statuses[index] = answer.status
                    answered_ns[index] = time.time_ns()
            except (aiohttp.ClientError, TimeoutError):
                statuses[index] = 0

        async with asyncio.TaskGroup() as group:
            for index, at_ns in enumerate(due_ns.tolist()):
                # A timer may fire a little early; a reaction never goes out before its time.
                while (wait_s := (at_ns - time.time_ns()) / NS) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(post(index))
    went = sent_ns > 0
    return pd.DataFrame({"seq": plan["seq"], "t_sent_ns": sent_ns, "t_answered_ns": answered_ns, "status": statuses})[
        went
    ]


def main() -> None:
    """`python -m experiments.load`."""
    line = argparse.ArgumentParser(prog="experiments.load", description="Send a plan, open loop.")
    line.add_argument("plan", type=Path, help="parquet with seq, user_id, emoji_type, t_intended_ns")
    line.add_argument("sent", type=Path, help="parquet to write")
    line.add_argument("url", help="base URL of ingest")
    options = line.parse_args()
    try:
        uvloop.run(send(pd.read_parquet(options.plan), options.url)).to_parquet(options.sent, index=False)
    except EmoStreamError as error:
        sys.exit(f"experiments.load: {error}")


if __name__ == "__main__":
    main()
