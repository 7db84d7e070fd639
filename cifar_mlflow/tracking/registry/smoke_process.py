"""Loads a model as a stranger would, lets it answer its own example, and writes what came of it as JSON.

    python -P smoke_process.py MODEL_DIRECTORY RESULT_FILE

Run as a process of its own, in which this package cannot be imported and no pickle is loaded.
"""

import json
import os
import sys
import time


def main(model_directory: str, result_file: str) -> None:
    import mlflow.pyfunc
    import numpy as np

    begun = time.perf_counter()
    model = mlflow.pyfunc.load_model(model_directory)
    example = np.asarray(model.input_example, dtype=np.uint8)
    answer = model.predict(example)
    seconds = time.perf_counter() - begun
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump({"seconds": seconds, "probabilities": np.asarray(answer).tolist()}, file)


if __name__ == "__main__":
    sys.modules["cifar_mlflow"] = None  # type: ignore[assignment]  # from here on, importing it is an ImportError
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    main(*sys.argv[1:])
