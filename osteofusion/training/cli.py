"""`osteofusion fit|validate|test|predict`: LightningCLI around our module and data module."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console
from rich.panel import Panel

from osteofusion.errors import ConfigError, OsteofusionError
from osteofusion.files import atomic_path, write_text
from osteofusion.resources import find_shipped, shipped_names
from osteofusion.training.checkpoints import (
    AtomicCheckpointIO,
    find_checkpoint,
    load_checkpoint,
    refuse_ignored,
    trained_settings,
)
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule
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


def run(arguments: Sequence[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the rest as options.

    Returns:
        0.

    Raises:
        OsteofusionError: any mistake that the user can mend.
    """
    _quiet()
    arguments, config_name = _find_configs(arguments)
    cli: TrainingCLI | None = None
    try:
        cli = TrainingCLI(arguments, config_name)
        cli.work()
    except ArgumentError as error:
        raise ConfigError(_one_sentence(str(error))) from None
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit status 1 after its own clean-up.
        if cli is not None and cli.trainer.state.status == TrainerStatus.INTERRUPTED:
            raise OsteofusionError(cli.interrupted()) from None
        return int(stop.code or 0)
    return 0


class TrainingCLI(LightningCLI):
    """LightningCLI whose evaluation commands take everything a model needs from its checkpoint.

    With a checkpoint (also when ``fit`` goes on from one) its hyperparameters are the defaults of
    all options; an option that differs from them would be ignored and is refused.
    """

    def __init__(self, arguments: list[str], config_name: str) -> None:
        known = _known_options(arguments)
        self.command = arguments[0]
        self.config_name = config_name
        self.base = Path(known.root or RUNS)
        self.run_dir: Path | None = None
        self.checkpoint: dict[str, Any] | None = None
        self.checkpoint_path: Path | None = None
        if known.ckpt_path is not None:
            self.checkpoint_path = find_checkpoint(known.ckpt_path, self.base, config_name)
            self.checkpoint = load_checkpoint(self.checkpoint_path)
        elif self.command != "fit" and not {"-h", "--help"} & set(arguments):
            raise ConfigError(
                f"osteofusion {self.command} needs --ckpt_path: a checkpoint file, a run folder, "
                "best or last (of the newest run of --config)."
            )
        self.started = False
        try:
            super().__init__(
                FusionModule,
                RadiographDataModule,
                save_config_callback=None,
                seed_everything_default=42,
                parser_kwargs={"exit_on_error": False}
                | {name: {"exit_on_error": False} for name in self.subcommands()},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                args=arguments,
            )
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
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        for key in ("checkpoint", "early_stopping"):
            parser.link_arguments("monitor", f"{key}.monitor", compute_fn=_monitored)
            parser.link_arguments("monitor", f"{key}.mode", compute_fn=_mode)
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
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
            model, data = trained_settings(self.checkpoint)
            parser.set_defaults({f"model.{name}": value for name, value in model.items()})
            parser.set_defaults({f"data.{name}": value for name, value in data.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; refuse what a checkpoint would overrule."""
        self.config = parser.parse_args(args)
        if self.checkpoint is None:
            return
        settings = self.config[self.command]
        refuse_ignored(self.checkpoint, settings["model"].as_dict(), settings["data"].as_dict())

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint silently overrule the command line; ours refuses above."""

    # ---- objects ----

    def before_instantiate_classes(self) -> None:
        """Choose the run folder; only `validate` writes nothing."""
        settings = self.config[self.command]
        if self.command == "validate":
            return
        if self.command == "fit" and self.checkpoint_path is not None:
            self.run_dir = use_run_dir(run_dir_of(self.checkpoint_path))
        else:
            name = self.config_name if self.command == "fit" else self.command
            base = Path(settings["trainer"]["default_root_dir"] or RUNS)
            self.run_dir = new_run_dir(base, name)
        settings["checkpoint"]["dirpath"] = str(self.run_dir / "checkpoints")
        writer = PredictionWriter(self.run_dir, seed=int(settings["seed_everything"]))
        self.trainer_defaults["callbacks"] = [writer, *_progress()]

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
        if os.environ.get("LOCAL_RANK", "0") != "0":
            part = "part_0"  # only the first process writes
        return [
            CSVLogger(self.run_dir, name="logs", version=part),
            TensorBoardLogger(self.run_dir, name="logs", version=part),
        ]

    # ---- work ----

    def _run_subcommand(self, subcommand: str) -> None:
        """Wait: `work` runs it once this object is complete, so that Ctrl-C finds a trainer."""

    def work(self) -> None:
        """Run the command."""
        data = self.datamodule
        assert isinstance(data, RadiographDataModule)
        try:
            if self.trainer.is_global_zero:
                self._announce(data)
                data.prepare_data()  # unreadable files are found before anything is written
                self._record(data)
        except BaseException:
            self._forget_run()
            raise
        self.started = True
        if self.command != "fit":
            getattr(self.trainer, self.command)(
                self.model, datamodule=data, ckpt_path=str(self.checkpoint_path)
            )
            return
        resume = str(self.checkpoint_path) if self.checkpoint_path is not None else None
        self.trainer.fit(self.model, datamodule=data, ckpt_path=resume)
        best = self._best()
        if best:
            self.trainer.test(self.model, datamodule=data, ckpt_path=best, verbose=False)

    def interrupted(self) -> str:
        """What to say after Ctrl-C."""
        last = Path(self.run_dir or ".") / "checkpoints" / "last.ckpt"
        if self.command == "fit" and last.is_file():
            return (
                f"Interrupted; the checkpoint {last} is kept: go on with the same command and "
                f"--ckpt_path {last}."
            )
        return "Interrupted before the first checkpoint; nothing half-written was left."

    def _best(self) -> str:
        callback = self.trainer.checkpoint_callback
        return callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""

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
            f"{data.rows['subject_id'].nunique()} subjects ({shown}); "
            + ", ".join(f"{name} {sides[name]}" for name in sides.index)
        )
        problems = data.cohort.report.problems
        if problems:
            named = ", ".join(name.replace("_", " ") for name in problems)
            console.print(f"The join found: {named}. See join_report.json.", style="yellow")

    def _record(self, data: RadiographDataModule) -> None:
        folder = self.run_dir
        if folder is None:
            return
        cohort = data.cohort
        with atomic_path(folder / "cohort.csv") as temporary:
            cohort.table.to_csv(temporary, index=False)
        write_json(folder / "join_report.json", cohort.report.to_dict())
        initial = (
            f"checkpoint {self.checkpoint_path}"
            if self.checkpoint_path is not None
            else weights_description(self.model.hparams["pretrained"])
        )
        write_json(folder / "environment.json", environment(cohort, initial))
        if data.need_labels:
            data.save_splits(folder / "splits.csv")
        parser = self._parser(self.command)
        text = parser.dump(self.config[self.command], skip_none=False)
        write_text(folder / "config.yaml", text)

    def _forget_run(self) -> None:
        """Remove the folder of a run that never began."""
        new = self.command != "fit" or self.checkpoint_path is None
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        if self.run_dir is not None and new and first:
            shutil.rmtree(self.run_dir, ignore_errors=True)


class EpochLines(Callback):
    """One line an epoch where there is no terminal for a progress bar."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's validation metrics."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        shown = "  ".join(
            f"{name} {float(metrics[name]):.3f}"
            for name in ("val_loss", "val_auroc", "val_macro_f1", "val_mcc")
            if name in metrics
        )
        print(f"epoch {trainer.current_epoch}  {shown}", flush=True)


def _progress() -> list[Callback]:
    return [RichProgressBar()] if Console().is_terminal else [EpochLines()]


def _monitored(name: Monitor) -> str:
    return f"val_{name}"


def _mode(name: Monitor) -> str:
    return "min" if name == "loss" else "max"


def _known_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that are needed before the parser can be built."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--ckpt_path")
    parser.add_argument("--trainer.default_root_dir", dest="root")
    parser.add_argument("-c", "--config", action="append", default=[])
    try:
        known = parser.parse_known_args(list(arguments[1:]))[0]
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}.") from None
    for path in known.config:
        content = _read_config(Path(path))
        known.ckpt_path = known.ckpt_path or content.get("ckpt_path")
        trainer = content.get("trainer")
        if known.root is None and isinstance(trainer, dict):
            known.root = trainer.get("default_root_dir")
    if known.ckpt_path in ("null", "None", ""):
        known.ckpt_path = None
    return known


def _find_configs(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Replace names of shipped configs by their paths; the stem of the last is the run's name."""
    found = list(arguments)
    name = "default"
    for i, argument in enumerate(found):
        flag, equals, value = argument.partition("=")
        if flag not in ("-c", "--config"):
            continue
        position = i if equals else i + 1
        text = value if equals else (found[position] if position < len(found) else "")
        path = Path(text)
        if not path.is_file():
            shipped = find_shipped("configs", text) if text else None
            if shipped is None:
                names = shipped_names("configs")
                close = difflib.get_close_matches(text, names, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ConfigError(
                    f"--config {text} is neither a file nor one of ours ({', '.join(names)}).{hint}"
                )
            path = shipped
        found[position] = f"{flag}={path}" if equals else str(path)
        name = path.stem
        if name == "config" and path.parent.name.startswith("version_"):
            name = path.parent.parent.name  # a run's own config.yaml
    return found, name


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" near line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"Config {path} is not valid YAML{line}; mend it there.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"Config {path} holds no `key: value` lines.")
    return content


def _one_sentence(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[:3]).rstrip(".") + "."


def _quiet() -> None:
    """Hide what a user of this command line can do nothing about."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*logging interval.*")
    warnings.filterwarnings("ignore", ".*overridden `on_after_batch_transfer`.*")
    warnings.filterwarnings("ignore", ".*No positive samples in targets.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
