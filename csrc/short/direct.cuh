// The convolution with a short filter as tensor-core products, no transform: each row costs its length times the taps.
//
// Cut time into blocks of 16, t = 16 i + c. Then y[16 i + c] = sum over lag blocks j and r of T_j[c][r] x[16 (i - j) + r],
// T_j[c][r] = k[16 j + c - r]: products of a Toeplitz matrix and a matrix of time blocks, shifted by j. A lane's right
// operand is four neighbours of x, a word of its left one two neighbours of k; so x lies in shared memory as it is, and k
// twice, once for each parity. For that r and c are permuted: slot s of half h holds r = 4 (s / 2) + 2 h + s % 2 and
// c = 2 s + h, so that a lane's results are pairs of neighbours too. The gradient of x is the same product with the filter
// turned round; that of k is X^T G by lag block, summed along diagonals.
//
// A warp works alone on a unit: four tiles of 256 results, of one row or of up to four short ones. It holds what the
// filter reaches from there as fp16 under one power of two a row.
#pragma once

#include <type_traits>

#include "../fftconv/wide.cuh"
#include "short.h"

namespace dnasm {

struct One {
  uint32_t w[1];
};
struct alignas(8) Twin {
  uint32_t w[2];
};

constexpr int kTiles = 4, kTile = 256;    // of a unit; results of a tile
constexpr int kForwardWarps = 4, kBackwardWarps = 8;
constexpr int kLags = 3;                  // lag blocks of a warp in the filter's gradient
constexpr int kLagGroup = kLags * kBackwardWarps, kGroupSums = 16 * kLagGroup + 16;
constexpr int kTapTop = 14, kRowTop = 7;  // exponents: of the largest tap; a row's window is 2^(kRowTop +- 8)

// A filter with lags -future to past - 1, in blocks of 16 before and after.
struct Reach {
  int past, future;
  DNASM_SHARED_CODE Reach turned() const { return {future + 1, past - 1}; }
  DNASM_SHARED_CODE int before() const { return (past + 14) / 16; }
  DNASM_SHARED_CODE int after() const { return (future + 15) / 16; }
  DNASM_SHARED_CODE int blocks() const { return before() + after() + 1; }
  DNASM_SHARED_CODE int tap_words() const { return 2 * (8 * (before() + after()) + 18); }  // of both parities
};

// How rows are cut into units, and units dealt to blocks.
struct DirectWork {
  Reach reach;
  int tiles, rows, shift;  // tiles of a row in a unit, rows of a unit; tile t belongs to row t >> shift
  int segments, units, chunks, groups;

  DirectWork(const Params& p, int warps, int64_t blocks_wanted) {
    const int64_t taps = p.filter_length < p.length ? p.filter_length : p.length;
    const int64_t ahead = p.filter_length < p.length - 1 ? p.filter_length : p.length - 1;
    reach = {static_cast<int>(taps), p.bidirectional ? static_cast<int>(ahead) : 0};
    const int64_t all = (p.length + kTile - 1) / kTile;
    tiles = static_cast<int>(all < kTiles ? all : kTiles);
    rows = kTiles / tiles, shift = tiles > 2 ? 2 : tiles - 1;
    segments = static_cast<int>((all + tiles - 1) / tiles);
    units = static_cast<int>((p.batch + rows - 1) / rows) * segments;  // short of 2^31: dispatch.cu
    const int64_t most = (units + warps - 1) / warps, wanted = (blocks_wanted + p.channels - 1) / p.channels;
    chunks = static_cast<int>(wanted < most ? wanted : most);
    groups = (reach.blocks() + kLagGroup - 1) / kLagGroup;
  }
  DNASM_SHARED_CODE int halves(const Reach& r) const { return tiles * kTile + 16 * (r.before() + r.after()); }  // of a row
  DNASM_SHARED_CODE int buffer_bytes(const Reach& r) const { return rows * halves(r) * 2 + 16; }  // and its exponents
};

// kCount elements of a row, from its nth on, which stands at `at`. kEven: rows are made of whole, aligned words, so that a
// word is there or it is not.
template <int kDtype, int kCount, bool kEven>
struct Neighbours {
  using E = Element<kDtype>;
  using Scalar = typename E::Scalar;
  using Words = typename std::conditional<kCount == 8, Quad, One>::type;
  static DNASM_DEVICE Words load(const Scalar* at, int n, int length) {
    Words x{};
    if (kEven) {
      if (n >= 0 && n < length) x = *reinterpret_cast<const Words*>(at);
      return x;
    }
    DNASM_UNROLL
    for (int i = 0; i < kCount / 2; ++i) {
      const int m = n + 2 * i;
      x.w[i] = E::join(m >= 0 && m < length ? at[2 * i] : Scalar{}, m + 1 >= 0 && m + 1 < length ? at[2 * i + 1] : Scalar{});
    }
    return x;
  }
  static DNASM_DEVICE void widen(const Words& x, float (&v)[kCount]) {
    DNASM_UNROLL
    for (int i = 0; i < kCount / 2; ++i) v[2 * i] = E::low(x.w[i]), v[2 * i + 1] = E::high(x.w[i]);
  }
  static DNASM_DEVICE void store(Scalar* at, int n, int length, const float (&v)[kCount]) {
    Words x;
    DNASM_UNROLL
    for (int i = 0; i < kCount / 2; ++i) x.w[i] = E::pack(v[2 * i], v[2 * i + 1]);
    if (kEven) {
      if (n < length) *reinterpret_cast<Words*>(at) = x;
      return;
    }
    DNASM_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (n + i < length) at[i] = E::pick(x.w[i / 2], i % 2);
  }
};
inline bool even_rows(const Params& p) {
  for (const Rows* r : {&p.u, &p.in_gate, &p.out_gate, &p.y, &p.dy, &p.du, &p.din_gate, &p.dout_gate})
    if (r->data && (static_cast<int64_t>(reinterpret_cast<uintptr_t>(r->data)) | r->stride_b * 2 | r->stride_d * 2) % 16) return false;
  return p.length % 8 == 0;
}

// The taps of one channel as a lane's left operands: of lag block j, k[m] beside k[m - 1] for m = 16 j + the lane's own
// plus 0 and 1, then -2 and -1.
struct DirectTaps {
  const Twin* words;
  DNASM_DEVICE void operand(int j, uint32_t (&a)[4]) const {
    const Twin near = words[-8 * j], far = words[-8 * j + 1];
    a[0] = near.w[0], a[1] = near.w[1], a[2] = far.w[0], a[3] = far.w[1];
  }
};

struct DirectBlock {
  const Params& p;
  const DirectWork& work;
  int64_t channel;
  int lane, warp;
  int exponent;  // taps are times 2^exponent

  DNASM_DEVICE DirectBlock(const Params& params, const DirectWork& w, int64_t c)
      : p(params), work(w), channel(c), lane(thread_index() % 32), warp(thread_index() / 32), exponent(0) {}

  DNASM_DEVICE float tap(int s) const {  // lag s, zero where the filter has none
    if (s >= work.reach.past || s < -work.reach.future) return 0.0f;
    const int64_t row = p.bidirectional ? 2 * channel + (s < 0) : channel;
    return load_number(p.filter, p.filter_dtype, row * p.filter_length + (s < 0 ? -s - 1 : s));
  }
  template <int kThreads>
  DNASM_DEVICE void find_exponent(float* scratch) {
    uint32_t most = 0;
    for (int s = thread_index() - work.reach.future; s < work.reach.past; s += kThreads) {
      const uint32_t bits = float_bits(fabsf(tap(s)));
      if (bits < 0x7f800000u && bits > most) most = bits;
    }
    most = warp_max(most);
    if (lane == 0) scratch[warp] = bits_float(most);
    sync_block();
    DNASM_UNROLL
    for (int i = 0; i < kThreads / 32; ++i) most = float_bits(scratch[i]) > most ? float_bits(scratch[i]) : most;
    sync_block();
    const int e = kTapTop + 127 - static_cast<int>(most >> 23);
    exponent = e > 126 ? 126 : e;
  }
  // Both parities of the taps, or of the filter turned round, into shared memory.
  template <int kThreads>
  DNASM_DEVICE DirectTaps place_taps(uint32_t* to, const Reach& r, bool turned) const {
    const float scale = power_of_two(exponent);
    const int top = 16 * r.before() + 16;
    for (int i = thread_index(); i < r.tap_words(); i += kThreads) {
      const int s = top + i % 2 - i / 2 * 2;
      to[i] = pack_half2(scale * tap(turned ? -s : s), scale * tap(turned ? 1 - s : s - 1));
    }
    return {reinterpret_cast<const Twin*>(to) + top / 2 - lane / 4 + 2 * (lane % 4)};
  }
};

// What a warp holds of one signal: rows of fp16 in time's order, and each row's exponent.
struct DirectBuffer {
  char* at;
  int* exponents;
  Reach reach;
  int halves;

  DNASM_DEVICE DirectBuffer(char* memory, const DirectWork& work, const Reach& r)
      : at(memory + 16), exponents(reinterpret_cast<int*>(memory)), reach(r), halves(work.halves(r)) {}
  // Tile t's time block g, at the lane's four neighbours.
  DNASM_DEVICE const char* tile(const DirectWork& work, int t, int lane) const {
    const int r = t >> work.shift;
    return at + 2 * (r * halves + 16 * reach.before() + (t - r * work.tiles) * kTile) + 32 * (lane / 4) + 8 * (lane % 4);
  }
  DNASM_DEVICE const char* row(int r) const { return at + 2 * (r * halves + 16 * reach.before()); }
};

// What makes results of sums under a power of two, in two steps where one float does not hold it.
struct PowerOfTwo {
  float most, rest;
  DNASM_DEVICE explicit PowerOfTwo(int e) : most(power_of_two(e)), rest(power_of_two(e < -126 ? e + 126 : e > 127 ? e - 127 : 0)) {}
};

template <int kDtype, bool kEven>
struct DirectWarp {
  using Scalar = typename Element<kDtype>::Scalar;
  using Eight = Neighbours<kDtype, 8, kEven>;
  using Two = Neighbours<kDtype, 2, kEven>;
  const DirectBlock& block;
  int64_t first_row;
  int start, length, rows;  // of the unit: its first position; rows that there are

  DNASM_DEVICE DirectWarp(const DirectBlock& b, int unit) : block(b) {
    const DirectWork& w = b.work;
    const int group = unit / w.segments;
    first_row = static_cast<int64_t>(group) * w.rows;
    start = (unit - group * w.segments) * (w.tiles * kTile), length = static_cast<int>(b.p.length);
    const int64_t left = b.p.batch - first_row;
    rows = unit >= w.units ? 0 : static_cast<int>(left < w.rows ? left : w.rows);
  }
  DNASM_DEVICE Scalar* row(const Rows& tensor, int r) const {  // at the unit's first position
    return static_cast<Scalar*>(tensor.data) + first_row * tensor.stride_b + block.channel * tensor.stride_d + start +
           r * tensor.stride_b;
  }

  // One pass over row r of x = a * gate, rounded under 2^e; what it would have had to be under.
  DNASM_DEVICE int fill_row(const DirectBuffer& to, const Rows& a, const Rows& gate, int r, int e) const {
    constexpr int kFlight = 4;  // loads on their way together
    const float scale = power_of_two(e);
    const int before = 16 * to.reach.before(), count = to.halves / 8;
    const bool gated = gate.data;
    const Scalar *x = row(a, r) - before, *g = gated ? row(gate, r) - before : x;
    Quad* out = reinterpret_cast<Quad*>(to.at + 2 * r * to.halves);
    float most = 0;
    for (int first = block.lane; first < count; first += 32 * kFlight) {
      Quad words[kFlight], factors[kFlight];
      DNASM_UNROLL
      for (int k = 0; k < kFlight; ++k) {
        const int i = first + 32 * k, n = i < count ? start - before + 8 * i : length;
        words[k] = Eight::load(x + 8 * i, n, length);
        if (gated) factors[k] = Eight::load(g + 8 * i, n, length);
      }
      DNASM_UNROLL
      for (int k = 0; k < kFlight; ++k) {
        float v[8], factor[8];
        Eight::widen(words[k], v);
        if (gated) {
          Eight::widen(factors[k], factor);
          DNASM_UNROLL
          for (int j = 0; j < 8; ++j) v[j] *= factor[j];
        }
        DNASM_UNROLL
        for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(v[j]));  // a NaN is no maximum
        DNASM_UNROLL
        for (int j = 0; j < 4; ++j) words[k].w[j] = pack_half2(v[2 * j] * scale, v[2 * j + 1] * scale);
        if (first + 32 * k < count) out[first + 32 * k] = words[k];
      }
    }
    uint32_t bits = warp_max(float_bits(most));
    if (bits >= 0x7f800000u) {  // nor is an infinity
      bits = 0;
      for (int i = block.lane; i < 8 * count; i += 32) {
        const int n = start - before + i;
        if (n < 0 || n >= length) continue;
        using E = Element<kDtype>;
        const uint32_t each = float_bits(fabsf(E::low(E::join(x[i], 0)) * (gated ? E::low(E::join(g[i], 0)) : 1.0f)));
        if (each < 0x7f800000u && each > bits) bits = each;
      }
      bits = warp_max(bits);
    }
    // Windows of 16 powers of two: most rows share one with the row before, and need no second pass.
    const int wanted = kRowTop - 16 * ((static_cast<int>(bits >> 23) - 127 + 8 + 1024) / 16 - 64);
    return wanted > 126 ? 126 : wanted;
  }
  DNASM_DEVICE void fill(const DirectBuffer& to, const Rows& a, const Rows& gate, int& guess) const {
    sync_warp();  // what was there has been read
    DNASM_UNROLL_ONCE
    for (int r = 0; r < rows;) {
      const int e = guess;
      guess = fill_row(to, a, gate, r, e);
      if (guess != e) continue;
      if (block.lane == 0) to.exponents[r] = guess;
      ++r;
    }
    sync_warp();
  }

  // The unit's results conv + skip * x: the ith of tile t's four pairs stands at own_place() + step(i) in it, its halves in
  // sums[t][i / 2][i % 2] and behind that by two.
  using Sums = float[kTiles][2][4];
  DNASM_DEVICE int own_place() const { return 32 * (block.lane % 4) + 2 * (block.lane / 4); }
  static DNASM_DEVICE int step(int i) { return i / 2 * 128 + i % 2 * 16; }
  struct Place {  // of tile t: column from the unit's first position on, and position in the row
    int row, column, position;
    DNASM_DEVICE Place(const DirectWarp& me, int t) : row(t >> me.block.work.shift) {
      const int tile = t - row * me.block.work.tiles;
      column = tile * kTile;
      position = tile < me.block.work.tiles ? me.start + column : me.length;  // a unit of three tiles has no fourth
    }
  };
  DNASM_DEVICE void convolve(const DirectBuffer& x, const DirectTaps& taps, float skip, Sums& sums) const {
    const DirectWork& work = block.work;
    const char* tile[kTiles];
    const int used = rows * work.tiles;
    DNASM_UNROLL
    for (int t = 0; t < kTiles; ++t) tile[t] = x.tile(work, t < used ? t : 0, block.lane) + 32 * x.reach.after();
    DNASM_UNROLL_BY_FOUR
    for (int j = -x.reach.after(); j <= x.reach.before(); ++j) {
      uint32_t a[4];
      taps.operand(j, a);
      DNASM_UNROLL
      for (int i = 0; i < 2 * kTiles; ++i) {
        const Twin words = *reinterpret_cast<const Twin*>(tile[i / 2] + 256 * (i % 2));
        mma_16816(sums[i / 2][i % 2], a, words.w[0], words.w[1]);
      }
      DNASM_UNROLL
      for (int t = 0; t < kTiles; ++t) tile[t] -= 32;
    }
    DNASM_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const int e = x.exponents[t < used ? t >> work.shift : 0];
      const PowerOfTwo factor(-e - block.exponent);
      const float own = skip * power_of_two(-e);
      DNASM_UNROLL
      for (int i = 0; i < 8; ++i) sums[t][i / 4][i % 4] *= factor.most;
      if (factor.rest != 1) {
        DNASM_UNROLL
        for (int i = 0; i < 8; ++i) sums[t][i / 4][i % 4] *= factor.rest;
      }
      if (!block.p.skip) continue;
      const char* words = x.row(t < used ? t >> work.shift : 0) + 2 * (Place(*this, t).column + own_place());
      DNASM_UNROLL
      for (int i = 0; i < 4; ++i) {
        const uint32_t pair = *reinterpret_cast<const uint32_t*>(words + 2 * step(i));
        sums[t][i / 2][i % 2] += own * half_to_float(static_cast<uint16_t>(pair));
        sums[t][i / 2][i % 2 + 2] += own * half_to_float(static_cast<uint16_t>(pair >> 16));
      }
    }
  }
  // to = sums * by, or the sums where there is nothing to multiply by.
  DNASM_DEVICE void put(const Rows& to, const Rows& by, const Sums& sums) const {
    using E = Element<kDtype>;
    if (!to.data) return;
    DNASM_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const Place tile(*this, t);
      const int n = tile.row < rows ? tile.position + own_place() : length;
      if (n >= length) continue;
      Scalar* out = row(to, tile.row) + tile.column + own_place();
      const Scalar* factors = by.data ? row(by, tile.row) + tile.column + own_place() : nullptr;
      uint32_t pairs[4];
      DNASM_UNROLL
      for (int i = 0; i < 4 && factors; ++i) pairs[i] = Two::load(factors + step(i), n + step(i), length).w[0];
      DNASM_UNROLL
      for (int i = 0; i < 4; ++i) {
        float v[2] = {sums[t][i / 2][i % 2], sums[t][i / 2][i % 2 + 2]};
        if (factors) v[0] *= E::low(pairs[i]), v[1] *= E::high(pairs[i]);
        Two::store(out + step(i), n + step(i), length, v);
      }
    }
  }
};

template <int kDtype, bool kEven>
DNASM_KERNEL(32 * kForwardWarps, 5) direct_forward_kernel(const Params p, const DirectWork work) {
  constexpr int kThreads = 32 * kForwardWarps;
  DirectBlock block(p, work, block_index() / work.chunks);
  uint32_t* taps_at = reinterpret_cast<uint32_t*>(dynamic_shared());
  block.template find_exponent<kThreads>(reinterpret_cast<float*>(dynamic_shared()));
  const DirectTaps taps = block.template place_taps<kThreads>(taps_at, work.reach, false);
  const int taps_bytes = (work.reach.tap_words() * 4 + 15) / 16 * 16;
  const DirectBuffer x(dynamic_shared() + taps_bytes + block.warp * work.buffer_bytes(work.reach), work, work.reach);
  const float skip = p.skip ? p.skip[block.channel] : 0.0f;
  sync_block();
  int guess = kRowTop;
  for (int unit = block_index() % work.chunks * kForwardWarps + block.warp; unit < work.units;
       unit += work.chunks * kForwardWarps) {
    const DirectWarp<kDtype, kEven> me(block, unit);
    me.fill(x, p.u, p.in_gate, guess);
    float sums[kTiles][2][4] = {};
    me.convolve(x, taps, skip, sums);
    me.put(p.y, p.out_gate, sums);
  }
}

template <int kDtype>
const char* launch_direct_forward(const Params& p) {
  const DirectWork work(p, kForwardWarps, 2112);
  const size_t bytes = (work.reach.tap_words() * 4 + 15) / 16 * 16 + kForwardWarps * work.buffer_bytes(work.reach);
  return launch(even_rows(p) ? direct_forward_kernel<kDtype, true> : direct_forward_kernel<kDtype, false>, LaunchShape{p.channels * work.chunks, 32 * kForwardWarps, bytes, p.stream}, p, work);
}

}  // namespace dnasm
