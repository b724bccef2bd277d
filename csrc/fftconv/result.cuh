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
    return work.outer.sequence + block_index() / work.outer.level.blocks();
  }
  static DNASM_DEVICE int block_column(const ResultWork& work) {
    return block_index() % work.outer.level.blocks() * work.outer.level.block_columns();
  }
  DNASM_DEVICE Numbers operator[](int n) const { return Numbers::of<kDtype>(load_four(row, n)); }
  DNASM_DEVICE void put(int n, const Numbers& x) const { store_four(row, n, x.rounded<kDtype>()); }
};

// finish(n, v): the finished sums of four elements.
template <class Finish>
DNASM_DEVICE void results(const Params& p, const ResultWork& work, const Finish& finish) {
  const int blocks = work.outer.level.blocks(), here = block_index() / blocks;
  const uint32_t most = row_maximum(work.outer.scratch.exponents + static_cast<int64_t>(here) * blocks, blocks);
  const int64_t channel = (work.outer.sequence + here) / p.batch;
  const float factor = power_of_two(exponent_of(most) + work.layout.exponents(p)[channel]) * work.gain;
  outer_inverse(work.outer, [&](int n, const float(&s)[4]) {
    finish(n, Numbers{{s[0] * factor, s[1] * factor, s[2] * factor, s[3] * factor}});
  });
}

DNASM_DEVICE float skip_of(const Params& p, const ResultWork& work) {
  return p.skip ? p.skip[(work.outer.sequence + block_index() / work.outer.level.blocks()) / p.batch] : 0.0f;
}

// out = other (conv(x) + skip x): y with other = out_gate, the output gate's gradient with other = dy.
template <int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(OuterPlan::kThreads, 2)
output_kernel(const Params p, const ResultWork work, const Rows other, const Rows out) {
  const bool in_gated = kGated && p.in_gate.data, multiplied = kGated && other.data;
  using L = Lane<kDtype, kFull>;
  const L u(p, work, p.u), in(p, work, kGated ? p.in_gate : p.u), factor(p, work, kGated ? other : p.u), to(p, work, out);
  const float skip = skip_of(p, work);
  results(p, work, [&](int n, Numbers v) {
    if (p.skip) {
      Numbers x = u[n];
      if (in_gated) x = x * in[n];
      v = v + x * skip;
    }
    to.put(n, multiplied ? v * factor[n] : v);
  });
}

// From dx = corr(g) + skip g: du, the input gate's gradient, and sums for dskip.
template <int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(OuterPlan::kThreads, 2) input_gradient_kernel(const Params p, const ResultWork work) {
  const bool in_gated = kGated && p.in_gate.data, out_gated = kGated && p.out_gate.data;
  using L = Lane<kDtype, kFull>;
  const L u(p, work, p.u), in(p, work, kGated ? p.in_gate : p.u), dy(p, work, p.dy), du(p, work, p.du);
  const L out(p, work, kGated ? p.out_gate : p.u), din(p, work, kGated ? p.din_gate : p.u);
  const float skip = skip_of(p, work);
  float skip_sum = 0;
  results(p, work, [&](int n, Numbers v) {
    Numbers g = dy[n];
    if (out_gated) g = g * out[n];
    v = v + g * skip;
    const Numbers x = u[n];
    g = g * x;
    if (in_gated) {
      const Numbers gate = in[n];
      if (p.din_gate.data) din.put(n, v * x);
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
