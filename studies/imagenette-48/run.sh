#!/bin/sh
# What made records.jsonl and report.html: sh run.sh IMAGENETTE [FOLDER]
#
# IMAGENETTE has the photos of photos.txt. FOLDER, this one where none is named, gets the records and
# the report; runs that it has records of are not run again.
set -eu
data=${1:?the folder of Imagenette}
folder=${2:-$(dirname "$0")}
for count in 6 12; do # in turns: stopped at any time, all spaces have about as many networks
  for space in anynetx-a anynetx-b anynetx-c anynetx-d anynetx-e regnet regnetx; do
    regnet space sweep "$space" -n "$count" --data "$data" --epochs 10 --macs 3M:3.4M \
      -o "$folder/records.jsonl"
  done
done
regnet space analyze "$folder/records.jsonl" -o "$folder/report.html"
