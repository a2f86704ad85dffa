"""`osteofusion fit|validate|test|predict`: LightningCLI around our module and data module."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console
from rich.panel import Panel

from osteofusion.data.manifest import load_manifest
from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.evaluation import Combine
from osteofusion.files import atomic_path, write_text
from osteofusion.training.callbacks import (
    RunCheckpoint,
    StepSeed,
    last_checkpoint,
    progress,
)
from osteofusion.training.checkpoints import (
    AtomicCheckpointIO,
    find_checkpoint,
    load_checkpoint,
    refuse_ignored,
    trained_settings,
)
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule
from osteofusion.training.options import (
    find_configs,
    known_options,
    parser_sentence,
    possible_arm,
)
from osteofusion.training.predictions import PredictionWriter
from osteofusion.training.run import (
    RUNS,
    environment,
    new_run_dir,
    run_dir_of,
    use_run_dir,
    weights_description,
    write_json,
)

Monitor = Literal["loss", "auroc", "macro_f1", "mcc"]

_NOISE = (
    ".*does not have many workers.*",
    ".*number of training batches.*logging interval.*",
    ".*overridden `on_after_batch_transfer`.*",
    ".*No (positive|negative) samples in targets.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Grad strides do not match bucket view strides.*",
    ".*Using `DistributedSampler` with the dataloaders.*",  # copies are dropped
)


def run(arguments: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the rest as options.

    Returns:
        0.

    Raises:
        OsteofusionError: any mistake that the user can mend.
    """
    arguments, config_name = find_configs(arguments)
    cli: TrainingCLI | None = None
    with _quiet():
        try:
            cli = TrainingCLI(arguments, config_name)
            cli.work()
        except ArgumentError as error:
            raise ConfigError(parser_sentence(str(error))) from None
        except MisconfigurationException as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        except SystemExit as stop:
            # Lightning turns Ctrl-C into exit status 1 after its own clean-up.
            if cli is not None and cli.trainer.state.status == TrainerStatus.INTERRUPTED:
                if _is_first_process():
                    raise OsteofusionError(cli.interrupted()) from None
                return 2
            return int(stop.code or 0)
    return 0


class TrainingCLI(LightningCLI):
    """LightningCLI whose evaluation commands take everything a model needs from its checkpoint.

    With a checkpoint (also when ``fit`` goes on from one) its hyperparameters are the defaults of
    all options; an option that differs from them would be ignored and is refused.
    """

    def __init__(self, arguments: list[str], config_name: str) -> None:
        known = known_options(arguments)
        self.command = arguments[0]
        self.config_name = config_name
        self.sources = known.sources
        self.run_dir: Path | None = None
        self.said = ""
        self.checkpoint: dict[str, Any] | None = None
        self.checkpoint_path: Path | None = None
        if known.ckpt_path is not None:
            self.checkpoint_path = find_checkpoint(
                known.ckpt_path,
                Path(known.base or RUNS),
                config_name,
                resume=self.command == "fit",
            )
            self.checkpoint = load_checkpoint(self.checkpoint_path)
        elif self.command != "fit" and not {"-h", "--help"} & set(arguments):
            raise ConfigError(
                f"osteofusion {self.command} needs --ckpt_path: a checkpoint file, a run folder, "
                "best or last (of the newest run of --config)."
            )
        # An abbreviation is a misspelling that happens to work.
        strict = {"exit_on_error": False, "allow_abbrev": False}
        try:
            super().__init__(
                FusionModule,
                RadiographDataModule,
                save_config_callback=None,
                seed_everything_default=42,
                parser_kwargs=strict | dict.fromkeys(self.subcommands(), strict),
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                args=arguments,
            )
        except ValueError as error:  # of the seed, or of an object built from the options
            self._forget_run()
            raise ConfigError(parser_sentence(str(error))) from error
        except BaseException:
            self._forget_run()
            raise

    # ---- options ----

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Early stopping, checkpoints and what they monitor; the links from data to model."""
        parser.add_argument(
            "--monitor",
            type=Monitor,
            default="loss",
            help="Validation quantity that picks the best checkpoint and stops early.",
        )
        parser.add_argument(
            "--combine",
            type=Combine | None,
            default="mean",
            help="How the figures take several radiographs of a subject together; null counts "
            "each radiograph.",
        )
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        for key in ("checkpoint", "early_stopping"):
            parser.link_arguments("monitor", f"{key}.monitor", compute_fn=_monitored)
            parser.link_arguments("monitor", f"{key}.mode", compute_fn=_mode)
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "early_stopping.patience": 8,
                "trainer.max_epochs": 40,
                "trainer.enable_model_summary": False,
            }
        )
        if self.checkpoint is None:
            parser.link_arguments("model.arm", "data.arm")
            for name in ("class_names", "clinical", "class_counts"):
                parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")
        else:
            model, data, seed = trained_settings(self.checkpoint, self.sources)
            parser.set_defaults({"seed_everything": seed})
            parser.set_defaults({f"model.{name}": value for name, value in model.items()})
            parser.set_defaults({f"data.{name}": value for name, value in data.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; refuse what cannot be, and what a checkpoint would overrule."""
        self.config = parser.parse_args(args)
        settings = self.config[self.command]
        seed = settings["seed_everything"]
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}; it must be from 0 to {2**32 - 1}.")
        for limit in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches"):
            if self.command == "fit" and settings["trainer"][limit] == 0:
                raise ConfigError(f"trainer.{limit} is 0, so there would be no model to score.")
        if self.checkpoint is None:
            return
        self._keep_arm(settings)
        refuse_ignored(self.checkpoint, settings.as_dict())
        done, epochs = self.checkpoint["epoch"] + 1, settings["trainer"]["max_epochs"]
        if self.command == "fit" and epochs is not None and 0 <= epochs < done:
            raise ConfigError(
                f"trainer.max_epochs is {epochs} and the checkpoint has done {done}; raise it."
            )

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint silently overrule the command line; ours refuses above."""

    # ---- objects ----

    def before_instantiate_classes(self) -> None:
        """Choose the run folder; only `validate` writes nothing."""
        settings = self.config[self.command]
        self.trainer_defaults["callbacks"] = progress()
        if self.checkpoint is None:
            self._choose_arm(settings)
        if self.command == "validate":
            return
        if self._resumes:
            assert self.checkpoint_path is not None
            self.run_dir = use_run_dir(run_dir_of(self.checkpoint_path))
        else:
            name = self.config_name if self.command == "fit" else self.command
            base = Path(settings["trainer"]["default_root_dir"] or RUNS)
            self.run_dir = new_run_dir(base, name)
        checkpoints = self.run_dir / "checkpoints"
        settings["checkpoint"]["dirpath"] = str(checkpoints)
        # The last checkpoint is written after the best one, whose score it holds.
        self.trainer_defaults["callbacks"] += [
            PredictionWriter(self.run_dir, settings["combine"]),
            StepSeed(),
        ]
        if self.command == "fit":
            self.trainer_defaults["callbacks"].append(last_checkpoint(checkpoints))

    def _choose_arm(self, settings: Any) -> None:
        """Train the arm that the data allow: a data set may lack images or clinical columns."""
        arm, self.said = _possible_arm(settings["model"]["arm"], settings["data"])
        settings["model"]["arm"] = settings["data"]["arm"] = arm

    def _keep_arm(self, settings: Any) -> None:
        """A config that asks for both modalities got the arm that its data allowed."""
        assert self.checkpoint is not None
        asked, trained = settings["model"]["arm"], self.checkpoint["hyper_parameters"]["arm"]
        if asked == "fused" and trained != asked:
            data = self.checkpoint["datamodule_hyper_parameters"]
            settings["model"]["arm"] = _possible_arm(asked, data)[0]

    @property
    def _resumes(self) -> bool:
        return self.command == "fit" and self.checkpoint_path is not None

    def instantiate_classes(self) -> None:
        """Model and data; whatever a checkpoint fixes comes from it alone."""
        model = self.config[self.command]["model"]
        source = model["pretrained"]
        if self.checkpoint is not None:
            model["pretrained"] = False  # the weights are in the checkpoint
        super().instantiate_classes()
        model["pretrained"] = self.model.hparams["pretrained"] = source
        if self.checkpoint is not None:
            assert isinstance(self.datamodule, RadiographDataModule)
            self.datamodule.adopt(self.checkpoint, need_labels=self.command != "predict")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with our loggers unless others were configured."""
        settings = self.config[self.command]["trainer"]
        logger: Any = settings["logger"]
        if logger is None or logger is True:
            logger = self._loggers() if self.command == "fit" else False
        else:
            logger = self.config_init[self.command]["trainer"]["logger"]
        bar = settings["enable_progress_bar"]
        return super().instantiate_trainer(
            logger=logger,
            plugins=[*(settings["plugins"] or []), AtomicCheckpointIO()],
            enable_progress_bar=Console().is_terminal if bar is None else bar,
            **kwargs,
        )

    def _loggers(self) -> list[Any]:
        assert self.run_dir is not None
        # A resumed run logs beside its first part: Lightning's CSV logger deletes what it finds.
        logs = self.run_dir / "logs"
        part = f"part_{len(list(logs.glob('part_*')))}"
        return [
            CSVLogger(self.run_dir, name="logs", version=part),
            TensorBoardLogger(self.run_dir, name="logs", version=part),
        ]

    # ---- work ----

    def _run_subcommand(self, subcommand: str) -> None:
        """Wait: `work` runs it once this object is complete, so that Ctrl-C finds a trainer."""

    def work(self) -> None:
        """Run the command."""
        data, model = self.datamodule, self.model
        assert isinstance(data, RadiographDataModule)
        assert isinstance(model, FusionModule)
        try:
            if self.trainer.is_global_zero:
                self._announce(data)
                # Whatever can go wrong with the data does so before anything is written.
                data.prepare_data()
                if self.command == "fit":
                    model.check_image_size(data.hparams["image_size"])
                if self._resumes:
                    assert self.checkpoint is not None
                    data.refuse_changes(self.checkpoint[type(data).__qualname__])
                self._record(data)
        except BaseException:
            self._forget_run()
            raise
        if self.command != "fit":
            getattr(self.trainer, self.command)(
                model, datamodule=data, ckpt_path=str(self.checkpoint_path)
            )
            return
        resume = str(self.checkpoint_path) if self.checkpoint_path is not None else None
        if self.trainer.is_global_zero:
            stopping = self.config[self.command]["early_stopping"]
            print(
                f"Training: at most {self.trainer.max_epochs} epochs, fewer when "
                f"{stopping['monitor']} does not improve for {stopping['patience']}."
            )
        self.trainer.fit(model, datamodule=data, ckpt_path=resume)
        best = next(
            callback.best_model_path
            for callback in self.trainer.checkpoint_callbacks
            if isinstance(callback, RunCheckpoint) and callback.monitor is not None
        )
        if best:
            if self.trainer.is_global_zero:
                epoch = load_checkpoint(Path(best))["epoch"]
                print(f"Scoring the best checkpoint, written after {epoch + 1} epochs.")
            self.trainer.test(model, datamodule=data, ckpt_path=best, verbose=False)

    def interrupted(self) -> str:
        """What to say after Ctrl-C."""
        last = Path(self.run_dir or ".") / "checkpoints" / "last.ckpt"
        if self.command == "fit" and last.is_file():
            return (
                f"Interrupted; the checkpoint {last} is kept: go on with the same command and "
                f"--ckpt_path {last}."
            )
        return "Interrupted before the first checkpoint; nothing half-written was left."

    def _announce(self, data: RadiographDataModule) -> None:
        console = Console()
        manifest = data.cohort.manifest
        if manifest.synthetic:
            console.print(
                Panel(
                    "This run uses SYNTHETIC DEMO DATA: drawn knees and invented patients.\n"
                    "Real data is two flags away:  --data.manifest mendeley --data.root DIR",
                    style="bold red",
                    expand=False,
                )
            )
        counts = data.rows["label"].value_counts()
        shown = ", ".join(f"{counts[name]} {name}" for name in data.class_names if name in counts)
        if len(counts) > 1:
            shown += f"; imbalance {counts.max() / counts.min():.1f} to 1"
        sides = data.rows["split"].value_counts()
        console.print(
            f"{manifest.title}: {len(data.rows)} radiographs of "
            f"{data.rows['subject_id'].nunique()} subjects ({shown or 'no labels'}); "
            + ", ".join(f"{name} {sides[name]}" for name in sides.index)
        )
        if self.said:
            console.print(self.said, style="yellow")
        if (
            self.command == "fit"
            and data.hparams["folds"] == "sites"
            and not data.hparams["splits"]
        ):
            tested = data.side("test")["site"]
            left_out = sorted(data.rows["site"].unique())[data.hparams["fold"]]
            console.print(f"Left out for the test: site {left_out}")
            if tied := int((tested != left_out).sum()):
                console.print(
                    f"and {tied} radiographs of other sites that are tied to it.", style="yellow"
                )
        if self.command == "fit" and data.hparams["features"] is None and data.empty_features:
            console.print(
                f"Left out, as no training row has a value: {', '.join(data.empty_features)}.",
                style="yellow",
            )
        if self.checkpoint is not None and data.hparams["arm"] != "image":
            there = data.cohort.table.dropna(axis=1, how="all")
            if gone := [name for name in data.schema.names if name not in there]:
                console.print(
                    f"No row has a value of {', '.join(gone)}, which the model was trained with; "
                    "they count as missing.",
                    style="yellow",
                )
        problems = data.cohort.report.problems
        if problems:
            named = ", ".join(name.replace("_", " ") for name in problems)
            console.print(f"The join found: {named}. See join_report.json.", style="yellow")

    def _record(self, data: RadiographDataModule) -> None:
        folder = self.run_dir
        if folder is None:
            return
        settings = self.config[self.command]
        # Whoever passes config.yaml to `fit` wants a run like this one, not to go on with it.
        settings["ckpt_path"] = None if self.command == "fit" else str(self.checkpoint_path)
        text = self._parser(self.command).dump(settings, skip_none=False)
        write_text(folder / "config.yaml", text)
        if self._resumes:
            for abandoned in (folder / "checkpoints").glob(".*.ckpt"):
                abandoned.unlink()  # by a process that was killed while it wrote
            return
        with atomic_path(folder / "cohort.csv") as temporary:
            data.cohort.table.to_csv(temporary, index=False)
        write_json(folder / "join_report.json", data.cohort.report.to_dict())
        weights = (
            weights_description(self.model.hparams["pretrained"])
            if self.command == "fit"
            else f"checkpoint {self.checkpoint_path}"
        )
        write_json(folder / "environment.json", environment(data.cohort, data.fingerprint, weights))
        if data.need_labels:
            data.save_splits(folder / "splits.csv")

    def _forget_run(self) -> None:
        """Remove the folder of a run that never began."""
        if self.run_dir is not None and not self._resumes and _is_first_process():
            shutil.rmtree(self.run_dir, ignore_errors=True)
            with suppress(OSError):
                self.run_dir.parent.rmdir()  # where this was the first run of its config


def _possible_arm(asked: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """As :func:`possible_arm`, of the data module's settings."""
    listed = data["manifest"] if isinstance(data["manifest"], list) else [data["manifest"]]
    return possible_arm(asked, [load_manifest(name) for name in listed], data["features"])


def _monitored(name: Monitor) -> str:
    return f"val_{name}"


def _mode(name: Monitor) -> str:
    return "min" if name == "loss" else "max"


def _is_first_process() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what a user of this command line can do nothing about; say the rest shortly."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not so in a notebook
        sys.stdout.reconfigure(line_buffering=True)
    usual = warnings.formatwarning
    with warnings.catch_warnings():
        for noise in _NOISE:
            warnings.filterwarnings("ignore", noise)
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category)
        warnings.formatwarning = lambda message, *_, **__: f"osteofusion: warning: {message}\n"
        try:
            yield
        finally:
            warnings.formatwarning = usual
