"""Whether backends work: checks from the appliance's own sockets, and what follows from them.

`state` counts what checks find, `timetable` says when the next one is due; neither does I/O or looks at a
clock. `probes` asks a backend once (`http` and `icmp` have the formats), `checks` puts them together.
"""
