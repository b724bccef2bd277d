// Forward and backward for sequences that fit one block: one body each, for every plan, dtype and gate.
//
// A block takes the sequences of one channel, kSequences at a time. Backward goes through the same transform twice, with
// one sequence in shared memory at a time: x = in_gate u (spectrum X kept; back through X K for out_gate's gradient),
// then g = out_gate dy (spectrum G; the filter's gradient sums G conj X; back through G conj K for dx).
#pragma once

#include "io.cuh"

namespace dnasm {

// The rows of one tensor that a team meets at once.
template <class P, int kDtype, bool kFull, bool kOnce>
struct TeamRows {
  Row<kDtype, kFull, kOnce> row[P::kRows];
};

// What a thread knows before it meets a sequence.
template <class P, int kDtype, bool kFull, bool kOnce>
struct Worker {
  using Set = TeamRows<P, kDtype, kFull, kOnce>;
  using E = Element<kDtype>;
  using Pair = typename E::Pair;
  Transform<P> transform;
  int warp, team, channel, column;
  const Quad* filter;  // this lane's spectrum words of this warp's first tile
  int filter_exponent;

  DNASM_DEVICE Worker(const Params& p, const Work& work, int first_channel) {
    const int lane = thread_index() % 32;
    warp = thread_index() / 32, team = warp / P::kTeam;
    transform = {lane, warp % P::kTeam, dynamic_shared() + team * P::kSequenceBytes, work.layout.tables(p) + lane};
    column = P::lane_column(lane) + (P::kDirect ? 0 : P::unit_column(transform.first_tile()));
    go_to(p, work, first_channel);
  }
  DNASM_DEVICE void go_to(const Params& p, const Work& work, int of) {
    channel = of, filter = reinterpret_cast<const Quad*>(work.layout.channel(p, of)) + first_tile() * 64 + transform.lane;
    filter_exponent = work.layout.exponents(p)[of];
  }
  DNASM_DEVICE int first_tile() const { return P::kDirect ? 0 : transform.first_tile(); }
  DNASM_DEVICE int64_t sequence(int group, int row) const {
    return static_cast<int64_t>(group) * P::kSequences + team * P::kRows + row;
  }
  DNASM_DEVICE Set rows(const Params& p, const Rows& tensor, int group) const {
    Set set;
    DNASM_UNROLL
    for (int r = 0; r < P::kRows; ++r) {
      const int64_t b = sequence(group, r);
      const bool there = kFull || b < p.batch;  // the last group may be ragged
      typename E::Scalar* at = static_cast<typename E::Scalar*>(tensor.data);
      Segment segment{b, 0, static_cast<int>(p.length)};
      if (!kFull && there) segment = segment_of(p, b);
      if (at && there) at += segment.row * tensor.stride_b + channel * tensor.stride_d + segment.start + column;
      set.row[r] = {at, there ? segment.length - column : 0};
    }
    return set;
  }
  static DNASM_DEVICE int offset(int unit, int word) {
    return P::unit_column(P::tile_of(unit)) + P::word_column(word);
  }
  // A unit's pairs as they stand, and as eight numbers in the order of sums.
  static DNASM_DEVICE void load(const Set& set, int unit, Pair (&pairs)[4]) {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) pairs[w] = set.row[P::row_of(unit)].load(offset(unit, w));
  }
  static DNASM_DEVICE void widen(const Pair (&pairs)[4], float (&v)[8]) {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) v[sum_index(w, 0)] = E::low(pairs[w]), v[sum_index(w, 1)] = E::high(pairs[w]);
  }
  static DNASM_DEVICE void multiply_by(float (&v)[8], const Pair (&pairs)[4]) {
    float factor[8];
    widen(pairs, factor);
    DNASM_UNROLL
    for (int i = 0; i < 8; ++i) v[i] *= factor[i];
  }
  static DNASM_DEVICE void store(const Set& set, int unit, const float (&v)[8]) {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w)
      set.row[P::row_of(unit)].store(offset(unit, w), E::pack(v[sum_index(w, 0)], v[sum_index(w, 1)]));
  }
  // Bring rows that the same warps will meet into the L2 cache, if there are any: a line a lane.
  DNASM_DEVICE void expect(const Params& p, const Rows& tensor, int of_channel, int group) const {
    constexpr int kLine = 128 / sizeof(typename E::Scalar);
    const int n = (transform.member * 32 + transform.lane) * kLine;
    DNASM_UNROLL
    for (int r = 0; r < P::kRows; ++r) {
      const int64_t b = sequence(group, r);
      if (tensor.data && b < p.batch && n < p.length && !p.starts)
        prefetch(static_cast<typename E::Scalar*>(tensor.data) + b * tensor.stride_b + of_channel * tensor.stride_d + n);
    }
  }
  DNASM_DEVICE Operand<P> operand(const Work& work) const {
    Operand<P> x;
    char* words = P::kParkedInScratch ? work.parked + static_cast<int64_t>(block_index()) * P::kParkedBytes
                                      : dynamic_shared() + P::kWordsAt;
    x.parked = reinterpret_cast<Quad*>(words) + first_tile() * 32 + transform.lane;
    x.parked_exponents = reinterpret_cast<uint32_t*>(words + 2 * P::kLength) + first_tile() * 32 + transform.lane;
    return x;
  }
  // x = rows, times gate where there is one.
  template <bool kGated>
  DNASM_DEVICE void gather(Operand<P>& x, const Params& p, const Rows& tensor, const Rows& gate, int group) const {
    const bool gated = kGated && gate.data;
    const Set a = rows(p, tensor, group), b = rows(p, kGated ? gate : tensor, group);
    gather_row(x, reinterpret_cast<uint32_t*>(dynamic_shared() + P::kMaximaAt), team * P::kTeam, [&](int unit, float(&v)[8]) {
      Pair pairs[4], factors[4];
      load(a, unit, pairs);
      if (gated) load(b, unit, factors);
      widen(pairs, v);
      if (gated) multiply_by(v, factors);
    });
  }
  // What makes results of sums; the matrices' gain is made good here, in float32.
  DNASM_DEVICE float factor(const Operand<P>& x, int unit) const {
    return power_of_two(x.exponent(unit) + filter_exponent) * (1 / P::kGain);
  }
  // From sums to conv(x) + skip x.
  DNASM_DEVICE void finish(const Operand<P>& x, int unit, float skip, float (&v)[8]) const {
    const float factor = this->factor(x, unit);
    float passed[8];
    x.elements(unit, skip, passed);
    DNASM_UNROLL
    for (int j = 0; j < 8; ++j) v[j] = v[j] * factor + passed[j];
  }
  template <bool kConjugate>
  DNASM_DEVICE void multiply_filter(int unit, Tile& x) const {
    const int at = P::tile_of(unit) * 64;
    multiply<kConjugate>(x, load_table(filter + at), load_table(filter + at + 32));
  }
};

// Which groups a block takes: every chunks-th of one channel's, or, where blocks stay, its share of all channels' together.
template <bool kStays>
struct Walk {
  int channel, group, step, groups;
  int left;  // where blocks stay
  DNASM_DEVICE Walk(const Params& p, const Work& work) : groups(work.groups) {
    if (kStays) {
      const int64_t all = p.channels * groups, first = all * block_index() / work.chunks;
      channel = static_cast<int>(first / groups), group = static_cast<int>(first % groups), step = 1;
      left = static_cast<int>(all * (block_index() + 1) / work.chunks - first);
    } else {
      channel = block_index() / work.chunks, group = block_index() % work.chunks, step = work.chunks, left = 0;
    }
  }
  DNASM_DEVICE bool more() const { return kStays ? left > 0 : group < groups; }
  DNASM_DEVICE void next() {
    group += step;
    if (kStays) {
      --left;
      if (group == groups) group = 0, channel += left > 0;
    }
  }
};

template <class P, int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(P::kThreads, P::kBlocksPerSm) forward_kernel(const Params p, const Work work) {
  using W = Worker<P, kDtype, kFull, kFull && kGated && P::kForwardStreams>;
  Walk<P::kForwardStays> walk(p, work);
  W me(p, work, walk.channel);
  const bool gated = kGated && p.out_gate.data;
  Operand<P> x = me.operand(work);
  float skip = p.skip ? p.skip[me.channel] : 0.0f;
  while (walk.more()) {
    const int group = walk.group;
    me.template gather<kGated>(x, p, p.u, p.in_gate, group);
    walk.next();
    if (!P::kForwardStays || walk.more()) {
      me.expect(p, p.u, walk.channel, walk.group);
      if (kGated) me.expect(p, p.in_gate, walk.channel, walk.group), me.expect(p, p.out_gate, walk.channel, walk.group);
    }
    typename W::Set gate, y;  // only known when they are needed: addresses are registers
    typename W::Pair factors[2][4];
    me.transform.run(
        [&](int i) { return x.words(i); }, true,
        [&](int i, Tile& spectrum) { me.template multiply_filter<false>(i, spectrum); },
        [&](int i, int k) {
          if (k == 0) gate = me.rows(p, kGated ? p.out_gate : p.y, group), y = me.rows(p, p.y, group);
          if (gated) me.load(gate, i, factors[k]);
        },
        [&](int i, int k, float(&v)[8]) {
          me.finish(x, i, skip, v);
          if (gated) me.multiply_by(v, factors[k]);
          me.store(y, i, v);
        });
    if (P::kForwardStays) me.go_to(p, work, walk.channel), skip = p.skip ? p.skip[me.channel] : 0.0f;
  }
}

// What backward keeps of a sequence between its two passes (X, 4 bytes an element) and from sequence to sequence (the
// filter's gradient, 8): in registers where a tile is a sequence, else in shared memory as far as it goes, else in scratch.
template <class P>
struct Backward {
  static constexpr bool kRegisters = P::kDirect;
  static constexpr size_t kSaved = P::kTeams * 4 * P::kLength, kSums = 2 * kSaved, kSavedAt = P::kSharedBytes;
  static constexpr bool kSharedSaved = !kRegisters && kSavedAt + kSaved <= kSharedLimit;
  static constexpr size_t kSumsAt = kSavedAt + (kSharedSaved ? kSaved : 0);
  static constexpr bool kSharedSums = kSharedSaved && kSumsAt + kSums <= kSharedLimit;
  static constexpr bool kScratchSaved = !kRegisters && !kSharedSaved;
  static constexpr size_t kSharedBytes = kSumsAt + (kSharedSums ? kSums : 0);
  static constexpr int64_t kPartialFloats = 2 * P::kLength;
};

// The filter's gradient as a spectrum, sum over sequences of G conj X, in float32. One lane alone touches each number, in
// the batch's order: deterministic. Goes to [channel][partial][tile][4][lane] quads: re of words 0-1, of 2-3, im likewise.
template <class P>
struct FilterGradient {
  using B = Backward<P>;
  float sum[16] = {};
  Tile kept[2];
  Quad *saved, *sums, *out;  // already at this lane

  static DNASM_DEVICE void add(float (&s)[16], const Tile& x, const Tile& g, float factor) {
    DNASM_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int shift = 16 * (j % 2);
      const float xr = half_to_float(static_cast<uint16_t>(x.re[j / 2] >> shift)) * factor;
      const float xi = half_to_float(static_cast<uint16_t>(x.im[j / 2] >> shift)) * factor;
      const float gr = half_to_float(static_cast<uint16_t>(g.re[j / 2] >> shift));
      const float gi = half_to_float(static_cast<uint16_t>(g.im[j / 2] >> shift));
      s[j] += gr * xr + gi * xi;
      s[8 + j] += gi * xr - gr * xi;
    }
  }
  static DNASM_DEVICE void write(Quad* to, const float (&s)[16]) {
    DNASM_UNROLL
    for (int j = 0; j < 4; ++j)
      to[32 * j] = {{float_bits(s[4 * j]), float_bits(s[4 * j + 1]), float_bits(s[4 * j + 2]), float_bits(s[4 * j + 3])}};
  }
  DNASM_DEVICE void save(int i, const Tile& x) {
    if constexpr (B::kRegisters) {
      kept[i] = x;
    } else {
      saved[i * 64] = {{x.re[0], x.re[1], x.re[2], x.re[3]}};
      saved[i * 64 + 32] = {{x.im[0], x.im[1], x.im[2], x.im[3]}};
    }
  }
  DNASM_DEVICE void accumulate(int i, const Tile& g, float factor, bool first) {
    if constexpr (B::kRegisters) {
      add(sum, kept[i], g, factor);
    } else {
      const Quad re = saved[i * 64], im = saved[i * 64 + 32];
      const Tile x{{re.w[0], re.w[1], re.w[2], re.w[3]}, {im.w[0], im.w[1], im.w[2], im.w[3]}};
      float s[16] = {};
      DNASM_UNROLL
      for (int j = 0; !first && j < 16; ++j) s[j] = bits_float(sums[i * 128 + j / 4 * 32].w[j % 4]);
      add(s, x, g, factor);
      write(sums + i * 128, s);
    }
  }
  DNASM_DEVICE void finish() const {
    if constexpr (B::kRegisters) {
      write(out, sum);
    } else if constexpr (B::kSharedSums) {
      for (int j = 0; j < 4 * P::kUnits; ++j) out[32 * j] = sums[32 * j];
    }
  }
};

template <class P, int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(P::kThreads, P::kBlocksPerSm) backward_kernel(const Params p, const Work work) {
  using B = Backward<P>;
  using W = Worker<P, kDtype, kFull, kFull && P::kBackwardStreams>;
  using Pair = typename W::Pair;
  Walk<false> walk(p, work);
  const W me(p, work, walk.channel);
  const int lane = me.transform.lane, first_tile = me.first_tile(), team_tile = me.team * P::kTiles + first_tile;
  const float skip = p.skip ? p.skip[me.channel] : 0.0f;
  const bool x_gated = kGated && p.in_gate.data, gate_gradient = kGated && p.dout_gate.data;
  const int64_t partial = static_cast<int64_t>(block_index()) * P::kTeams + me.team;

  FilterGradient<P> dk;
  dk.out = reinterpret_cast<Quad*>(work.partial + partial * B::kPartialFloats) + first_tile * 128 + lane;
  dk.sums = B::kSharedSums ? reinterpret_cast<Quad*>(dynamic_shared() + B::kSumsAt) + team_tile * 128 + lane : dk.out;
  Quad* saved = B::kSharedSaved ? reinterpret_cast<Quad*>(dynamic_shared() + B::kSavedAt)
                                : work.saved + static_cast<int64_t>(block_index()) * (P::kTiles * 64);
  dk.saved = saved + team_tile * 64 + lane;
  float skip_sum = 0;
  bool first = true;

  Operand<P> x = me.operand(work);
  for (; walk.more(); walk.next()) {
    const int group = walk.group, next = group + walk.step;
    me.template gather<kGated>(x, p, p.u, p.in_gate, group);
    me.expect(p, p.dy, me.channel, group), me.expect(p, p.u, me.channel, next);
    if (kGated) me.expect(p, p.out_gate, me.channel, group), me.expect(p, p.in_gate, me.channel, next);
    Pair pairs[2][4];
    {
      typename W::Set dy, gradient;
      me.transform.run(
          [&](int i) { return x.words(i); }, gate_gradient,
          [&](int i, Tile& spectrum) {
            dk.save(i, spectrum);
            if (gate_gradient) me.template multiply_filter<false>(i, spectrum);
          },
          [&](int i, int k) {
            if (k == 0) dy = me.rows(p, p.dy, group), gradient = me.rows(p, kGated ? p.dout_gate : p.dy, group);
            me.load(dy, i, pairs[k]);
          },
          [&](int i, int k, float(&v)[8]) {
            me.finish(x, i, skip, v);
            me.multiply_by(v, pairs[k]);
            me.store(gradient, i, v);
          });
    }
    int x_exponents[P::kRows];
    DNASM_UNROLL
    for (int r = 0; r < P::kRows; ++r) x_exponents[r] = x.exponent(r);  // a unit of row r is unit r

    me.template gather<kGated>(x, p, p.dy, p.out_gate, group);  // from here on x holds g
    typename W::Set u, gate, du, dgate;
    me.transform.run(
        [&](int i) { return x.words(i); }, true,
        [&](int i, Tile& spectrum) {
          dk.accumulate(i, spectrum, power_of_two(x.exponent(i) + x_exponents[P::row_of(i)]), first);
          me.template multiply_filter<true>(i, spectrum);
        },
        [&](int i, int k) {
          if (k == 0) {
            u = me.rows(p, p.u, group), gate = me.rows(p, kGated ? p.in_gate : p.u, group);
            du = me.rows(p, p.du, group), dgate = me.rows(p, kGated ? p.din_gate : p.u, group);
          }
          me.load(u, i, pairs[k]);
        },
        [&](int i, int k, float(&v)[8]) {
          const float factor = me.factor(x, i);
          float a[8], g[8];
          Pair factors[4];
          if (x_gated) me.load(gate, i, factors);
          me.widen(pairs[k], a);
          x.elements(i, 1.0f, g);
          DNASM_UNROLL
          for (int j = 0; j < 8; ++j) {
            v[j] = v[j] * factor + skip * g[j];  // dx
            g[j] *= a[j];
          }
          if (x_gated) {
            DNASM_UNROLL
            for (int j = 0; j < 8; ++j) a[j] *= v[j];
            if (p.din_gate.data) me.store(dgate, i, a);
            me.multiply_by(v, factors);
            me.multiply_by(g, factors);
          }
          DNASM_UNROLL
          for (int j = 0; j < 8; ++j) skip_sum += g[j];
          if (p.du.data) me.store(du, i, v);
        });
    first = false;
  }

  dk.finish();
  DNASM_UNROLL
  for (int mask = 16; mask; mask /= 2) skip_sum += shuffle_xor(skip_sum, mask);
  const int64_t blocks = p.channels * work.chunks;
  float* skip_sums = work.partial + blocks * P::kTeams * B::kPartialFloats;
  if (lane == 0) skip_sums[static_cast<int64_t>(block_index()) * P::kWarps + me.warp] = skip_sum;
}

}  // namespace dnasm
