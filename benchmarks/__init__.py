"""Measurements. `python -m benchmarks` compares MarchProxy with plain routing and other proxies on the rig.

* `workloads` is what is measured, `contenders` and `proxies` are who is measured, `bed` is where.
* `compare` runs all of them in turns, `results` keeps and summarises figures, `report` shows them.
* `daemon` (`python -m benchmarks.daemon`) measures the daemon itself: start, memory, large policies.

Read ratios, not figures: client, appliance and server share the processors of one machine.
"""
