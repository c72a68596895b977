#!/usr/bin/env bash
# Makes what `make qemu` boots: Debian 12's own kernel with the few modules that the appliance needs, and the tools that load
# them, in the folder of the test roots. It needs root and a mirror, once.
set -euo pipefail

readonly ROOTS=${MARCHPROXY_TEST_ROOTS:-/var/tmp/marchproxy-test-roots}
readonly KERNEL=$ROOTS/kernel
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

make_kernel() {
    local package draft=$ROOTS/.kernel.new module found=()
    printf '==> Fetching the kernel of Debian bookworm into %s\n' "$KERNEL"
    rm -rf "$draft"
    mkdir -p "$draft/fetched" "$draft/tree"
    package=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
    [[ -n $package ]] || fail "apt knows no linux-image-amd64"
    # As root, whose folder this is.
    (cd "$draft/fetched" && apt-get download -qq -o APT::Sandbox::User=root "$package" kmod) || fail "$package cannot be fetched"
    dpkg-deb -x "$draft"/fetched/linux-image-*.deb "$draft/unpacked"
    mv "$draft"/unpacked/boot/vmlinuz-* "$draft/vmlinuz"
    mkdir -p "$draft/tree/usr/lib"
    for module in "${MODULES[@]}"; do
        mapfile -t found < <(cd "$draft/unpacked" && find lib/modules -name "$module.ko*")
        ((${#found[@]} == 1)) || fail "there is no module $module in $package"
        install -D "$draft/unpacked/${found[0]}" "$draft/tree/usr/${found[0]}"
    done
    cp "$draft"/unpacked/lib/modules/*/modules.{order,builtin,builtin.modinfo} "$draft"/tree/usr/lib/modules/*/
    depmod -b "$draft/tree/usr" "${package#linux-image-}"
    # Not as it is packed: its /bin and /lib would take the place of the links.
    dpkg-deb --fsys-tarfile "$draft"/fetched/kmod_*.deb | tar -x -C "$draft/tree" --transform 's#^\./\(bin\|lib\|sbin\)/#./usr/\1/#'
    rm -rf "$draft/fetched" "$draft/unpacked" "$draft/tree/bin" "$draft/tree/lib" "$draft/tree/sbin"
    mv "$draft" "$KERNEL"
}

[[ $(id -u) == 0 ]] || fail "root is needed"
mkdir -p "$ROOTS"
exec {turn}<"$ROOTS"
flock "$turn"
install_tools
[[ -d $KERNEL ]] || make_kernel
