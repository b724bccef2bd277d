// Forward and backward for sequences that fit one block: one body each, for every plan, dtype and gate.
//
// A block takes the sequences of one channel, kSequences at a time. Backward goes through the same transform twice, with
// one sequence in shared memory at a time: x = in_gate u (spectrum X kept; back through X K for out_gate's gradient),
// then g = out_gate dy (spectrum G; the filter's gradient sums G conj X; back through G conj K for dx).
#pragma once

#include "io.cuh"

namespace dnasm {

// What a thread knows before it meets a sequence.
template <class P, int kDtype, bool kFull>
struct Worker {
  using RowOf = Row<kDtype, kFull>;
  using E = Element<kDtype>;
  using Pair = typename E::Pair;
  Transform<P> transform;
  uint32_t* maxima;
  int warp, channel, chunk, column;
  int64_t batch_row;
  int length;
  const Quad* filter;  // this lane's spectrum words of this warp's first tile
  int filter_exponent;

  DNASM_DEVICE Worker(const Params& p, const Work& work) {
    const int lane = thread_index() % 32;
    warp = thread_index() / 32;
    channel = block_index() / work.chunks, chunk = block_index() % work.chunks;
    char* shared = dynamic_shared();
    transform = {lane, warp % P::kTeam, shared + warp / P::kTeam * P::kSequenceBytes, work.layout.tables(p) + lane};
    maxima = reinterpret_cast<uint32_t*>(shared + P::kSequences * P::kSequenceBytes);
    column = P::lane_column(lane) + P::unit_column(transform.member * P::kUnits);
    filter = reinterpret_cast<const Quad*>(work.layout.channel(p, channel)) +
             transform.member * P::kUnits * 64 + lane;
    filter_exponent = work.layout.exponents(p)[channel];
  }
  DNASM_DEVICE void choose(const Params& p, int64_t group) {
    batch_row = group * P::kSequences + warp / P::kTeam;
    const bool there = P::kSequences == 1 || batch_row < p.batch;  // the last group may be ragged
    length = there ? static_cast<int>(p.length) : 0;
    if (!there) batch_row = 0;
  }
  DNASM_DEVICE RowOf row(const Rows& rows) const { return RowOf(rows, batch_row, channel, length); }
  DNASM_DEVICE int offset(int unit, int word) const {
    return column + P::unit_column(unit) + P::word_column(word);
  }
  // v = a, or a b: eight elements of a unit in the order of sums.
  DNASM_DEVICE void load(const RowOf& a, int unit, float (&v)[8]) const {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) {
      const Pair pair = a.load(offset(unit, w));
      v[sum_index(w, 0)] = E::low(pair), v[sum_index(w, 1)] = E::high(pair);
    }
  }
  DNASM_DEVICE void load_times(const RowOf& a, int unit, float (&v)[8]) const {
    float factor[8];
    load(a, unit, factor);
    DNASM_UNROLL
    for (int i = 0; i < 8; ++i) v[i] *= factor[i];
  }
  DNASM_DEVICE void store(const RowOf& a, int unit, const float (&v)[8]) const {
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) a.store(offset(unit, w), E::pack(v[sum_index(w, 0)], v[sum_index(w, 1)]));
  }
  // x = rows, times gate where there is one.
  template <bool kGated>
  DNASM_DEVICE void gather(Operand<P>& x, const Rows& rows, const Rows& gate) const {
    const RowOf a = row(rows), b = row(kGated ? gate : rows);
    gather_row(x, maxima, warp - transform.member, [&](int unit, float(&v)[8]) {
      load(a, unit, v);
      if (kGated && gate.data) load_times(b, unit, v);
    });
  }
  DNASM_DEVICE Quad filter_re(int i) const { return load_table(filter + i * 64); }
  DNASM_DEVICE Quad filter_im(int i) const { return load_table(filter + i * 64 + 32); }
};

template <class P, int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(P::kThreads, P::kBlocksPerSm) forward_kernel(const Params p, const Work work) {
  Worker<P, kDtype, kFull> me(p, work);
  const float skip = p.skip ? p.skip[me.channel] : 0.0f;
  for (int64_t group = me.chunk; group < work.groups; group += work.chunks) {
    me.choose(p, group);
    Operand<P> x;
    me.template gather<kGated>(x, p.u, p.in_gate);
    const float factor = power_of_two(x.exponent + me.filter_exponent), skip_factor = skip * power_of_two(x.exponent);
    const auto gate = me.row(kGated ? p.out_gate : p.y), y = me.row(p.y);
    me.transform.run(
        x.words, true,
        [&](int i, Tile& spectrum) {
          multiply<false>(spectrum, me.filter_re(i), me.filter_im(i));
          return true;
        },
        [&](int i, float(&v)[8]) {
          DNASM_UNROLL
          for (int j = 0; j < 8; ++j) v[j] = v[j] * factor + skip_factor * x.element(i, j);
          if (kGated && p.out_gate.data) me.load_times(gate, i, v);
          me.store(y, i, v);
        });
  }
}

// The filter's gradient as a spectrum, sum over sequences of G conj X, in float32; lives in registers in short plans, else
// in a buffer of its block's own. Either way its owner alone touches it, in the batch's order: deterministic.
// Buffer: [channel][partial][tile][4][lane] quads of floats: re of words 0-1, re of 2-3, im of 0-1, im of 2-3.
template <class P>
struct FilterGradient {
  static constexpr bool kKept = P::kUnits <= 2;
  static constexpr int kPartials = P::kSequences;  // per block
  float sum[kKept ? P::kUnits : 1][16] = {};
  Quad kept[kKept ? 2 * P::kUnits : 1];
  Quad* buffer;
  Quad* saved;

  DNASM_DEVICE void add(float (&s)[16], const Tile& x, const Tile& g, float factor, bool first) const {
    DNASM_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int shift = 16 * (j % 2);
      const float xr = half_to_float(static_cast<uint16_t>(x.re[j / 2] >> shift)) * factor;
      const float xi = half_to_float(static_cast<uint16_t>(x.im[j / 2] >> shift)) * factor;
      const float gr = half_to_float(static_cast<uint16_t>(g.re[j / 2] >> shift));
      const float gi = half_to_float(static_cast<uint16_t>(g.im[j / 2] >> shift));
      s[j] = (first ? 0.0f : s[j]) + (gr * xr + gi * xi);
      s[8 + j] = (first ? 0.0f : s[8 + j]) + (gi * xr - gr * xi);
    }
  }
  DNASM_DEVICE void write(int i, const float (&s)[16]) const {
    DNASM_UNROLL
    for (int j = 0; j < 4; ++j) {
      Quad v;
      DNASM_UNROLL
      for (int w = 0; w < 4; ++w) v.w[w] = float_bits(s[4 * j + w]);
      buffer[i * 128 + j * 32] = v;
    }
  }
  DNASM_DEVICE void save(int i, const Tile& x) {
    Quad re, im;
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) re.w[w] = x.re[w], im.w[w] = x.im[w];
    if constexpr (kKept) kept[2 * i] = re, kept[2 * i + 1] = im;
    else saved[i * 64] = re, saved[i * 64 + 32] = im;
  }
  DNASM_DEVICE void accumulate(int i, const Tile& g, float factor, bool first) {
    const Quad re = kKept ? kept[kKept ? 2 * i : 0] : saved[i * 64], im = kKept ? kept[kKept ? 2 * i + 1 : 0] : saved[i * 64 + 32];
    Tile x;
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) x.re[w] = re.w[w], x.im[w] = im.w[w];
    if constexpr (kKept) {
      add(sum[i], x, g, factor, first);
    } else {
      float s[16] = {};
      if (!first) {
        DNASM_UNROLL
        for (int j = 0; j < 4; ++j) {
          const Quad v = buffer[i * 128 + j * 32];
          DNASM_UNROLL
          for (int w = 0; w < 4; ++w) s[4 * j + w] = bits_float(v.w[w]);
        }
      }
      add(s, x, g, factor, first);
      write(i, s);
    }
  }
  DNASM_DEVICE void finish() const {
    if constexpr (kKept) {
      DNASM_UNROLL
      for (int i = 0; i < P::kUnits; ++i) write(i, sum[i]);
    }
  }
};

template <class P>
struct Backward {
  static constexpr int kBlocksPerSm = P::kUnits >= 2 ? 1 : P::kBlocksPerSm;  // its sums want registers
  static constexpr int64_t kPartialFloats = 2 * P::kLength;
};

template <class P, int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(P::kThreads, Backward<P>::kBlocksPerSm) backward_kernel(const Params p, const Work work) {
  Worker<P, kDtype, kFull> me(p, work);
  const int lane = me.transform.lane, sequence = me.warp / P::kTeam, first_tile = me.transform.member * P::kUnits;
  const float skip = p.skip ? p.skip[me.channel] : 0.0f;
  const bool gate_gradient = kGated && p.dout_gate.data;
  const int64_t partial = (static_cast<int64_t>(me.channel) * work.chunks + me.chunk) * P::kSequences + sequence;

  FilterGradient<P> dk;
  dk.buffer = reinterpret_cast<Quad*>(work.partial + partial * Backward<P>::kPartialFloats) + first_tile * 128 + lane;
  dk.saved = work.saved + static_cast<int64_t>(block_index()) * (P::kTiles * 64) + first_tile * 64 + lane;
  float skip_sum = 0;
  bool first = true;

  for (int64_t group = me.chunk; group < work.groups; group += work.chunks) {
    me.choose(p, group);
    Operand<P> x;
    me.template gather<kGated>(x, p.u, p.in_gate);
    const auto dy = me.row(p.dy);
    {
      const float factor = power_of_two(x.exponent + me.filter_exponent), x_factor = power_of_two(x.exponent) * skip;
      const auto gradient = me.row(kGated ? p.dout_gate : p.dy);
      me.transform.run(
          x.words, gate_gradient,
          [&](int i, Tile& spectrum) {
            dk.save(i, spectrum);
            if (!gate_gradient) return false;
            multiply<false>(spectrum, me.filter_re(i), me.filter_im(i));
            return true;
          },
          [&](int i, float(&v)[8]) {
            DNASM_UNROLL
            for (int j = 0; j < 8; ++j) v[j] = v[j] * factor + x_factor * x.element(i, j);
            me.load_times(dy, i, v);
            me.store(gradient, i, v);
          });
    }
    const int x_exponent = x.exponent;
    me.template gather<kGated>(x, p.dy, p.out_gate);  // from here on x holds g
    const float factor = power_of_two(x.exponent + me.filter_exponent), own = power_of_two(x.exponent);
    const float dk_factor = power_of_two(x.exponent + x_exponent);
    const auto u = me.row(p.u), gate = me.row(kGated ? p.in_gate : p.u);
    const auto du = me.row(p.du.data ? p.du : p.dy), dgate = me.row(kGated ? p.din_gate : p.u);
    me.transform.run(
        x.words, true,
        [&](int i, Tile& spectrum) {
          dk.accumulate(i, spectrum, dk_factor, first);
          multiply<true>(spectrum, me.filter_re(i), me.filter_im(i));
          return true;
        },
        [&](int i, float(&v)[8]) {
          float a[8], product[8];
          me.load(u, i, a);
          DNASM_UNROLL
          for (int j = 0; j < 8; ++j) {
            const float g = x.element(i, j) * own;
            v[j] = v[j] * factor + skip * g;  // dx
            product[j] = g * a[j];
          }
          if (kGated && p.din_gate.data) {
            DNASM_UNROLL
            for (int j = 0; j < 8; ++j) a[j] *= v[j];
            me.store(dgate, i, a);
          }
          if (kGated && p.in_gate.data) {
            me.load(gate, i, a);
            DNASM_UNROLL
            for (int j = 0; j < 8; ++j) v[j] *= a[j], product[j] *= a[j];
          }
          DNASM_UNROLL
          for (int j = 0; j < 8; ++j) skip_sum += product[j];
          if (p.du.data) me.store(du, i, v);
        });
    first = false;
  }

  dk.finish();
  DNASM_UNROLL
  for (int mask = 16; mask; mask /= 2) skip_sum += shuffle_xor(skip_sum, mask);
  float* skip_sums = work.partial + static_cast<int64_t>(p.channels) * work.chunks * P::kSequences * Backward<P>::kPartialFloats;
  if (lane == 0) skip_sums[(static_cast<int64_t>(me.channel) * work.chunks + me.chunk) * P::kWarps + me.warp] = skip_sum;
}

}  // namespace dnasm
