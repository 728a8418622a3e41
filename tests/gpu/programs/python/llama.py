"""A tiny Llama with random weights, made from a config: nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def make(**more):
    torch.manual_seed(8)
    config = LlamaConfig(vocab_size=2048, hidden_size=512, intermediate_size=1024, num_hidden_layers=4,
                         num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=1,
                         eos_token_id=None, pad_token_id=0, **more)
    return LlamaForCausalLM(config).to("cuda").eval()


def prompts(count):
    generator = torch.Generator().manual_seed(9)
    return [torch.randint(2, 2048, (16 + 7 * i,), generator=generator).tolist() for i in range(count)]
