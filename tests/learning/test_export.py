"""The exported model, and the weights it has."""

import pytest
import torch

from cifar_mlflow.learning import evaluation, export


def same(first, second):
    return all(first[name].equal(second[name]) for name in first)


class TestTheExportedModel:
    @pytest.fixture
    def trained(self, prepare):
        training = prepare(normalize=True, dropout=0.2)
        return training, list(training.epochs())[-1]

    def test_has_the_accuracy_that_was_measured(self, trained):
        training, result = trained
        model = export.classifier(training.preprocessing, training.network, training.weights())
        probabilities = evaluation.predict(model, training._held_out)
        accuracy = 100 * (probabilities.argmax(1) == training._held_out.labels.numpy()).mean()
        assert accuracy == pytest.approx(result.held_out_accuracy)

    def test_gives_probabilities_and_no_gradient(self, trained):
        training, _ = trained
        model = export.classifier(training.preprocessing, training.network, training.weights())
        answers = model(training._held_out.pixels)
        assert answers.dtype == torch.float32
        torch.testing.assert_close(answers.sum(1), torch.ones(len(answers)))
        assert not answers.requires_grad
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.training

    def test_is_a_copy(self, trained):
        training, _ = trained
        before = training.weights()
        model = export.classifier(training.preprocessing, training.network, before)
        for parameter in model.parameters():
            parameter.data.zero_()
        assert same(before, training.weights())
        assert all(parameter.requires_grad for parameter in training.network.parameters())

    def test_can_have_earlier_weights(self, prepare):
        training = prepare()
        results = training.epochs()
        next(results)
        early = training.weights()
        images = training._held_out
        expected = evaluation.predict(export.classifier(training.preprocessing, training.network, early), images)
        next(results)
        again = export.classifier(training.preprocessing, training.network, early)
        now = export.classifier(training.preprocessing, training.network, training.weights())
        assert (evaluation.predict(again, images) == expected).all()
        assert (evaluation.predict(now, images) != expected).any()

    def test_is_the_same_after_torch_export_for_any_number_of_uint8_images(self, trained, tmp_path):
        training, _ = trained
        model = export.classifier(training.preprocessing, training.network, training.weights())
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(model, (training._held_out.pixels[:4],), dynamic_shapes=(batch,)).module()
        for count in (2, 3, 12):
            images = training._held_out.pixels[:count]
            torch.testing.assert_close(program(images), model(images))


def test_weights_are_a_copy(prepare):
    training = prepare(epochs=1)
    before = training.weights()
    list(training.epochs())
    assert not same(before, training.weights())
