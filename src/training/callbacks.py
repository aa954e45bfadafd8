"""What lets the Trainer of transformers pre-train by a recipe."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.models.records import Recipe

from .pretraining import check_recipe, rates_at, set_rates


class RecipeCallback(TrainerCallback):
    """Sets the rates of a recipe before every step of a Trainer, and lets the teacher follow after it.

    The Trainer needs AdamW over `model.parameter_groups`, as the first of its `optimizers`, and `model_inputs` of the
    model's `mask_collator` as its `data_collator`. Its own schedule of the learning rate has no effect then.

    Args:
        recipe: whose steps count as those of the Trainer do.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = check_recipe(recipe)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: VideoPreTrainedModel,
        **others: Any,
    ) -> None:
        """Weight the loss of context tokens, in models that have one.

        Args:
            args, state, control, model, **others: as the Trainer gives them to any callback.
        """
        rates = rates_at(self.recipe, state.global_step)
        if "context_loss_weight" in rates:
            model.config.context_loss_weight = rates["context_loss_weight"]

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: torch.optim.Optimizer,
        **others: Any,
    ) -> None:
        """Set learning rate and weight decay.

        Args:
            args, state, control, optimizer, **others: as the Trainer gives them to any callback.
        """
        set_rates(optimizer, rates_at(self.recipe, state.global_step))

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: VideoPreTrainedModel,
        **others: Any,
    ) -> None:
        """Move the teacher.

        Args:
            args, state, control, model, **others: as the Trainer gives them to any callback.
        """
        model.update_teacher(rates_at(self.recipe, state.global_step)["momentum"])
