#!/usr/bin/env bash
# Full and incremental backups of a disk that is served over NBD, as a chain of qcow2 files, by qemu-img, qemu-io and
# nbdinfo alone. What changed comes from the server, as the metadata context qemu:dirty-bitmap:<since>.
#
# An incremental is made by copy-on-read: an empty qcow2 file in front of the export, through which every dirty extent
# is read once, so that it stays there; then the file is told that what is behind it is the previous backup.
# Dirty extents of zeros are written as zeros instead.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage:
  incremental-backup.sh full        URI FILE
  incremental-backup.sh incremental URI SINCE PREVIOUS FILE
  incremental-backup.sh verify      URI FILE
  incremental-backup.sh restore     FILE TARGET

  full         copies the export at URI to FILE (qcow2), without its holes
  incremental  copies to FILE (qcow2, backed by PREVIOUS) what changed since the backup named SINCE;
               PREVIOUS is the file that was made of the backup SINCE
  verify       compares FILE, with everything behind it, to the export; fails when they differ
  restore      writes FILE, with everything behind it, to TARGET: a raw file that does not exist yet, or the
               NBD URI of a disk of that size, which is overwritten

  URI     an export that does not change, such as the disk of a backup: nbd://HOST[:PORT]/VM@BACKUP/DISK
          or nbd+unix:///VM@BACKUP/DISK?socket=PATH
  FILE    must not exist yet; it appears under this name when it is complete and on the disk

environment:
  CLUSTER_BYTES  the grain of incrementals, a power of two from 512 (default 4096, which is what Pando tells apart)
  MAP_URI        where to ask what changed, when URI is a proxy that only passes data on (default: URI)
USAGE
}

fail() {
  echo "incremental-backup.sh: $*" >&2
  exit 1
}

# At most so much at a time: qemu-io holds in memory what it reads, and takes no length of 2 GiB.
READ_BYTES_MAX=$((16 * 1024 * 1024))
ZERO_BYTES_MAX=$((1024 * 1024 * 1024))
CLUSTER_BYTES=${CLUSTER_BYTES:-4096}

scratch=''
part=''
finish() {
  if [[ -n $scratch ]]; then rm -rf -- "$scratch"; fi
  if [[ -n $part ]]; then rm -f -- "$part"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# begin FILE: sets `file`, its absolute path (to QEMU a relative one with a colon is no path), and `part`, an empty
# file beside it, for its owner alone.
begin() {
  file=$(realpath -m -- "$1")
  [[ ! -e $file ]] || fail "$file exists already"
  part=$(mktemp -- "$(dirname -- "$file")/.incremental-backup.XXXXXX")
}

# publish: makes `part` durable and gives it the name of `file`.
publish() {
  sync -- "$part"
  mv -n -T -- "$part" "$file" || true
  [[ ! -e $part ]] || fail "$file exists by now"
  part=''
  sync -- "$(dirname -- "$file")"
}

full() {
  local uri=$1
  begin "$2"
  qemu-img convert -f raw -O qcow2 -m 8 -W -- "$uri" "$part"
  publish
}

# copy_commands URI SINCE: what qemu-io has to do for the dirty extents: read them, or, where the export holds zeros,
# write zeros, which take no space.
copy_commands() {
  nbdinfo --map="qemu:dirty-bitmap:$2" -- "${MAP_URI:-$1}" >"$scratch/dirty"
  nbdinfo --map=base:allocation -- "${MAP_URI:-$1}" >"$scratch/allocation"
  awk -v read_max="$READ_BYTES_MAX" -v zero_max="$ZERO_BYTES_MAX" '
    function emit(at, end, is_zero,   max, length_) {
      max = is_zero ? zero_max : read_max
      for (; at < end; at += length_) {
        length_ = end - at < max ? end - at : max
        printf "%s %.0f %.0f\n", (is_zero ? "write -z" : "read"), at, length_
      }
    }
    $1 !~ /^[0-9]+$/ || $2 !~ /^[0-9]+$/ || $3 !~ /^[0-9]+$/ {
      print "not an extent: " $0 >"/dev/stderr"
      exit 1
    }
    FILENAME ~ /allocation$/ {
      ends[count] = $1 + $2
      zero[count++] = int($3 / 2) % 2
      next
    }
    $3 % 2 == 1 {
      at = $1
      end = $1 + $2
      while (at < end) {
        while (i < count - 1 && ends[i] <= at) i++
        upto = i < count && ends[i] > at && ends[i] < end ? ends[i] : end
        emit(at, upto, zero[i])
        at = upto
      }
    }' "$scratch/allocation" "$scratch/dirty"
}

incremental() {
  local uri=$1 since=$2 previous behind
  previous=$(realpath -e -- "$3")
  begin "$4"
  scratch=$(mktemp -d)
  copy_commands "$uri" "$since" >"$scratch/commands"
  qemu-img create -q -f qcow2 -o "cluster_size=$CLUSTER_BYTES" -F raw -b "$uri" -- "$part"
  qemu-io -C -f qcow2 -- "$part" <"$scratch/commands" >"$scratch/log" 2>&1 || fail "qemu-io: $(tail -n 5 "$scratch/log")"
  # Not every version of qemu-io ends with an error when a command from its input failed.
  if grep -q 'failed' "$scratch/log"; then fail "qemu-io: $(grep -m 5 'failed' "$scratch/log")"; fi
  # Seen from where the file is, so that the folder with the chain can be moved.
  behind=$(realpath --relative-to="$(dirname -- "$file")" -- "$previous")
  if [[ $behind == *:* ]]; then behind=./$behind; fi
  qemu-img rebase -u -f qcow2 -F qcow2 -b "$behind" -- "$part"
  publish
}

verify() { qemu-img compare -f raw -F qcow2 -- "$1" "$(realpath -e -- "$2")"; }

restore() {
  local from
  from=$(realpath -e -- "$1")
  if [[ $2 == nbd*://* || $2 == nbd+unix:* ]]; then
    qemu-img convert -n -f qcow2 -O raw -m 8 -W -- "$from" "$2"
  else
    begin "$2"
    qemu-img convert -f qcow2 -O raw -m 8 -W -- "$from" "$part"
    publish
  fi
}

case "${1:-} $#" in
  'full 3' | 'incremental 5' | 'verify 3' | 'restore 3') ;;
  '-h 1' | '--help 1')
    usage
    exit 0
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac
for tool in qemu-img qemu-io nbdinfo; do
  command -v "$tool" >/dev/null || fail "$tool is missing (Debian: qemu-utils, libnbd-bin)"
done
"$@"
