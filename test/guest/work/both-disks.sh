#!/bin/sh
# both-disks.sh: counts in a block of each disk, past the page cache: the system's disk first, then the other one.
# At no instant do the two numbers differ by more than one, so a cut that is none would show.
number=1
while :; do
  printf '%-4095d\n' $number >/run/number
  for block in /root/count /data/count; do
    if ! dd if=/run/number of=$block bs=4096 oflag=direct conv=notrunc 2>/run/count.log; then
      echo "FAILED both-disks.sh at $number: $(tr '\n' ' ' </run/count.log)" >&3
      exit 1
    fi
  done
  number=$((number + 1))
done
