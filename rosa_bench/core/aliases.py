"""Other programs' names for configuration keys, used to suggest the right key for a wrong one."""

from __future__ import annotations

from collections.abc import Iterable

from rosa_bench.errors import nearest

# Names from transformers' Trainer and example scripts, peft's LoraConfig, trackers and optimizers.
FOREIGN = {
    "learning_rate": "train.lr",
    "lr": "train.lr",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "max_train_steps": "train.max_steps",
    "steps": "train.max_steps",
    "per_device_train_batch_size": "train.batch_size",
    "train_batch_size": "train.batch_size",
    "bs": "train.batch_size",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size, examples per forward pass of train.batch_size",
    "accumulate_grad_batches": "train.micro_batch_size, examples per forward pass of train.batch_size",
    "wd": "train.weight_decay",
    "warmup_ratio": "train.warmup, a fraction of all steps if below 1",
    "warmup_steps": "train.warmup, a number of steps if 1 or more",
    "num_warmup_steps": "train.warmup, a number of steps if 1 or more",
    "lr_scheduler_type": "train.schedule",
    "lr_scheduler": "train.schedule",
    "scheduler": "train.schedule",
    "optim": "train.optimizer",
    "optim_args": "train.optimizer_args",
    "momentum": "train.optimizer_args={momentum: VALUE}",
    "loraplus_lr_ratio": "train.lora_plus",
    "early_stopping_patience": "train.patience",
    "adam_beta1": "train.beta1",
    "adam_beta2": "train.beta2",
    "eps": "train.adam_epsilon",
    "gradient_clip_val": "train.max_grad_norm",
    "label_smoothing_factor": "train.label_smoothing",
    "max_seq_length": "train.max_length",
    "max_seq_len": "train.max_length",
    "model_max_length": "train.max_length",
    "block_size": "train.max_length",
    "bf16": "train.precision=bf16",
    "fp16": "train.precision=fp16",
    "tf32": "train.precision=tf32",
    "bf16_full_eval": "train.eval_precision=bf16",
    "fp16_full_eval": "train.eval_precision=fp16",
    "cuda_graphs": "train.graphs",
    "mixed_precision": "train.precision",
    "torch_dtype": "model.dtype",
    "dtype": "model.dtype",
    "max_train_samples": "train.limit_train",
    "max_eval_samples": "train.limit_eval",
    "logging_steps": "train.log_steps",
    "save_steps": "train.checkpoint_steps",
    "dataloader_num_workers": "train.num_workers",
    "group_by_length": "train.bucket",
    "use_cpu": "train.device=cpu",
    "no_cuda": "train.device=cpu",
    "resume_from_checkpoint": "resume",
    "overwrite_output_dir": "force",
    "logging_dir": "output_dir",
    "report_to": "tracker",
    "wandb_project": "tracker.project",
    "random_seed": "seed",
    "data_seed": "seed",
    "r": "method.rank",
    "lora_r": "method.rank",
    "lora_rank": "method.rank",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "target_modules": "method.targets",
    "use_dora": "method=dora",
    "use_rslora": "method=rslora",
    "init_lora_weights": "method.init, or method=peft method.config.init_lora_weights=NAME",
    "model_name": "model",
    "model_name_or_path": "model, or model.path=FOLDER",
    "pretrained_model_name_or_path": "model, or model.path=FOLDER",
    "task_name": "task",
    "dataset_name": "task and data",
    "data_dir": "data.dir",
    "num_return_sequences": "task.num_beams",
    "beam": "task.num_beams",
    "no_repeat_ngram_size": "task.no_repeat_ngram",
}


def meant(key: str, valid: Iterable[str], every: Iterable[str] = ()) -> str:
    """A hint for an unknown key: its name in rosa_bench, its full path, or the nearest valid keys.

    Args:
        key: the unknown key, dotted.
        valid: valid keys that `key` may misspell.
        every: the dotted keys of all groups.
    """
    last = key.rpartition(".")[2]
    elsewhere = sorted({known for known in every if known.rpartition(".")[2] == last})
    if elsewhere:
        return f"use {' or '.join(elsewhere)}"
    return f"use {FOREIGN[last]}" if last in FOREIGN else nearest(key, valid)
