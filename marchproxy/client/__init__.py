"""What every front end does alike: asking the daemon, changing what is configured, words for numbers.

`appliance` says which one is meant. `control` asks its daemon; `edits`, `review` and `covered` are the steps
between the operator's wish and the store's transaction; `changes`, `words` and `units` say things.
Nothing here reads a terminal or writes to one.
"""
