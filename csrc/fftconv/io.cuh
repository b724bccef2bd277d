// Rows of a tensor in and out: gates, zero filling, cropping, odd lengths, and the one power-of-two scale of a row.
#pragma once

#include "stage.cuh"

namespace dnasm {

// The spectrum buffer: tables, one exponent a channel, then each channel's spectrum times 2^-exponent.
struct SpectrumLayout {
  int64_t table_bytes, exponent_bytes, channel_bytes;
  DNASM_DEVICE const Quad* tables(const Params& p) const { return static_cast<const Quad*>(p.spectrum); }
  DNASM_DEVICE int* exponents(const Params& p) const {
    return reinterpret_cast<int*>(static_cast<char*>(p.spectrum) + table_bytes);
  }
  DNASM_DEVICE char* channel(const Params& p, int64_t d) const {
    return static_cast<char*>(p.spectrum) + table_bytes + exponent_bytes + d * channel_bytes;
  }
};

// What a launch adds to its Params.
struct Work {
  SpectrumLayout layout;
  int64_t groups;  // of P::kSequences sequences of one channel
  int chunks;      // blocks that share a channel
  float* partial;  // backward: [block][team][...], see FilterGradient; then dskip's sums, [block][warp]
  Quad* saved;     // backward, long plans: a spectrum for each block
};

// One row of a tensor. kFull: as long as the plan and 4-byte aligned; else elements are checked, pairs where they align.
template <int kDtype, bool kFull>
struct Row {
  using E = Element<kDtype>;
  using Scalar = typename E::Scalar;
  using Pair = typename E::Pair;
  Scalar* at;
  int length;  // 0: nothing to read or write

  DNASM_DEVICE Row(const Rows& rows, int64_t b, int64_t d, int n)
      : at(rows.data ? static_cast<Scalar*>(rows.data) + b * rows.stride_b + d * rows.stride_d : nullptr), length(n) {}
  DNASM_DEVICE bool whole(int n) const {
    if (kFull) return length > 0;
    return n + 1 < length && reinterpret_cast<uintptr_t>(at) % sizeof(Pair) == 0;
  }
  // Bring the line of element n into the L2 cache.
  DNASM_DEVICE void prefetch_line(int n) const {
    if (n < length) prefetch(at + n);
  }
  DNASM_DEVICE Pair load(int n) const {
    if (whole(n)) return *reinterpret_cast<const Pair*>(at + n);
    if (kFull) return Pair{};
    return E::join(n < length ? at[n] : Scalar{}, n + 1 < length ? at[n + 1] : Scalar{});
  }
  DNASM_DEVICE void store(int n, Pair value) const {
    if (whole(n)) {
      *reinterpret_cast<Pair*>(at + n) = value;
    } else if (!kFull) {
      if (n < length) at[n] = E::pick(value, 0);
      if (n + 1 < length) at[n + 1] = E::pick(value, 1);
    }
  }
};

// This lane's elements, unit by unit, in fp16 and times 2^-exponent of their row; word 2 k + h of a unit holds half h of
// the tensor's words 2 k and 2 k + 1.
template <class P>
struct Operand {
  uint32_t words[P::kUnits][4];
  int exponents[P::kRows];

  DNASM_DEVICE int exponent(int unit) const { return exponents[P::row_of(unit)]; }
  // Element i of a unit, in the order of Transform's sums.
  DNASM_DEVICE float element(int unit, int i) const {
    return half_to_float(static_cast<uint16_t>(words[unit][i / 2] >> 16 * (i % 2)));
  }
};

// Sum 4 k + 2 h + i, and half h of the tensor's word 2 k + i, are the same element.
DNASM_SHARED_CODE int sum_index(int word, int half) { return word / 2 * 4 + half * 2 + word % 2; }

constexpr int kTop = 2;  // a scaled row's largest element lies in [2^kTop, 2^(kTop + 1))

// Fill `x` from load(unit, v), v in the order of sums. Each unit is rounded under a scale of its own and meets the row's
// once all have been seen: an exact product, short of fp16's smallest. Holds a barrier unless a warp has its own row.
template <class P, class Load>
DNASM_DEVICE void gather_row(Operand<P>& x, uint32_t* maxima, int team_first, const Load& load) {
  int exponents[P::kUnits];
  uint32_t most[P::kRows] = {};
  DNASM_UNROLL
  for (int u = 0; u < P::kUnits; ++u) {
    float v[8], largest = 0;
    load(u, v);
    DNASM_UNROLL
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(v[i]));
    const uint32_t e = float_bits(largest) >> 23, clamped = e < kTop ? kTop : e;
    const float scale = bits_float((254 + kTop - clamped) << 23);
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) x.words[u][w] = pack_half2(v[2 * w] * scale, v[2 * w + 1] * scale);
    exponents[u] = static_cast<int>(clamped);
    uint32_t& row = most[P::row_of(u)];
    row = clamped > row ? clamped : row;
  }
  DNASM_UNROLL
  for (int r = 0; r < P::kRows; ++r) most[r] = warp_max(most[r]);
  if (P::kTeam > 1) {
    if (thread_index() % 32 == 0) maxima[thread_index() / 32] = most[0];
    sync_block();
    DNASM_UNROLL
    for (int w = 0; w < P::kTeam; ++w) most[0] = maxima[team_first + w] > most[0] ? maxima[team_first + w] : most[0];
  } else if (!P::kDirect) {
    sync_warp();  // the last sequence has been read
  }
  DNASM_UNROLL
  for (int u = 0; u < P::kUnits; ++u) {
    const float ratio = power_of_two(exponents[u] - static_cast<int>(most[P::row_of(u)]));
    const uint32_t both = pack_half2(ratio, ratio);
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) x.words[u][w] = mul_half2(x.words[u][w], both);
  }
  DNASM_UNROLL
  for (int r = 0; r < P::kRows; ++r) x.exponents[r] = static_cast<int>(most[r]) - 127 - kTop;
}

}  // namespace dnasm
