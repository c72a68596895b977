#!/usr/bin/env bash
# Makes what `make qemu` boots: the own kernels of Debian 12 and of Ubuntu 22.04 with the few modules that the appliance needs, and
# the tools that load them, in the folder of the test roots. It needs root and a mirror, once; Ubuntu's also the root of jammy,
# which has the keys that its packages are signed with.
set -euo pipefail

readonly ROOTS=${MARCHPROXY_TEST_ROOTS:-/var/tmp/marchproxy-test-roots}
readonly UBUNTU=http://archive.ubuntu.com/ubuntu UBUNTU_KEYS=$ROOTS/jammy/usr/share/keyrings/ubuntu-archive-keyring.gpg
# Links between network namespaces, and where TC programs are attached below kernel 6.6.
readonly MODULES=(veth sch_ingress cls_bpf act_bpf)

fail() {
    printf 'testkernel: %s\n' "$1" >&2
    exit 1
}

# What it takes, here and in the test: nothing else does.
install_tools() {
    local missing=()
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
    command -v cpio >/dev/null || missing+=(cpio)
    command -v depmod >/dev/null || missing+=(kmod)
    ((${#missing[@]} == 0)) && return
    printf '==> Installing %s\n' "${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
        fail "${missing[*]} cannot be installed"
}

# image_of METAPACKAGE [OPTION...]: the package of the kernel that apt takes for it.
image_of() {
    apt-cache "${@:2}" depends "$1" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'
}

# fetch PACKAGE...: into the draft, with the options in `apt`. As root, whose folder this is.
fetch() {
    (cd "$draft/fetched" && apt-get "${apt[@]}" download -qq -o APT::Sandbox::User=root "$@") || fail "$* cannot be fetched"
}

fetch_bookworm() {
    apt=()
    image=$(image_of linux-image-amd64)
    [[ -n $image ]] || fail "apt knows no linux-image-amd64"
    fetch "$image" kmod
}

# By lists and a cache of its own: nothing of the machine's apt comes to know of Ubuntu.
fetch_jammy() {
    local lists=$draft/apt
    apt=(-o "Dir::Etc::SourceList=$lists/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State=$lists/state"
        -o "Dir::State::Status=/dev/null" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
    mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial"
    printf "deb [signed-by=$UBUNTU_KEYS] $UBUNTU %s main\n" jammy jammy-updates >"$lists/sources.list"
    apt-get "${apt[@]}" update -qq || fail "$UBUNTU cannot be reached"
    image=$(image_of linux-image-generic "${apt[@]}")
    [[ -n $image ]] || fail "$UBUNTU has no linux-image-generic"
    fetch "$image" "${image/image/modules}" kmod
}

# make_kernel SUITE
make_kernel() {
    local draft=$ROOTS/.kernel-$1.new apt image package module found=()
    printf '==> Fetching the kernel of %s into %s\n' "$1" "$ROOTS"
    rm -rf "$draft"
    mkdir -p "$draft/fetched" "$draft/tree/usr/lib"
    "fetch_$1"
    for package in "$draft"/fetched/linux-*.deb; do
        dpkg-deb -x "$package" "$draft/unpacked"
    done
    mv "$draft"/unpacked/boot/vmlinuz-* "$draft/vmlinuz"
    for module in "${MODULES[@]}"; do
        mapfile -t found < <(cd "$draft/unpacked" && find lib/modules -name "$module.ko*")
        ((${#found[@]} == 1)) || fail "there is no module $module in $image"
        install -D "$draft/unpacked/${found[0]}" "$draft/tree/usr/${found[0]}"
    done
    cp "$draft"/unpacked/lib/modules/*/modules.{order,builtin,builtin.modinfo} "$draft"/tree/usr/lib/modules/*/
    depmod -b "$draft/tree/usr" "${image#linux-image-}"
    # Not as it is packed: its /bin and /lib would take the place of the links.
    dpkg-deb --fsys-tarfile "$draft"/fetched/kmod_*.deb | tar -x -C "$draft/tree" --transform 's#^\./\(bin\|lib\|sbin\)/#./usr/\1/#'
    rm -rf "$draft"/{apt,fetched,unpacked} "$draft"/tree/{bin,lib,sbin}
    mv "$draft" "$ROOTS/kernel-$1"
}

[[ $(id -u) == 0 ]] || fail "root is needed"
mkdir -p "$ROOTS"
exec {turn}<"$ROOTS"
flock "$turn"
install_tools
[[ -d $ROOTS/kernel-bookworm ]] || make_kernel bookworm
if [[ ! -d $ROOTS/kernel-jammy ]]; then
    if [[ -e $UBUNTU_KEYS ]]; then
        make_kernel jammy
    else
        printf 'testkernel: there is no %s; the test of the kernel of Ubuntu is skipped\n' "$UBUNTU_KEYS" >&2
    fi
fi
