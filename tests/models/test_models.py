"""Backbones of several classes: weights by role, heads, pad tokens and maximum lengths."""

from __future__ import annotations

import pytest
import torch
import transformers
from support import composed

from rosa_bench.errors import UsageError
from rosa_bench.evaluation.predict import evaluating
from rosa_bench.models.load import load
from rosa_bench.models.roles import ROLES, features, find_sites, freeze_backbone, weight_IO
from rosa_bench.models.traits import max_length
from rosa_bench.modules.lowrank import rank_of

KINDS = ["roberta", "bert", "bart", "gpt2", "opt", "llama"]


def loaded(backbone, kind: str, task: str = "cola"):
    run = composed(f"model.path={backbone(kind)}", f"task={task}")
    return load(run.model, run.task, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_every_role(backbone, kind):
    model, _ = loaded(backbone, kind)
    sites = find_sites(model, ["all"])
    per_layer = {role: sum(site.role == role for site in sites) for role in ROLES}
    expected = dict.fromkeys(ROLES, 2) | ({"ffn_in": 4} if kind == "llama" else {})  # a gated layer has two inputs
    if kind == "bart":  # two layers each in encoder and decoder, and attention to the encoder in the decoder's
        expected = dict.fromkeys("qkvo", 6) | {"ffn_in": 4, "ffn_out": 4}
    assert per_layer == expected and len({site.label for site in sites}) == len(sites)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sites_weight_computes_the_modules_output(backbone, kind):
    model, _ = loaded(backbone, kind)
    for site in find_sites(model, ["all"]):
        module = model.get_submodule(site.name)
        x = torch.randn(3, features(module)[0])
        bias = getattr(module, "bias", None)
        y = x @ weight_IO(module)[:, site.start : site.stop]
        y = y if bias is None else y + bias[site.start : site.stop]
        assert torch.allclose(module(x)[:, site.start : site.stop], y, atol=1e-6)


def test_a_missing_role_is_named():
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 2)})

    with pytest.raises(UsageError, match=r"no weight of role v; available roles: q"):
        find_sites(Odd(), ["q", "v"])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_logits(backbone, kind):
    model, tokenizer = loaded(backbone, kind)
    pad = tokenizer.pad_token_id
    assert pad is not None and model.config.pad_token_id == pad
    ids = torch.tensor([[5, 6, 7, 2]])  # 2 ends a text of BART, whose classifier looks for it
    padded = torch.tensor([[5, 6, 7, 2, pad, pad], [5, 6, 7, 8, 9, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    with evaluating(model):
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        together = model(input_ids=padded, attention_mask=mask).logits[0]
    assert torch.allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "longest"), [("roberta", 128), ("bert", 128), ("bart", 128), ("gpt2", 160), ("opt", 128), ("llama", 128)]
)
def test_maximum_length_follows_the_position_embeddings(backbone, kind, longest):
    model, tokenizer = loaded(backbone, kind)
    assert max_length(model, 10_000) == longest and max_length(model, 20) == 20
    ids = torch.full((1, longest), 6)
    ids[0, -1] = 2
    with evaluating(model):
        assert torch.isfinite(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all()
    assert tokenizer is not None


def test_heads_and_problem_types(backbone):
    assert loaded(backbone, "bert", "stsb")[0].config.problem_type == "regression"
    assert loaded(backbone, "bert", "mnli")[0].config.num_labels == 3
    assert isinstance(loaded(backbone, "gpt2", "e2e")[0], transformers.GPT2LMHeadModel)


def test_a_new_head_depends_only_on_the_seed(backbone):
    run = composed(f"model.path={backbone('roberta')}")
    heads = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        heads.append(load(run.model, run.task, seed)[0].classifier.dense.weight.detach().clone())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_randomly_initialized_backbone_has_the_same_shape(backbone):
    run = composed(f"model.path={backbone('roberta')}")
    control = composed(f"model.path={backbone('roberta')}", "model.random_init=true")
    known, random = (load(r.model, r.task, 1)[0] for r in (run, control))
    assert {n: p.shape for n, p in known.named_parameters()} == {n: p.shape for n, p in random.named_parameters()}
    weights = [m.roberta.embeddings.word_embeddings.weight for m in (known, random)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_leaves_the_head_of_a_classifier(backbone, kind):
    model, _ = loaded(backbone, kind)
    freeze_backbone(model, train_head=True)
    trained = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    head = {
        "roberta": {"classifier.dense", "classifier.out_proj"},
        "bert": {"classifier", "bert.pooler.dense"},  # a masked language model, which the folder holds, has no pooler
        "bart": {"classification_head.dense", "classification_head.out_proj"},
    }.get(kind, {"score"})
    assert trained == head
    freeze_backbone(model, train_head=False)
    assert not any(p.requires_grad for p in model.parameters())


def test_freezing_a_language_model_leaves_nothing(backbone):
    model, _ = loaded(backbone, "gpt2", "e2e")
    freeze_backbone(model, train_head=True)
    assert not any(p.requires_grad for p in model.parameters())


def test_an_encoder_decoder_classifies_but_does_not_generate(backbone):
    assert isinstance(loaded(backbone, "bart")[0], transformers.BartForSequenceClassification)
    for task in ("e2e", "sciq"):
        with pytest.raises(UsageError, match=f"task={task} needs a causal decoder; .* is a bart"):
            loaded(backbone, "bart", task)


@pytest.mark.parametrize("name", ["bert_base", "bert_large", "bart_base", "bart_large", "opt_125m", "opt_1_3b"])
def test_a_named_backbone_is_pinned_and_may_be_a_folder(name, backbone):
    run = composed(f"model={name}")
    assert run.model.hub.partition("/")[2].removesuffix("-uncased").replace(".", "_").replace("-", "_") == name
    assert len(run.model.revision) == 40
    run = composed(f"model={name}", f"model.path={backbone(name.partition('_')[0])}")
    assert load(run.model, run.task, 0)[0].config.model_type == name.partition("_")[0]


@pytest.mark.parametrize(("rank", "expected"), [(4, 4), (99, 99), (0.25, 3), (0.001, 1), (0.999, 11)])
def test_ranks_as_numbers_and_shares(rank, expected):
    assert rank_of(rank, 12, 30) == expected == rank_of(rank, 30, 12)
