"""The Ray cluster: joining or starting it, and reserving its resources."""
