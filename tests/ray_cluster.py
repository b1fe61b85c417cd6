"""A Ray cluster of two nodes on this machine, for tests and benchmarks."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from regnet.cluster.session import ENVIRONMENT


@contextmanager
def two_nodes(cpus: int = 1) -> Iterator[str]:
    """Give the address of a cluster of two nodes, each of so many CPUs; it ends with the block."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.cluster_utils import Cluster

            options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 10**8}
            cluster = Cluster(initialize_head=True, head_node_args=options)
            try:
                cluster.add_node(**options)
                cluster.wait_for_nodes()
                yield cluster.address
            finally:
                cluster.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
