# shellcheck shell=bash
# What the build scripts share: version, time and names of what is built. Sourced from the root of the checkout.

say() { printf '==> %s\n' "$*"; }

# fail WHAT HELP...: one sentence on what is wrong, then what to do, a line each.
fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    (($# == 0)) || printf '%s\n' "$@" >&2
    exit 1
}

# MAJOR.MINOR.PATCH.BUILD, as in .version.
version() {
    local text
    text=$(<.version)
    printf '%s\n' "${text#v}"
}

# Every time in what is built is this one, so that the same source gives the same bytes (reproducible-builds.org): that of
# the commit, or where there is no git the build in .version.
source_date() {
    local build
    build=$(version)
    git -c safe.directory='*' log -1 --format=%ct 2>/dev/null || printf '%s\n' "${build##*.}"
}

# marchproxy-vX.Y.Z or marchproxy-vX.Y.Z-beta where the commit has that tag, marchproxy-beta-EPOCH elsewhere.
artifact_name() {
    local release tag
    release=v$(version | cut -d. -f1-3)
    for tag in "$release" "$release-beta"; do
        if git -c safe.directory='*' tag --points-at HEAD 2>/dev/null | grep -qxF "$tag"; then
            printf 'marchproxy-%s\n' "$tag"
            return 0
        fi
    done
    printf 'marchproxy-beta-%s\n' "$SOURCE_DATE_EPOCH"
}

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(source_date)}
export SOURCE_DATE_EPOCH
# Order and language of what tools print, and modes of what they write, are not the builder's.
export LC_ALL=C.UTF-8 TZ=UTC
umask 022
