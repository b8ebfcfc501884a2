#!/usr/bin/env bash
# The real drive (PandaSet sequence 002, CC BY 4.0) through import, converter, player, node and
# recorder; film, numbers, evaluation in OUT.  Skipped, with the reason, where the data is absent.
#
#   tools/real.sh BIN OUT [MODEL]     BIN: directory of mta and mta-train
set -euo pipefail
bin=$1 out=$2 model=${3:-nano}
here=$(cd "$(dirname "$0")/.." && pwd)
data=${MTA_SHARED:-$here/../shared}/data/pandaset_002
if [ ! -d "$data/camera" ]; then
    echo "make real: skipped, no real drive in $data (see its README for where it comes from)"
    exit 0
fi
mkdir -p "$out"
rm -rf "$out/dataset" "$out/bags"
"$bin/mta-train" import-pandaset "$data" --out "$out/dataset"
"$bin/mta-train" convert "$out/dataset" --out "$out/bags"
"$bin/mta" demo --scene "$out/bags/pandaset-002" --model "$model" --out "$out/drive"
"$bin/mta-train" eval --model "$here/models/$model" --bags "$out/bags" --out "$out/report"
