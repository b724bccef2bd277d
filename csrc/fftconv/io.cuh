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
  int groups;      // of P::kSequences sequences of one channel
  int chunks;      // blocks that share a channel, or all channels
  float* partial;  // backward: [block][team][...], see FilterGradient; then dskip's sums, [block][warp]
  Quad* saved;     // backward, long plans: a spectrum for each block
  char* parked;    // P::kParkedBytes for each block, where shared memory does not hold them
};

// Where a sequence lies: in which row of the batch, from which sample on, and how many samples.
struct Segment {
  int64_t row, start;
  int length;
};
DNASM_DEVICE Segment segment_of(const Params& p, int64_t b) {
  if (!p.starts) return {b, 0, static_cast<int>(p.length)};
  const uint32_t of_row = static_cast<uint32_t>(b) % static_cast<uint32_t>(p.segments);
  const int64_t start = p.starts[of_row], end = p.ends[of_row], n = end - start;
  const bool inside = start >= 0 && end <= p.packed_length && n > 0;
  const int64_t row = static_cast<uint32_t>(b) / static_cast<uint32_t>(p.segments);
  return {row, inside ? start : 0, inside ? static_cast<int>(n < p.length ? n : p.length) : 0};
}

// One row of a tensor from this lane's first column on. kFull: as long as the plan and 4-byte aligned; else elements are
// checked, and pairs taken where they align. kOnce: pairs of 4 bytes are evicted first.
template <int kDtype, bool kFull, bool kOnce = false>
struct Row {
  using E = Element<kDtype>;
  using Scalar = typename E::Scalar;
  using Pair = typename E::Pair;
  Scalar* at;  // this lane's first column
  int left;    // elements of the row from there on; below 1: none

  DNASM_DEVICE bool whole(int n) const {
    return kFull || (n + 1 < left && reinterpret_cast<uintptr_t>(at) % sizeof(Pair) == 0);
  }
  DNASM_DEVICE Pair load(int n) const {
    if constexpr (kOnce && sizeof(Pair) == 4)
      if (whole(n)) return load_once(reinterpret_cast<const Pair*>(at + n));
    if (whole(n)) return *reinterpret_cast<const Pair*>(at + n);
    return E::join(n < left ? at[n] : Scalar{}, n + 1 < left ? at[n + 1] : Scalar{});
  }
  DNASM_DEVICE void store(int n, Pair value) const {
    if (whole(n)) {
      if constexpr (kOnce && sizeof(Pair) == 4) store_once(reinterpret_cast<Pair*>(at + n), value);
      else *reinterpret_cast<Pair*>(at + n) = value;
    } else {
      if (n < left) at[n] = E::pick(value, 0);
      if (n + 1 < left) at[n + 1] = E::pick(value, 1);
    }
  }
};

constexpr int kTop = 2;  // a scaled row's largest element lies in [2^kTop, 2^(kTop + 1))

// This lane's elements of a team's rows, unit by unit, in fp16 and times 2^-exponent of their row; word 2 k + h of a unit
// holds half h of the tensor's words 2 k and 2 k + 1.
template <class P>
struct Operand {
  Quad kept[P::kParked ? 1 : P::kUnits];
  Quad* parked;                // [unit][lane] in shared memory
  uint32_t* parked_exponents;  // likewise
  uint32_t unit_exponents[P::kParked ? 1 : P::kUnits];
  uint32_t most[P::kRows];

  DNASM_DEVICE int exponent(int unit) const { return static_cast<int>(most[P::row_of(unit)]) - 127 - kTop; }
  DNASM_DEVICE void put(int unit, const Quad& words, uint32_t e) {
    if constexpr (P::kParked) parked[32 * unit] = words, parked_exponents[32 * unit] = e;
    else kept[unit] = words, unit_exponents[unit] = e;
  }
  // The words under the row's scale: an exact product, short of fp16's smallest.
  DNASM_DEVICE Quad words(int unit) const {
    Quad x = P::kParked ? parked[32 * unit] : kept[P::kParked ? 0 : unit];
    const uint32_t e = P::kParked ? parked_exponents[32 * unit] : unit_exponents[P::kParked ? 0 : unit];
    const float ratio = power_of_two(static_cast<int>(e) - static_cast<int>(most[P::row_of(unit)]));
    const uint32_t both = pack_half2(ratio, ratio);
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) x.w[w] = mul_half2(x.w[w], both);
    return x;
  }
  // The elements themselves, in the order of Transform's sums, times `factor`.
  DNASM_DEVICE void elements(int unit, float factor, float (&v)[8]) const {
    const Quad x = P::kParked ? parked[32 * unit] : kept[P::kParked ? 0 : unit];
    const uint32_t e = P::kParked ? parked_exponents[32 * unit] : unit_exponents[P::kParked ? 0 : unit];
    const float scale = factor * power_of_two(static_cast<int>(e) - 127 - kTop);
    DNASM_UNROLL
    for (int i = 0; i < 8; ++i) v[i] = scale * half_to_float(static_cast<uint16_t>(x.w[i / 2] >> 16 * (i % 2)));
  }
};

// Sum 4 k + 2 h + i, and half h of the tensor's word 2 k + i, are the same element.
DNASM_SHARED_CODE int sum_index(int word, int half) { return word / 2 * 4 + half * 2 + word % 2; }

// Fill `x` from load(unit, v), v in the order of sums. Each unit is rounded under a scale of its own and meets the row's
// when it is used, for by then all have been seen. Holds a barrier unless a warp has its own row.
template <class P, class Load>
DNASM_DEVICE void gather_row(Operand<P>& x, uint32_t* maxima, int team_first, const Load& load) {
  DNASM_UNROLL
  for (int r = 0; r < P::kRows; ++r) x.most[r] = 0;
  DNASM_UNROLL_BY_FOUR
  for (int u = 0; u < P::kUnits; ++u) {
    float v[8], largest = 0;
    load(u, v);
    DNASM_UNROLL
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(v[i]));
    const uint32_t e = float_bits(largest) >> 23, clamped = e < kTop ? kTop : e;
    const float scale = bits_float((254 + kTop - clamped) << 23);
    Quad words;
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) words.w[w] = pack_half2(v[2 * w] * scale, v[2 * w + 1] * scale);
    x.put(u, words, clamped);
    uint32_t& most = x.most[P::row_of(u)];
    most = clamped > most ? clamped : most;
  }
  DNASM_UNROLL
  for (int r = 0; r < P::kRows; ++r) x.most[r] = warp_max(x.most[r]);
  if (P::kTeam > 1) {
    if (thread_index() % 32 == 0) maxima[thread_index() / 32] = x.most[0];
    sync_block();
    DNASM_UNROLL
    for (int w = 0; w < P::kTeam; ++w) {
      const uint32_t other = maxima[team_first + w];
      x.most[0] = other > x.most[0] ? other : x.most[0];
    }
  } else if (!P::kDirect) {
    sync_warp();  // the last sequence has been read
  }
}

}  // namespace dnasm
