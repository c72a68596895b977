"""Mixed traffic for a long time, while the configuration changes every second.

`talk` is the traffic, `change` the changes, `watch` what must not grow, `faults` who is killed meanwhile.
"""
