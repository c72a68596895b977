"""The terminal front end: a client of the control socket and of the store, as the command line is.

`app` holds the screen together. Each of `views/` is one tab, which asks for what it shows while it is shown.
`dialogs/` lie over it: a form, the changes before they are written, a question, an explanation, the keys.
`link` is the one way to the daemon and the store; it blocks, so it is called in threads. `facts` makes rates
and curves of two answers of the daemon.
"""
