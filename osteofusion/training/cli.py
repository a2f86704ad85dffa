"""`osteofusion fit|validate|test|predict`: LightningCLI around our module and data module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console

from osteofusion.data.manifest import load_manifest
from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.evaluation import Combine
from osteofusion.training.ablation import ModalityAblation
from osteofusion.training.announce import announce
from osteofusion.training.callbacks import (
    RunCheckpoint,
    RunStopping,
    StepSeed,
    last_checkpoint,
    progress,
    run_loggers,
)
from osteofusion.training.carrying import CarriedWriter, check_start
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
from osteofusion.training.quiet import quiet
from osteofusion.training.record import record_resumption, record_run
from osteofusion.training.run import (
    RUNS,
    new_run_dir,
    run_dir_of,
    use_run_dir,
    weights_description,
)

Monitor = Literal["loss", "auroc", "macro_f1", "mcc"]
Ablation = bool | Literal["readings"]


def run(arguments: Sequence[str], folder: Path | None = None) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the rest as options.

    Args:
        arguments: The command and its options.
        folder: Run folder, there already; default: a new one under ``runs/``.

    Returns:
        0.

    Raises:
        OsteofusionError: any mistake that the user can mend.
    """
    arguments, config_name = find_configs(arguments)
    cli: TrainingCLI | None = None
    with quiet():
        try:
            cli = TrainingCLI(arguments, config_name, folder)
            cli.work()
        except ArgumentError as error:
            raise ConfigError(parser_sentence(str(error))) from None
        except MisconfigurationException as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        except SystemExit as stop:
            # Lightning turns Ctrl-C into exit status 1 after its own clean-up.
            if cli is not None and cli.trainer.state.status == TrainerStatus.INTERRUPTED:
                if _is_first_process():
                    raise InterruptedFitError(cli.interrupted()) from None
                return 2
            return int(stop.code or 0)
    return 0


def resolve(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """All settings of a ``fit`` as plain values, once its model and data could be built.

    Args:
        arguments: Options of ``fit``.
        folder: An empty folder to try them in.

    Raises:
        OsteofusionError: any mistake that the user can mend.
    """
    found, config_name = find_configs(["fit", *arguments])
    with quiet():
        try:
            cli = TrainingCLI(found, config_name, folder)
        except ArgumentError as error:
            raise ConfigError(parser_sentence(str(error))) from None
        except MisconfigurationException as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    settings: dict[str, Any] = yaml.safe_load(cli.settings_text())
    settings["checkpoint"]["dirpath"] = None
    assert isinstance(cli.datamodule, RadiographDataModule)
    assert isinstance(cli.model, FusionModule)
    cli.model.check_image_size(cli.datamodule.hparams["image_size"])
    hparams = cli.datamodule.hparams  # has full paths
    settings["data"] = {name: hparams[name] for name in settings["data"]}
    return settings


class InterruptedFitError(OsteofusionError):
    """Ctrl-C; the message says how to go on."""


class TrainingCLI(LightningCLI):
    """LightningCLI whose evaluation commands take everything a model needs from its checkpoint.

    With a checkpoint (also when ``fit`` goes on from one) its hyperparameters are the defaults of
    all options; an option that differs from them would be ignored and is refused.
    """

    def __init__(self, arguments: list[str], config_name: str, folder: Path | None = None) -> None:
        known = known_options(arguments)
        self.folder = folder
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

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command asked for: the options of the others take half a second to describe."""
        return {self.command: super().subcommands()[self.command]}

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
        parser.add_argument(
            "--ablation",
            type=Ablation,
            default=False,
            help="After a fused fit, train each modality alone, and ask the fused model without "
            "either and with images shuffled; `readings` does the latter only.",
        )
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(RunStopping, "early_stopping")
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
            for name in ("class_names", "clinical", "class_counts", "row_counts"):
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
        elif self.folder is not None:
            self.run_dir = use_run_dir(self.folder)
        else:
            name = self.config_name if self.command == "fit" else self.command
            base = Path(settings["trainer"]["default_root_dir"] or RUNS)
            self.run_dir = new_run_dir(base, name)
        checkpoints = self.run_dir / "checkpoints"
        settings["checkpoint"]["dirpath"] = str(checkpoints)
        callbacks = self.trainer_defaults["callbacks"]
        callbacks += [PredictionWriter(self.run_dir, settings["combine"]), StepSeed()]
        if self.command != "fit":
            return
        if settings["model"]["start_from"] is not None:
            callbacks.append(CarriedWriter(self.run_dir))
        if settings["ablation"] and settings["model"]["arm"] == "fused":
            callbacks.append(ModalityAblation(train_arms=settings["ablation"] is True))
        # The last checkpoint is written after the best one, whose score it holds.
        callbacks.append(last_checkpoint(checkpoints))

    def _choose_arm(self, settings: Any) -> None:
        """Train the arm that the data allow: a data set may lack images or clinical columns."""
        arm, self.said = _possible_arm(settings["model"]["arm"], settings["data"])
        if self.said and settings["ablation"]:
            self.said += " There is nothing to ablate."
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
            logs = self.run_dir if self.command == "fit" else None
            logger = run_loggers(logs) if logs is not None else False
        else:
            logger = self.config_init[self.command]["trainer"]["logger"]
        bar = settings["enable_progress_bar"]
        return super().instantiate_trainer(
            logger=logger,
            plugins=[*(settings["plugins"] or []), AtomicCheckpointIO()],
            enable_progress_bar=Console().is_terminal if bar is None else bar,
            **kwargs,
        )

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
                announce(
                    data,
                    command=self.command,
                    said=self.said,
                    from_checkpoint=self.checkpoint is not None,
                )
                # Whatever can go wrong with the data does so before anything is written.
                data.prepare_data()
                if self.command == "fit":
                    model.check_image_size(data.hparams["image_size"])
                if self.command == "fit" and model.hparams["start_from"] and not self._resumes:
                    check_start(model, data)
                if self._resumes:
                    assert self.checkpoint is not None
                    data.refuse_changes(self.checkpoint[type(data).__qualname__])
                if self.run_dir is not None:
                    self._record(data, self.run_dir)
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
                f"Training: at most {_epochs(self.trainer.max_epochs)}, fewer when "
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
                print(f"Scoring the best checkpoint, written after {_epochs(epoch + 1)}.")
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

    def settings_text(self) -> str:
        """All settings in YAML."""
        text: str = self._parser(self.command).dump(self.config[self.command], skip_none=False)
        return text

    def _record(self, data: RadiographDataModule, folder: Path) -> None:
        fits = self.command == "fit"
        # Whoever passes config.yaml to `fit` wants a run like this one, not to go on with it.
        self.config[self.command]["ckpt_path"] = None if fits else str(self.checkpoint_path)
        if self._resumes:
            record_resumption(folder, self.settings_text())
            return
        source = self.model.hparams["pretrained"]
        weights = weights_description(source) if fits else f"checkpoint {self.checkpoint_path}"
        record_run(folder, data, self.settings_text(), weights)

    def _forget_run(self) -> None:
        """Remove the folder of a run that never began."""
        ours = self.folder is None and not self._resumes
        if self.run_dir is not None and ours and _is_first_process():
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


def _epochs(number: int | None) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"


def _is_first_process() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"
