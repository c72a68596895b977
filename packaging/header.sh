#!/bin/sh
# MarchProxy in one file. It unpacks itself once into a folder that only its user can write, and is then run from there.
#
# MARCHPROXY_CACHE names the folder; without it: /var/cache for root, XDG_CACHE_HOME or ~/.cache for others, and where that
# cannot be written or forbids to run programs, /var/tmp.
build=@BUILD@ lines=@LINES@ uid=$(id -u)

# What `autostart` has systemd start.
case $0 in /*) export MARCHPROXY_FILE="$0" ;; *) export MARCHPROXY_FILE="$PWD/$0" ;; esac

refuse() {
    echo "marchproxy: $1" >&2
    echo "hint: MARCHPROXY_CACHE names a folder with 150 MB of space that allows programs to be run" >&2
    exit 75
}

# usable FOLDER: ours alone. Elsewhere anybody could have put there what we are about to run.
usable() {
    (umask 077 && mkdir -p "$1") 2>/dev/null && [ -O "$1" ] && [ ! -L "$1" ] && chmod 700 "$1" 2>/dev/null
}

# unpack FOLDER: 0 done, or somebody else was quicker; 1 another folder may do; the reason in $why.
unpack() {
    usable "$1" || { why="cannot write to $1"; return 1; }
    # What was killed in the middle of this, and cannot be somebody else's who is still at it.
    find "$1" -maxdepth 1 -name '.new.*' -mtime +0 -exec rm -rf {} + 2>/dev/null
    draft=
    trap '[ -z "$draft" ] || rm -rf "$draft"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    draft=$(mktemp -d "$1/.new.XXXXXX" 2>/dev/null) || { why="cannot write to $1"; return 1; }
    [ -t 2 ] && echo "marchproxy: unpacking into $1, once" >&2
    # -m: a machine whose clock stands at 1970 would complain of every file.
    if ! said=$(exec 2>&1; tail -n "+$lines" "$0" | gzip -dc | tar -x -m -C "$draft" --no-same-owner) ||
        [ -n "$said" ]; then
        # On a full disk, tar has a line for each of thousands of files.
        why="cannot unpack into $1: $(printf '%s\n' "${said:-the file is damaged}" | sed -n 1,3p)"
    elif ! "$draft/bin/marchproxy" --version >/dev/null 2>&1; then
        why="programs cannot be run in $1"
    else
        # Before the name is there: after a power cut it must not stand for half of the files.
        sync -f "$draft"
        why=
        mv -T "$draft" "$1/$build" 2>/dev/null || [ -x "$1/$build/bin/marchproxy" ] || why="cannot write to $1"
    fi
    rm -rf "$draft"
    trap - EXIT INT TERM HUP
    [ -z "$why" ]
}

if [ -n "$MARCHPROXY_CACHE" ]; then
    set -- "$MARCHPROXY_CACHE/marchproxy" '' "$@"
elif [ "$uid" = 0 ]; then
    set -- /var/cache/marchproxy /var/tmp/marchproxy-0 "$@"
else
    set -- "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/marchproxy" "/var/tmp/marchproxy-$uid" "$@"
fi
first=$1 second=$2
shift 2
for folder in "$first" $second; do
    program=$folder/$build/bin/marchproxy
    # A link in a folder that everybody writes to may lead to what is ours and was never put there for this.
    [ ! -L "$folder" ] && [ -x "$program" ] && [ -O "$folder" ] && [ -O "$program" ] && exec "$program" "$@"
done
why=
for folder in "$first" $second; do
    unpack "$folder" && exec "$folder/$build/bin/marchproxy" "$@"
    reasons="$reasons${reasons:+; }$why"
done
refuse "$reasons"
