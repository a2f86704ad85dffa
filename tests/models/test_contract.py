"""What every combination of encoder, fusion, head and arm promises."""

from __future__ import annotations

import pytest
import torch

from osteofusion.models import (
    CLINICAL_ENCODERS,
    FUSIONS,
    HEADS,
    IMAGE_ENCODERS,
    FusionClassifier,
    build_loss,
)

TIMM = {"name": "timm", "backbone": "resnet10t"}
CNN = {"name": "cnn", "channels": [8, 8, 16]}
IMAGES = {"timm": TIMM, "cnn": CNN}

CASES: dict[str, dict] = {
    **{f"fusion={name}": {"fusion": {"name": name}} for name in FUSIONS},
    "fusion=late, fixed": {"fusion": {"name": "late", "image_weight": 0.3}},
    **{
        f"clinical={name}, fusion={fusion}": {
            "clinical_encoder": {"name": name},
            "fusion": {"name": fusion},
        }
        for name in CLINICAL_ENCODERS
        for fusion in ("concat", "cross_attention")
    },
    "clinical=piecewise linear": {
        "clinical_encoder": {"name": "embedded_mlp", "embedding": "piecewise_linear"}
    },
    **{
        f"image={name}, fusion={fusion}": {
            "image_encoder": IMAGES[name],
            "fusion": {"name": fusion},
        }
        for name in IMAGE_ENCODERS
        for fusion in ("gated", "daft")
    },
    **{f"head={name}": {"head": name} for name in HEADS},
    "arm=image": {"arm": "image"},
    "arm=tabular": {"arm": "tabular"},
    "arm=tabular, head=proportional_odds": {"arm": "tabular", "head": "proportional_odds"},
    "auxiliary and T-score": {"auxiliary": True, "t_score": True, "fusion": {"name": "film"}},
}
EVERY = pytest.mark.parametrize("case", CASES)


PACKAGES = {"embedded_mlp": "rtdl_num_embeddings", "ft_transformer": "rtdl_revisiting_models"}


def build(spec, case):
    torch.manual_seed(0)
    options = CASES[case]
    encoder = options.get("clinical_encoder", {}).get("name")
    if encoder in PACKAGES:
        pytest.importorskip(PACKAGES[encoder], reason="needs the extra `tabular`")
    classes = 2 if options.get("head") == "sigmoid" else 3
    return FusionClassifier(classes, **{"preprocessing": spec, "image_encoder": CNN, **options})


def awaken(model):
    """Give zero-initialised parts an effect, so that a test can see what flows through them."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def ragged(batch):
    """The batch with an image missing in row 2 and clinical values missing in row 5."""
    image, clinical, present = batch
    present[2, 0] = present[5, 1] = False
    return image, clinical, present


@EVERY
def test_row_alone_equals_row_in_batch(spec, ragged, case):
    model = awaken(build(spec, case)).eval()
    with torch.no_grad():
        together = model(*ragged)
        alone = torch.cat([model(*(x[i : i + 1] for x in ragged)) for i in range(8)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    assert together.isfinite().all()


@EVERY
def test_permuted_rows_permute_outputs(spec, ragged, case):
    model = awaken(build(spec, case)).eval()
    order = torch.tensor([3, 1, 7, 0, 6, 5, 2, 4])
    with torch.no_grad():
        expected = model(*ragged)[order]
        assert not torch.allclose(expected, model(*ragged), atol=1e-4)
        torch.testing.assert_close(
            model(*(x[order] for x in ragged)), expected, atol=1e-5, rtol=1e-5
        )


@EVERY
def test_batch_of_one_trains(spec, batch, case):
    model = build(spec, case).train()
    loss = build_loss("cross_entropy")(model(*(x[:1] for x in batch)), torch.tensor([1]))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def everything(model, inputs, target):
    """A loss that every head takes part in."""
    outputs = model.outputs(*inputs)
    loss = build_loss("cross_entropy")(outputs.logits, target)
    for logits in (outputs.image_logits, outputs.clinical_logits):
        if logits is not None:
            loss = loss + build_loss("cross_entropy")(logits, target)
    if outputs.t_score is not None:
        loss = loss + model.t_score_head.loss(outputs.t_score, torch.linspace(-3, 1, 8))
    return loss


@EVERY
def test_every_parameter_learns_within_two_steps(spec, ragged, case):
    model = build(spec, case).train()
    target = torch.arange(8) % model.num_classes
    inputs = list(ragged)
    if model.arm != "fused":  # so that the learned token of the arm's modality is used
        inputs[2] = torch.ones(8, 2, dtype=torch.bool)
        inputs[2][2] = False
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    reached = set()
    for _ in range(2):
        optimiser.zero_grad()
        everything(model, inputs, target).backward()
        reached |= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimiser.step()
    waiting = {n for n, p in model.named_parameters() if p.requires_grad} - reached
    # The bias of attention keys shifts all scores of a query alike, which softmax cancels.
    assert {n for n in waiting if "backbone" not in n or "W_k.bias" not in n} == set()


def test_gradient_exemption_is_what_it_says(spec, ragged):
    """The one exemption above: a constant added to all of a query's scores changes nothing."""
    model = build(spec, "clinical=ft_transformer, fusion=concat").eval()
    with torch.no_grad():
        before = model(*ragged)
        biases = [p for n, p in model.named_parameters() if n.endswith("W_k.bias")]
        for bias in biases:
            bias += 3.0
        torch.testing.assert_close(model(*ragged), before, atol=1e-5, rtol=1e-5)
    assert biases


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("column", [0, 1])
@EVERY
def test_values_of_an_absent_modality_change_nothing(spec, batch, case, column, training):
    image, clinical, present = batch
    present[2:5, column] = False
    poisoned = [image.clone(), clinical.clone()]
    poisoned[column][2:5] = torch.nan if column == 0 else torch.inf
    model = awaken(build(spec, case)).train(training)
    results = []
    for inputs in ((image, clinical), poisoned):
        torch.manual_seed(1)
        model.zero_grad()
        everything(model, (*inputs, present), torch.arange(8) % model.num_classes).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        torch.manual_seed(1)
        results.append([model(*inputs, present), *(g.clone() for g in gradients)])
    for clean, poison in zip(*results, strict=True):
        torch.testing.assert_close(clean, poison, atol=1e-6, rtol=1e-5)


@EVERY
def test_saved_folder_gives_the_same_model(spec, ragged, case, tmp_path):
    model = awaken(build(spec, case)).eval()
    model.save_pretrained(tmp_path / "model")
    again = FusionClassifier.from_pretrained(tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {
        ".json",
        ".safetensors",
        ".md",
    }
    assert torch.equal(again(*ragged), model(*ragged))
    assert again.config == model.config


@pytest.mark.parametrize(
    "case",
    [  # an export takes a second, so only a part of them runs each time
        pytest.param(case, marks=[] if case.startswith(("fusion", "arm")) else pytest.mark.slow)
        for case in CASES
    ],
)
def test_exports(spec, ragged, case):
    model = awaken(build(spec, case)).eval()
    # rtdl's attention takes len() of a tensor, which fixes the batch size of an export.
    if "ft_transformer" in case:
        program = torch.export.export(model, ragged)
    else:
        rows = {0: torch.export.Dim("rows")}
        some = tuple(x[:3] for x in ragged)
        program = torch.export.export(model, some, dynamic_shapes=(rows, rows, rows))
    torch.testing.assert_close(program.module()(*ragged), model(*ragged), atol=1e-5, rtol=1e-5)


@EVERY
def test_probabilities_sum_to_one(spec, ragged, case):
    model = awaken(build(spec, case)).eval()
    probabilities = model.probabilities(model(*ragged))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))
    assert (probabilities >= 0).all()
