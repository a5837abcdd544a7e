"""Write the three one-device rings: `python rings.py FOLDER ACCOUNT_PORT CONTAINER_PORT OBJECT_PORT`.

Runs in Swift's own environment; one process instead of nine calls of swift-ring-builder.
"""

import sys

from swift.common.ring import RingBuilder

folder, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports, strict=True):
    builder = RingBuilder(part_power=8, replicas=1, min_part_hours=0)
    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1.0}
    builder.add_dev(device | {"replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{name}.ring.gz")
