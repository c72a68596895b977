"""`marchproxy run`: the daemon."""
