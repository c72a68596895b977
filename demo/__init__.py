"""`make demo`: an appliance at work between three network namespaces.

* `run` is the program; `story` the scenes, one function each, and `crash` the longest of them.
* `stage` is what all scenes use.
* `actors` are the clients that talk all the while, `board` the live table, `screen` the terminal.
"""
