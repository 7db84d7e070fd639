"""Loads an ONNX file as a stranger would, lets it answer an example, and writes what came of it as JSON.

    python -P onnx_process.py MODEL.onnx EXAMPLE.npy RESULT_FILE

Run as a process of its own, in which neither this package nor torch can be imported.
"""

import json
import sys
import time


def main(model_file: str, example_file: str, result_file: str) -> None:
    import numpy as np
    import onnxruntime

    begun = time.perf_counter()
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    (images,), example = session.get_inputs(), np.load(example_file, allow_pickle=False)
    # One after the other, and all at once: it must take any number of images.
    answers = [session.run(None, {images.name: part})[0] for part in (*np.split(example, len(example)), example)]
    apart, together = np.concatenate(answers[:-1]), answers[-1]
    if not np.allclose(apart, together, rtol=0, atol=1e-4):
        raise ValueError("it answers several images otherwise than each by itself")
    seconds = time.perf_counter() - begun
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump({"seconds": seconds, "probabilities": together.tolist()}, file)


if __name__ == "__main__":
    for name in ("cifar_mlflow", "torch"):
        sys.modules[name] = None  # type: ignore[assignment]  # from here on, importing it is an ImportError
    main(*sys.argv[1:])
