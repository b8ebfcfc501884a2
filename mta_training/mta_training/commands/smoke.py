"""A few seconds of synthetic driving as bags: `--smoke` needs nothing else."""

from pathlib import Path

from mta_training.conversion.convert import convert
from mta_training.synth.dataset.generate import synthesise

FOLDER = Path('runs') / 'smoke'


def smoke_bags(folder=FOLDER):
    """Directory of bags of three short drives, drawn at a quarter of the size; made once."""
    folder = Path(folder)
    synthesise(
        folder / 'synth', 3, seed=1, image_size=(448, 252), sweeps=False, seconds=4.0, lidar=True
    )
    convert(folder / 'synth', folder / 'bags')
    return folder / 'bags'
