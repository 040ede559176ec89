"""Pre-trains the two mini backbones that the package ships, on prose of the embedded world, on one CPU core.

    python scripts/pretrain_minis.py roberta_mini
    python scripts/pretrain_minis.py gpt2_mini

The step budget is fixed, the data are a pure function of the step, and a checkpoint is written atomically under
``results/pretrain/<name>/``: after an interruption the same command resumes. At the end the weights (fp16), the
tokenizer, ``card.json`` and ``README.md`` land in ``rosa_bench/embedded/models/<name>/``.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import torch.nn.functional as F
from minis_card import export, tree_sha
from minis_data import Batch, batch_at, held_out_batches, load_or_train_tokenizer, prose_seeds
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForMaskedLM,
)
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "rosa_bench" / "embedded" / "models"
LOSS_POINTS = 50
HELD_OUT_SENTENCES = 1000


@dataclass(frozen=True, kw_only=True)
class Mini:
    """Recipe of one mini backbone: its size, its data and its schedule."""

    name: str
    kind: str  # "encoder" (masked words) or "decoder" (next word)
    vocab: int
    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int
    steps: int
    tokens_per_batch: int = 1024
    lr: float = 1e-3
    warmup: int = 500
    weight_decay: float = 0.01
    clip: float = 1.0
    judging: float = 0.0  # weight of the loss for detecting altered words, relative to the loss for masked words
    seed: int = 0


SHAPE: dict[str, Any] = {"hidden": 192, "layers": 4, "heads": 3, "ffn": 768}
MINIS = {
    # nearly every word is one piece: with 2,000 pieces the same budget learns almost no agreement
    "roberta_mini": Mini(
        name="roberta_mini", kind="encoder", vocab=5000, positions=130, steps=12500, judging=8.0, **SHAPE
    ),
    # names are an open class and are spelled in pieces
    "gpt2_mini": Mini(name="gpt2_mini", kind="decoder", vocab=3000, positions=256, steps=10000, **SHAPE),
}


class Judge(torch.nn.Module):
    """Predicts for each position whether its word was altered. Used only in pre-training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense, self.out = torch.nn.Linear(hidden, hidden), torch.nn.Linear(hidden, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[positions, hidden] to logits [positions]."""
        out: torch.Tensor = self.out(F.gelu(self.dense(hidden))).squeeze(-1)
        return out


def build(mini: Mini, tokenizer: PreTrainedTokenizerBase, dropout: float = 0.0) -> PreTrainedModel:
    """Create the model of a recipe with new weights, without dropout because the data never repeat."""
    shared: dict[str, Any] = {"vocab_size": len(tokenizer), "attn_implementation": "eager"}
    if mini.kind == "encoder":
        return RobertaForMaskedLM(
            RobertaConfig(
                hidden_size=mini.hidden,
                num_hidden_layers=mini.layers,
                num_attention_heads=mini.heads,
                intermediate_size=mini.ffn,
                max_position_embeddings=mini.positions,
                type_vocab_size=1,
                layer_norm_eps=1e-5,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **shared,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=mini.hidden,
            n_layer=mini.layers,
            n_head=mini.heads,
            n_inner=mini.ffn,
            n_positions=mini.positions,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shared,
        )
    )


def hidden_states(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The backbone's hidden states [positions of all rows, hidden]."""
    out: torch.Tensor = model.base_model(input_ids=batch.inputs, attention_mask=batch.attention).last_hidden_state
    return out.flatten(0, 1)


def guessing_loss(model: PreTrainedModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the predicted positions; no other logits are computed."""
    return F.cross_entropy(model.lm_head(hidden[batch.predicted]).float(), batch.targets, reduction="sum")


def judging_loss(judge: torch.nn.Module, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of detecting altered words."""
    assert batch.judged is not None and batch.altered is not None
    return F.binary_cross_entropy_with_logits(judge(hidden[batch.judged]).float(), batch.altered)


@torch.no_grad()
def held_out_loss(mini: Mini, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int) -> float:
    """Mean loss (nats per predicted token, fp32) on held-out prose; ``count`` as in `held_out_batches`."""
    model.eval()
    total, predicted = 0.0, 0
    for batch in held_out_batches(mini, tokenizer, count):
        total += guessing_loss(model, batch, hidden_states(model, batch)).item()
        predicted += batch.targets.numel()
    model.train()
    return total / predicted


def lr_factor(mini: Mini, step: int) -> float:
    """Factor of the learning rate: linear warm-up, then a half cosine down to 2 %."""
    if step < mini.warmup:
        return (step + 1) / mini.warmup
    progress = (step - mini.warmup) / max(1, mini.steps - mini.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def optimizer_of(mini: Mini, model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices, but not for biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": mini.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=mini.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically: if the process is killed, the old or the new one remains."""
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial_path.replace(path)


@dataclass
class Progress:
    """Progress of a run, saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    resumed: int = 0
    window_loss: float = 0.0
    window_count: int = 0
    curve: list[tuple[int, float]] | None = None


class Trainee(NamedTuple):
    """A model and its judge in training: fp32 weights, and a bf16 copy for computing (faster than autocast)."""

    model: torch.nn.ModuleList
    shadow: torch.nn.ModuleList
    optimizer: torch.optim.AdamW


def train(mini: Mini, folder: Path, minutes: float | None, every: int = 200) -> tuple[PreTrainedModel, Progress]:
    """Train to the end of the recipe, or for some minutes, from the checkpoint in ``folder`` if there is one."""
    tokenizer = load_or_train_tokenizer(mini, folder)
    torch.manual_seed(mini.seed)
    model = build(mini, tokenizer).train()
    both = torch.nn.ModuleList([model, Judge(mini.hidden)] if mini.judging else [model])
    optimizer, progress, path = optimizer_of(mini, both), Progress(curve=[]), folder / "checkpoint.pt"
    trainee = Trainee(both, copy.deepcopy(both).bfloat16(), optimizer)
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["recipe"] != repr(mini):
            raise ValueError(f"{path} belongs to another recipe, {state['recipe']}; delete it to start again")
        both.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        progress.resumed += 1
        print(f"{mini.name}: resuming from step {progress.step}", flush=True)
    cast_into(trainee.shadow, both)
    started, wall_before = time.monotonic(), progress.wall_s
    while progress.step < mini.steps:
        train_step(mini, trainee, batch_at(mini, tokenizer, progress.step), progress)
        progress.wall_s = wall_before + time.monotonic() - started
        expired = minutes is not None and time.monotonic() - started > 60 * minutes
        if progress.step % every == 0 or progress.step == mini.steps or expired:
            checkpoint = {"recipe": repr(mini), "model": both.state_dict(), "optimizer": optimizer.state_dict()}
            save_atomically({**checkpoint, "progress": vars(progress)}, path)
        if expired:
            break
    return model, progress


@torch.no_grad()
def cast_into(shadow: torch.nn.Module, model: torch.nn.Module) -> None:
    """Round the fp32 weights into the bf16 copy."""
    for copied, weight in zip(shadow.parameters(), model.parameters(), strict=True):
        copied.copy_(weight)


def train_step(mini: Mini, trainee: Trainee, batch: Batch, progress: Progress) -> None:
    """Take one optimizer step in bf16 and add its loss to the curve."""
    model, shadow, optimizer = trainee
    for group in optimizer.param_groups:
        group["lr"] = mini.lr * lr_factor(mini, progress.step)
    hidden = hidden_states(shadow[0], batch)
    loss = guessing_loss(shadow[0], batch, hidden) / batch.targets.numel()
    (loss + mini.judging * judging_loss(shadow[1], batch, hidden) if mini.judging else loss).backward()
    for weight, copied in zip(model.parameters(), shadow.parameters(), strict=True):
        weight.grad, copied.grad = copied.grad.float(), None
    torch.nn.utils.clip_grad_norm_(model.parameters(), mini.clip)
    optimizer.step()
    cast_into(shadow, model)
    progress.step += 1
    progress.tokens += int(batch.attention.sum()) if batch.attention is not None else batch.inputs.numel()
    progress.window_loss += loss.item()
    progress.window_count += 1
    if progress.step % max(1, mini.steps // LOSS_POINTS) == 0 or progress.step == mini.steps:
        mean = progress.window_loss / progress.window_count
        assert progress.curve is not None
        progress.curve.append((progress.step, round(mean, 4)))
        progress.window_loss, progress.window_count = 0.0, 0
        rate = progress.tokens / max(1e-9, progress.wall_s)
        print(f"{mini.name} step {progress.step}/{mini.steps} loss {mean:.4f} tok/s {rate:.0f}", flush=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(MINIS))
    parser.add_argument("--minutes", type=float, help="stop after this many minutes; the same command resumes later")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (results depend on it)")
    parser.add_argument("--steps", type=int, help="number of steps for a trial (default: the recipe's)")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "pretrain", help="folder for checkpoints")
    parser.add_argument(
        "--models", type=Path, default=ROOT / "rosa_bench" / "embedded" / "models", help="folder for the result"
    )
    return parser.parse_args()


def main() -> None:
    """Run one recipe and write the folder to ship."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    logging.set_verbosity_error()
    mini = MINIS[args.name]
    if args.steps is not None:
        mini = replace(mini, steps=args.steps)
    folder = args.results / mini.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "git_sha").exists():  # the commit at the start of the run, also after a resume
        (folder / "git_sha").write_text(tree_sha(ROOT, "rosa_bench/embedded", "scripts"))
    model, progress = train(mini, folder, args.minutes)
    if progress.step < mini.steps:
        print(f"{mini.name}: stopped at step {progress.step}; run the same command to resume")
        return
    tokenizer = load_or_train_tokenizer(mini, folder)
    shipped = build(mini, tokenizer, dropout=0.1)
    shipped.load_state_dict(model.state_dict())
    facts = {
        "git_sha": (folder / "git_sha").read_text(),
        "recipe": vars(mini),
        "threads": args.threads,
        "prose_seeds": prose_seeds(mini),
        **{key: value for key, value in vars(progress).items() if not key.startswith("window")},
    }
    measure = partial(held_out_loss, mini, tokenizer=tokenizer, count=HELD_OUT_SENTENCES)
    target = export(shipped, tokenizer, args.models / mini.name, facts, measure)
    print(f"{mini.name}: written to {target}")


if __name__ == "__main__":
    main()
