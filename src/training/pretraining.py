"""Pre-training on accelerate: one loop for every family, on one device or many.

Needs `pip install 'vidformers[train]'`. `accelerate launch` says where it runs; the numbers that it computes don't
depend on that, but for rounding, as long as the clips of a step and those that a device takes at once are as many.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vidformers.files import written_whole
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.models.records import Recipe
from vidformers.progress import Progress, no_progress

from .batches import Batch, ClipBatches, MixedBatches, load_batches
from .metrics import feature_spread
from .schedules import (
    SCHEDULES,
    context_weight_schedule,
    cosine_decay_schedule,
    momentum_schedule,
)


if TYPE_CHECKING:
    from accelerate import Accelerator


ENOUGH_TRIED = 50
"""Videos that must have been tried before the share of unusable ones counts."""
PROGRESS_FILE = "progress.json"
DIVERGED_FILE = "diverged.json"
"""Beside the checkpoints while the step after the last one is one whose loss or gradient is no number."""
RATES = (
    "learning_rate start_learning_rate final_learning_rate schedule warmup_steps anneal_steps schedule_scale "
    "weight_decay final_weight_decay momentum final_momentum context_loss_weight context_loss_steps"
).split()
"""Fields of a recipe that a training may go on with other values of, where the earlier ones led to no number."""


class DivergedError(ValueError):
    """The loss or the gradient is no number any more."""


def check_recipe(recipe: Recipe) -> Recipe:
    """A recipe, or a ValueError that names a number in it that cannot be."""
    for name in ("num_frames", "crop_size", "batch_size", "steps", "learning_rate", "schedule_scale"):
        value = getattr(recipe, name)
        if not value > 0:
            raise ValueError(f"Expected `{name}` above 0, got {value}.")
    for name in ("momentum", "final_momentum"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(
                f"Expected `{name}`, the share that the teacher keeps of itself, from 0 to 1, got "
                f"{getattr(recipe, name)}."
            )
    if recipe.schedule not in SCHEDULES:
        raise ValueError(f"Expected `schedule` to be one of {', '.join(SCHEDULES)}, got {recipe.schedule!r}.")
    if (recipe.fps is None) == (recipe.frame_step is None):
        raise ValueError(f"Expected either `fps` or `frame_step`, got {recipe.fps} and {recipe.frame_step}.")
    if recipe.images is not None:
        for name in ("batch_size", "crop_size"):
            if not getattr(recipe.images, name) > 0:
                raise ValueError(f"Expected `{name}` of images above 0, got {getattr(recipe.images, name)}.")
        if not 0 < recipe.images.share < 1:
            raise ValueError(f"Expected `share` of images above 0 and below 1, got {recipe.images.share}.")
    return recipe


def rates_at(recipe: Recipe, step: int) -> dict[str, float]:
    """What a recipe's schedules say of a step, counted from 0.

    Returns:
        `learning_rate`, `weight_decay` and `momentum`; in recipes that have one, `context_loss_weight`, and with
        images `image_context_loss_weight`.
    """
    total = int(recipe.schedule_scale * recipe.steps)
    arguments = {"ref": recipe.learning_rate, "final": recipe.final_learning_rate, "total_steps": total}
    if recipe.schedule.startswith("warmup"):
        arguments |= {"start": recipe.start_learning_rate, "warmup_steps": recipe.warmup_steps}
    if recipe.schedule == "warmup_stable_decay":
        arguments["anneal_steps"] = recipe.anneal_steps
    rates = {
        "learning_rate": SCHEDULES[recipe.schedule](step, **arguments),
        "weight_decay": cosine_decay_schedule(
            step, ref=recipe.weight_decay, final=recipe.final_weight_decay, total_steps=total
        ),
        "momentum": momentum_schedule(
            step,
            start=recipe.momentum,
            final=recipe.final_momentum,
            total_steps=recipe.schedule_scale * recipe.steps,
        ),
    }
    start, end = recipe.context_loss_steps
    weights = {"context_loss_weight": recipe.context_loss_weight}
    if recipe.images is not None:
        weights["image_context_loss_weight"] = recipe.images.context_loss_weight
    for name, weight in weights.items():
        if weight is not None:
            rates[name] = context_weight_schedule(step, value=weight, start_step=start, end_step=end)
    return rates


def set_rates(optimizer: torch.optim.Optimizer, rates: Mapping[str, float]) -> None:
    """Give all groups of an optimizer a learning rate, and those that decay a weight decay.

    Args:
        optimizer: over `model.parameter_groups`.
        rates: of a step, from `rates_at`.
    """
    for group in optimizer.param_groups:
        decays = group.setdefault("decays", group["weight_decay"] > 0)
        group["lr"], group["weight_decay"] = rates["learning_rate"], rates["weight_decay"] * decays


@dataclass(frozen=True)
class Shares:
    """How clips and images of a step are shared out.

    Attributes:
        times: batches that a process takes before a step.
        batches: of clips, of all processes together.
        clips: of such a batch.
        image_batches: of images, of all processes together.
        images: of such a batch.
    """

    times: int
    batches: int
    clips: int
    image_batches: int = 0
    images: int = 0


def share_out(recipe: Recipe, micro_batch: int | None, processes: int, sharded: bool = False) -> Shares:
    """Share out the clips and images of a step.

    Of so many batches of a step, the share of images, rounded down, is of images, as in the original, where each
    process takes one batch.

    Args:
        recipe: says how many clips and images there are.
        micro_batch: clips that a process takes at once; by default as many as can be.
        processes: number of processes.
        sharded: whether they share the parameters, so that all must have batches of the same kind at a time.

    Raises:
        ValueError: they cannot be shared out so.
    """
    images, tried, unit = recipe.images, [], processes if sharded else 1
    for times in count(1):
        image_batches = int(times * processes * images.share) if images else 0
        batches = times * processes - image_batches
        clips = micro_batch or max(recipe.batch_size // batches, 1)
        if batches * clips > recipe.batch_size:
            break
        of_batch = images.batch_size // image_batches if image_batches else 0
        tried.append(Shares(times, batches, clips, image_batches, of_batch))
        if micro_batch is None and (not images or (image_batches and image_batches % unit == 0)):
            break
    fitting = [each for each in tried if each.batches * each.clips == recipe.batch_size]
    if not fitting:
        raise ValueError(
            f"Expected `batch_size`, the clips of a step, to be a multiple of the clips that {processes} processes "
            f"take at once ({clips} each{', and images besides' if images else ''}), got {recipe.batch_size}."
        )
    if images is None:
        return fitting[-1]
    shared = [
        each
        for each in fitting
        if each.image_batches * each.images == images.batch_size and each.image_batches % unit == 0
    ]
    if not shared:
        times, image_batches = fitting[-1].times, fitting[-1].image_batches
        raise ValueError(
            f"Of the {times * processes} batches of a step, the share of {images.share:g} gives {image_batches} of "
            f"images, among which its {images.batch_size} images cannot be shared out"
            + (f", in multiples of the {processes} processes that share the parameters" if sharded else "")
            + ". Change the clips that a process takes at once (`micro_batch`), or `share` or `batch_size` of images."
        )
    return shared[-1]


class PreTrainer:
    """Trains a model by a recipe, and keeps its state in a folder, from which the next one with it goes on.

    Args:
        model: with the methods of the contract that pre-training needs, such as [`VJEPA2ForPreTraining`].
        batches: what it learns from, `per_step` of them a step.
        recipe: how.
        accelerator: where; made for `gradient_accumulation_steps` so that with all processes they are `per_step`.
        state: folder for checkpoints.
        save_every: steps from one checkpoint to the next.
        log_every: steps from one record to the next.
        workers: processes that make batches; 0 to make them in this one.
        most_unusable: share of the videos that may be unusable.
        skip_step: leave out the step at which an earlier training stopped with a [`DivergedError`].
        optimizer_state: what the optimizer begins with, as `optimizer_state` returns it, such as (out, in) of a linear
            layer; by default nothing.

    Attributes:
        step: number of steps so far.
        history: the records so far.
    """

    def __init__(
        self,
        model: VideoPreTrainedModel,
        batches: ClipBatches | MixedBatches,
        recipe: Recipe,
        accelerator: "Accelerator",
        state: Path,
        *,
        save_every: int = 300,
        log_every: int = 10,
        workers: int = 0,
        most_unusable: float = 0.1,
        skip_step: bool = False,
        optimizer_state: Mapping[str, torch.Tensor] | None = None,
    ):
        self.recipe, self.accelerator, self.batches, self.state = check_recipe(recipe), accelerator, batches, state
        self.save_every, self.log_every, self.workers = save_every, log_every, workers
        self.most_unusable, self.step, self.history = most_unusable, 0, []
        self.tried, self.unusable = 0, 0
        optimizer = torch.optim.AdamW(
            model.train().parameter_groups(recipe.weight_decay), lr=recipe.learning_rate, betas=recipe.betas
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        if optimizer_state:
            self._load_optimizer(optimizer_state)
        self._restore(skip_step)

    @property
    def bare_model(self) -> VideoPreTrainedModel:
        """The model without what distributes it."""
        return self.accelerator.unwrap_model(self.model)

    def train(
        self,
        on_record: Callable[[Mapping[str, float]], None] = lambda record: None,
        progress: Progress = no_progress,
        on_unusable: Callable[[str], None] = lambda reason: None,
    ) -> list[dict[str, float]]:
        """Take the steps that are left.

        Args:
            on_record: called in the main process with every record.
            progress: called with an activity and how much of it is done.
            on_unusable: called with the reason why a video was passed over, in the process that read it.

        Returns:
            The records of all steps, those before a stop included.

        Raises:
            DivergedError: the loss is no number. The state before that step is kept.
            ValueError: too many videos are unusable.
        """
        started, since = time.monotonic(), self.step
        batches = load_batches(self.batches, self._numbers(), self.workers)
        while self.step < self.recipe.steps:
            record = self._take_step(batches, on_unusable)
            if self.step % self.log_every == 0 or self.step == self.recipe.steps:
                record["seconds_per_step"] = (time.monotonic() - started) / (self.step - since)
                started, since = time.monotonic(), self.step
                self.history.append(record)
                self.accelerator.log({name: each for name, each in record.items() if name != "step"}, step=self.step)
                if self.accelerator.is_main_process:
                    on_record(record)
            if self.step % self.save_every == 0 and self.step < self.recipe.steps:
                self.save()
            progress("pre-training", self.step, self.recipe.steps)
        return self.history

    def _numbers(self) -> range:
        """Numbers of the batches that fall to this process, those of one step after those of another."""
        first, end = (step * self.batches.per_step for step in (self.step, self.recipe.steps))
        return range(first + self.accelerator.process_index, end, self.accelerator.num_processes)

    def _take_step(self, batches: Iterator[Batch], on_unusable: Callable[[str], None]) -> dict[str, float]:
        """One step of the optimizer and of the teacher, and its record."""
        rates = rates_at(self.recipe, self.step)
        shown = (self.step + 1) % self.log_every == 0 or self.step + 1 == self.recipe.steps
        set_rates(self.optimizer, rates)
        sums: dict[str, torch.Tensor] = {}
        names = []
        for _ in range(self.accelerator.gradient_accumulation_steps):
            batch = next(batches)
            names += batch["names"]
            for reason in batch["unusable"]:
                on_unusable(reason)
            measures = self._learn(batch, rates, shown)
            measures |= {"tried": batch["tried"], "unusable": len(batch["unusable"])}
            for name, value in measures.items():
                sums[name] = sums.get(name, 0) + torch.as_tensor(value, dtype=torch.float32)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), math.inf)  # which clips nothing
        means = self._means(sums)
        self._check(means | {"gradient_norm": float(norm)}, names)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.bare_model.update_teacher(rates["momentum"])
        self.step += 1
        counts = {"unusable": float(self.unusable)}
        return {"step": self.step, **means, "gradient_norm": float(norm), **rates, **counts}

    def _learn(self, batch: Batch, rates: Mapping[str, float], shown: bool) -> dict[str, torch.Tensor]:
        """Add the gradient of a batch; its losses and, if they are to be shown, the spread of its features."""
        from accelerate.utils import send_to_device

        inputs = send_to_device(dict(batch["inputs"]), self.accelerator.device, non_blocking=True)
        weight = rates.get("image_context_loss_weight" if batch["of_images"] else "context_loss_weight")
        if weight is not None:
            inputs["context_loss_weight"] = weight
        with self.accelerator.accumulate(self.model):
            output = self.model(**inputs, return_dict=True)
            self.accelerator.backward(output.loss)
        measures = {name: each.detach() for name, each in output.items() if name.endswith("loss")}
        if isinstance(self.batches, MixedBatches):  # The mean over all batches is then that of one kind.
            for name, part in (("image_loss", self.batches.images), ("video_loss", self.batches.clips)):
                share = self.batches.per_step / part.per_step
                measures[name] = output.loss.detach() * (share if batch["of_images"] == part.of_images else 0.0)
        features = self.bare_model.pretraining_features(output) if shown else None
        if features is not None:
            measures |= {f"target_{name}": each for name, each in feature_spread(features).items()}
        return measures

    def _means(self, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Means over all batches of a step, in all processes; counts of videos are added up."""
        device, times = self.accelerator.device, self.accelerator.gradient_accumulation_steps
        stacked = torch.stack([each.to(device) for each in sums.values()])
        totals = dict(zip(sums, self.accelerator.reduce(stacked, "sum").tolist(), strict=True))
        self.tried += int(totals.pop("tried"))
        self.unusable += int(totals.pop("unusable"))
        return {name: total / times / self.accelerator.num_processes for name, total in totals.items()}

    def _check(self, measures: Mapping[str, float], names: list[str]) -> None:
        """Raise if a step must not be taken."""
        if self.tried >= ENOUGH_TRIED and self.unusable > self.most_unusable * self.tried:
            kinds = "videos and images" if isinstance(self.batches, MixedBatches) else "videos"
            raise ValueError(
                f"Of {self.tried} {kinds} that were tried {self.unusable} cannot be used, more than the share of "
                f"{self.most_unusable:g} that may be. Remove them, or raise the share."
            )
        # In float16 gradients overflow now and then: accelerate's scaler leaves the step out and scales less.
        checked = ("loss", "gradient_norm") if self.accelerator.scaler is None else ("loss",)
        wrong = [name for name in checked if not math.isfinite(measures[name])]
        if wrong:
            noted = self._note_divergence(names)
            raise DivergedError(
                f"In step {self.step + 1} {' and '.join(wrong)} came out as "
                f"{' and '.join(str(measures[name]) for name in wrong)}. {self.state} keeps the state before it, and "
                f"{noted.name} there the names of its videos. To go on, resume with a lower learning rate or other "
                "rates (`--resume --learning-rate …`), in float32 (`--resume --precision no`), or without this step "
                "(`--resume --skip-step`)."
            )

    def _note_divergence(self, names: list[str]) -> Path:
        """Keep the state before a step that must not be taken, and the names of its videos; the file with them."""
        from accelerate.utils import gather_object

        self.save()
        names, place = gather_object(names), self.state / DIVERGED_FILE
        if self.accelerator.is_main_process:
            with written_whole(place) as (file,):
                file.write_text(json.dumps({"step": self.step + 1, "videos": names}, indent=2) + "\n", "utf-8")
        return place

    def save(self) -> Path:
        """Write a checkpoint, whole or not at all, in the place of the earlier one.

        Returns:
            Its folder.
        """
        target = self.state / f"step_{self.step:08d}"
        earlier = checkpoints(self.state)
        if target not in earlier:
            with self._written_together(target) as place:
                self.accelerator.save_state(str(place))
                if self.accelerator.is_main_process:
                    noted = {"step": self.step, "tried": self.tried, "unusable": self.unusable}
                    noted |= {"history": self.history}
                    (place / PROGRESS_FILE).write_text(json.dumps(noted) + "\n", "utf-8")
        if self.accelerator.is_main_process:
            (self.state / DIVERGED_FILE).unlink(missing_ok=True)
            for folder in earlier:
                if folder != target:
                    shutil.rmtree(folder)
        return target

    @contextmanager
    def _written_together(self, target: Path) -> Iterator[Path]:
        """A place for a folder that all processes write to; the main one makes it and renames it in the end."""
        from accelerate.utils import broadcast_object_list

        if not self.accelerator.is_main_process:
            (place,) = broadcast_object_list([None])
            yield Path(place)
            self.accelerator.wait_for_everyone()
            return
        with written_whole(target, folder=True) as (place,):
            broadcast_object_list([str(place)])
            yield place
            self.accelerator.wait_for_everyone()

    def _restore(self, skip_step: bool) -> None:
        """Go on from the last checkpoint, if there is one, or from behind the step after it."""
        folders = checkpoints(self.state)
        if folders:
            self.accelerator.load_state(str(folders[-1]))
            noted = json.loads((folders[-1] / PROGRESS_FILE).read_text("utf-8"))
            self.step, self.history = noted["step"], noted["history"]
            self.tried, self.unusable = noted["tried"], noted["unusable"]
        if skip_step:
            if not (self.state / DIVERGED_FILE).is_file():
                raise ValueError(f"There is no step to skip: {self.state} is of no training that a step ended.")
            self.step += 1
            if self.step == self.recipe.steps and not self.history:
                raise ValueError("The step to skip is the last of a training that has recorded none: nothing is left.")

    def _load_optimizer(self, state: Mapping[str, torch.Tensor]) -> None:
        """Let the optimizer begin with what another one knew."""
        parameters = dict(self.bare_model.named_parameters())
        for key, value in state.items():
            name, _, kind = key.rpartition("/")
            parameter = parameters[name]
            self.optimizer.state[parameter][kind] = _placed_as(parameter, value) if value.ndim else value.clone()

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """What the optimizer knows of the parameters that have learned. All processes call it.

        Returns:
            In the main process, on the CPU, "NAME/exp_avg" and "NAME/exp_avg_sq", each as the parameter, such as
            (out, in) of a linear layer, and "NAME/step", (); nothing in others.
        """
        tensors = {}
        for name, parameter in self.bare_model.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                value = value.full_tensor() if hasattr(value, "full_tensor") else value
                if self.accelerator.is_main_process:
                    tensors[f"{name}/{kind}"] = value.cpu()
        return tensors

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights of the model. All processes call it.

        Returns:
            Tensors by name, such as (out, in) of a linear layer; complete in the main process.
        """
        return self.accelerator.get_state_dict(self.model)


def _placed_as(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A copy of a whole tensor where a parameter is, and in shards if that is. All processes call it."""
    value = value.to(parameter.device, copy=True)
    if not hasattr(parameter, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def checkpoints(state: Path) -> list[Path]:
    """The checkpoints in a folder, earlier ones first."""
    return sorted(state.glob("step_*"))
