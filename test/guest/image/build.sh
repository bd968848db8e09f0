#!/bin/sh
# build.sh RECIPE OUT: builds disk.raw (ext4 on the whole disk), vmlinuz and initrd in the folder OUT.
# Needs mmdebstrap and e2fsprogs; as root, or where user namespaces are allowed.
set -eu
recipe=$1 out=$2
mirror=${PANDO_DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Left out: what nobody reads in a guest, and PostgreSQL's compiler (130 MB of LLVM), which `jit = off` never asks for.
mmdebstrap --variant=essential \
  --include=linux-image-cloud-amd64,initramfs-tools,sysvinit-core,e2fsprogs,kmod,udev,mount,util-linux,procps,fio,postgresql-15,qemu-guest-agent \
  --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/i18n/locales/*' \
  --dpkgopt='path-exclude=/usr/lib/*/libLLVM-*' \
  --dpkgopt='path-exclude=/usr/lib/*/libz3.so*' \
  --dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/bitcode/*' \
  --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
  --essential-hook='printf "MODULES=list\nCOMPRESS=gzip\nFSTYPE=ext4\n" >"$1/etc/initramfs-tools/conf.d/pando"' \
  --essential-hook='printf "virtio_pci\nvirtio_blk\nvirtio_console\n" >"$1/etc/initramfs-tools/modules"' \
  --essential-hook='mkdir "$1/etc/postgresql-common"' \
  --essential-hook='echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"' \
  --customize-hook='mkdir "$1/etc/pando-guest"' \
  --customize-hook="copy-in $recipe/database /etc/pando-guest" \
  --customize-hook='chroot "$1" sh /etc/pando-guest/database && rm "$1/etc/pando-guest/database"' \
  --customize-hook="copy-in $recipe/inittab /etc" \
  --customize-hook="copy-in $recipe/boot $recipe/halt /etc/pando-guest" \
  --customize-hook='chmod 0755 "$1/etc/pando-guest/boot" "$1/etc/pando-guest/halt"' \
  --customize-hook='printf "/dev/vda / ext4 errors=remount-ro 0 1\n" >"$1/etc/fstab"' \
  --customize-hook='echo guest >"$1/etc/hostname"' \
  bookworm "$out/root.tar" "$mirror"

# mke2fs reads a folder; ownership in it is real for root, and true inside a user namespace for anybody else.
cat >"$out/pack.sh" <<'PACK'
set -eu
mkdir "$1/root"
tar --numeric-owner --exclude './dev/*' -C "$1/root" -xf "$1/root.tar"
cp "$1"/root/boot/vmlinuz-* "$1/vmlinuz"
cp "$1"/root/boot/initrd.img-* "$1/initrd"
mke2fs -q -F -t ext4 -L root -d "$1/root" "$1/disk.raw" 2G
rm -rf "$1/root"
PACK
if [ "$(id -u)" = 0 ]; then sh "$out/pack.sh" "$out"; else mmdebstrap --unshare-helper sh "$out/pack.sh" "$out"; fi
rm "$out/root.tar" "$out/pack.sh"
chmod 0644 "$out/disk.raw" "$out/vmlinuz" "$out/initrd"
