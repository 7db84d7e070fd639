"""`promote`, `rollback` and `history`: gates that gate, and a champion that was always proven."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("smoke_here")


def gates(verdict):
    return {gate["name"]: gate["passed"] for gate in verdict["gates"]}


def version_tags(client, version):
    return client().get_model_version("tiny", version).tags


# ------------------------------------------------------------------------------------------------------- the rule


def test_first_tie_and_broken(promote, candidates, champion, client):
    code, first = promote(candidates.good[0])
    assert (code, first["status"], first["version"], champion()) == (0, "promoted", "1", "1")
    code, second = promote(candidates.good[1])
    assert (code, second["champion"], champion(), champion("previous")) == (0, "1", "2", "1")
    code, broken = promote(candidates.broken)
    assert (code, broken["failed"], champion()) == (7, ["champion"], "2")
    assert "worse" in version_tags(client, "3")["rejected"]
    assert broken["rivals"]["only_champion"] > 10
    assert broken["rivals"]["images"] == 30


def test_better_keeps_the_champion_at_a_tie(promote, candidates, champion):
    promote(candidates.broken)
    assert promote(candidates.good[0], "--require", "better")[0] == 0
    code, verdict = promote(candidates.good[1], "--require", "better")
    assert (code, verdict["failed"], champion()) == (7, ["champion"], "2")


def test_every_gate_is_reported_not_only_the_first(promote, candidates):
    promote(candidates.good[0])
    code, verdict = promote(candidates.broken, "--min-accuracy", 90, "--min-class-recall", 80)
    assert code == 7
    assert gates(verdict) == {"record": True, "integrity": True, "smoke": True, "evaluation": True,
                              "accuracy": False, "class recall": False, "champion": False}  # fmt: skip


def test_force_is_recorded_and_shown_ever_after(promote, candidates, champion, client, cifar):
    promote(candidates.good[0])
    code, verdict = promote(candidates.broken, "--force", "the old one is too slow")
    assert (code, verdict["status"], champion()) == (0, "promoted", "2")
    assert version_tags(client, "2")["forced"] == "the old one is too slow"
    promote(candidates.good[1])
    assert "forced: the old one is too slow" in " ".join(cifar("history", "tiny").stdout.split())
    assert "the old one is too slow" in client().get_registered_model("tiny").description


def test_no_reason_makes_changed_files_safe(promote, candidates, model_directory, champion):
    promote(candidates.good[0])
    (model_directory(candidates.good[1]) / "requirements.txt").write_text("evil\n")
    code, verdict = promote(candidates.good[1], "--force", "I want it")
    assert (code, verdict["status"], verdict["forced"], champion()) == (7, "refused", None, "1")


def test_what_a_version_was_promoted_by_stays_told(promote, candidates, client, cifar):
    promote(candidates.good[0])
    promote(candidates.good[1])
    before = client().get_model_version("tiny", "1").description
    assert promote(candidates.good[0], "--require", "better")[0] == 7
    tags = version_tags(client, "1")
    assert (tags["verdict"], client().get_model_version("tiny", "1").description) == ("promoted", before)
    assert "champion" in tags["rejected"]


def test_a_force_that_was_not_needed_leaves_no_mark(promote, candidates, client):
    assert promote(candidates.good[0], "--force", "hurry")[1]["forced"] is None
    assert "forced" not in version_tags(client, "1")


def test_dry_run_writes_nothing(promote, candidates, client, work):
    before = (work / "mlflow.db").read_bytes()
    code, verdict = promote(candidates.good[0], "--dry-run")
    assert (code, verdict["status"], verdict["version"]) == (0, "dry run", None)
    assert (work / "mlflow.db").read_bytes() == before
    promote(candidates.good[0])
    code, verdict = promote(candidates.broken, "--dry-run")
    assert (code, verdict["failed"]) == (7, ["champion"])
    assert len(client().search_model_versions("name='tiny'")) == 1


def test_the_same_model_is_registered_once(promote, candidates, champion, client):
    promote(candidates.good[0])
    promote(candidates.good[1])
    code, verdict = promote(candidates.good[1])
    assert (code, verdict["status"]) == (0, "already there")
    code, verdict = promote("models:/tiny/1")
    assert (code, verdict["version"], champion(), champion("previous")) == (0, "1", "1", "2")
    assert len(client().search_model_versions("name='tiny'")) == 2


def test_what_was_not_evaluated_is_evaluated_the_champion_too(promote, candidates, client):
    def forget(run_id):
        for path in (Path(client().get_run(run_id).info.artifact_uri)).glob("test_predictions.npz"):
            path.unlink()

    promote(candidates.good[0])
    forget(candidates.good[0])
    forget(candidates.good[1])
    assert promote(candidates.good[1])[1]["rivals"]["images"] == 30
    assert client().get_run(candidates.good[0]).data.tags["test_evaluations"] == "2"


def test_another_test_set_is_no_comparison(promote, candidates, client):
    promote(candidates.good[0])
    client().set_tag(candidates.good[1], "test_digest", "0" * 32)
    code, verdict = promote(candidates.good[1])
    assert (code, verdict["failed"]) == (7, ["evaluation", "champion"])
    assert verdict["rivals"] is None


def test_a_champion_that_is_gone_is_no_comparison_but_can_be_replaced(promote, candidates, client, champion):
    promote(candidates.good[0])
    client().delete_logged_model(client().get_model_version("tiny", "1").source.removeprefix("models:/"))
    code, verdict = promote(candidates.good[1])
    assert (code, verdict["failed"]) == (7, ["champion"])
    assert "not comparable with version 1" in verdict["gates"][-1]["observed"]
    assert promote(candidates.good[1], "--force", "the old one was deleted")[0] == 0
    assert champion() == "2"


def test_best_weights_are_a_model_of_their_own(promote, candidates, client):
    code, verdict = promote(candidates.good[0], "--weights", "best")
    assert code == 0
    assert client().get_run(candidates.good[0]).data.metrics["best_test_accuracy"] == verdict["test_accuracy"]


def test_the_winner_of_a_sweep(cifar, tiny, work, client):
    spec = work / "two.yaml"
    spec.write_text(f"name: two\nbase: {{dataset: {tiny}, epochs: 3, batch_size: 8, scheduler: none}}\n"
                    "space: {learning_rate: [0.002, 1.0e-7]}\nrepeats: 1\nworkers: 1\n")  # fmt: skip
    assert cifar("sweep", spec).code == 0
    outcome = cifar("promote", "--best-of", "two", "--format", "json")
    assert outcome.code == 0, outcome.output
    run = client().get_run(json.loads(outcome.stdout)["run_id"])
    assert run.data.params["learning_rate"] == "0.002"


# ----------------------------------------------------------------------------------------------- the way back


def test_three_forward_three_back(promote, candidates, cifar, champion):
    for run in candidates.good[:3]:
        promote(run)
    assert champion("previous") == "2"
    assert "version 2 is champion again" in cifar("rollback", "tiny").stdout
    assert (champion(), champion("previous")) == ("2", "1")
    assert cifar("rollback", "tiny", "--reason", "users complained").code == 0
    assert (champion(), champion("previous")) == ("1", None)
    third = cifar("rollback", "tiny")
    assert third.code == 7
    assert "nothing to roll tiny back to" in third.stderr
    assert "users complained" in cifar("history", "tiny").stdout


def test_rollback_passes_over_a_version_that_was_deleted(promote, candidates, cifar, champion, client):
    for run in candidates.good[:3]:
        promote(run)
    client().delete_model_version("tiny", "2")
    assert cifar("rollback", "tiny").code == 0
    assert champion() == "1"


def test_an_alias_that_was_moved_by_hand_is_taken_as_it_is(promote, candidates, cifar, champion, client):
    promote(candidates.good[0])
    promote(candidates.broken)
    client().set_registered_model_alias("tiny", "champion", "2")
    assert promote(candidates.good[1])[1]["champion"] == "2"
    story = json.loads(cifar("history", "tiny", "--format", "json").stdout)
    assert [move["action"] for move in story["moves"]] == ["promote", "outside", "promote"]
    assert cifar("rollback", "tiny").code == 0
    assert champion() == "2"


def test_an_alias_of_another_name_has_a_history_of_its_own(promote, candidates, cifar, champion):
    promote(candidates.good[0])
    promote(candidates.good[1], "--alias", "staging")
    promote(candidates.good[2], "--alias", "staging")
    assert (champion(), champion("staging"), champion("previous-staging")) == ("1", "3", "2")
    assert cifar("rollback", "tiny").code == 7
    assert cifar("rollback", "tiny", "--alias", "staging").code == 0
    assert champion("staging") == "2"


# -------------------------------------------------------------------------------------------- what one can read


def test_the_verdict_is_kept_with_the_run_and_the_version(promote, candidates, client):
    _, verdict = promote(candidates.good[0])
    description = client().get_model_version("tiny", "1").description
    (path,) = re.findall(r"`(promotion/.*json)`", description)
    kept = json.loads(Path(client().download_artifacts(candidates.good[0], path)).read_text())
    assert kept == verdict
    assert {"gates", "by", "time", "commit", "version", "champion", "rivals"} <= set(kept)
    assert description.startswith("tiny version 1 became champion, the first (")
    assert description.count("\n| ") == 2 + len(kept["gates"])  # below the headings and a rule


def test_a_description_that_a_user_wrote_stays(promote, candidates, client):
    promote(candidates.good[0])
    client().update_registered_model("tiny", "our own words")
    promote(candidates.good[1])
    assert client().get_registered_model("tiny").description == "our own words"


def test_history_as_a_table(promote, candidates, cifar):
    promote(candidates.good[0])
    promote(candidates.broken)
    text = cifar("history", "tiny").stdout
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [["1", "champion"], ["2", "-"]]
    assert "champion to version 1, promoted by" in text


BAD_OPTIONS = ("--min-accuracy", 101, "--significance", 0, "--alias", "v1", "--name", "a/b", "--force", " ")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "either MODEL or --best-of"),
        (["x", "--best-of", "y"], 2, "either MODEL or --best-of"),
        (["x", *BAD_OPTIONS], 2, "5 faults"),
        (["x", "--alias", "previous"], 2, "kept for the version that rollback brings back"),
        (["x"], 6, "names no model"),
        (["0" * 32], 6, "there is no run"),
        (["--best-of", "nothing"], 6, "there is no sweep"),
        (["--best-of", "it's"], 6, "there is no sweep"),
    ],
)  # fmt: skip
def test_what_cannot_be_promoted(cifar, words, code, said):
    outcome = cifar("promote", *words)
    assert outcome.code == code
    assert said in outcome.stderr


@pytest.mark.parametrize("command", ["rollback", "history"])
def test_a_name_that_is_not_registered(cifar, command):
    outcome = cifar(command, "nobody's")
    assert outcome.code == 6
    assert "there is no registered model" in outcome.stderr
