"""What is listed as a mutant that cannot be noticed is still in the code."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_every_listed_line_is_there_and_has_a_reason():
    for entry in yaml.safe_load((ROOT / "tests" / "equivalent_mutants.yaml").read_text()):
        assert entry["why"]
        lines = (ROOT / "cifar_mlflow" / entry["module"]).read_text().splitlines()
        assert entry["was"] in map(str.strip, lines), entry
