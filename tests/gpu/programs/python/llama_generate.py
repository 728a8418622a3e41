"""transformers' generate: greedy, sampled and by beams; argument: static, for its static cache."""

import sys

import llama
import torch
from common import show

static = "static" in sys.argv
model = llama.make(attn_implementation="sdpa")
cache = {"cache_implementation": "static", "disable_compile": True} if static else {}
for i, prompt in enumerate(llama.prompts(4)):
    ids = torch.tensor([prompt], device="cuda")
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False, **cache)
    print(i, out[0, len(prompt):].tolist(), flush=True)
batch = torch.tensor([p[:16] for p in llama.prompts(8)], device="cuda")
mask = torch.ones_like(batch)
torch.manual_seed(10)
with torch.no_grad():
    show("sampled", model.generate(batch, attention_mask=mask, max_new_tokens=32, do_sample=True, top_k=50, **cache))
    if not static:
        show("beams", model.generate(batch, attention_mask=mask, max_new_tokens=32, num_beams=3, do_sample=False))
    show("logits", model(batch).logits)
