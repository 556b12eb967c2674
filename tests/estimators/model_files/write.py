"""Write a model file of each public estimator, and what the models say, for later versions to read.

    PYTHONPATH=tests python tests/estimators/model_files/write.py

Run once for each version that is released; `test_persistence.py` reads the files of all versions.
"""

import sys
from pathlib import Path

import numpy as np
from registry import CASES

import skae


def main():
    """Write a folder of this version; one that is there stays as it is."""
    folder = Path(__file__).parent / skae.__version__
    folder.mkdir()
    said = {}
    for case in CASES:
        model = case.fit()
        # What continues a training is longer than the model.
        vars(model).pop("_training_state", None)
        skae.save(model, folder / f"{case}.skae")
        said[str(case)] = case.output(model)[:8]
    np.savez_compressed(folder / "said.npz", **said)


if __name__ == "__main__":
    sys.exit(main())
