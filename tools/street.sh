#!/usr/bin/env bash
# Train `street` in the minutes that a GPU machine is there for: draw, learn, pack what is to be
# carried home in files under 16 MB.  Wants torch, OpenCV, numba, shapely, scipy, transformers,
# accelerate, pydantic, typer; no ROS, no bags, no dataset.
#
#   tools/street.sh OUT MINUTES [SEED] [further options of `train`]
set -euo pipefail
out=$1 minutes=$2 seed=${3:-2026}
shift; shift; shift || true
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here:$here/mta_training${PYTHONPATH:+:$PYTHONPATH}"
export OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
run=${STREET_RUN:-$out/run}
python3 -m mta_training.commands.cli train --world "$seed" --config "${STREET_CONFIG:-street}" \
    --minutes "$minutes" --out "$run" "$@" && status=0 || status=$?
python3 - "$run" "$out" <<'PACK'
"""Weights without the optimiser's state and the memories, in pieces; log, curves, recipe."""
import pathlib
import shutil
import sys

import torch

run, out = map(pathlib.Path, sys.argv[1:])
state = torch.load(run / 'last.pt', map_location='cpu', weights_only=True)
kept = {name: value for name, value in state.items() if name not in ('optimizer', 'memory')}
torch.save(kept, out / 'weights.pt')
data = (out / 'weights.pt').read_bytes()
(out / 'weights.pt').unlink()
for part, start in enumerate(range(0, len(data), 15 << 20)):
    (out / f'weights.pt.{part}').write_bytes(data[start : start + (15 << 20)])
for name in ('log.csv', 'curves.png', 'recipe.yaml'):
    if (run / name).is_file():
        shutil.copy(run / name, out / name)
PACK
exit $status
