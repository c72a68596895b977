#!/bin/sh
# Starts the Python beside this file, whatever is in the environment or the current folder.
self=$0
[ ! -L "$self" ] || self=$(readlink -f "$self")
exec "${self%/*}/@PYTHON@" -I -m marchproxy "$@"
