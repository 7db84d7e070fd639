"""What is listed as a mutant that cannot be noticed is still in the code."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_listed_line_is_there_and_has_a_reason():
    for entry in yaml.safe_load((Path(__file__).with_name("equivalent_mutants.yaml")).read_text()):
        assert entry["why"]
        pattern = "**/*.py" if entry["module"] == "*" else entry["module"]
        text = "\n".join(path.read_text() for path in (ROOT / "cifar_mlflow").glob(pattern))
        assert entry["was"] in map(str.strip, text.splitlines()), entry
