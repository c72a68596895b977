"""What keeps an appliance from working, found by looking at the machine that it runs on.

* `examination` asks all checks.
* `finding` is what a check says.
* `case` is what checks look at: the machine's files, what is configured, what the daemon answers.
* `machine`, `network`, `conflicts` and `installation` are the checks; they change nothing.
* `bundle` puts everything into an archive for somebody else to look at.
"""
