"""The peers: `peft` with `transformers.Trainer`, and the Trainer alone, as in their GLUE example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from bench.ours import Clock, forget
from rosa_bench.config import Train
from rosa_bench.core.task import Encoded


def as_dataset(rows: Sequence[Encoded], pad_to: int | None, pad_id: int) -> datasets.Dataset:
    """Encoded rows as a dataset; with `pad_to`, padded to this length."""

    def features(row: Encoded) -> dict[str, Any]:
        missing = 0 if pad_to is None else pad_to - len(row.input_ids)
        ids, mask = row.input_ids + [pad_id] * missing, [1] * len(row.input_ids) + [0] * missing
        return {"input_ids": ids, "attention_mask": mask, "label": row.labels}

    return datasets.Dataset.from_list([features(row) for row in rows])


class Peer:
    """A peer's model, which can be trained repeatedly on rows that this package encoded."""

    def __init__(self, model: Path, out: Path, lora: bool, seed: int = 1) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(seed)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(model)
        self.out, self.seed = out, seed
        if lora:
            config = peft.LoraConfig(
                task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"]
            )
            self.model = peft.get_peft_model(self.model, config)

    def arguments(self, train: Train, steps: int, micro: int | None) -> TrainingArguments:
        """Our run's options, and the Trainer's defaults for options that the example does not set."""
        micro = micro or train.batch_size
        return TrainingArguments(
            output_dir=str(self.out), per_device_train_batch_size=micro,
            gradient_accumulation_steps=train.batch_size // micro, max_steps=steps,
            learning_rate=train.lr or 0.0, lr_scheduler_type=train.schedule, warmup_steps=train.warmup,
            weight_decay=train.weight_decay, adam_beta1=train.beta1, adam_beta2=train.beta2,
            adam_epsilon=train.adam_epsilon, max_grad_norm=train.max_grad_norm, bf16=train.precision == "bf16",
            use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=torch.cuda.is_available(), seed=self.seed,
            save_strategy="no", report_to="none", disable_tqdm=True, log_level="error",
        )  # fmt: skip

    def train(
        self,
        rows: Sequence[Encoded],
        train: Train,
        steps: int,
        *,
        pad_to: int | None = None,
        micro: int | None = None,
        in_order: bool = False,
        prepare: Callable[[Any], None] | None = None,
        clock: Clock | None = None,
    ) -> Clock:
        """Train with a new optimizer; batches are padded to their longest row, or to `pad_to` tokens."""
        cls = InOrder if in_order else Trainer
        trainer = cls(
            model=self.model,
            args=self.arguments(train, steps, micro),
            train_dataset=as_dataset(rows, pad_to, self.tokenizer.pad_token_id),
            processing_class=self.tokenizer,
            data_collator=transformers.DataCollatorWithPadding(self.tokenizer),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        clock = clock or Clock()
        trainer.add_callback(clock)
        if prepare:
            prepare(trainer)
        trainer.train()
        del trainer
        forget(self.model)
        return clock


class InOrder(Trainer):
    """Takes the rows in their order, so that its batches equal those of another run."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)
