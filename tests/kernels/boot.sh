#!/usr/bin/env bash
# boot.sh LINE PAYLOAD: boots Debian's newest cloud kernel of LINE (6.1, 6.12), emulated, and runs PAYLOAD/run.sh
# in it as root. Exit status: 0 if run.sh's was 0, else 1.
#
# The files of PAYLOAD lie at / in the guest: static programs, or programs together with their libraries. The guest
# has busybox, bpffs, loopback and the modules named below, and no disk and no network. It is about ten times slower than
# the machine itself, so no timing in it means anything.
#
# Kernel and busybox are fetched once from Debian's archives (no root needed) and kept; remove the folder to have a
# newer kernel. Environment: PODFENCE_CACHE, the folder for that; SECONDS_MAX, after which the guest is ended (600);
# MEMORY of the guest (1G).
set -euo pipefail

line=$1 payload=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${PODFENCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podfence}/kernels-2 # the number is this layout's
modules=(veth tun bridge 8021q)                       # links
modules+=(sch_ingress cls_bpf act_bpf cls_u32 act_mirred) # clsact, and what tests redirect with
modules+=(nf_tables nft_chain_nat nft_nat nft_masq nft_ct) # Services, as kube-proxy translates them

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

die() {
	echo "boot.sh: $*" >&2
	exit 1
}

# unpack PACKAGE DIR: Debian's package, not installed
unpack() {
	mkdir -p "$2" "$scratch/deb"
	echo "boot.sh: fetches $1" >&2
	(cd "$scratch/deb" && apt-get -qq download "$1" > "$scratch/apt.log" 2>&1) || die "apt-get download $1: $(tail -1 "$scratch/apt.log")"
	dpkg -x "$scratch/deb"/*.deb "$2"
	rm -rf "$scratch/deb"
}

# number FILE OFFSET BYTES: a little-endian number in FILE
number() { od -An -t "u$3" --endian=little -j "$2" -N "$3" "$1" | tr -d ' '; }

# vmlinux VMLINUZ: the kernel inside a bzImage, to standard output. qemu starts it as it is (PVH), which spares the
# emulated machine the decompression. Offsets are those of the x86 boot protocol: setup_sects, payload_offset,
# payload_length; the payload ends with four bytes that are its length unpacked.
vmlinux() {
	local sectors start length
	sectors=$(number "$1" $((0x1f1)) 1)
	[ "$sectors" != 0 ] || sectors=4
	start=$(((sectors + 1) * 512 + $(number "$1" $((0x248)) 4)))
	length=$(($(number "$1" $((0x24c)) 4) - 4))
	dd if="$1" iflag=skip_bytes,count_bytes skip="$start" count="$length" bs=1M status=none > "$scratch/packed"
	case $(od -An -t x1 -N 4 "$scratch/packed" | tr -d ' ') in
	fd377a58) xz -dc < "$scratch/packed" ;;
	28b52ffd) zstd -dcq < "$scratch/packed" ;;
	02214c18) lz4 -dcq < "$scratch/packed" ;;
	1f8b*) gzip -dc < "$scratch/packed" ;;
	*) die "$1 is packed in a way this script does not know" ;;
	esac
	rm "$scratch/packed"
}

# fetch_kernel: leaves vmlinux, modules/NN.ko (in the order to load them) and version in $cache/$line
fetch_kernel() {
	local meta package version module file made=$scratch/kernel n=0
	case $line in
	6.1) meta=linux-image-cloud-amd64 ;; # Debian 12's own
	*) meta=linux-image-$line-cloud-amd64 ;;
	esac
	[ -n "$(apt-cache show "$meta" 2> /dev/null)" ] || [ "$(id -u)" != 0 ] || apt-get -qq update > /dev/null 2>&1 || true
	package=$(apt-cache depends "$meta" 2> /dev/null | awk '/Depends: linux-image/ {print $2; exit}' || true) # named anew with each update
	version=${package#linux-image-}
	case $version in "$line".*) ;; *) die "this release's archives have no cloud kernel $line ($meta); try apt-get update" ;; esac
	unpack "$package" "$scratch/unpacked"
	mkdir -p "$made/modules"
	vmlinux "$scratch/unpacked/boot/vmlinuz-$version" > "$made/vmlinux"
	[ "$(head -c 4 "$made/vmlinux" | tail -c 3)" = ELF ] || die "no kernel inside vmlinuz-$version"
	depmod -b "$scratch/unpacked" "$version"
	for file in $(modprobe -S "$version" -d "$scratch/unpacked" --show-depends -a "${modules[@]}" | awk '$1 == "insmod" && !seen[$2]++ {print $2}'); do
		n=$((n + 1)) module=$made/modules/$(printf %02d $n).ko
		case $file in
		*.xz) xz -dc "$file" > "$module" ;;
		*.zst) zstd -dcq "$file" > "$module" ;;
		*) cp "$file" "$module" ;;
		esac
	done
	echo "$version" > "$made/version"
	keep "$made" "$cache/$line"
}

fetch_busybox() {
	unpack busybox-static "$scratch/busybox"
	keep "$scratch/busybox/bin/busybox" "$cache/busybox"
}

# keep FROM TO: whole or not at all, also when two of these run at once
keep() {
	mkdir -p "$cache"
	local beside
	beside=$(mktemp -d "$cache/.new.XXXXXX")
	mv "$1" "$beside/new"
	[ -e "$2" ] || mv -T "$beside/new" "$2"
	rm -rf "$beside"
}

[ -e "$cache/$line/version" ] || fetch_kernel
[ -e "$cache/busybox" ] || fetch_busybox

guest=$scratch/guest
mkdir -p "$guest"/{bin,dev,etc,modules,proc,run,sys,tmp}
cp "$cache/busybox" "$guest/bin/busybox"
cp "$cache/$line/modules"/*.ko "$guest/modules/"
cp -a "$payload/." "$guest/"
cp "$here/init" "$guest/init"
chmod +x "$guest/init"
(cd "$guest" && find . | cpio -o -H newc -R 0:0 --quiet) > "$scratch/initrd"

# An emulated machine that is starved of time fails the kernel's check of its timer, which then panics: no_timer_check.
# The console says all: qemu leaves with 0 after a panic too, so only init's last line counts as an end.
timeout "${SECONDS_MAX:-600}" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -m "${MEMORY:-1G}" -machine pc \
	-display none -nodefaults -serial stdio -no-reboot -kernel "$cache/$line/vmlinux" -initrd "$scratch/initrd" \
	-append 'console=ttyS0 panic=-1 quiet no_timer_check' < /dev/null | stdbuf -oL tr -d '\r' | tee "$scratch/console" ||
	die "the guest did not end in ${SECONDS_MAX:-600} s, or qemu did not start"
ended=$(grep -a '^GUEST-END ' "$scratch/console" | tail -n 1) || true
[ "$ended" = 'GUEST-END 0' ] || die "kernel $line ($(cat "$cache/$line/version")): ${ended:-the guest ended without a last line, see above}"
