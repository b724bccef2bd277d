// Depthwise convolution with a few taps. A block takes tiles of kChannels by kSpan positions through shared memory in
// float32, so that rows lying along time and rows lying along channels, as a projection leaves them, are both read whole.
#pragma once

#include "../fftconv/numeric.cuh"
#include "short.h"

namespace dnasm {

constexpr int kChannels = 32, kSpan = 64, kHalo = 8;  // the halo on either side is enough for backward through 8 taps
constexpr int kWidth = kSpan + 2 * kHalo, kPitch = kWidth + 1, kArray = kChannels * kPitch;  // odd: no bank conflicts
constexpr int kShortThreads = 256, kWeightPitch = kMostShortTaps + 1;  // taps of a channel, then its bias

struct ShortGrid {
  int64_t spans, tiles, channel_tiles, chunks;
  explicit ShortGrid(const ShortParams& p, int64_t blocks_wanted)
      : spans((p.length + kSpan - 1) / kSpan), tiles(p.batch * spans), channel_tiles((p.channels + kChannels - 1) / kChannels) {
    const int64_t wanted = (blocks_wanted + channel_tiles - 1) / channel_tiles;  // a fixed number: sums depend on it
    chunks = wanted < tiles ? wanted : tiles;
  }
};

// Which pair of neighbours is the i-th of kColumns positions: along channels where those lie side by side.
template <bool kAlongChannels, int kColumns>
struct Pairs {
  static constexpr int kCount = kChannels * kColumns / 2;
  int c, t;
  DNASM_DEVICE explicit Pairs(int i)
      : c(kAlongChannels ? i % (kChannels / 2) * 2 : i / (kColumns / 2)),
        t(kAlongChannels ? i / (kChannels / 2) : i % (kColumns / 2) * 2) {}
  DNASM_DEVICE int next() const { return kAlongChannels ? kPitch : 1; }  // from its first to its second, in an array
};

template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
struct ShortBlock {
  using E = Element<kDtype>;
  using Scalar = typename E::Scalar;
  using Pair = typename E::Pair;
  const ShortParams& p;
  int64_t channel, b = 0, start = 0;  // first channel, row and first position of the tile
  int past;                           // positions before t that c[t] sees
  float* arrays;                      // kStreams of x, in backward kStreams of gradients
  float* weights;

  DNASM_DEVICE ShortBlock(const ShortParams& params, int64_t channel_tile)
      : p(params), channel(channel_tile * kChannels), past(params.taps - 1 - params.ahead) {
    weights = reinterpret_cast<float*>(dynamic_shared());
    arrays = weights + kStreams * kChannels * kWeightPitch;
    for (int i = thread_index(); i < kStreams * kChannels * kWeightPitch; i += kShortThreads) {
      const int j = i % kWeightPitch, c = i / kWeightPitch % kChannels;
      const int64_t row = i / (kWeightPitch * kChannels) * p.channels + channel + c;
      const bool there = channel + c < p.channels;
      float w = 0;
      if (there && j < p.taps) w = p.weight[row * p.taps + j];
      if (there && j == kMostShortTaps && p.bias) w = p.bias[row];
      weights[i] = w;
    }
  }
  DNASM_DEVICE void go_to(int64_t tile, int64_t spans) { b = tile / spans, start = tile % spans * kSpan; }
  DNASM_DEVICE float* array(int i) const { return arrays + i * kArray; }

  DNASM_DEVICE bool there(int c, int64_t n) const { return channel + c < p.channels && n >= 0 && n < p.length; }
  template <bool kAlong>
  DNASM_DEVICE Scalar* address(const Strided& rows, int64_t first, int c, int64_t n, bool& whole) const {
    Scalar* at = static_cast<Scalar*>(rows.data) + b * rows.stride_b + (first + channel + c) * rows.stride_d + n * rows.stride_l;
    whole = there(c, n) && there(c + kAlong, n + !kAlong) && (kAlong ? rows.stride_d : rows.stride_l) == 1 &&
            reinterpret_cast<uintptr_t>(at) % sizeof(Pair) == 0;
    return at;
  }
  // Positions from `before` in front of the tile to `after` behind it, zero outside the tensor; `first`: its first channel.
  template <bool kAlong>
  DNASM_DEVICE void load(float* to, const Strided& rows, int64_t first, int before, int after) const {
    DNASM_UNROLL_BY_FOUR
    for (int i = thread_index(); i < Pairs<kAlong, kWidth>::kCount; i += kShortThreads) {
      const Pairs<kAlong, kWidth> at(i);
      if (at.t + 1 < kHalo - before || at.t >= kHalo + kSpan + after) continue;
      const int64_t n = start - kHalo + at.t;
      bool whole;
      const Scalar* from = address<kAlong>(rows, first, at.c, n, whole);
      float low = 0, high = 0;
      if (whole) {
        const Pair pair = *reinterpret_cast<const Pair*>(from);
        low = E::low(pair), high = E::high(pair);
      } else {
        if (there(at.c, n)) low = E::low(E::join(*from, Scalar{}));
        if (there(at.c + kAlong, n + !kAlong))
          high = E::low(E::join(from[kAlong ? rows.stride_d : rows.stride_l], Scalar{}));
      }
      to[at.c * kPitch + at.t] = low;
      to[at.c * kPitch + at.t + at.next()] = high;
    }
  }
  // rows[c][t] = value(c, t) for the tile.
  template <bool kAlong, class Value>
  DNASM_DEVICE void store(const Strided& rows, int64_t first, const Value& value) const {
    for (int i = thread_index(); i < Pairs<kAlong, kSpan>::kCount; i += kShortThreads) {
      const Pairs<kAlong, kSpan> at(i);
      const int64_t n = start + at.t;
      bool whole;
      Scalar* to = address<kAlong>(rows, first, at.c, n, whole);
      const Pair pair = E::pack(value(at.c, at.t), value(at.c + kAlong, at.t + !kAlong));
      if (whole) {
        *reinterpret_cast<Pair*>(to) = pair;
      } else {
        if (there(at.c, n)) *to = E::pick(pair, 0);
        if (there(at.c + kAlong, n + !kAlong)) to[kAlong ? rows.stride_d : rows.stride_l] = E::pick(pair, 1);
      }
    }
  }
  DNASM_DEVICE const float* taps(int stream, int c) const { return weights + (stream * kChannels + c) * kWeightPitch; }
  DNASM_DEVICE float convolve(int stream, int c, int t) const {
    const float *w = taps(stream, c), *x = array(stream) + c * kPitch + kHalo + t - past;
    float sum = w[kMostShortTaps];
    DNASM_UNROLL
    for (int j = 0; j < kMostTaps; ++j)
      if (j < p.taps) sum += w[j] * x[j];
    return sum;
  }
  // The gradient of x at t from c's: what convolve reads, it gives back.
  DNASM_DEVICE float pull_back(int stream, int c, int t) const {
    const float *w = taps(stream, c), *d = array(kStreams + stream) + c * kPitch + kHalo + t + past;
    float sum = 0;
    DNASM_UNROLL
    for (int j = 0; j < kMostTaps; ++j)
      if (j < p.taps) sum += w[j] * d[-j];
    return sum;
  }
};

DNASM_DEVICE Strided strided(const Rows& r) { return {r.data, r.stride_b, r.stride_d, 1}; }

template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
DNASM_KERNEL(kShortThreads, 4) short_forward_kernel(const ShortParams p, const ShortGrid grid) {
  // Neighbouring blocks meet neighbouring memory.
  const int64_t n = block_index(), across = kAlongChannels ? grid.channel_tiles : grid.tiles;
  ShortBlock<kDtype, kStreams, kAlongChannels, kMostTaps> me(p, kAlongChannels ? n % across : n / across);
  me.go_to(kAlongChannels ? n / across : n % across, grid.spans);
  DNASM_UNROLL
  for (int s = 0; s < kStreams; ++s)
    me.template load<kAlongChannels>(me.array(s), p.x, s * p.channels, me.past, p.ahead);
  sync_block();
  me.template store<false>(strided(p.y), 0, [&](int c, int t) { return me.convolve(0, c, t); });
  if constexpr (kStreams == 3)
    me.template store<false>(strided(p.mixed), 0, [&](int c, int t) { return me.convolve(1, c, t) * me.convolve(2, c, t); });
}

// Partial sums for dweight and dbias: [chunk][stream and channel][kWeightPitch], one thread for each.
template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
DNASM_KERNEL(kShortThreads, 3) short_backward_kernel(const ShortParams p, const ShortGrid grid) {
  const int64_t chunk = block_index() % grid.chunks;
  ShortBlock<kDtype, kStreams, kAlongChannels, kMostTaps> me(p, block_index() / grid.chunks);
  const int c = thread_index() / 8, part = thread_index() % 8;  // of the sums
  float sums[kStreams][kMostTaps + 1] = {};  // taps, then bias
  for (int64_t tile = chunk; tile < grid.tiles; tile += grid.chunks) {
    me.go_to(tile, grid.spans);
    sync_block();
    DNASM_UNROLL
    for (int s = 0; s < kStreams; ++s)
      me.template load<kAlongChannels>(me.array(s), p.x, s * p.channels, p.taps - 1, p.taps - 1);
    me.template load<false>(me.array(kStreams), strided(p.dy), 0, p.ahead, me.past);
    if constexpr (kStreams == 3) {
      float *d1 = me.array(kStreams + 1), *d2 = me.array(kStreams + 2);
      me.template load<false>(d1, strided(p.dmixed), 0, p.ahead, me.past);
      sync_block();
      const int width = kSpan + p.taps - 1;
      for (int i = thread_index(); i < kChannels * width; i += kShortThreads) {
        const int channel = i / width, t = i % width - p.ahead, at = channel * kPitch + kHalo + t;
        const float d = d1[at];
        d1[at] = d * me.convolve(2, channel, t);
        d2[at] = d * me.convolve(1, channel, t);
      }
    }
    sync_block();
    DNASM_UNROLL
    for (int s = 0; s < kStreams; ++s) {
      if (p.dx.data)
        me.template store<kAlongChannels>(p.dx, s * p.channels, [&](int channel, int t) { return me.pull_back(s, channel, t); });
      const float *x = me.array(s) + c * kPitch + kHalo - me.past, *d = me.array(kStreams + s) + c * kPitch + kHalo;
      for (int t = part; t < kSpan; t += 8) {
        sums[s][kMostTaps] += d[t];
        DNASM_UNROLL
        for (int j = 0; j < kMostTaps; ++j)
          if (j < p.taps) sums[s][j] += d[t] * x[t + j];
      }
    }
  }
  DNASM_UNROLL
  for (int s = 0; s < kStreams; ++s) {
    float* out = static_cast<float*>(p.scratch) +
                 ((chunk * kStreams + s) * p.channels + me.channel + c) * static_cast<int64_t>(kWeightPitch);
    DNASM_UNROLL
    for (int j = 0; j <= kMostTaps; ++j) {
      float sum = sums[s][j];
      DNASM_UNROLL
      for (int mask = 4; mask; mask /= 2) sum += shuffle_xor(sum, mask);
      if (part == 0 && me.channel + c < p.channels) out[j < kMostTaps ? j : kMostShortTaps] = sum;
    }
  }
}

// The chunks' sums together, in their order.
template <int kDtype>
DNASM_KERNEL(kShortThreads, 1) short_sums_kernel(const ShortParams p, const ShortGrid grid) {
  const int64_t rows = p.streams * p.channels, i = static_cast<int64_t>(block_index()) * kShortThreads + thread_index();
  const int64_t row = i / kWeightPitch, j = i % kWeightPitch;
  if (row >= rows || (j >= p.taps && j < kMostShortTaps)) return;
  const float* partial = static_cast<const float*>(p.scratch) + i;
  double sum = 0;
  for (int64_t chunk = 0; chunk < grid.chunks; ++chunk) sum += partial[chunk * rows * kWeightPitch];
  float* to = j < p.taps ? p.dweight : p.dbias;
  if (to) to[j < p.taps ? row * p.taps + j : row] = static_cast<float>(sum);
}

template <int kStreams>
constexpr size_t short_shared_bytes(int arrays) {
  return (kStreams * kChannels * kWeightPitch + arrays * kArray) * sizeof(float);
}
inline ShortGrid backward_grid(const ShortParams& p) { return ShortGrid(p, 1584); }
inline size_t backward_scratch(const ShortParams& p) {
  return static_cast<size_t>(backward_grid(p).chunks * p.streams * p.channels * kWeightPitch) * sizeof(float);
}

template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
const char* launch_short_forward(const ShortParams& p) {
  const ShortGrid grid(p, 1);
  const LaunchShape shape{grid.tiles * grid.channel_tiles, kShortThreads, short_shared_bytes<kStreams>(kStreams), p.stream};
  return launch(short_forward_kernel<kDtype, kStreams, kAlongChannels, kMostTaps>, shape, p, grid);
}

template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
const char* launch_short_backward(const ShortParams& p) {
  const ShortGrid grid = backward_grid(p);
  const LaunchShape shape{grid.channel_tiles * grid.chunks, kShortThreads, short_shared_bytes<kStreams>(2 * kStreams), p.stream};
  if (const char* text = launch(short_backward_kernel<kDtype, kStreams, kAlongChannels, kMostTaps>, shape, p, grid)) return text;
  const int64_t sums = p.streams * p.channels * kWeightPitch;
  return launch(short_sums_kernel<kDtype>, LaunchShape{(sums + kShortThreads - 1) / kShortThreads, kShortThreads, 0, p.stream}, p, grid);
}

}  // namespace dnasm
