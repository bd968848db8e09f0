#!/bin/sh
# live.sh SEED: fio goes over one file on /data again and again, reads and writes at random places, and verifies while it
# goes. Each time that it got to the end is reported as `PASS <number>`. Blocks are of one size in each pass: only then
# fio compares their serial numbers too, and so finds a block of the pass before.
seed=$1
number=1
while :; do
  case $((number % 4)) in 0) bs=4k ;; 1) bs=16k ;; 2) bs=64k ;; *) bs=8k ;; esac
  if ! fio --thread --output=/run/live.log --name=live --filename=/data/live --size=6M --rw=randrw --rwmixread=40 \
    --bs=$bs --randseed=$((seed + number)) --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --verify_fatal=1 --verify_backlog=32; then
    echo "FAILED live.sh at $number: $(tail -n 20 /run/live.log | tr '\n' ' ')" >&3
    exit 1
  fi
  echo "PASS $number" >&3
  number=$((number + 1))
done
