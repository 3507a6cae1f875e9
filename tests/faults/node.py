"""A sweep on a cluster whose only node with a CPU dies in mid-sweep, and is replaced: `python node.py --set ...`.

A process of its own, because a cluster of `ray.cluster_utils` belongs to the process.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from chronotune.config.load import load_recipe
from chronotune.study import read


def main(arguments: list[str]) -> int:
    """Run the sweep `sweep` here."""
    settings = [value for flag, value in itertools.pairwise(arguments) if flag == "--set"]
    recipe = load_recipe("smoke", settings)
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        _on_a_cluster(recipe, folder)
    return 0


def _on_a_cluster(recipe: Any, folder: str) -> None:
    from chronotune.cluster.session import _ENVIRONMENT

    os.environ.update(_ENVIRONMENT)
    import ray
    from ray.cluster_utils import Cluster

    from chronotune.sweep import run_sweep

    head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=10**8)
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        with ThreadPoolExecutor(1) as aside:  # nodes are added in the main thread only
            sweep = aside.submit(run_sweep, recipe, "sweep")
            _replace(cluster, node, sweep)
            sweep.result()
    finally:
        ray.shutdown()
        cluster.shutdown()


def _replace(cluster: Any, node: Any, sweep: Future[Path]) -> None:
    """Kill the node once the first trial has a result, and let another join."""
    while not _begun(Path("sweep")):
        assert not sweep.done(), f"it ended before its node was removed: {sweep.exception()}"
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print("node removed", flush=True)
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    print("node added", flush=True)


def _begun(sweep: Path) -> bool:
    with suppress(Exception):
        return bool(read(sweep).trials[0].results)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
