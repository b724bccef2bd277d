// Depthwise convolution with a few taps. A block takes tiles of kChannels by kSpan positions through shared memory in
// float32, so that rows lying along time and rows lying along channels, as a projection leaves them, are both read whole.
#pragma once

#include "../fftconv/numeric.cuh"
#include "short.h"

namespace dnasm {

constexpr int kChannels = 32, kSpan = 64, kHalo = 8;  // the halo on either side is enough for backward through 8 taps
constexpr int kWidth = kSpan + 2 * kHalo, kPitch = kWidth + 1, kArray = kChannels * kPitch;  // odd: no bank conflicts
constexpr int kTilesOfBlock = 4;  // in forward: the taps are fetched once
constexpr int kShortThreads = 256, kWeightPitch = kMostShortTaps + 1;  // taps of a channel, then its bias

struct ShortGrid {
  int spans, tiles, channel_tiles, chunks;  // short of 2^31: dispatch.cu
  explicit ShortGrid(const ShortParams& p, int blocks_wanted)
      : spans(static_cast<int>((p.length + kSpan - 1) / kSpan)), tiles(static_cast<int>(p.batch) * spans),
        channel_tiles(static_cast<int>((p.channels + kChannels - 1) / kChannels)) {
    const int wanted = (blocks_wanted + channel_tiles - 1) / channel_tiles;  // a fixed number: sums depend on it
    chunks = wanted < tiles ? wanted : tiles;
  }
};

// A thread's pairs of neighbours in a tile: kShortThreads apart from one to the next, `each` in all. kAlong: neighbours are
// channels, else positions. The tile's own positions come first, then those of its halo.
template <bool kAlong>
struct Pairs {
  static constexpr int kOwn = kChannels * kSpan / 2 / kShortThreads, kEach = kOwn + kChannels * kHalo / kShortThreads;
  static_assert(kShortThreads == 256 && kSpan == 64 && kChannels == 32 && kHalo == 8);
  int c, t;  // of the first one
  DNASM_DEVICE Pairs() {
    const int i = thread_index();
    c = kAlong ? i % 16 * 2 : i / 32, t = kAlong ? i / 16 : i % 32 * 2;
  }
  DNASM_DEVICE int channel(int k) const { return k == kOwn && !kAlong ? thread_index() / 8 : c + (kAlong ? 0 : 8 * k); }
  DNASM_DEVICE int time(int k) const {  // from the tile's first position on
    if (k < kOwn) return t + (kAlong ? 16 * k : 0);
    const int h = kAlong ? t : thread_index() % 8 * 2;
    return h < kHalo ? h - kHalo : h - kHalo + kSpan;
  }
};

template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
struct ShortBlock {
  using E = Element<kDtype>;
  using Scalar = typename E::Scalar;
  using Pair = typename E::Pair;
  const ShortParams& p;
  int64_t channel, b = 0, start = 0;  // first channel, row and first position of the tile
  int channels, left = 0;             // of the tile that there are; positions from `start` on
  int past;                           // positions before t that c[t] sees
  float* arrays;                      // kStreams of x, in backward kStreams of gradients
  float* weights;

  DNASM_DEVICE ShortBlock(const ShortParams& params, int channel_tile)
      : p(params), channel(static_cast<int64_t>(channel_tile) * kChannels), past(params.taps - 1 - params.ahead) {
    channels = p.channels - channel < kChannels ? static_cast<int>(p.channels - channel) : kChannels;
    weights = reinterpret_cast<float*>(dynamic_shared());
    arrays = weights + kStreams * kChannels * kWeightPitch;
    for (int i = thread_index(); i < kStreams * kChannels * kWeightPitch; i += kShortThreads) {
      const int j = i % kWeightPitch, c = i / kWeightPitch % kChannels;
      const int64_t row = i / (kWeightPitch * kChannels) * p.channels + channel + c;
      float w = 0;
      if (c < channels && j < p.taps) w = p.weight[row * p.taps + j];
      if (c < channels && j == kMostShortTaps && p.bias) w = p.bias[row];
      weights[i] = w;
    }
  }
  DNASM_DEVICE void go_to(int tile, int spans) {
    b = tile / spans, start = static_cast<int64_t>(tile % spans) * kSpan;
    const int64_t rest = p.length - start;
    left = rest < 2 * kSpan ? static_cast<int>(rest) : 2 * kSpan;
  }
  DNASM_DEVICE float* array(int i) const { return arrays + i * kArray; }

  DNASM_DEVICE bool there(int c, int t) const { return c < channels && t < left && start + t >= 0; }
  // A thread's pairs of a tensor in the tile. fast: every position from `before` to `after` is there, and pairs are words.
  template <bool kAlong>
  struct Place {
    Scalar* at;  // the thread's first pair
    int64_t stride_d, stride_l;
    bool fast;
    DNASM_DEVICE Place(const ShortBlock& me, const Strided& rows, int64_t first, const Pairs<kAlong>& pairs, int before, int after)
        : stride_d(rows.stride_d), stride_l(rows.stride_l) {
      Scalar* tile = static_cast<Scalar*>(rows.data) + me.b * rows.stride_b + (first + me.channel) * stride_d + me.start * stride_l;
      const bool even = (kAlong ? stride_d : stride_l) == 1 && (kAlong ? stride_l : stride_d) % 2 == 0 &&
                        reinterpret_cast<uintptr_t>(tile) % sizeof(Pair) == 0;
      fast = even && me.channels == kChannels && me.start >= before + 1 && me.left > kSpan + after;
      at = tile + pairs.c * stride_d + pairs.t * stride_l;
    }
    DNASM_DEVICE Scalar* own(int k) const { return at + k * (kAlong ? 16 * stride_l : 8 * stride_d); }
    DNASM_DEVICE Scalar* pair(const Pairs<kAlong>& pairs, int k) const {
      return at + (pairs.channel(k) - pairs.c) * stride_d + (pairs.time(k) - pairs.t) * stride_l;
    }
    DNASM_DEVICE int64_t next() const { return kAlong ? stride_d : stride_l; }
  };
  // Positions from `before` in front of the tile to `after` behind it, zero outside the tensor; `first`: its first channel.
  template <bool kAlong>
  DNASM_DEVICE void load(float* to, const Strided& rows, int64_t first, int before, int after) const {
    using P = Pairs<kAlong>;
    const P pairs;
    const Place<kAlong> from(*this, rows, first, pairs, before, after);
    float* const own = to + pairs.c * kPitch + kHalo + pairs.t;
    constexpr int kSide = kAlong ? kPitch : 1, kStep = kAlong ? 16 : 8 * kPitch;
    if (from.fast) {
      const int halo = pairs.time(P::kOwn);
      const bool wanted = halo + 1 >= -before && halo < kSpan + after;
      Pair words[P::kEach] = {};
      DNASM_UNROLL
      for (int k = 0; k < P::kOwn; ++k) words[k] = *reinterpret_cast<const Pair*>(from.own(k));
      if (wanted) words[P::kOwn] = *reinterpret_cast<const Pair*>(from.pair(pairs, P::kOwn));
      DNASM_UNROLL
      for (int k = 0; k < P::kOwn; ++k) own[k * kStep] = E::low(words[k]), own[k * kStep + kSide] = E::high(words[k]);
      float* edge = to + pairs.channel(P::kOwn) * kPitch + kHalo + halo;
      if (wanted) edge[0] = E::low(words[P::kOwn]), edge[kSide] = E::high(words[P::kOwn]);
      return;
    }
    DNASM_UNROLL_ONCE
    for (int k = 0; k < P::kEach; ++k) {
      const int c = pairs.channel(k), t = pairs.time(k);
      const Scalar* at = from.pair(pairs, k);
      const Pair pair = E::join(there(c, t) ? *at : Scalar{}, there(c + kAlong, t + !kAlong) ? at[from.next()] : Scalar{});
      float* edge = to + c * kPitch + kHalo + t;
      edge[0] = E::low(pair), edge[kSide] = E::high(pair);
    }
  }
  // rows[c][t] = value(c, t) for the tile.
  template <bool kAlong, class Value>
  DNASM_DEVICE void store(const Strided& rows, int64_t first, const Value& value) const {
    using P = Pairs<kAlong>;
    const P pairs;
    const Place<kAlong> to(*this, rows, first, pairs, -1, 0);
    DNASM_UNROLL
    for (int k = 0; k < P::kOwn; ++k) {
      const int c = pairs.channel(k), t = pairs.time(k);
      const Pair pair = E::pack(value(c, t), value(c + kAlong, t + !kAlong));
      if (to.fast) {
        *reinterpret_cast<Pair*>(to.own(k)) = pair;
      } else {
        Scalar* at = to.pair(pairs, k);
        if (there(c, t)) *at = E::pick(pair, 0);
        if (there(c + kAlong, t + !kAlong)) at[to.next()] = E::pick(pair, 1);
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
  // The convolution at kRun positions from t on, each sample fetched once.
  static constexpr int kRun = kSpan / (kShortThreads / 32);
  DNASM_DEVICE void convolve_run(int stream, int c, int t, float (&y)[kRun]) const {
    const float *w = taps(stream, c), *x = array(stream) + c * kPitch + kHalo + t - past;
    float seen[kRun + kMostTaps - 1];
    DNASM_UNROLL
    for (int i = 0; i < kRun + kMostTaps - 1; ++i) seen[i] = x[i];
    DNASM_UNROLL
    for (int i = 0; i < kRun; ++i) y[i] = w[kMostShortTaps];
    DNASM_UNROLL
    for (int j = 0; j < kMostTaps; ++j) {
      if (j >= p.taps) break;
      const float weight = w[j];
      DNASM_UNROLL
      for (int i = 0; i < kRun; ++i) y[i] += weight * seen[i + j];
    }
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
  // Neighbouring blocks meet neighbouring memory; a block's tiles follow one another.
  const int n = block_index(), groups = (grid.tiles + kTilesOfBlock - 1) / kTilesOfBlock;
  const int group = kAlongChannels ? n / grid.channel_tiles : n % groups;
  ShortBlock<kDtype, kStreams, kAlongChannels, kMostTaps> me(p, kAlongChannels ? n % grid.channel_tiles : n / groups);
  for (int tile = group * kTilesOfBlock; tile < (group + 1) * kTilesOfBlock && tile < grid.tiles; ++tile) {
    me.go_to(tile, grid.spans);
    sync_block();
    DNASM_UNROLL
    for (int s = 0; s < kStreams; ++s)
      me.template load<kAlongChannels>(me.array(s), p.x, s * p.channels, me.past, p.ahead);
    sync_block();
    constexpr int kRun = ShortBlock<kDtype, kStreams, kAlongChannels, kMostTaps>::kRun;
    const int c = thread_index() % 32, t = thread_index() / 32 * kRun;
    float y[kRun], mixed[kRun], other[kRun];
    me.convolve_run(0, c, t, y);
    if constexpr (kStreams == 3) me.convolve_run(1, c, t, mixed), me.convolve_run(2, c, t, other);
    sync_block();
    DNASM_UNROLL
    for (int i = 0; i < kRun; ++i) {  // back, to leave along time
      me.array(0)[c * kPitch + kHalo + t + i] = y[i];
      if constexpr (kStreams == 3) me.array(1)[c * kPitch + kHalo + t + i] = mixed[i] * other[i];
    }
    sync_block();
    me.template store<false>(strided(p.y), 0, [&](int c, int t) { return me.array(0)[c * kPitch + kHalo + t]; });
    if constexpr (kStreams == 3)
      me.template store<false>(strided(p.mixed), 0, [&](int c, int t) { return me.array(1)[c * kPitch + kHalo + t]; });
  }
}

// Partial sums for dweight and dbias: [chunk][stream and channel][kWeightPitch], one thread for each.
template <int kDtype, int kStreams, bool kAlongChannels, int kMostTaps>
DNASM_KERNEL(kShortThreads, 3) short_backward_kernel(const ShortParams p, const ShortGrid grid) {
  const int chunk = block_index() % grid.chunks;
  ShortBlock<kDtype, kStreams, kAlongChannels, kMostTaps> me(p, block_index() / grid.chunks);
  const int c = thread_index() / 8, part = thread_index() % 8;  // of the sums
  constexpr int kRun = ShortBlock<kDtype, kStreams, kAlongChannels, kMostTaps>::kRun;
  static_assert(kRun * 8 == kSpan && kShortThreads / 32 >= kMostShortTaps - 1);
  float sums[kStreams][kMostTaps + 1] = {};  // taps, then bias
  for (int tile = chunk; tile < grid.tiles; tile += grid.chunks) {
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
      const int lane = thread_index() % 32, warp = thread_index() / 32, run = lane * kPitch + kHalo + warp * kRun;
      float left[kRun], right[kRun];
      me.convolve_run(1, lane, warp * kRun, left), me.convolve_run(2, lane, warp * kRun, right);
      DNASM_UNROLL
      for (int i = 0; i < kRun; ++i) {
        const float d = d1[run + i];
        d1[run + i] = d * right[i], d2[run + i] = d * left[i];
      }
      if (warp < p.taps - 1) {  // one of the tile's neighbours each
        const int t = warp < p.ahead ? warp - p.ahead : kSpan + warp - p.ahead, at = lane * kPitch + kHalo + t;
        const float d = d1[at];
        d1[at] = d * me.convolve(2, lane, t), d2[at] = d * me.convolve(1, lane, t);
      }
    }
    sync_block();
    DNASM_UNROLL
    for (int s = 0; s < kStreams; ++s) {
      if (p.dx.data)
        me.template store<kAlongChannels>(p.dx, s * p.channels, [&](int channel, int t) { return me.pull_back(s, channel, t); });
      const float* d = me.array(kStreams + s) + c * kPitch + kHalo + part * kRun;
      const float* x = me.array(s) + c * kPitch + kHalo + part * kRun - me.past;
      float seen[kRun + kMostTaps - 1];
      DNASM_UNROLL
      for (int i = 0; i < kRun + kMostTaps - 1; ++i) seen[i] = x[i];
      DNASM_UNROLL
      for (int i = 0; i < kRun; ++i) {
        const float g = d[i];
        sums[s][kMostTaps] += g;
        DNASM_UNROLL
        for (int j = 0; j < kMostTaps; ++j)
          if (j < p.taps) sums[s][j] += g * seen[i + j];
      }
    }
  }
  DNASM_UNROLL
  for (int s = 0; s < kStreams; ++s) {
    float* out = static_cast<float*>(p.scratch) +
                 (static_cast<int64_t>(chunk * kStreams + s) * p.channels + me.channel + c) * static_cast<int64_t>(kWeightPitch);
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
  const int64_t blocks = static_cast<int64_t>((grid.tiles + kTilesOfBlock - 1) / kTilesOfBlock) * grid.channel_tiles;
  const LaunchShape shape{blocks, kShortThreads, short_shared_bytes<kStreams>(kStreams), p.stream};
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
