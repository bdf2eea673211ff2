"""Snakemake that asks SLURM every second. Jobs of tests take seconds.

The plugin waits ten seconds longer after every answer without a job that has just succeeded, a failed one included.

    python -P tests/cluster/impatient.py --workflow-profile profiles/slurm
"""

from __future__ import annotations

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def a_second(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


if __name__ == "__main__":
    RemoteExecutor.sleep = a_second
    sys.exit(main())
