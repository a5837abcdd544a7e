"""Run one Swift server: `python serve.py account|container|object|proxy FOLDER`. Runs in Swift's own environment.

Swift reads its cluster's settings from /etc/swift; this points it at FOLDER before any server module is loaded.
"""

import importlib
import sys

import swift.common.utils

name, folder = sys.argv[1:]
swift.common.utils.SWIFT_CONF_FILE = f"{folder}/swift.conf"
sys.argv = [name, f"{folder}/{name}.conf"]
sys.exit(importlib.import_module(f"swift.{'obj' if name == 'object' else name}.server").main())
