"""Imports everything that a run imports, in the process that `killing` forks from."""

import gc

import killing  # noqa: F401
import safetensors.torch  # noqa: F401
import transformers.models.gpt2.modeling_gpt2
import transformers.models.roberta.modeling_roberta  # noqa: F401
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

import rosa_bench.run
import rosa_bench.suite  # noqa: F401

gc.collect()
gc.freeze()  # so that no child looks through all of it, and copies the pages, whenever it collects
