// The convolution with a short filter as tensor-core products, no transform: each row costs its length times the taps.
//
// Cut time into blocks of 16, t = 16 i + c. Then y[16 i + c] = sum over lag blocks j and r of x[16 (i - j) + r] T_j[r][c],
// T_j[r][c] = k[16 j + c - r]: products of a matrix X of time blocks, shifted by j rows, and a Toeplitz matrix. A lane's
// left operand is four neighbours of x, its right one two neighbours of k; so x lies in shared memory as it is, and k
// twice, once for each parity. Inner digits are permuted, slot s of half h is 4 (s / 2) + 2 h + s % 2, which makes a
// lane's four results neighbours as well. The gradient of x is the same product with the filter turned round; that of k is
// X^T G by lag block, summed along diagonals.
//
// A warp works alone on a unit: four tiles of 256 results, of one row or of up to four short ones. It holds what the
// filter reaches from there as fp16 under one power of two a row.
#pragma once

#include <type_traits>

#include "../fftconv/wide.cuh"
#include "short.h"

namespace dnasm {

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
  DNASM_SHARED_CODE int pitch() const { return 8 * (before() + after()) + 17; }  // words of one parity's taps: odd
  DNASM_SHARED_CODE int tap_words() const { return 2 * pitch() + 2; }  // so that what follows stays 8-byte aligned
};

// How rows are cut into units, and units dealt to blocks.
struct DirectWork {
  Reach reach;
  int tiles, rows;  // tiles of a row in a unit, rows of a unit
  int64_t segments, units, chunks, groups;

  DirectWork(const Params& p, int warps, int64_t blocks_wanted) {
    const int64_t taps = p.filter_length < p.length ? p.filter_length : p.length;
    const int64_t ahead = p.filter_length < p.length - 1 ? p.filter_length : p.length - 1;
    reach = {static_cast<int>(taps), p.bidirectional ? static_cast<int>(ahead) : 0};
    const int64_t all = (p.length + kTile - 1) / kTile;
    tiles = static_cast<int>(all < kTiles ? all : kTiles);
    rows = kTiles / tiles;
    segments = (all + tiles - 1) / tiles;
    units = (p.batch + rows - 1) / rows * segments;
    const int64_t most = (units + warps - 1) / warps, wanted = (blocks_wanted + p.channels - 1) / p.channels;
    chunks = wanted < most ? wanted : most;
    groups = (reach.blocks() + kLagGroup - 1) / kLagGroup;
  }
  DNASM_SHARED_CODE int halves(const Reach& r) const { return tiles * kTile + 16 * (r.before() + r.after()); }  // of a row
  DNASM_SHARED_CODE int buffer_bytes(const Reach& r) const { return rows * halves(r) * 2 + 16; }  // and its exponents
};

template <int kDtype, int kCount>
struct Neighbours {  // kCount elements of a row from position n on
  using E = Element<kDtype>;
  using Scalar = typename E::Scalar;
  using Words = typename std::conditional<kCount == 8, Quad, Twin>::type;
  static DNASM_DEVICE bool whole(const Scalar* row, int64_t n, int64_t length) {
    return n >= 0 && n + kCount <= length && reinterpret_cast<uintptr_t>(row + n) % sizeof(Words) == 0;
  }
  static DNASM_DEVICE void load(const Scalar* row, int64_t n, int64_t length, float (&v)[kCount]) {
    Words x;
    if (whole(row, n, length)) {
      x = *reinterpret_cast<const Words*>(row + n);
    } else {
      DNASM_UNROLL
      for (int i = 0; i < kCount / 2; ++i) {
        const int64_t at = n + 2 * i;
        x.w[i] = E::join(at >= 0 && at < length ? row[at] : Scalar{}, at + 1 >= 0 && at + 1 < length ? row[at + 1] : Scalar{});
      }
    }
    DNASM_UNROLL
    for (int i = 0; i < kCount / 2; ++i) v[2 * i] = E::low(x.w[i]), v[2 * i + 1] = E::high(x.w[i]);
  }
  static DNASM_DEVICE void store(Scalar* row, int64_t n, int64_t length, const float (&v)[kCount]) {
    Words x;
    DNASM_UNROLL
    for (int i = 0; i < kCount / 2; ++i) x.w[i] = E::pack(v[2 * i], v[2 * i + 1]);
    if (whole(row, n, length)) {
      *reinterpret_cast<Words*>(row + n) = x;
    } else {
      DNASM_UNROLL
      for (int i = 0; i < kCount; ++i)
        if (n + i < length) row[n + i] = E::pick(x.w[i / 2], i % 2);
    }
  }
};

// The taps of one channel as a lane's right operands. word(j, e) holds k[m] and k[m - 1], m = 16 j + 2 e + lane's own.
struct DirectTaps {
  const uint32_t* words;
  DNASM_DEVICE uint32_t word(int j, int e) const { return words[-8 * j - e]; }
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
    const int pitch = r.pitch(), top = 16 * r.before() + 16;
    for (int i = thread_index(); i < 2 * pitch; i += kThreads) {
      const int s = top + i / pitch - 2 * (i % pitch);
      to[i] = pack_half2(scale * tap(turned ? -s : s), scale * tap(turned ? 1 - s : s - 1));
    }
    const int g = lane / 4, q = lane % 4;
    return {to + g % 2 * pitch + top / 2 - 2 * (g / 2) + 2 * q};
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
  // The first result's place in tile t, for the lane's four neighbours of time block g.
  DNASM_DEVICE const char* tile(const DirectWork& work, int t, int lane) const {
    return at + 2 * (t / work.tiles * halves + 16 * reach.before() + t % work.tiles * kTile) + 32 * (lane / 4) + 8 * (lane % 4);
  }
  DNASM_DEVICE const char* row(int r) const { return at + 2 * (r * halves + 16 * reach.before()); }
};

template <int kDtype>
struct DirectWarp {
  using Scalar = typename Element<kDtype>::Scalar;
  using Eight = Neighbours<kDtype, 8>;
  using Four = Neighbours<kDtype, 4>;
  const DirectBlock& block;
  int64_t first_row, start;  // of the unit
  int rows;                  // of it that there are

  DNASM_DEVICE DirectWarp(const DirectBlock& b, int64_t unit) : block(b) {
    const DirectWork& w = b.work;
    first_row = unit / w.segments * w.rows, start = unit % w.segments * w.tiles * kTile;
    const int64_t left = b.p.batch - first_row;
    rows = unit >= w.units ? 0 : static_cast<int>(left < w.rows ? left : w.rows);
  }
  DNASM_DEVICE Scalar* row(const Rows& tensor, int r) const {
    return static_cast<Scalar*>(tensor.data) + (first_row + r) * tensor.stride_b + block.channel * tensor.stride_d;
  }

  // One pass over row r of x = a * gate, rounded under 2^e; what it would have had to be under.
  DNASM_DEVICE int fill_row(const DirectBuffer& to, const Rows& a, const Rows& gate, int r, int e) const {
    const float scale = power_of_two(e);
    const Scalar *x = row(a, r), *g = gate.data ? row(gate, r) : nullptr;
    uint32_t most = 0;
    DNASM_UNROLL_BY_FOUR
    for (int i = block.lane; i < to.halves / 8; i += 32) {
      const int64_t n = start - 16 * to.reach.before() + 8 * i;
      float v[8], factor[8];
      Eight::load(x, n, block.p.length, v);
      if (g) Eight::load(g, n, block.p.length, factor);
      Quad words;
      DNASM_UNROLL
      for (int j = 0; j < 8; ++j) {
        if (g) v[j] *= factor[j];
        const uint32_t bits = float_bits(fabsf(v[j]));
        most = bits < 0x7f800000u && bits > most ? bits : most;  // a NaN or an infinity sets no scale
      }
      DNASM_UNROLL
      for (int j = 0; j < 4; ++j) words.w[j] = pack_half2(v[2 * j] * scale, v[2 * j + 1] * scale);
      reinterpret_cast<Quad*>(to.at + 2 * r * to.halves)[i] = words;
    }
    // Windows of 16 powers of two: most rows share one with the row before, and need no second pass.
    const int exponent = static_cast<int>(warp_max(most) >> 23) - 127;
    const int wanted = kRowTop - 16 * ((exponent + 8 + 1024) / 16 - 64);
    return wanted > 126 ? 126 : wanted;
  }
  DNASM_DEVICE void fill(const DirectBuffer& to, const Rows& a, const Rows& gate, int& guess) const {
    sync_warp();  // what was there has been read
    for (int r = 0; r < rows; ++r) {
      for (int e = guess;; e = guess) {
        guess = fill_row(to, a, gate, r, e);
        if (guess == e) break;
      }
      if (block.lane == 0) to.exponents[r] = guess;
    }
    sync_warp();
  }

  // emit(row, position, four neighbouring sums of conv + skip * x) for each four results of the unit.
  template <class Emit>
  DNASM_DEVICE void convolve(const DirectBuffer& x, const DirectTaps& taps, float skip, const Emit& emit) const {
    const DirectWork& work = block.work;
    float sums[kTiles][2][4] = {};
    const char* tile[kTiles];
    const int used = rows * work.tiles;
    DNASM_UNROLL
    for (int t = 0; t < kTiles; ++t) tile[t] = x.tile(work, t < used ? t : 0, block.lane) + 32 * x.reach.after();
    DNASM_UNROLL_BY_FOUR
    for (int j = -x.reach.after(); j <= x.reach.before(); ++j) {
      const uint32_t behind = taps.word(j, -1), here = taps.word(j, 0), ahead = taps.word(j, 1);
      DNASM_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        const Twin low = *reinterpret_cast<const Twin*>(tile[t]), high = *reinterpret_cast<const Twin*>(tile[t] + 256);
        const uint32_t a[4] = {low.w[0], high.w[0], low.w[1], high.w[1]};
        mma_16816(sums[t][0], a, here, behind);
        mma_16816(sums[t][1], a, ahead, here);
        tile[t] -= 32;
      }
    }
    DNASM_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      if (t >= used) break;
      const int r = t / work.tiles, e = x.exponents[r], both = -e - block.exponent;
      const float factor = power_of_two(both / 2), rest = power_of_two(both - both / 2), own = skip * power_of_two(-e);
      DNASM_UNROLL
      for (int half = 0; half < 2; ++half) {
        const Twin words = *reinterpret_cast<const Twin*>(x.tile(work, t, block.lane) + 256 * half);
        float v[4];
        DNASM_UNROLL
        for (int i = 0; i < 4; ++i)
          v[i] = sums[t][i / 2][2 * half + i % 2] * factor * rest +
                 own * half_to_float(static_cast<uint16_t>(words.w[i / 2] >> 16 * (i % 2)));
        emit(r, start + t % work.tiles * kTile + 128 * half + 16 * (block.lane / 4) + 4 * (block.lane % 4), v);
      }
    }
  }
  // to = v * by, or v where there is nothing to multiply by.
  DNASM_DEVICE void put(const Rows& to, const Rows& by, int r, int64_t n, float (&v)[4]) const {
    if (!to.data || n >= block.p.length) return;
    float factor[4] = {1, 1, 1, 1}, out[4];
    if (by.data) Four::load(row(by, r), n, block.p.length, factor);
    DNASM_UNROLL
    for (int i = 0; i < 4; ++i) out[i] = v[i] * factor[i];
    Four::store(row(to, r), n, block.p.length, out);
  }
};

template <int kDtype>
DNASM_KERNEL(32 * kForwardWarps, 4) direct_forward_kernel(const Params p, const DirectWork work) {
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
  for (int64_t unit = block_index() % work.chunks * kForwardWarps + block.warp; unit < work.units;
       unit += work.chunks * kForwardWarps) {
    const DirectWarp<kDtype> me(block, unit);
    me.fill(x, p.u, p.in_gate, guess);
    me.convolve(x, taps, skip, [&](int r, int64_t n, float(&v)[4]) { me.put(p.y, p.out_gate, r, n, v); });
  }
}

// The gradient of the filter by lag block, over all warps' units: a warp has every eighth lag block of the group.
struct LagSums {
  float total[kLags][2][4] = {};

  DNASM_DEVICE void add(const DirectBlock& block, const DirectBuffer& x, const DirectBuffer& g, int first_lag, int rows) {
    const int tiles = block.work.tiles, l = block.lane % 8, m = block.lane / 8;
    for (int r = 0; r < rows; ++r) {
      float sums[kLags][2][4] = {};
      // Lane l names row l % 8 of matrix l / 8: of X time blocks by r, of G time blocks by c, both to be transposed.
      const char* right = g.row(r) + 32 * (l + m % 2 * 8) + m / 2 * 16;
      const char* left = x.row(r) + 32 * (l + m / 2 * 8 - first_lag - block.warp) + m % 2 * 16;
      for (int tile = 0; tile < tiles; ++tile) {
        uint32_t b[4], a[4];
        ldmatrix_trans(b, right + 2 * kTile * tile);
        DNASM_UNROLL
        for (int i = 0; i < kLags; ++i) {
          if (first_lag + block.warp + i * kBackwardWarps > x.reach.before()) break;
          ldmatrix_trans(a, left + 2 * kTile * tile - 32 * i * kBackwardWarps);
          mma_16816(sums[i][0], a, b[0], b[1]);
          mma_16816(sums[i][1], a, b[2], b[3]);
        }
      }
      const int both = -x.exponents[r] - g.exponents[r];
      const float factor = power_of_two(both / 2), rest = power_of_two(both - both / 2);
      DNASM_UNROLL
      for (int i = 0; i < kLags; ++i)
        DNASM_UNROLL
        for (int j = 0; j < 8; ++j) total[i][j / 4][j % 4] += sums[i][j / 4][j % 4] * factor * rest;
    }
  }
  // Sums along the diagonals of all lag blocks of the group: entry d + 16 is the lag d beyond the group's first.
  DNASM_DEVICE void finish(const DirectBlock& block, float* shared, float* out) const {
    const int g = block.lane / 4, q = block.lane % 4;
    DNASM_UNROLL
    for (int i = 0; i < kLags; ++i)
      DNASM_UNROLL
      for (int j = 0; j < 8; ++j)
        shared[(block.warp + i * kBackwardWarps) * 256 + (g + j % 4 / 2 * 8) * 16 + j / 4 * 8 + 2 * q + j % 2] = total[i][j / 4][j % 4];
    sync_block();
    for (int e = thread_index(); e < kGroupSums; e += 32 * kBackwardWarps) {
      float sum = 0;
      for (int slot = e / 16 - 1; slot <= e / 16; ++slot) {
        const int d = e - 16 - 16 * slot;  // c - r
        for (int r = d < 0 ? -d : 0; slot >= 0 && slot < kLagGroup && r < 16 && r + d < 16; ++r) sum += shared[slot * 256 + r * 16 + r + d];
      }
      out[e] = sum;
    }
  }
};

template <int kDtype>
DNASM_KERNEL(32 * kBackwardWarps, 2) direct_backward_kernel(const Params p, const DirectWork work) {
  constexpr int kThreads = 32 * kBackwardWarps;
  const int64_t group = block_index() % work.groups, chunk = block_index() / work.groups % work.chunks;
  DirectBlock block(p, work, block_index() / (work.groups * work.chunks));
  const Reach reach = work.reach, turned = reach.turned();
  char* shared = dynamic_shared();
  block.template find_exponent<kThreads>(reinterpret_cast<float*>(shared));
  uint32_t* taps_at = reinterpret_cast<uint32_t*>(shared);
  const DirectTaps taps = block.template place_taps<kThreads>(taps_at, reach, false);
  const DirectTaps back = block.template place_taps<kThreads>(taps_at + reach.tap_words(), turned, true);
  shared += ((reach.tap_words() + turned.tap_words()) * 4 + 15) / 16 * 16;
  const int x_bytes = work.buffer_bytes(reach), g_bytes = work.buffer_bytes(turned);
  char* mine = shared + block.warp * (x_bytes + g_bytes);
  const DirectBuffer x(mine, work, reach), g(mine + x_bytes, work, turned);
  const float skip = p.skip ? p.skip[block.channel] : 0.0f;
  const int first_lag = static_cast<int>(group) * kLagGroup - reach.after();
  LagSums lags;
  int x_guess = kRowTop, g_guess = kRowTop;
  for (int64_t first = chunk * kBackwardWarps; first < work.units; first += work.chunks * kBackwardWarps) {
    sync_block();
    const DirectWarp<kDtype> me(block, first + block.warp);
    me.fill(x, p.u, p.in_gate, x_guess);
    me.fill(g, p.dy, p.out_gate, g_guess);
    if (group == 0 && p.dout_gate.data && me.rows)
      me.convolve(x, taps, skip, [&](int r, int64_t n, float(&v)[4]) { me.put(p.dout_gate, p.dy, r, n, v); });
    if (group == 0 && (p.du.data || p.din_gate.data) && me.rows)
      me.convolve(g, back, skip, [&](int r, int64_t n, float(&v)[4]) {
        me.put(p.du, p.in_gate, r, n, v);
        me.put(p.din_gate, p.u, r, n, v);
      });
    if (!p.dk && !p.dskip) continue;
    sync_block();
    for (int w = 0; w < kBackwardWarps; ++w) {
      char* other = shared + w * (x_bytes + g_bytes);
      lags.add(block, DirectBuffer(other, work, reach), DirectBuffer(other + x_bytes, work, turned), first_lag,
               DirectWarp<kDtype>(block, first + w).rows);
    }
  }
  if (!p.dk && !p.dskip) return;
  sync_block();
  lags.finish(block, reinterpret_cast<float*>(shared), static_cast<float*>(p.scratch) + block_index() * static_cast<int64_t>(kGroupSums));
}

// dk and dskip from the blocks' sums, in their order; a thread for each tap.
template <int kDtype>
DNASM_KERNEL(256, 1) direct_sums_kernel(const Params p, const DirectWork work) {
  const int64_t taps = p.filter_length * (1 + p.bidirectional), i = static_cast<int64_t>(block_index()) * 256 + thread_index();
  const int64_t channel = i / taps, tap = i % taps;
  if (channel >= p.channels) return;
  const int64_t lag = tap < p.filter_length ? tap : p.filter_length - 1 - tap;
  double sum = 0;
  const bool there = lag < work.reach.past && lag >= -work.reach.future;
  for (int64_t part = 0; there && part < work.chunks * work.groups; ++part) {
    const int64_t e = lag + 16 * work.reach.after() - part % work.groups * 16 * kLagGroup + 16;
    if (e > 0 && e < kGroupSums) sum += static_cast<const float*>(p.scratch)[(channel * work.chunks * work.groups + part) * kGroupSums + e];
  }
  if (p.dk) p.dk[i] = static_cast<float>(sum);
  if (p.dskip && lag == 0) p.dskip[channel] = static_cast<float>(sum);
}

inline DirectWork direct_backward_work(const Params& p) { return DirectWork(p, kBackwardWarps, 528); }
inline size_t direct_scratch(const Params& p) {
  const DirectWork work = direct_backward_work(p);
  return static_cast<size_t>(p.channels * work.chunks * work.groups) * kGroupSums * sizeof(float);
}

template <int kDtype>
const char* launch_direct_forward(const Params& p) {
  const DirectWork work(p, kForwardWarps, 2112);
  const size_t bytes = (work.reach.tap_words() * 4 + 15) / 16 * 16 + kForwardWarps * work.buffer_bytes(work.reach);
  return launch(direct_forward_kernel<kDtype>, LaunchShape{p.channels * work.chunks, 32 * kForwardWarps, bytes, p.stream}, p, work);
}

template <int kDtype>
const char* launch_direct_backward(const Params& p) {
  const DirectWork work = direct_backward_work(p);
  const Reach turned = work.reach.turned();
  const size_t bytes = ((work.reach.tap_words() + turned.tap_words()) * 4 + 15) / 16 * 16 +
                       kBackwardWarps * (work.buffer_bytes(work.reach) + work.buffer_bytes(turned));
  const LaunchShape shape{p.channels * work.chunks * work.groups, 32 * kBackwardWarps, bytes, p.stream};
  if (const char* text = launch(direct_backward_kernel<kDtype>, shape, p, work)) return text;
  if (!p.dk && !p.dskip) return nullptr;
  const int64_t taps = p.channels * p.filter_length * (1 + p.bidirectional);
  return launch(direct_sums_kernel<kDtype>, LaunchShape{(taps + 255) / 256, 256, 0, p.stream}, p, work);
}

}  // namespace dnasm
