"""The Transformer beside which models are timed: as plain and as fast as torch's own attention makes it.

Positions are learned vectors, which cost less than rotations. It decodes in two ways: with keys and values that grow by
concatenation, as most libraries do out of the box, or with a cache of fixed size, so that a CUDA graph can hold a step.
"""

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention


class GrowingCache:
    """Keys and values of a layer, longer by what is put in."""

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor] | None = None

    def put(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return all keys and values so far, and that everything may be seen."""
        if self.held is not None:
            keys, values = torch.cat([self.held[0], keys], 2), torch.cat([self.held[1], values], 2)
        self.held = keys, values
        return keys, values, None


class StaticCache:
    """Keys and values of a layer in memory that stays in place; `places` are the positions of what is put in."""

    def __init__(self, shape: tuple[int, int, int, int], weight: Tensor, places: Tensor) -> None:
        self.keys, self.values = weight.new_zeros(shape), weight.new_zeros(shape)
        self.all = torch.arange(shape[2], device=weight.device)
        self.places = places

    def put(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what may be seen: a prompt sees itself, a single token everything up to its own place."""
        count = keys.shape[2]
        places = self.places if count == 1 else self.all[:count]
        self.keys.index_copy_(2, places, keys)
        self.values.index_copy_(2, places, values)
        if count > 1:
            return keys, values, None
        return self.keys, self.values, (self.all <= self.places)[None, None, None]


Cache = GrowingCache | StaticCache


class Layer(nn.Module):
    """Attention and an MLP, each behind a norm."""

    def __init__(self, d_model: int, d_inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.fc1, self.fc2 = nn.Linear(d_model, d_inner), nn.Linear(d_inner, d_model)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Add what attention and the MLP find; tokens see those before them, in `cache` too."""
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b l (three h n) -> three b h l n", three=3, h=self.heads)
        k, v, mask = (k, v, None) if cache is None else cache.put(k, v)
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=q.shape[2] > 1)
        x = x + self.out(rearrange(y, "b h l n -> b l (h n)"))
        return x + self.fc2(gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """A causal language model."""

    def __init__(self, rows: int, d_model: int, d_inner: int, layers: int, heads: int, max_length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(rows, d_model), nn.Embedding(max_length, d_model)
        self.layers = nn.ModuleList(Layer(d_model, d_inner, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token after each."""
        return self._head(self._run(tokens, torch.arange(tokens.shape[1], device=tokens.device), None))

    def _run(self, tokens: Tensor, places: Tensor, caches: list[Cache] | None) -> Tensor:
        x = self.tokens(tokens) + self.positions(places)
        for i, layer in enumerate(self.layers):
            x = layer(x, None if caches is None else caches[i])
        return x

    def _head(self, x: Tensor) -> Tensor:
        return linear(self.norm(x), self.tokens.weight)

    def read(self, tokens: Tensor, begin: int, caches: list[Cache]) -> Tensor:
        """Take in the next tokens, of which the first stands at `begin`; return the likeliest token after the last."""
        return self.next(tokens, begin + torch.arange(tokens.shape[1], device=tokens.device), caches)

    def next(self, tokens: Tensor, places: Tensor, caches: list[Cache]) -> Tensor:
        """Do the same with places that are already on the device."""
        return self._head(self._run(tokens, places, caches)[:, -1:]).argmax(-1)


class EagerDecoder:
    """Greedy decoding with caches that grow."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    @torch.inference_mode()
    def generate(self, prompts: Tensor, count: int, capacity: int = 0) -> Tensor:
        """Return `count` tokens for each prompt; these caches need no capacity."""
        caches: list[Cache] = [GrowingCache() for _ in self.model.layers]
        length = prompts.shape[1]
        found = [self.model.read(prompts, 0, caches)]
        for i in range(count - 1):
            found.append(self.model.read(found[-1], length + i, caches))
        return torch.cat(found, 1)


class GraphDecoder:
    """Greedy decoding with static caches, a step being one CUDA graph, captured once."""

    @torch.inference_mode()
    def __init__(self, model: Transformer, batch: int, capacity: int) -> None:
        weight = model.tokens.weight
        heads = cast(Layer, model.layers[0]).heads
        self.model = model
        self.place = torch.zeros(1, dtype=torch.int64, device=weight.device)
        self.token = torch.zeros(batch, 1, dtype=torch.int64, device=weight.device)
        shape = (batch, heads, capacity, weight.shape[1] // heads)
        self.caches: list[Cache] = [StaticCache(shape, weight, self.place) for _ in model.layers]
        self.graph: torch.cuda.CUDAGraph | None = None
        if weight.device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def _step(self) -> None:
        self.token.copy_(self.model.next(self.token, self.place, self.caches))
        self.place.add_(1)

    @torch.inference_mode()
    def generate(self, prompts: Tensor, count: int, capacity: int = 0) -> Tensor:
        """Return `count` tokens for each prompt; the caches have their capacity."""
        self.token.copy_(self.model.read(prompts, 0, self.caches))
        self.place.fill_(prompts.shape[1])
        found = [self.token.clone()]
        for _ in range(count - 1):
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
            found.append(self.token.clone())
        return torch.cat(found, 1)
