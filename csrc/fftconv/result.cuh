// Long plans' last pass: from the rows of the first level to a tensor's elements, real, with skip and gates.
#pragma once

#include "outer.cuh"

namespace dnasm {

struct ResultWork {
  OuterWork outer;
  SpectrumLayout layout;
  float gain;
  float* skip_sums;  // dskip's partial sums: [sequence of the tensor][blocks of columns]
};

// Four neighbours as numbers.
struct Numbers {
  float v[4];
  template <int kDtype>
  static DNASM_DEVICE Numbers of(const Four<kDtype>& x) {
    using E = Element<kDtype>;
    return {{E::low(x.pair[0]), E::high(x.pair[0]), E::low(x.pair[1]), E::high(x.pair[1])}};
  }
  template <int kDtype>
  DNASM_DEVICE Four<kDtype> rounded() const {
    using E = Element<kDtype>;
    return {{E::pack(v[0], v[1]), E::pack(v[2], v[3])}};
  }
  DNASM_DEVICE Numbers operator*(const Numbers& o) const {
    return {{v[0] * o.v[0], v[1] * o.v[1], v[2] * o.v[2], v[3] * o.v[3]}};
  }
  DNASM_DEVICE Numbers operator*(float x) const { return {{v[0] * x, v[1] * x, v[2] * x, v[3] * x}}; }
  DNASM_DEVICE Numbers operator+(const Numbers& o) const {
    return {{v[0] + o.v[0], v[1] + o.v[1], v[2] + o.v[2], v[3] + o.v[3]}};
  }
};

// A lane's own place in a tensor's rows: reads and writes four elements from n on.
template <int kDtype, bool kFull>
struct Lane {
  Row<kDtype, kFull> row;
  DNASM_DEVICE Lane(const Params& p, const ResultWork& work, const Rows& tensor)
      : row(tensor_row<kDtype, kFull>(p, tensor, sequence(work), block_column(work) + thread_index() % 4 * 4)) {}
  static DNASM_DEVICE int64_t sequence(const ResultWork& work) {
    return work.outer.sequence + (block_index() >> work.outer.level.blocks_shift);
  }
  static DNASM_DEVICE int block_column(const ResultWork& work) {
    return (block_index() & (work.outer.level.blocks() - 1)) * work.outer.level.block_columns();
  }
  DNASM_DEVICE Four<kDtype> operator[](int n) const { return load_four(row, n); }
  DNASM_DEVICE void put(int n, const Numbers& x) const { store_four(row, n, x.rounded<kDtype>()); }
};

// What a lane reads of kTensors tensors for two units: [unit % 2][row h].
template <int kDtype, int kTensors>
struct Prepared {
  Four<kDtype> of[kTensors][2][2];
  DNASM_DEVICE Numbers operator()(int tensor, int i, int h) const { return Numbers::of<kDtype>(of[tensor][i % 2][h]); }
  // A gate, or ones where there is none.
  DNASM_DEVICE Numbers gate(bool there, int tensor, int i, int h) const {
    const Four<kDtype>& x = of[tensor][i % 2][h];
    return Numbers::of<kDtype>({{either<kDtype>(there, x.pair[0]), either<kDtype>(there, x.pair[1])}});
  }
};

DNASM_DEVICE uint32_t channel_of(const Params& p, const ResultWork& work) {
  const auto sequence = static_cast<uint32_t>(work.outer.sequence + (block_index() >> work.outer.level.blocks_shift));
  return sequence / static_cast<uint32_t>(p.batch);
}

// finish(i, h, n, v): the finished sums of four elements; prepare(i, h, n) comes before.
// Pairs of units that read scratch at once: as many as their registers allow (measured).
template <bool kFull, bool kGated>
constexpr int kPairsAtOnce = kFull && kGated ? 2 : 1;

template <int kPairs, class Prepare, class Finish>
DNASM_DEVICE void results(const Params& p, const ResultWork& work, const Prepare& prepare, const Finish& finish) {
  float factor = 0;
  const auto begin = [&] {
    const int blocks = work.outer.level.blocks(), here = block_index() >> work.outer.level.blocks_shift;
    const uint32_t most = row_maximum(work.outer.scratch.exponents + static_cast<int64_t>(here) * blocks, blocks);
    factor = power_of_two(exponent_of(most) + work.layout.exponents(p)[channel_of(p, work)]) * work.gain;
  };
  outer_inverse<kPairs>(work.outer, begin, prepare, [&](int i, int h, int n, const float(&s)[4]) {
    finish(i, h, n, Numbers{{s[0] * factor, s[1] * factor, s[2] * factor, s[3] * factor}});
  });
}

DNASM_DEVICE float skip_of(const Params& p, const ResultWork& work) { return p.skip ? p.skip[channel_of(p, work)] : 0.0f; }

// out = other (conv(x) + skip x): y with other = out_gate, the output gate's gradient with other = dy.
template <int kDtype, bool kFull, bool kGated>
DNASM_DEVICE void write_output(const Params& p, const ResultWork& work, const Rows& other, const Rows& out) {
  const bool in_gated = kGated && p.in_gate.data, multiplied = kGated && other.data;
  using L = Lane<kDtype, kFull>;
  // A tensor that is not there is read as u, and unused: no branch keeps loads apart.
  const L u(p, work, p.u), in(p, work, either(in_gated, p.in_gate, p.u)), factor(p, work, either(multiplied, other, p.u)), to(p, work, out);
  const float skip = skip_of(p, work);
  Prepared<kDtype, kGated ? 3 : 1> read;
  results<kPairsAtOnce<kFull, kGated>>(
      p, work,
      [&](int i, int h, int n) {
        read.of[0][i % 2][h] = u[n];
        if constexpr (kGated) read.of[1][i % 2][h] = in[n], read.of[2][i % 2][h] = factor[n];
      },
      [&](int i, int h, int n, Numbers v) {
        Numbers x = read(0, i, h) * skip;
        if constexpr (kGated) x = x * read.gate(in_gated, 1, i, h);
        v = v + x;
        if constexpr (kGated) v = v * read.gate(multiplied, 2, i, h);
        to.put(n, v);
      });
}

template <int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(OuterPlan::kThreads, kGated ? 2 : 3) output_kernel(const Params p, const ResultWork work) {
  write_output<kDtype, kFull, kGated>(p, work, p.out_gate, p.y);
}

// The output gate's gradient where it is wanted; then, from dx = corr(g) + skip g: du, the input gate's gradient, and sums
// for dskip. Both read the same tensors: the second time they come out of a cache.
template <int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(OuterPlan::kThreads, kGated ? 2 : 3)
gradients_kernel(const Params p, const ResultWork of_x, const ResultWork work) {
  if (kGated && p.dout_gate.data) {
    write_output<kDtype, kFull, kGated>(p, of_x, p.dy, p.dout_gate);
    sync_block();
  }
  const bool in_gated = kGated && p.in_gate.data, out_gated = kGated && p.out_gate.data;
  using L = Lane<kDtype, kFull>;
  const L u(p, work, p.u), in(p, work, either(in_gated, p.in_gate, p.u)), dy(p, work, p.dy), du(p, work, p.du);
  const L out(p, work, either(out_gated, p.out_gate, p.u)), din(p, work, kGated ? p.din_gate : p.u);
  const float skip = skip_of(p, work);
  float skip_sum = 0;
  Prepared<kDtype, kGated ? 4 : 2> read;
  results<kPairsAtOnce<kFull, kGated>>(
      p, work,
      [&](int i, int h, int n) {
        read.of[0][i % 2][h] = u[n], read.of[1][i % 2][h] = dy[n];
        if constexpr (kGated) read.of[2][i % 2][h] = in[n], read.of[3][i % 2][h] = out[n];
      },
      [&](int i, int h, int n, Numbers v) {
        const Numbers x = read(0, i, h);
        Numbers g = read(1, i, h);
        if constexpr (kGated) g = g * read.gate(out_gated, 3, i, h);
        v = v + g * skip;
        g = g * x;
        if constexpr (kGated) {
          if (p.din_gate.data) din.put(n, v * x);
          const Numbers gate = read.gate(in_gated, 2, i, h);
          v = v * gate, g = g * gate;
        }
        skip_sum += g.v[0] + g.v[1] + g.v[2] + g.v[3];
        if (p.du.data) du.put(n, v);
      });
  float* scratch = reinterpret_cast<float*>(dynamic_shared() + work.outer.level.maxima_at());
  skip_sum = block_sum<OuterPlan::kThreads>(skip_sum, scratch);
  const int blocks = work.outer.level.blocks();
  if (thread_index() == 0) work.skip_sums[work.outer.sequence * blocks + block_index()] = skip_sum;
}

}  // namespace dnasm
