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

// Two pairs of neighbours from a tensor's rows, as numbers.
template <int kDtype, bool kFull>
struct Neighbours {
  using E = Element<kDtype>;
  using Pair = typename E::Pair;
  float v[4];
  static DNASM_DEVICE Neighbours of(const Params& p, const Rows& tensor, int64_t sequence, int column, int n) {
    const auto row = tensor_row<kDtype, kFull>(p, tensor, sequence, column);
    const Pair a = row.load(n), b = row.load(n + 2);
    return {{E::low(a), E::high(a), E::low(b), E::high(b)}};
  }
  DNASM_DEVICE void store(const Params& p, const Rows& tensor, int64_t sequence, int column, int n) const {
    const auto row = tensor_row<kDtype, kFull>(p, tensor, sequence, column);
    row.store(n, E::pack(v[0], v[1]));
    row.store(n + 2, E::pack(v[2], v[3]));
  }
  DNASM_DEVICE Neighbours operator*(const Neighbours& o) const {
    return {{v[0] * o.v[0], v[1] * o.v[1], v[2] * o.v[2], v[3] * o.v[3]}};
  }
  DNASM_DEVICE Neighbours operator*(float x) const { return {{v[0] * x, v[1] * x, v[2] * x, v[3] * x}}; }
  DNASM_DEVICE Neighbours operator+(const Neighbours& o) const {
    return {{v[0] + o.v[0], v[1] + o.v[1], v[2] + o.v[2], v[3] + o.v[3]}};
  }
};

// finish(of, column, n, v): of(tensor) reads what stands there; v: the finished sums.
template <int kDtype, bool kFull, class Finish>
DNASM_DEVICE void results(const Params& p, const ResultWork& work, const Finish& finish) {
  using N = Neighbours<kDtype, kFull>;
  const int blocks = work.outer.level.blocks();
  const int64_t here = block_index() / blocks, sequence = work.outer.sequence + here;
  const uint32_t most = row_maximum(work.outer.scratch.exponents + here * blocks, blocks);
  const float factor = power_of_two(exponent_of(most) + work.layout.exponents(p)[sequence / p.batch]) * work.gain;
  outer_inverse(work.outer, [&](int column, int n, const float(&s)[4]) {
    const N v{{s[0] * factor, s[1] * factor, s[2] * factor, s[3] * factor}};
    finish([&](const Rows& tensor) { return N::of(p, tensor, sequence, column, n); },
           [&](const Rows& tensor, const N& x) { x.store(p, tensor, sequence, column, n); }, v);
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
  const float skip = skip_of(p, work);
  results<kDtype, kFull>(p, work, [&](const auto& of, const auto& to, auto v) {
    if (p.skip) {
      auto x = of(p.u);
      if (in_gated) x = x * of(p.in_gate);
      v = v + x * skip;
    }
    to(out, multiplied ? v * of(other) : v);
  });
}

// From dx = corr(g) + skip g: du, the input gate's gradient, and sums for dskip.
template <int kDtype, bool kFull, bool kGated>
DNASM_KERNEL(OuterPlan::kThreads, 2) input_gradient_kernel(const Params p, const ResultWork work) {
  const bool in_gated = kGated && p.in_gate.data, out_gated = kGated && p.out_gate.data;
  const float skip = skip_of(p, work);
  float skip_sum = 0;
  results<kDtype, kFull>(p, work, [&](const auto& of, const auto& to, auto v) {
    auto g = of(p.dy);
    if (out_gated) g = g * of(p.out_gate);
    v = v + g * skip;
    const auto u = of(p.u);
    g = g * u;
    if (in_gated) {
      const auto gate = of(p.in_gate);
      if (p.din_gate.data) to(p.din_gate, v * u);
      v = v * gate, g = g * gate;
    }
    skip_sum += g.v[0] + g.v[1] + g.v[2] + g.v[3];
    if (p.du.data) to(p.du, v);
  });
  float* scratch = reinterpret_cast<float*>(dynamic_shared() + work.outer.level.maxima_at());
  skip_sum = block_sum<OuterPlan::kThreads>(skip_sum, scratch);
  const int blocks = work.outer.level.blocks();
  if (thread_index() == 0) work.skip_sums[work.outer.sequence * blocks + block_index()] = skip_sum;
}

}  // namespace dnasm
