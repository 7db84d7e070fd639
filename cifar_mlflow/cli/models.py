"""What is done with a logged model."""

import json
from contextlib import nullcontext

import click

from cifar_mlflow.cli.options import choice
from cifar_mlflow.cli.output import file_to, lines_to
from cifar_mlflow.errors import DataError
from cifar_mlflow.records import CALIBRATED, WEIGHTS
from cifar_mlflow.tables import csv_lines, table
from cifar_mlflow.text import count, printable

which_weights = choice("--weights", values=WEIGHTS, help="which epoch's weights, if MODEL is a run")
FORM = choice("--format", "form", values=("table", "json", "csv"))


@click.command()
@click.argument("model")
@which_weights
@click.option("--dataset", metavar="PATH", help="score on the test set of another dataset with the same classes")
@click.option("--data-dir", metavar="PATH", help="where the data are now: a directory, or the .npz file  [as recorded]")
@choice(
    "--views",
    values=("1", "2", "6"),
    help="test-time augmentation: see each image mirrored too (2), and shifted by a pixel (6)",
)
@FORM
def evaluate(model: str, weights: str, dataset: str | None, data_dir: str | None, views: str, form: str) -> None:
    """Score MODEL on the test set; the result is written to the run that trained it.

    MODEL is a run (its id, a beginning of it with 6 digits or more, or its name), a sweep for its winner, NAME@ALIAS,
    models:/NAME/VERSION or models:/m-...
    """
    from cifar_mlflow.jobs.evaluate import evaluate as job
    from cifar_mlflow.jobs.evaluate import per_class_csv

    outcome = job(model, weights=weights, dataset=dataset, data_dir=data_dir, views=int(views))
    if form == "csv":
        click.echo(per_class_csv(outcome), nl=False)
        return
    if form == "json":
        summary = {"model": outcome.model_uri, "run_id": outcome.run_id, "dataset": outcome.dataset}
        click.echo(json.dumps({**summary, **outcome.metrics, "classes": outcome.rows()}, indent=2))
        return
    score, (low, high) = outcome.score, outcome.interval
    rows = [
        ["-" if cell is None else f"{cell:.1f}%" if isinstance(cell, float) else str(cell) for cell in row.values()]
        for row in outcome.rows()
    ]
    click.echo(table(rows, "lrrr", ("class", "precision", "recall", "images")))
    balanced = f", balanced {outcome.balanced_accuracy:.2f}%" if outcome.balanced_accuracy is not None else ""
    click.echo(
        f"{outcome.dataset} test accuracy {score.accuracy:.2f}% (95% interval {low:.2f} to {high:.2f}, "
        f"{score.images:,} images){balanced}, loss {score.loss:.4f}, calibration error {score.calibration_error:.2f}%"
    )
    click.echo(f"written to the run {outcome.run_id}")


@click.command()
@click.argument("model")
@choice("--weights", values=tuple(CALIBRATED), help="which epoch's weights, if MODEL is a run")
@click.option("--data-dir", metavar="PATH", help="where the data are now, as in evaluate")
@choice("--format", "form", values=("table", "json"))
def calibrate(model: str, weights: str, data_dir: str | None, form: str) -> None:
    """Have the probabilities of MODEL mean what they say, by one temperature fitted on its validation images.

    The temperature divides what the network answers before it becomes probabilities (Guo et al., 2017): which class is
    the most probable stays as it is. The result is another model of the same run, which --weights calibrated names (of
    the best epoch's weights, best_calibrated), and which is evaluated and promoted like any other.
    """
    from cifar_mlflow.jobs.models.calibrate import calibrate as job

    outcome = job(model, weights=weights, data_dir=data_dir)
    if form == "json":
        click.echo(json.dumps(vars(outcome), indent=2))
        return
    rows = [
        ("calibration error, validation", outcome.validation_calibration_error,
         outcome.calibrated_validation_calibration_error, "%"),
        ("calibration error, test", outcome.test_calibration_error, outcome.calibrated_test_calibration_error, "%"),
        ("loss, validation", outcome.validation_loss, outcome.calibrated_validation_loss, ""),
        ("accuracy, test", outcome.test_accuracy, outcome.calibrated_test_accuracy, "%"),
    ]  # fmt: skip
    digits = {"%": 2, "": 4}
    cells = [
        (
            name,
            *(f"{value:.{digits[unit]}f}{unit}" for value in values),
        )
        for name, *values, unit in rows
    ]
    click.echo(table(cells, "lrr", ("", "before", "after")))
    click.echo(
        f"temperature {outcome.temperature:.4f}, fitted on {count(outcome.validation_images, 'validation image')}"
    )
    click.echo(f"logged as {outcome.model_uri}, the {outcome.weights} weights of the run {outcome.run_id}")


@click.command()
@click.argument("model")
@which_weights
@choice("--format", "form", values=("onnx",))
@click.option("--output", metavar="FILE", default="model.onnx", show_default=True, help="file to write")
def export(model: str, weights: str, form: str, output: str) -> None:
    """Write MODEL as an ONNX file, which needs neither torch nor this package; it is proven before it is written.

    It takes uint8 images (any number, height, width, channels) and answers probabilities, normalization and softmax
    included; the names of the classes are in its metadata. onnxruntime, in a process of its own, must answer the
    example that was recorded with the model within 0.0001, or no file is written.

    Needs the packages of `pip install 'cifar-mlflow[onnx]'`. MODEL is named as in evaluate.
    """
    from cifar_mlflow.jobs.models.export import export as job

    with file_to("--output", output) as write:  # first: what cannot be written is told before anything is read
        outcome = job(model, weights=weights, form=form)
        write(outcome.content)
    click.echo(f"{outcome.model_uri}: the recorded example is answered within {outcome.difference:.1g}")


@click.command()
@click.argument("sweep")
@click.option("--data-dir", metavar="PATH", help="where the data are now, as in evaluate")
@click.option(
    "--count", "most", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="images told of"
)
@FORM
@click.option("--contact-sheet", metavar="FILE", help="PNG file to write with the first of the list")
def mislabelled(sweep: str, data_dir: str | None, most: int, form: str, contact_sheet: str | None) -> None:
    """List the training images whose labels are likely to be wrong, the most suspicious first.

    SWEEP has folds: each of its runs was trained without one part of the training images, and judged that part. Taken
    are the runs of the best configuration; an image is ranked by the mean probability of its label less that of the
    most probable other class, and called likely where confident learning counts it (Northcutt et al., 2021).

    The whole list and the contact sheet are recorded at the sweep, as mislabelled.csv and mislabelled.png.
    """
    from cifar_mlflow.jobs.models.mislabelled import COLUMNS
    from cifar_mlflow.jobs.models.mislabelled import mislabelled as job

    with nullcontext() if contact_sheet is None else file_to("--contact-sheet", contact_sheet) as write:
        outcome = job(sweep, data_dir=data_dir)
        if write:
            write(outcome.contact_sheet)
    suspects = outcome.suspects[:most]
    if form == "csv":
        click.echo(csv_lines([COLUMNS, *(vars(each).values() for each in suspects)]), nl=False)
    elif form == "json":
        summary = {"sweep": outcome.sweep, "run_id": outcome.run_id, "configuration": outcome.configuration}
        counts = {"images": len(outcome.suspects), "likely": outcome.likely}
        click.echo(json.dumps({**summary, **counts, "suspects": [vars(each) for each in suspects]}, indent=2))
    else:
        rows = [
            (str(each.rank), printable(each.image), each.label, each.predicted, f"{each.margin:.3f}",
             f"{each.contradicted} of {each.runs}", "yes" if each.likely else "no")
            for each in suspects
        ]  # fmt: skip
        headings = ("rank", "image", "label", "taken for", "margin", "runs against", "likely")
        click.echo(table(rows, "rlllrrl", headings))
        images = count(len(outcome.suspects), "training image")
        click.echo(f"{outcome.likely:,} of {images} are likely to be mislabelled")


@click.command()
@click.argument("model")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@which_weights
@click.option(
    "--top", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="classes told of each image"
)
@FORM
@click.option("--output", metavar="FILE", help="file to write to  [standard output]")
def predict(model: str, images: tuple[str, ...], weights: str, top: int, form: str, output: str | None) -> None:
    """Say which class MODEL sees in each IMAGE, and how probable it is.

    MODEL is named as in evaluate. IMAGE is a PNG, JPEG, WebP, BMP, TIFF or GIF file, a directory (all such files in it
    and below), or an .npz file with the array `images` or `x_test` (uint8; images, height, width, channels).

    An image of the model's size is taken as it is. Any other is scaled (bicubic) until its shorter side fits, and its
    centre is cut out. EXIF orientation is applied, transparency laid on white, 16-bit gray scaled to 8 bits, colours
    turned to what the model takes. Images of several frames, of 32 bits or of more than 89 million pixels are refused.

    Images that cannot be read are named and skipped; the exit code is then 3.
    """
    from cifar_mlflow.jobs import predict as job
    from cifar_mlflow.jobs.listener import say

    told = skipped = 0
    with lines_to(output, job.files_of(images) if output else ()) as write:
        outcome = job.predict(model, images, weights=weights, top=top)
        write(job.heading(outcome, form))
        for result in outcome.results:
            if isinstance(result, job.Prediction):
                told += 1
                write(job.line(outcome, result, form))
            else:
                skipped += result.images
                say(f"skipped {printable(result.name)}: {printable(result.reason)}")
    if skipped:
        raise DataError(f"{skipped:,} of {told + skipped:,} images could not be read")
