"""The engine: a paged KV cache, packed prefill and batched decoding over a LLaMA. Runs without Ray."""
