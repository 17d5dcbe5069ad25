"""The engine: a patched LLaMA, a paged KV pool, packed prefill and batched decoding. Runs without Ray."""
