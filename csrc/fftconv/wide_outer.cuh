// Plans of several blocks in float32: a right-angle transform of all outer rows down each column, then a plain transform of
// every row. For filters, their gradients and the float32 route.
#pragma once

#include "wide.cuh"

namespace dnasm {

// Which frequency s, of `rows`, an outer row holds: with `deep` > 1 rows of a second level, row0 deep + row1, each level
// in Level's order; s = s0 + rows / deep s1.
struct RowOrder {
  int rows, deep;
  int64_t length;  // L
  static DNASM_SHARED_CODE int digit(int row, int radix) { return radix < 16 ? row : row / (radix / 16) + 16 * (row % (radix / 16)); }
  static DNASM_SHARED_CODE int undigit(int s, int radix) { return radix < 16 ? s : s % 16 * (radix / 16) + s / 16; }
  DNASM_SHARED_CODE int frequency(int row) const {
    const int wide = rows / deep;
    return digit(row / deep, wide) + wide * digit(row % deep, deep);
  }
  DNASM_SHARED_CODE int row(int s) const {
    const int wide = rows / deep;
    return undigit(s % wide, wide) * deep + undigit(s / wide, deep);
  }
  DNASM_SHARED_CODE int columns() const { return static_cast<int>(length / rows); }
  // e(n (s + 1/4) / L)
  DNASM_DEVICE Complex turn(int64_t n, int s) const {
    const int64_t quarters = n * (4 * s + 1) & (4 * length - 1);
    return cos_sin_pi(static_cast<float>(quarters) / static_cast<float>(2 * length));
  }
};

using WideColumns = Wide<8192>;  // all rows of 8192 / rows columns

// The stages of every `rows` neighbouring points.
template <bool kInverse, int kSize = 4096>
DNASM_DEVICE void column_stages(const WideColumns& wide, int rows) {
  if (rows == kSize) {
    if constexpr (kInverse) wide.inverse_stages<kSize>();
    else wide.forward_stages<kSize>();
  } else if constexpr (kSize > 16) {
    column_stages<kInverse, kSize / 2>(wide, rows);
  }
}

// load(n), n < L, of columns from `column` on, to rows of L numbers.
template <class Load>
DNASM_DEVICE void columns_forward(const RowOrder& order, int column, Complex* to, const Load& load) {
  const WideColumns wide(1);
  const int rows = order.rows, width = WideColumns::kN / rows, stride = order.columns();
  for (int i = thread_index(); i < WideColumns::kN; i += WideColumns::kThreads) {
    const int c = i % width, n1 = i / width;
    const Complex quarter = cos_sin_pi(static_cast<float>(n1) / static_cast<float>(2 * rows));
    wide.at(c * rows + n1) = load(n1 * stride + column + c) * quarter;
  }
  sync_block();
  column_stages<false>(wide, rows);
  for (int i = thread_index(); i < WideColumns::kN; i += WideColumns::kThreads) {
    const int c = i % width, at = i / width, s = WideColumns::frequency(at, rows), n = column + c;
    to[static_cast<int64_t>(order.row(s)) * stride + n] = wide.at(c * rows + at) * order.turn(n, s);
  }
}

// The adjoint: emit(n, z) of all elements of columns from `column` on.
template <class Emit>
DNASM_DEVICE void columns_inverse(const RowOrder& order, int column, const Complex* from, const Emit& emit) {
  const WideColumns wide(1);
  const int rows = order.rows, width = WideColumns::kN / rows, stride = order.columns();
  for (int i = thread_index(); i < WideColumns::kN; i += WideColumns::kThreads) {
    const int c = i % width, at = i / width, s = WideColumns::frequency(at, rows), n = column + c;
    wide.at(c * rows + at) = from[static_cast<int64_t>(order.row(s)) * stride + n] * conjugate(order.turn(n, s));
  }
  sync_block();
  column_stages<true>(wide, rows);
  for (int i = thread_index(); i < WideColumns::kN; i += WideColumns::kThreads) {
    const int c = i % width, n1 = i / width;
    const Complex quarter = cos_sin_pi(static_cast<float>(n1) / static_cast<float>(2 * rows));
    emit(n1 * stride + column + c, wide.at(c * rows + n1) * conjugate(quarter));
  }
}

template <class P>
struct FilterStaging {
  RowOrder order;
  int64_t channel;  // the first one of this launch
  float* bounds;    // [channel][blocks of columns]: sums of |k|
  Complex* rows;    // [channel of this launch][L]
  int spectrum_top;
  DNASM_SHARED_CODE int blocks() const { return order.columns() / (WideColumns::kN / order.rows); }
};

template <class P>
DNASM_KERNEL(WideColumns::kThreads, 1) filter_columns_kernel(const Params p, const FilterStaging<P> work) {
  const int block = block_index() % work.blocks(), here = block_index() / work.blocks();
  const int channel = static_cast<int>(work.channel) + here;
  const FilterTaps taps(p, channel, static_cast<int>(work.order.length));
  float bound = 0;
  columns_forward(work.order, block * (WideColumns::kN / work.order.rows), work.rows + here * work.order.length, [&](int n) {
    const Complex z = load_tap(p, taps, n, 1.0f);
    bound += fabsf(z.re) + fabsf(z.im);
    return z;
  });
  sync_block();
  bound = block_sum<WideColumns::kThreads>(bound, reinterpret_cast<float*>(dynamic_shared()));
  if (thread_index() == 0) work.bounds[here * work.blocks() + block] = bound;
}

// Rows to spectra in the order of plan P.
template <class P>
DNASM_KERNEL(Wide<P::kLength>::kThreads, 1)
filter_rows_kernel(const Params p, const FilterStaging<P> work, const SpectrumLayout layout) {
  using W = Wide<P::kLength>;
  const W wide(1);
  const int rows = work.order.rows, here = block_index() / rows, row = block_index() % rows;
  const int64_t channel = work.channel + here;
  float bound = 0;
  for (int i = thread_index(); i < work.blocks(); i += W::kThreads) bound += work.bounds[here * work.blocks() + i];
  bound = block_sum<W::kThreads>(bound, wide.scratch);
  const int exponent = static_cast<int>(float_bits(bound) >> 23 & 255) - 127 - work.spectrum_top;
  const float scale = power_of_two(-exponent);
  if (row == 0 && thread_index() == 0) layout.exponents(p)[channel] = exponent;
  const Complex* from = work.rows + here * work.order.length + static_cast<int64_t>(row) * W::kN;
  for (int i = thread_index(); i < W::kN; i += W::kThreads) wide.at(i) = from[i];
  sync_block();
  wide.forward_stages();
  uint16_t* out = reinterpret_cast<uint16_t*>(layout.channel(p, channel)) + static_cast<int64_t>(row) * 2 * W::kN;
  for (int i = thread_index(); i < W::kN; i += W::kThreads) {
    const Complex z = wide.at(i) * Complex{scale, 0};
    const int at = P::position(W::frequency(i));
    const uint32_t both = pack_half2(z.re, z.im);
    out[at] = static_cast<uint16_t>(both);
    out[at + P::kImHalves] = static_cast<uint16_t>(both >> 16);
  }
}

// The filter's gradient from its spectrum's partial sums, see FilterGradient.
struct GradientWork {
  RowOrder order;
  int64_t channel;    // the first one of this launch
  int chunks;
  float* partial;     // [channel of this launch][chunk][row][2 N]
  float scale;
  const float* skip_sums;  // of the whole call
  int skip_partials;       // of a channel
};

// Rows back to columns, in place of a channel's first partial sum.
template <class P>
DNASM_KERNEL(Wide<P::kLength>::kThreads, 1) gradient_rows_kernel(const GradientWork work) {
  using W = Wide<P::kLength>;
  const W wide(1);
  const int row = block_index() % work.order.rows, here = block_index() / work.order.rows;
  float* sums = work.partial + static_cast<int64_t>(here) * work.chunks * 2 * work.order.length + static_cast<int64_t>(row) * 2 * W::kN;
  for (int i = thread_index(); i < W::kN; i += W::kThreads) {
    const int at = P::position(W::frequency(i)), element = at % 8;
    const float* from = sums + at / 512 * 512 + element / 4 * 128 + at / 8 % 32 * 4 + element % 4;
    Complex sum{0, 0};
    for (int k = 0; k < work.chunks; ++k, from += 2 * work.order.length) sum = sum + Complex{from[0], from[256]};
    wide.at(i) = sum * Complex{work.scale, 0};
  }
  sync_block();
  wide.inverse_stages();
  for (int i = thread_index(); i < W::kN; i += W::kThreads) reinterpret_cast<Complex*>(sums)[i] = wide.at(i);
}

template <class P>
DNASM_KERNEL(WideColumns::kThreads, 1) gradient_columns_kernel(const Params p, const GradientWork work) {
  const int width = WideColumns::kN / work.order.rows, blocks = work.order.columns() / width;
  const int block = block_index() % blocks, here = block_index() / blocks, channel = static_cast<int>(work.channel) + here;
  if (p.dskip && block == 0) {
    float sum = 0;
    for (int i = thread_index(); i < work.skip_partials; i += WideColumns::kThreads)
      sum += work.skip_sums[static_cast<int64_t>(channel) * work.skip_partials + i];
    sum = block_sum<WideColumns::kThreads>(sum, reinterpret_cast<float*>(dynamic_shared()));
    if (thread_index() == 0) p.dskip[channel] = sum;
  }
  if (!p.dk) return;
  const FilterTaps taps(p, channel, static_cast<int>(work.order.length));
  const Complex* from = reinterpret_cast<const Complex*>(work.partial) + static_cast<int64_t>(here) * work.chunks * work.order.length;
  columns_inverse(work.order, block * width, from, [&](int n, Complex z) {
    if (taps.has_past(n)) p.dk[taps.past + n] = z.re;
    if (taps.has_future(n)) p.dk[taps.future + taps.ahead(n)] = -z.im;
  });
  // Lags from `length` on reach into no sequence.
  const int64_t first = static_cast<int64_t>(block) * WideColumns::kThreads + thread_index(), step = static_cast<int64_t>(blocks) * WideColumns::kThreads;
  for (int64_t n = taps.taps + first; n < p.filter_length; n += step) p.dk[taps.past + n] = 0;
  for (int64_t n = taps.future_taps + first; taps.both && n < p.filter_length; n += step) p.dk[taps.future + n] = 0;
}

}  // namespace dnasm
