"""The classifier: encoders, fusion and head behind one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from osteofusion.models.embeddings import FTTransformer, build_clinical_encoder
from osteofusion.models.fusion import (
    CLINICAL,
    FUSIONS,
    IMAGE,
    ConcatFusion,
    Fusion,
    ResidualLateFusion,
    ScoreFusion,
    SingleModality,
    score_head,
)
from osteofusion.models.heads import HEADS, Outputs, TScoreHead
from osteofusion.models.image import IMAGE_ENCODERS, StagedEncoder, encode_present
from osteofusion.models.registry import build
from osteofusion.models.regression import fit_regression, prior_deviations
from osteofusion.models.tabular import ClinicalEncoder, ClinicalPreprocessing
from osteofusion.models.validation import check_inputs

Arm = Literal["fused", "image", "tabular"]


class FusionClassifier(nn.Module, PyTorchModelHubMixin, library_name="osteofusion"):
    """Classes from a radiograph, clinical values, or both.

    All arguments are plain values, so that a checkpoint can hold them; `config` returns them ready
    to rebuild the same model around saved weights. ``save_pretrained(folder)`` writes them and the
    weights as JSON and safetensors, and ``from_pretrained(folder)`` reads them back.

    The clinical side has a linear path from the preprocessed values to the scores beside its
    encoder. It starts at zero, and keeps the network from losing to plain regression on small data.

    Args:
        num_classes: Number of classes C.
        arm: ``fused`` uses both modalities, ``image`` and ``tabular`` one.
        preprocessing: Dictionary of `ClinicalPreprocessing`; every arm but ``image`` needs it.
        image_encoder: ``name`` from `IMAGE_ENCODERS` (default ``timm``) and its arguments.
        clinical_encoder: ``name`` from `CLINICAL_ENCODERS` (default ``mlp``) and its arguments,
            without those that the preprocessing determines.
        fusion: ``name`` from `FUSIONS` (default ``concat``) and its arguments, without the widths
            of its inputs.
        dropout: Probability of dropping a unit before the last layer in training.
        head: ``softmax``, ``sigmoid`` (two classes), ``corn`` or ``proportional_odds`` (ordered).
        auxiliary: Also give logits from each modality alone; for the fused arm.
        t_score: Also regress the T-score.
        modality_dropout: Probability, in training, of withholding each modality of a row, never
            its last one; for the fused arm.

    Shape:
        - ``image``: (B, 1, H, W) float32 in [0, 1]
        - ``clinical``: (B, F) float64 in canonical units, NaN where missing
        - ``present``: (B, 2) bool, column 0 image, column 1 clinical; all present if not given
        - output: logits (B, C), whose softmax gives the class probabilities for every head

    Raises:
        ValueError: Unknown name or option, fewer than two classes, or a missing ``preprocessing``.
    """

    def __init__(
        self,
        num_classes: int,
        arm: Arm = "fused",
        preprocessing: Mapping[str, Any] | None = None,
        image_encoder: Mapping[str, Any] | None = None,
        clinical_encoder: Mapping[str, Any] | None = None,
        fusion: Mapping[str, Any] | None = None,
        dropout: float = 0.2,
        head: str = "softmax",
        auxiliary: bool = False,
        t_score: bool = False,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if arm not in get_args(Arm):
            raise ValueError(f"arm is {arm!r}; expected one of {list(get_args(Arm))}")
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; expected at least 2")
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"modality_dropout is {modality_dropout}; expected a share in [0, 1)")
        image_options = {"name": "timm", **(image_encoder or {})}
        self.num_classes = num_classes
        self.arm = arm
        self.modality_dropout = modality_dropout if arm == "fused" else 0.0
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "arm": arm,
            "preprocessing": preprocessing,
            # Weights come from the checkpoint when the model is rebuilt.
            "image_encoder": {k: v for k, v in image_options.items() if k != "pretrained"},
            "clinical_encoder": {"name": "mlp", **(clinical_encoder or {})},
            "fusion": {"name": "concat", **(fusion or {})},
            "dropout": dropout,
            "head": head,
            "auxiliary": auxiliary,
            "t_score": t_score,
            "modality_dropout": modality_dropout,
        }
        self._hub_mixin_config = self.config
        self.link = build("head", HEADS, head, num_classes)
        num_scores = self.link.num_scores

        self.image_encoder: StagedEncoder | None = None
        self.preprocessing: ClinicalPreprocessing | None = None
        self.clinical_encoder: ClinicalEncoder | FTTransformer | None = None
        self.skip: nn.Linear | None = None
        if arm != "tabular":
            self.image_encoder = build("image encoder", IMAGE_ENCODERS, **image_options)
        if arm != "image":
            if preprocessing is None:
                raise ValueError(f"preprocessing is None; the {arm} arm needs its dictionary")
            self.preprocessing = ClinicalPreprocessing(preprocessing)
            self.clinical_encoder = build_clinical_encoder(
                self.preprocessing, **self.config["clinical_encoder"]
            )
            self.skip = nn.Linear(self.preprocessing.out_features, num_scores)
            _zero(self.skip)

        self.fusion, image_dim, clinical_dim = self._build_fusion(num_scores)
        self.head: nn.Module = nn.Identity()
        if not isinstance(self.fusion, ScoreFusion):
            self.head = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(self.fusion.out_dim, num_scores)
            )
        self.image_head = self.clinical_head = self.t_score_head = None
        if auxiliary and arm == "fused":
            self.image_head = score_head(image_dim, num_scores, dropout)
            self.clinical_head = score_head(clinical_dim, num_scores, dropout)
        if t_score:
            self.t_score_head = TScoreHead(self.fusion.out_dim)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FusionClassifier:
        """Build the model that ``config`` describes, with random weights."""
        return cls(**config)

    def forward(
        self,
        image: Tensor | None = None,
        clinical: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, C); an input that the arm does not use may be left out.

        Values of an absent modality are replaced before any encoder sees them. Nothing is checked
        here: `validate` does that at the boundary.
        """
        return self.outputs(image, clinical, present).logits

    def outputs(
        self,
        image: Tensor | None = None,
        clinical: Tensor | None = None,
        present: Tensor | None = None,
        image_features: Tensor | None = None,
    ) -> Outputs:
        """Return logits and what the optional heads say, for the same inputs as `forward`.

        ``image_features``, what the image encoder made of the radiographs earlier, stand in for
        ``image``: (B, D), or the map (B, C, h, w) where the fusion reads one.
        """
        if present is None:
            given = next((x for x in (image, image_features, clinical) if x is not None), None)
            if given is None:
                raise ValueError("image and clinical are both None; expected at least one")
            present = torch.ones(given.shape[0], 2, dtype=torch.bool, device=given.device)
        if self.training and self.modality_dropout:
            present = self._withhold(present)
        nothing = present.new_zeros(present.shape[0], 0, dtype=torch.float)
        clinical_features = values = nothing
        if self.image_encoder is None:
            image_features = nothing
        elif image_features is None:
            if image is None:
                raise ValueError(f"image is None; the {self.arm} arm needs it")
            as_map = self.fusion.image_input == "map"
            image_features = encode_present(
                self.image_encoder, image, present[:, IMAGE], as_map=as_map
            )
        if self.preprocessing is not None and self.clinical_encoder is not None:
            if clinical is None:
                raise ValueError(f"clinical is None; the {self.arm} arm needs it")
            # An absent row is an all-missing row, which preprocessing knows how to fill.
            here = present[:, CLINICAL, None]
            clinical = torch.where(here, clinical, torch.full_like(clinical, torch.nan))
            values = self.preprocessing(clinical).to(next(self.clinical_encoder.parameters()).dtype)
            as_tokens = self.fusion.clinical_input == "tokens"
            encoder = self.clinical_encoder
            clinical_features = encoder.forward_tokens(values) if as_tokens else encoder(values)

        features = self.fusion(image_features, clinical_features, present)
        scores = self.head(features)
        if self.skip is not None:
            scores = scores + self.skip(values) * self.fusion.clinical_weight(present)
        image_logits = clinical_logits = t_score = None
        if self.image_head is not None and self.clinical_head is not None:
            if image_features.ndim == 4:
                image_features = image_features.mean(dim=(2, 3))
            if clinical_features.ndim == 3:
                clinical_features = clinical_features[:, 0]
            image_logits = self.link(self.image_head(image_features))
            clinical_logits = self.link(self.clinical_head(clinical_features))
        if self.t_score_head is not None:
            t_score = self.t_score_head(features)
        return Outputs(self.link(scores), present, image_logits, clinical_logits, t_score)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits (B, C) into class probabilities (B, C) that sum to one."""
        return logits.softmax(dim=1)

    def validate(
        self,
        image: Tensor | None = None,
        clinical: Tensor | None = None,
        present: Tensor | None = None,
    ) -> None:
        """Check the inputs of `forward`; meant for the boundary, since it reads values.

        Raises:
            ValueError: Wrong shape, dtype or feature count; a row without any modality that the
                arm uses; NaN or intensities outside [0, 1] in a present image; infinite values.
        """
        features = self.preprocessing.in_features if self.preprocessing else None
        check_inputs(image, clinical, present, arm=self.arm, num_features=features)

    def start_from_regression(
        self,
        clinical: Tensor,
        target: Tensor,
        class_weights: Sequence[float] | Tensor | None = None,
        prior_sd: float | Sequence[float] | None = None,
    ) -> None:
        """Start as penalised regression on the clinical values of the training rows.

        The linear path takes the regression's weights, and the layer beside it starts at zero, so
        that training begins where regression ends. Under Adam a path that starts at zero moves
        towards useful and useless features alike, and on small data stays behind regression.

        Args:
            clinical: (n, F) float64 training rows.
            target: (n,) int64 class indices.
            class_weights: One weight per class.
            prior_sd: Deviation of the normal prior on the weight of each preprocessed value, or on
                all; default: 1 for established risk factors (`ESTABLISHED`), 0.25 for others.

        Raises:
            ValueError: The image arm has no clinical values; otherwise as `fit_regression`.
        """
        if self.preprocessing is None or self.skip is None:
            raise ValueError("the image arm has no clinical values to start from")
        if prior_sd is None:
            prior_sd = prior_deviations(self.preprocessing.output_names)
        values = self.preprocessing(clinical)
        # The prior is meant for numbers of unit deviation, and they may be scaled otherwise.
        spread = _spread(values, self.preprocessing)
        num_scores = self.skip.out_features
        weight, bias, link = fit_regression(
            values / spread, target, self.link, num_scores, class_weights, prior_sd
        )
        self.skip.load_state_dict({"weight": weight / spread, "bias": bias})
        self.link.load_state_dict(link.state_dict())
        _zero(self._beside_regression())

    def keep_regression(self) -> None:
        """Exclude the linear path and the link from training; what else there is corrects them."""
        for part in (self.skip, self.link):
            if part is not None:
                part.requires_grad_(False)

    def correction_penalty(self) -> Tensor:
        """Minus the logarithm of a normal prior on what is added to the regression.

        Its scores have a prior deviation of 1 where features have unit variance. Zero for fusions
        that do not keep corrections apart.
        """
        if self.skip is None:
            return torch.zeros(())
        weights = self.fusion.corrections()
        if self.arm == "tabular":
            weights = [
                layer.weight for layer in self.head.modules() if isinstance(layer, nn.Linear)
            ]
        total = self.skip.weight.new_zeros(())
        for weight in weights:
            total = total + weight.square().sum() * weight.shape[1] / 2
        return total

    def _beside_regression(self) -> nn.Module:
        return self.fusion.clinical_head if isinstance(self.fusion, ScoreFusion) else self.head

    def load_clinical_arm(self, tabular: FusionClassifier) -> None:
        """Start from a fitted tabular arm: without its correction, this model then equals it.

        Raises:
            ValueError: The fusion is not `ResidualLateFusion`, or the arms were built differently.
        """
        if not isinstance(self.fusion, ResidualLateFusion):
            raise ValueError(f"fusion is {type(self.fusion).__name__}; expected ResidualLateFusion")
        for key in ("arm", "num_classes", "preprocessing", "clinical_encoder", "head"):
            ours = "tabular" if key == "arm" else self.config[key]
            if tabular.config[key] != ours:
                raise ValueError(
                    f"the tabular arm's {key} is {tabular.config[key]}; expected {ours}"
                )
        pairs = [(self.fusion.clinical, tabular.fusion), (self.fusion.clinical_head, tabular.head)]
        for name in ("clinical_encoder", "skip", "link"):
            pairs.append((getattr(self, name), getattr(tabular, name)))
        for own, fitted in pairs:
            own.load_state_dict(fitted.state_dict())

    def _build_fusion(self, num_scores: int) -> tuple[Fusion, int, int]:
        """Return the fusion and the widths of the features it takes."""
        image, clinical = self.image_encoder, self.clinical_encoder
        image_dim = image.num_features if image is not None else 0
        clinical_dim = clinical.out_dim if clinical is not None else 0
        if image is None:
            return SingleModality(clinical_dim, CLINICAL), 0, clinical_dim
        if clinical is None:
            return SingleModality(image_dim, IMAGE), image_dim, 0
        options = dict(self.config["fusion"])
        kind = FUSIONS.get(options["name"], ConcatFusion)  # `build` reports an unknown name
        if kind.image_input == "map":
            image.use_map_only()
            image_dim = image.map_features
        widths = [image_dim, clinical_dim, *([num_scores] if issubclass(kind, ScoreFusion) else [])]
        fusion = build("fusion", FUSIONS, options.pop("name"), *widths, **options)
        return fusion, image_dim, clinical_dim

    def _withhold(self, present: Tensor) -> Tensor:
        """Withhold modalities at random, but never the last one of a row."""
        dropped = torch.rand(present.shape, device=present.device) < self.modality_dropout
        kept = present & ~dropped
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)

    @classmethod
    def _from_pretrained(cls, **options: Any) -> FusionClassifier:
        """Load strictly: the mixin alone would leave a tensor that is not in the file random."""
        model: FusionClassifier = super()._from_pretrained(**{**options, "strict": True})
        return model


def _spread(values: Tensor, preprocessing: ClinicalPreprocessing) -> Tensor:
    """Deviation (D,) of each scaled number among the rows; 1 for 0/1 values and constants."""
    spread = values.new_ones(values.shape[1])
    scaled = (preprocessing.mean != 0) | (preprocessing.scale != 1)
    if scaled.any():
        spread[: len(scaled)][scaled] = values[:, : len(scaled)][:, scaled].std(dim=0, correction=0)
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def _zero(part: nn.Module) -> None:
    """Zero every linear layer of ``part``."""
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
