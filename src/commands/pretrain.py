"""Pre-training on videos without labels, by accelerate: what the command `vidformers pretrain` does.

Needs `pip install 'vidformers[train]'`.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, set_seed
from transformers.models.auto.modeling_auto import AutoModelForPreTraining
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from vidformers.families import FAMILIES
from vidformers.files import check_target, written_whole
from vidformers.inference.clips import frames_of_a_clip
from vidformers.inference.directory import Directory, loading_unreported, new_and_left_out
from vidformers.inference.labeled_clips import find_unlabeled
from vidformers.inference.media import IMAGES, Clip
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.models.records import Family, ImageRecipe, Recipe
from vidformers.progress import Progress, no_progress
from vidformers.training.batches import ClipBatches, ClipReader, ImageReader, MixedBatches, seeded
from vidformers.training.pretraining import DIVERGED_FILE, RATES, PreTrainer, Shares, check_recipe, share_out
from vidformers.training.state import OPTIMIZER_FILE, check_installed, check_state, read_optimizer_state
from vidformers.video.processor import VideoProcessor

from .pretraining_card import write_card


AUTO_CLASS = "AutoModelForPreTraining"


@dataclass(frozen=True)
class Task:
    """What a pre-training needs.

    Attributes:
        model: the model.
        loading: what is new in it, and what of a directory was left out, in one line.
        processor: its video processor.
        recipe: how it is trained.
        videos: for each source, as given, what was found there.
        weights: share of each source.
        images: for each source of images, as given, what was found there.
        base: what the model was made from: a directory, or the name of a recipe for a new one.
        seed: decides what is drawn.
        optimizer_state: what the optimizer that trained the model knew, if its directory has kept it.
    """

    model: VideoPreTrainedModel
    loading: str
    processor: VideoProcessor
    recipe: Recipe
    videos: Mapping[str, Sequence[Clip]]
    weights: tuple[float, ...]
    images: Mapping[str, Sequence[Clip]]
    base: str
    seed: int
    optimizer_state: Mapping[str, torch.Tensor] | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What the task is, in plain values."""
        videos, images = (
            {source: len(found) for source, found in each.items()} for each in (self.videos, self.images)
        )
        noted = {"base": self.base, "videos": videos, "weights": self.weights, "images": images, "seed": self.seed}
        noted["optimizer"] = "new" if self.optimizer_state is None else "goes on"
        return json.loads(json.dumps(noted | {"recipe": asdict(self.recipe)}))


def recipes() -> dict[str, tuple[Family, Recipe]]:
    """All recipes by name, with the family of each."""
    return {name: (family, recipe) for family in FAMILIES.values() for name, recipe in family.recipes.items()}


def prepare(
    sources: Sequence[str | os.PathLike],
    *,
    model: str | os.PathLike | None = None,
    recipe: str | None = None,
    objective: str | None = None,
    weights: Sequence[float] | None = None,
    images: Sequence[str | os.PathLike] = (),
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Task:
    """Find videos, choose how to train, and load a model or make a new one.

    Args:
        sources: what [`~vidformers.inference.labeled_clips.find_unlabeled`] takes.
        model: a directory or the name of a repository on the Hub to go on from; by default the recipe's new model.
        recipe: name of a published recipe; by default the usual one of the objective, with the model's own number of
            frames and crop.
        objective: a family whose models can be pre-trained, "vjepa2" or "videomae"; by default that of the others.
        weights: share of each source; by default its share of the videos.
        images: sources of images to learn from beside the videos, for recipes that say how; each has its share of all
            images.
        changes: fields of the recipe to change, see [`~vidformers.models.records.Recipe`].
        seed: decides the new model, the order, the clips and the masks.

    Returns:
        The task for [`~vidformers.commands.pretrain.pretrain`].

    Raises:
        ModuleNotFoundError: a package that this needs is not installed.
        OSError: there is no such model.
        ValueError: what was asked for doesn't fit together, or a source has no video.
    """
    for package, purpose in {"accelerate": "the loop", "matplotlib": "the picture of the card"}.items():
        check_installed(package, purpose)
    opened = Directory.open(model) if model is not None else None
    family, base = _choose(opened, recipe, objective)
    name, base = str(model or _name(base)), _with_images(base) if images else replace(base, images=None)
    videos = {str(source): find_unlabeled(source) for source in sources}
    found_images = {str(source): find_unlabeled(source, IMAGES) for source in images}
    given = tuple(weights) if weights else tuple(float(len(found)) for found in videos.values())
    if len(given) != len(videos) or not min(given) >= 0 or not sum(given) > 0:
        raise ValueError(f"Expected a weight for each of {len(videos)} sources, none below 0, got {list(given)}.")
    set_seed(seed)
    if opened is not None and recipe is None:
        base = replace(base, **_size_of(opened))
    chosen = change(base, changes or {})
    if opened is None:
        trained, loading = new_model(family, chosen), "New: everything."
        processor = _package(family.video_processor_class)(crop_size=chosen.crop_size)
    else:
        trained, loading, processor = load_model(opened, chosen)
    kept = Path(opened.path) / OPTIMIZER_FILE if opened is not None else None
    optimizer_state = read_optimizer_state(kept, trained) if kept and kept.is_file() else None
    if images and not trained.learns_from_images:
        raise ValueError(
            f"{name}: this model has no embedding of images (`use_image_patch_embedder`), so that it can learn from "
            "videos alone; those of V-JEPA 2.1 have one."
        )
    task = Task(trained, loading, processor, chosen, videos, given, found_images, name, seed, optimizer_state)
    _try_masks(task)
    return task


def _with_images(recipe: Recipe) -> Recipe:
    """The recipe, or a ValueError if it says nothing of images."""
    if recipe.images is None:
        able = ", ".join(name for name, (_, each) in recipes().items() if each.images)
        raise ValueError(f"The recipe {_name(recipe)} doesn't say how to learn from images. These do: {able}.")
    return recipe


def _try_masks(task: Task) -> None:
    """A ValueError if the masks of a task leave nothing."""
    with seeded(task.seed):
        collator(task).model_inputs([{"pixel_values_videos": torch.zeros(task.recipe.num_frames, 1, 1, 1)}])
        if task.recipe.images:
            image_collator(task).model_inputs([{"pixel_values_videos": torch.zeros(1, 1, 1, 1)}])


def _choose(opened: Directory | None, recipe: str | None, objective: str | None) -> tuple[Family, Recipe]:
    """The family to train a model of, and the recipe, once it is known that they fit together."""
    able = {name: family for name, family in FAMILIES.items() if AUTO_CLASS in family.auto_models}
    known = recipes()
    if recipe is not None and recipe not in known:
        raise ValueError(f"There is no recipe {recipe!r}. There are {', '.join(known)}.")
    if objective is not None and objective not in able:
        raise ValueError(f"Expected an objective among {', '.join(able)}, got {objective!r}.")
    asked = {f"the objective {objective}": objective} if objective else {}
    if recipe is not None:
        asked[f"the recipe {recipe}"] = known[recipe][0].model_type
    if opened is not None:
        asked[f"the model {opened.path}"] = opened.config.model_type
    if not asked:
        raise ValueError("Say what to train: a model to go on from, a recipe, or an objective.")
    if len(set(asked.values())) > 1:
        listed = "; ".join(f"{what} is of {name}" for what, name in asked.items())
        raise ValueError(f"Expected all of one family: {listed}.")
    (name,) = set(asked.values())
    if name not in able:
        raise ValueError(f"No model of the type {name} can be pre-trained here; those of {', '.join(able)} can.")
    return able[name], known[recipe][1] if recipe else next(iter(able[name].recipes.values()))


def _name(recipe: Recipe) -> str:
    return next((name for name, (_, each) in recipes().items() if each == recipe), recipe.source)


def _package(name: str) -> Any:
    return getattr(import_module("vidformers"), name)


def _size_of(opened: Directory) -> dict[str, int]:
    """Frames and crop that a directory's model is meant for."""
    processor = AutoVideoProcessor.from_pretrained(opened.path)
    with torch.device("meta"):
        frames = frames_of_a_clip(opened.model_class(opened.config), processor)
    return {"num_frames": frames, "crop_size": processor.crop_size["height"]}


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with other fields, once it is known that they can be.

    Args:
        recipe: the recipe.
        changes: values by the names of fields. Of `fps` and `frame_step`, one takes the other's place; and what ends
            as it begins, such as `momentum` and `final_momentum`, goes on doing so where the end isn't given. Of
            `images`, a mapping changes some fields; their batch grows and shrinks with that of clips if it isn't
            given.

    Raises:
        ValueError: there is no such field, or a value cannot be.
    """
    known = {each.name for each in fields(Recipe)} - {"source", "config", "data", "notes"}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise ValueError(f"A recipe has no {', '.join(unknown)} to set. It has {', '.join(sorted(known))}.")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    for name, other in (("fps", "frame_step"), ("frame_step", "fps")):
        if values.get(name) is not None:
            values.setdefault(other, None)
    for name in ("learning_rate", "weight_decay", "momentum"):
        if name in values and getattr(recipe, name) == getattr(recipe, f"final_{name}"):
            values.setdefault(f"final_{name}", values[name])
    if "images" in values or recipe.images:
        values["images"] = _changed_images(recipe, values)
    return check_recipe(replace(recipe, **values))


def _changed_images(recipe: Recipe, values: Mapping[str, Any]) -> ImageRecipe:
    """What a recipe with these values says of images."""
    given = values.get("images", {})
    known = [each.name for each in fields(ImageRecipe)]
    if recipe.images is None or not isinstance(given, Mapping) or not given.keys() <= set(known):
        raise ValueError(
            f"Expected `images` as a mapping with some of {', '.join(known)}, for a training with images "
            f"(`--images`), got {given}."
        )
    ratio = values.get("batch_size", recipe.batch_size) / recipe.batch_size
    return replace(recipe.images, **{"batch_size": round(recipe.images.batch_size * ratio), **given})


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """Fields of a recipe as the command line has them, "name=value", values in JSON or plain words.

    Raises:
        ValueError: there is no "=" in one.
    """
    changes = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"Expected FIELD=VALUE, such as warmup_steps=100, got {setting!r}.")
        try:
            changes[name] = json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    return changes


def notes(task: Task) -> list[str]:
    """What a user should know before a training begins, a line each."""
    recipe, lines = task.recipe, []
    for kind, sources in (("Videos", task.videos), ("Images", task.images)):
        counts = ", ".join(f"{len(found)} in {source}" for source, found in sources.items())
        lines += [f"{kind}: {counts}."] if counts else []
    lines += [f"{type(task.model).__name__} from {task.base}. {task.loading}", *recipe.notes]
    if task.optimizer_state is not None:
        lines.append("The optimizer goes on from where the model's training left it.")
    if recipe.warmup_steps >= recipe.steps:
        lines.append(
            f"The warm-up of {recipe.warmup_steps} steps outlasts the training of {recipe.steps}: see `warmup_steps`."
        )
    return lines


def describe(record: Mapping[str, float]) -> str:
    """A record in a line."""
    parts = [f"step {record['step']}: loss {record['loss']:.4f}, rate {record['learning_rate']:.2e}"]
    if "target_std" in record:
        parts.append(f"targets: std {record['target_std']:.3f}, rank {record['target_effective_rank']:.1f}")
    return ", ".join([*parts, f"{record['seconds_per_step']:.2f} s a step"])


def new_model(family: Family, recipe: Recipe) -> VideoPreTrainedModel:
    """A model of random weights, as a recipe says.

    Raises:
        ValueError: the recipe goes on from a model.
    """
    if not recipe.config:
        raise ValueError("This recipe goes on from a model: name one, of an earlier recipe or a published one.")
    model_class = _package(family.auto_models[AUTO_CLASS])
    config = model_class.config_class(**recipe.config)
    return model_class(_config_for(model_class, config, recipe))


def _config_for(model_class: type[VideoPreTrainedModel], config: PreTrainedConfig, recipe: Recipe) -> PreTrainedConfig:
    """The configuration of a model that a recipe trains."""
    config = model_class.for_pretraining(config, recipe.num_frames, recipe.crop_size)
    for name, value in recipe.loss.items():
        setattr(config, name, value)
    if recipe.images and recipe.images.crop_size != recipe.crop_size:
        config.pred_positions_from_input = True  # as the original's processes with images have a grid of their own
    return config


def load_model(opened: Directory, recipe: Recipe) -> tuple[VideoPreTrainedModel, str, VideoProcessor]:
    """A directory's model for clips of a recipe's size, what is new in it in a line, and its processor."""
    model_class = _package(opened.record.auto_models[AUTO_CLASS])
    config = _config_for(model_class, opened.config, recipe)
    with loading_unreported():  # said in the line
        model, found = AutoModelForPreTraining.from_pretrained(
            opened.path, config=config, dtype=torch.float32, output_loading_info=True
        )
    processor = AutoVideoProcessor.from_pretrained(opened.path)
    if processor.crop_size["height"] != recipe.crop_size:
        processor = AutoVideoProcessor.from_pretrained(opened.path, crop_size=recipe.crop_size)
    return model, new_and_left_out(found), processor


def collator(task: Task) -> Any:
    """What draws a task's masks."""
    recipe = task.recipe
    return task.model.mask_collator(recipe.masks, recipe.num_frames, recipe.crop_size)


def image_collator(task: Task) -> Any:
    """What draws the masks of a task's images."""
    return task.model.mask_collator(task.recipe.images.masks, 1, task.recipe.images.crop_size)


def batches_of(task: Task, shares: Shares) -> ClipBatches | MixedBatches:
    """The batches that a task is learned from.

    Args:
        task: the task.
        shares: how clips and images of a step are shared out.
    """
    clips = ClipBatches(
        list(task.videos.values()),
        task.weights,
        ClipReader(task.recipe),
        collator(task),
        shares.clips,
        per_step=shares.batches,
        seed=task.seed,
    )
    if not task.images:
        return clips
    images = ClipBatches(
        list(task.images.values()),
        [float(len(found)) for found in task.images.values()],
        ImageReader(task.recipe, task.recipe.images),
        image_collator(task),
        shares.images,
        per_step=shares.image_batches,
        seed=task.seed + 1,  # other crops than those of clips
        of_images=True,
    )
    return MixedBatches(images, clips)


def pretrain(
    task: Task,
    out: str | os.PathLike,
    *,
    micro_batch: int | None = None,
    precision: str | None = None,
    checkpointing: bool = False,
    save_every: int = 300,
    log_every: int = 10,
    workers: int = 2,
    most_unusable: float = 0.1,
    trackers: str | Sequence[str] | None = None,
    resume: bool = False,
    skip_step: bool = False,
    progress: Progress = no_progress,
    on_record: Callable[[Mapping[str, float]], None] = lambda record: None,
    on_unusable: Callable[[str], None] = lambda reason: None,
) -> list[dict[str, float]]:
    """Train a task's model, and write a directory for `from_pretrained` with a card that shows how it went.

    While it runs, its state is kept in a folder beside `out`, from which `resume` goes on.

    Args:
        task: from [`~vidformers.commands.pretrain.prepare`].
        out: the directory.
        micro_batch: clips that a process takes at once; by default all of a step that fall to it.
        precision: "no", "bf16" or "fp16"; by default what `accelerate launch` or `accelerate config` say.
        checkpointing: compute activations again in the backward pass instead of keeping them.
        save_every: steps from one checkpoint to the next.
        log_every: steps from one record to the next.
        workers: processes that make batches; 0 to make them in this one.
        most_unusable: share of the videos that may be unusable.
        trackers: of accelerate, such as "tensorboard", "wandb" or "all".
        resume: go on where an earlier run with the same task stopped; if a DivergedError stopped it, rates may differ.
        skip_step: leave out the step of that error.
        progress: called with an activity and how much of it is done.
        on_record: called with every record: `step`, `loss` and its parts, the rates, `gradient_norm`, `target_std` and
            `target_effective_rank`, `unusable` videos so far, and `seconds_per_step`; with images also `image_loss`
            and `video_loss`, whose mean, weighted by their batches, is `loss`.
        on_unusable: called with the reason why a video was passed over.

    Returns:
        All records.

    Raises:
        DivergedError: the loss is no number; the state before that step is kept.
        ValueError: clips and images cannot be shared out; `out` exists already; there is a state beside it that is not
            to be resumed, or of another task; or too many videos are unusable.
    """
    from accelerate import Accelerator, DistributedType
    from accelerate.utils import ProjectConfiguration

    out, recipe = check_target(out, folder=True), task.recipe
    accelerator = Accelerator(
        mixed_precision=precision,
        log_with=trackers,
        project_config=ProjectConfiguration(logging_dir=str(out.with_name(f"{out.name}.logs"))),
        kwargs_handlers=_distribution(task.model),
    )
    sharded = accelerator.distributed_type == DistributedType.FSDP
    shares = share_out(recipe, micro_batch, accelerator.num_processes, sharded)
    accelerator.gradient_accumulation_steps = shares.times
    with accelerator.main_process_first():
        own = accelerator.is_main_process
        state = _checked_state(out, task, shares, resume or not own)
    if checkpointing:
        # Before 5.23, transformers has the second name alone.
        getattr(task.model, "activation_checkpointing_enable", task.model.gradient_checkpointing_enable)()
    accelerator.init_trackers(out.name, {key: each for key, each in asdict(recipe).items() if not _is_compound(each)})
    trainer = PreTrainer(
        task.model,
        batches_of(task, shares),
        recipe,
        accelerator,
        state,
        save_every=save_every,
        log_every=log_every,
        workers=workers,
        most_unusable=most_unusable,
        skip_step=skip_step,
        optimizer_state=task.optimizer_state,
    )
    history = trainer.train(on_record, progress, on_unusable)
    _write(trainer, task, out)
    if own:
        shutil.rmtree(state)
    accelerator.end_training()
    return history


def _checked_state(out: Path, task: Task, shares: Shares, resume: bool) -> Path:
    """The folder for the state of a training; where it ended at a step, other rates may follow."""
    noted = task.record
    recipe = {f"recipe.{name}": value for name, value in noted.pop("recipe").items()}
    has_diverged = (out.with_name(f"{out.name}.training") / DIVERGED_FILE).is_file()
    free = [f"recipe.{name}" for name in RATES] if has_diverged else []
    return check_state(out, noted | recipe | {"clips_at_once": shares.clips}, resume, free)


def _distribution(model: VideoPreTrainedModel) -> list[Any]:
    from accelerate import DistributedDataParallelKwargs

    return [DistributedDataParallelKwargs(find_unused_parameters=model.may_leave_parameters_out)]


def _is_compound(value: Any) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str)


def _write(trainer: PreTrainer, task: Task, out: Path) -> None:
    """Write the directory; in the main process, with what the others hold of the weights."""
    weights, optimizer_state = trainer.weights(), trainer.optimizer_state()
    if trainer.accelerator.is_main_process:
        with written_whole(out, folder=True) as (place,):
            trainer.bare_model.save_pretrained(place, state_dict=weights)
            task.processor.save_pretrained(place)
            torch.save(optimizer_state, place / OPTIMIZER_FILE)
            write_card(place, task.record, trainer.history)
    trainer.accelerator.wait_for_everyone()
