"""transformers' continuous batching: a paged cache of fixed size, more requests than fit at once."""

import llama
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

model = llama.make(attn_implementation="sdpa")
model.set_attn_implementation("paged|sdpa")
outputs = model.generate_batch(
    llama.prompts(12),
    generation_config=GenerationConfig(max_new_tokens=40, do_sample=False, eos_token_id=-1, pad_token_id=0, bos_token_id=1),
    continuous_batching_config=ContinuousBatchingConfig(block_size=32, num_blocks=64, max_batch_tokens=256, seed=3),
    progress_bar=False)
for i, output in enumerate(outputs.values()):
    print(i, output.error, output.generated_tokens, flush=True)
torch.cuda.synchronize()
