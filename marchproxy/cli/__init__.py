"""The operator's commands: one module per noun, mounted lazily by `main`.

* `context` holds the streams, environment and verbosity that every command gets as `ctx.obj`; tests hand in
  another.
* `framework` shapes nouns and verbs: help with an example, `-v` everywhere, modules imported when they are
  named.
* `intent` is the way to the store, `control` the way to the daemon, `importing` the way in from files.
* `output` writes data to stdout as table, JSON or YAML. Everything else that is said goes to stderr.
* `errors` is the one place where an error becomes an exit code and a sentence.

Nothing here imports kernel code, pydal or YAML until a command needs it; tests/cli/test_start.py holds that.
"""
