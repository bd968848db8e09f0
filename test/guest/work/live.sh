#!/bin/sh
# live.sh SEED: fio goes over one file on /data again and again, reads and writes at random places in blocks of many sizes, and
# verifies while it goes. Each time that it got to the end is reported as `PASS <number>`.
seed=$1
number=1
while :; do
  if ! fio --thread --output=/run/live.log --name=live --filename=/data/live --size=6M --rw=randrw --rwmixread=40 \
    --bsrange=4k-64k --randseed=$((seed + number)) --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --verify_fatal=1 --verify_backlog=32; then
    echo "FAILED live.sh at $number: $(tail -n 20 /run/live.log | tr '\n' ' ')" >&3
    exit 1
  fi
  echo "PASS $number" >&3
  number=$((number + 1))
done
