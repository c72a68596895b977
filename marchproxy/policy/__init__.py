"""Pure functions from what an operator means to what the tiers do: `compile` (snapshot to plan), `evaluate`
(the reference answer to "may A talk to B?"), `check` (what is wrong or useless in a snapshot). No I/O, no
clock: time and resolved names are arguments. Imports `model` only.
"""
