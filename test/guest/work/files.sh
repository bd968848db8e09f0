#!/bin/sh
# files.sh SEED: file after file on /data, written and verified by fio, and reported as `FILE <number> <SHA-256>` when it is on the disk for sure.
# Beside each comes a file that is deleted again, for the trims of a file system mounted with `discard`.
# files.sh SEED verify FROM TO: verifies files of these numbers as they are on the disk, without writing. fio finds damaged blocks and blocks
# in the wrong place, but takes a block of another seed for good; the checksum is for that.
seed=$1

# A file follows from the seed and its number alone.
options() {
  case $(($1 % 4)) in 0) bs=4k ;; 1) bs=8k ;; 2) bs=16k ;; *) bs=64k ;; esac
  echo "--name=file-$1 --filename=/data/files/$1 --size=$((1 + $1 % 3))M --rw=randwrite --bs=$bs --randseed=$((seed + $1))" \
    "--ioengine=libaio --iodepth=8 --direct=1 --fallocate=none --verify=crc32c --verify_fatal=1"
}

if [ "$2" = verify ]; then
  all=
  for number in $(seq "$3" "$4"); do
    # fio would make a file that is missing, and verify what it made.
    size=$(stat -c %s "/data/files/$number") || exit 1
    if [ "$size" != $(((1 + number % 3) * 1048576)) ]; then echo "file $number has $size bytes"; exit 1; fi
    all="$all $(options "$number")"
  done
  # shellcheck disable=SC2086 # one word an option
  exec fio --minimal --verify_only --thread $all
fi

mkdir -p /data/files
number=1
while :; do
  # shellcheck disable=SC2046
  if ! fio --thread --output="/run/file.log" --do_verify=1 --end_fsync=1 $(options $number); then
    echo "FAILED files.sh at $number: $(tail -n 20 /run/file.log | tr '\n' ' ')" >&3
    exit 1
  fi
  sync /data/files
  sum=$(sha256sum "/data/files/$number")
  echo "FILE $number ${sum%% *}" >&3
  dd if=/dev/urandom of=/data/passing bs=64k count=$((1 + number % 8)) 2>/dev/null
  sync /data/passing
  rm /data/passing
  number=$((number + 1))
done
