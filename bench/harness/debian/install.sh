#!/bin/sh
# install.sh NAME OUT: a Debian system of its own, installed by its own run of mmdebstrap, as ext4 on the whole of OUT/disk.raw.
# Needs mmdebstrap and e2fsprogs; as root, or where user namespaces are allowed.
set -eu
name=$1 out=$2
mirror=${PANDO_DEBIAN_MIRROR:-http://deb.debian.org/debian}

case $name in
database) packages=postgresql-15,postgresql-contrib,pgbackrest ;;
web) packages=nginx,python3-venv,python3-django,python3-psycopg2,git ;;
*)
  echo "no system is called $name" >&2
  exit 1
  ;;
esac

# Priority "important" is what debootstrap installs by itself: systemd, apt, manual pages. Nothing is left out.
mmdebstrap --variant=important \
  --include="linux-image-cloud-amd64,initramfs-tools,openssh-server,$packages" \
  --aptopt='Acquire::Retries "3"' \
  --customize-hook='printf "/dev/vda / ext4 errors=remount-ro 0 1\n" >"$1/etc/fstab"' \
  --customize-hook="echo $name >\"\$1/etc/hostname\"" \
  bookworm "$out/root.tar" "$mirror"

cat >"$out/pack.sh" <<'PACK'
set -eu
mkdir "$1/root"
tar --numeric-owner --exclude './dev/*' -C "$1/root" -xf "$1/root.tar"
mke2fs -q -F -t ext4 -L root -d "$1/root" "$1/disk.raw" 2G
rm -rf "$1/root"
PACK
if [ "$(id -u)" = 0 ]; then sh "$out/pack.sh" "$out"; else mmdebstrap --unshare-helper sh "$out/pack.sh" "$out"; fi
rm "$out/root.tar" "$out/pack.sh"
chmod 0644 "$out/disk.raw"
