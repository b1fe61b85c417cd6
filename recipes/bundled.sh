#!/bin/sh
# Train the bundled model, as docs/train.md describes; about four hours on two cores.
#
#   sh recipes/bundled.sh DATA CHECKPOINT [OPTION]...
#
# DATA is the folder with tiny-imagenet-200.train-*.zip, .val.zip and .classes.tsv; CHECKPOINT the
# RegNetX-400MF of their 200 classes that training begins with. Options are passed on to every
# `regnet train`. All is written to runs/, the model to runs/bundled.xml. Begun again, it goes on.
set -eu
data=$1 before=$2
shift 2
here=$(dirname "$0")
labels=$data/tiny-imagenet-200.classes.tsv

train() {  # NAME NETWORK WEIGHTS [OPTION]...
    run=runs/$1 recipe=$here/$1.toml network=$here/$2.json weights=$3
    shift 3
    [ ! -e "$run/weights.safetensors" ] || return 0
    [ ! -e "$run/last.ckpt" ] || set -- --resume "$@"
    regnet train "$data/tiny-imagenet-200.train-*.zip" --val "$data/tiny-imagenet-200.val.zip" \
        --labels "$labels" --model "$network" --weights "$weights" --recipe "$recipe" \
        -o "$run" "$@"
}

grow() {  # CHECKPOINT NETWORK OUT
    python "$here/../tools/grow.py" "$1" "$here/$2.json" "$3"
}

mkdir -p runs
regnet convert "$before" --resize 128 --crop 128 --labels "$labels" --name before -o runs

grow "$before" bundled runs/grown.safetensors
train bundled-first bundled runs/grown.safetensors "$@"

grow runs/bundled-first/weights.safetensors bundled-small runs/small.safetensors
train bundled-second bundled-small runs/small.safetensors "$@"

train bundled bundled-small runs/bundled-second/weights.safetensors \
    --teacher runs/before.xml:bf16 --teacher runs/bundled-second/bundled-second.xml:bf16 "$@"

python "$here/../tools/temper.py" runs/bundled/weights.safetensors \
    runs/bundled/bundled-calibrated.xml runs/tempered.safetensors
grow runs/tempered.safetensors bundled runs/bundled.safetensors
regnet convert runs/bundled.safetensors --card bundled --name bundled --precision fp16 -o runs
python "$here/../tools/any_size.py" runs/bundled-fp16.xml
