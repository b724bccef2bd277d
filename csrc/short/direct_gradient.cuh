// The gradients of the direct product: of the signals by the same product, of the filter by lag block, in one kernel.
#pragma once

#include "direct.cuh"

namespace dnasm {

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
      const PowerOfTwo factor(-x.exponents[r] - g.exponents[r]);
      DNASM_UNROLL
      for (int i = 0; i < kLags; ++i) {
        if (first_lag + block.warp + i * kBackwardWarps > x.reach.before()) break;
        DNASM_UNROLL
        for (int j = 0; j < 8; ++j) {
          float& sum = sums[i][j / 4][j % 4];
          if (factor.rest != 1) sum *= factor.rest;
          total[i][j / 4][j % 4] += sum * factor.most;
        }
      }
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

template <int kDtype, bool kEven>
DNASM_KERNEL(32 * kBackwardWarps, 2) direct_backward_kernel(const Params p, const DirectWork work) {
  constexpr int kThreads = 32 * kBackwardWarps;
  const int group = block_index() % work.groups, chunk = block_index() / work.groups % work.chunks;
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
  const int first_lag = group * kLagGroup - reach.after();
  LagSums lags;
  int x_guess = kRowTop, g_guess = kRowTop;
  for (int first = chunk * kBackwardWarps; first < work.units; first += work.chunks * kBackwardWarps) {
    sync_block();
    const DirectWarp<kDtype, kEven> me(block, first + block.warp);
    me.fill(x, p.u, p.in_gate, x_guess);
    me.fill(g, p.dy, p.out_gate, g_guess);
    if (group == 0 && p.dout_gate.data && me.rows) {
      float sums[kTiles][2][4] = {};
      me.convolve(x, taps, skip, sums);
      me.put(p.dout_gate, p.dy, sums);
    }
    if (group == 0 && (p.du.data || p.din_gate.data) && me.rows) {
      float sums[kTiles][2][4] = {};
      me.convolve(g, back, skip, sums);
      me.put(p.du, p.in_gate, sums);
      me.put(p.din_gate, p.u, sums);
    }
    if (!p.dk && !p.dskip) continue;
    sync_block();
    for (int w = 0; w < kBackwardWarps; ++w) {
      char* other = shared + w * (x_bytes + g_bytes);
      lags.add(block, DirectBuffer(other, work, reach), DirectBuffer(other + x_bytes, work, turned), first_lag,
               DirectWarp<kDtype, kEven>(block, first + w).rows);
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
const char* launch_direct_backward(const Params& p) {
  const DirectWork work = direct_backward_work(p);
  const Reach turned = work.reach.turned();
  const size_t bytes = ((work.reach.tap_words() + turned.tap_words()) * 4 + 15) / 16 * 16 +
                       kBackwardWarps * (work.buffer_bytes(work.reach) + work.buffer_bytes(turned));
  const LaunchShape shape{p.channels * work.chunks * work.groups, 32 * kBackwardWarps, bytes, p.stream};
  if (const char* text = launch(even_rows(p) ? direct_backward_kernel<kDtype, true> : direct_backward_kernel<kDtype, false>, shape, p, work)) return text;
  if (!p.dk && !p.dskip) return nullptr;
  const int64_t taps = p.channels * p.filter_length * (1 + p.bidirectional);
  return launch(direct_sums_kernel<kDtype>, LaunchShape{(taps + 255) / 256, 256, 0, p.stream}, p, work);
}

}  // namespace dnasm
